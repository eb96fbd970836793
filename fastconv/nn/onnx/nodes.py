"""The layer of each ONNX node that `fastconv.nn.onnx.reader` understands.

A form takes a node and the state of its input, and returns layers and the state after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastconv.nn.onnx.base import Form, Node, State, Tree, arrays, images, in_our_order
from fastconv.nn.onnx.norm_nodes import batch_norm, group_norm, instance_norm, layer_norm

__all__ = ["FORMS", "joined_channels"]


def _geometry(node: Node, window: tuple[int, ...]) -> dict[str, Any]:
    """Stride, padding and dilation as ours."""
    n, given = len(window), node.attributes
    auto = given.get("auto_pad", b"NOTSET").decode()
    if auto not in ("NOTSET", "VALID", "SAME_UPPER"):
        raise node.error(f"auto_pad {auto} is not understood")
    padding: Any = "same" if auto == "SAME_UPPER" else 0
    if auto == "NOTSET" and "pads" in given:
        pads = [int(p) for p in given["pads"]]
        padding = tuple(zip(pads[:n], pads[n:], strict=True))
    found = {"stride": tuple(map(int, given.get("strides", [1] * n))), "padding": padding}
    dilation = tuple(map(int, given.get("dilations", [1] * n)))
    return found if set(dilation) == {1} else {**found, "dilation": dilation}


def _convolution(node: Node, state: State) -> tuple[list[Tree], State]:
    n, transposed = images(node, state), node.op == "ConvTranspose"
    w, b = node.constant(1), node.constant_or_none(2)
    if w.ndim != n + 2:
        raise node.error(f"a kernel of {n + 2} axes is needed, got shape {w.shape}")
    w = w.transpose(*range(2, w.ndim), 1, 0)  # (F, C/G, KH, KW) -> (KH, KW, C/G, F)
    groups = int(node.attributes.get("group", 1))
    channels, filters = w.shape[-2] * groups, w.shape[-1]
    arguments = _geometry(node, w.shape[:n])
    if transposed:
        channels, filters = filters, channels
        arguments["output_padding"] = tuple(
            map(int, node.attributes.get("output_padding", [0] * n))
        )
        if "output_shape" in node.attributes or arguments["padding"] == "same":
            raise node.error("output_shape and auto_pad are not understood")
    leaf = node.layer(
        "ConvTranspose" if transposed else "Conv", channels=channels, filters=filters,
        window=w.shape[:n], **arguments, groups=groups, bias=b is not None,
        activation=None, dtype=state.dtype.name,
    )  # fmt: skip
    leaf.arrays = arrays(state, w=w, b=b)
    return [leaf], replace(state, channels=filters)


def _dense(node: Node, state: State) -> tuple[list[Tree], State]:
    w, b = node.constant(1), None
    if node.op == "Gemm":
        given = node.attributes
        if given.get("transA", 0) or given.get("alpha", 1.0) != 1 or given.get("beta", 1.0) != 1:
            raise node.error("transA, alpha and beta are not understood")
        w = w.T if given.get("transB", 0) else w
        b = node.constant_or_none(2)
    if w.ndim != 2 or (state.rank != 2 and not state.pooled):
        raise node.error("rows and a matrix of weights are needed")
    w = in_our_order(node, w, state.turned)
    bias = None if b is None else np.broadcast_to(b, (1, w.shape[1])).reshape(-1)
    leaf = node.layer(
        "Dense", inputs=w.shape[0], outputs=w.shape[1], bias=bias is not None,
        dtype=state.dtype.name,
    )  # fmt: skip
    leaf.arrays = arrays(state, w=w, b=bias)
    return [leaf], State(state.dtype, 2, "last", w.shape[1])


def _pool(node: Node, state: State) -> tuple[list[Tree], State]:
    images(node, state)
    if len(node.proto.output) > 1 and node.proto.output[1]:
        raise node.error("its second result is not understood")
    window = tuple(map(int, node.attributes["kernel_shape"]))
    arguments = _geometry(node, window)
    if "dilation" in arguments:
        raise node.error("dilations are not understood")
    arguments["ceil_mode"] = bool(node.attributes.get("ceil_mode", 0))
    if isinstance(arguments["padding"], tuple):
        arguments |= _without_overhang(node, window, arguments)
    kind = "MaxPool" if node.op == "MaxPool" else "AvgPool"
    if kind == "AvgPool":
        arguments["count_include_pad"] = bool(node.attributes.get("count_include_pad", 0))
    return [node.layer(kind, window=window, **arguments)], state


def _without_overhang(
    node: Node, window: Sequence[int], arguments: dict[str, Any]
) -> dict[str, Any]:
    """High ends that let no window start behind the image, as `ceil_mode`: layers pad less."""
    padding, stride = arguments["padding"], arguments["stride"]
    if all(hi <= k // 2 for k, (_, hi) in zip(window, padding, strict=True)):
        return {}
    rows = list(zip(window, stride, padding, strict=True))
    pairs = tuple((lo, max(0, hi - s + 1)) for _, s, (lo, hi) in rows)
    written = [min(hi + s - 1, k - 1) for (k, s, _), (_, hi) in zip(rows, pairs, strict=True)]
    fits = all(hi <= k // 2 for (k, _, _), (_, hi) in zip(rows, pairs, strict=True))
    if arguments["ceil_mode"] or not fits or written != [hi for _, hi in padding]:
        raise node.error(f"the pads {padding} of a window {tuple(window)} are not understood")
    return {"padding": pairs, "ceil_mode": True}


def _global_pool(node: Node, state: State) -> tuple[list[Tree], State]:
    n = images(node, state)
    kept = True
    if node.op == "ReduceMean":
        axes = node.attributes.get("axes")
        axes = node.constant(1) if axes is None else np.asarray(axes)
        if sorted(int(a) % state.rank for a in axes) != list(range(2, n + 2)):
            raise node.error(f"means over the axes {list(axes)} are not understood")
        kept = bool(node.attributes.get("keepdims", 1))
    kind = "GlobalMaxPool" if node.op == "GlobalMaxPool" else "GlobalAvgPool"
    rank = state.rank if kept else 2
    after = State(state.dtype, rank, "last", state.channels, pooled=kept)
    return [node.layer(kind)], after


def _flatten(node: Node, state: State) -> tuple[list[Tree], State]:
    if node.op == "Flatten" and int(node.attributes.get("axis", 1)) != 1:
        raise node.error("another axis than 1 is not understood")
    if node.op in ("Squeeze", "Reshape") and node.ranks.get(node.output) != 2:
        raise node.error("only what makes rows, (m, n), is understood")
    if state.pooled or state.rank == 2:
        return [], State(state.dtype, 2, "last", state.channels, state.turned)
    if node.op == "Squeeze":
        raise node.error("images of one pixel are needed")
    turned = 1
    if state.order == "first":
        if state.channels is None:
            raise node.error("the number of channels is not known; no convolution is before it")
        turned = state.channels
    return [node.layer("Flatten")], State(state.dtype, 2, "last", None, turned)


def _transpose(node: Node, state: State) -> tuple[list[Tree], State]:
    perm, rank = [int(a) for a in node.attributes.get("perm", [])], state.rank
    to_last, to_first = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    if state.order == "first" and perm == to_last:
        return [], replace(state, order="last")
    if state.order == "last" and perm == to_first and not state.pooled:
        return [], replace(state, order="first")
    raise node.error(f"the permutation {perm} is not understood")


def _pad(node: Node, state: State) -> tuple[list[Tree], State]:
    n = images(node, state)
    pads = node.attributes.get("pads")
    pads = [int(p) for p in (node.constant(1) if pads is None else pads)]
    mode = node.attributes.get("mode", b"constant").decode()
    value = node.constant_or_none(2)
    if any(pads[:2] + pads[n + 2 : n + 4]) or (value is not None and np.any(value != 0)):
        raise node.error("only spatial axes are padded, with zeros")
    padding = tuple(zip(pads[2 : n + 2], pads[n + 4 :], strict=True))
    return [node.layer("Pad", padding=padding, mode=mode)], state


def joined_channels(node: Node, states: Sequence[State]) -> State:
    """The state behind a Concat of channels."""
    first = states[0]
    last = first.order == "last" and first.rank == 2
    alike = {replace(state, channels=None) for state in states}
    if len(alike) > 1 or first.turned > 1 or first.ended or not (last or first.order == "first"):
        raise node.error("only images with channels first, or rows, are joined")
    if int(node.attributes["axis"]) % first.rank != 1:
        raise node.error("only channels are joined")
    if None in (counts := [state.channels for state in states]):
        return replace(first, channels=None)
    return replace(first, channels=sum(filter(None, counts)))


def _resize(node: Node, state: State) -> tuple[list[Tree], State]:
    n, given = images(node, state), node.attributes
    scales, mode = node.constant(2).tolist(), given.get("mode", b"nearest").decode()
    how = given.get("coordinate_transformation_mode", b"half_pixel").decode()
    known = {
        "nearest": how == "asymmetric" and given.get("nearest_mode") == b"floor",
        "linear": how in ("half_pixel", "pytorch_half_pixel"),
    }
    if len(scales) != n + 2 or scales[:2] != [1, 1] or any(s % 1 or s < 1 for s in scales):
        raise node.error(f"the scales {scales} are not understood")
    if not known.get(mode):
        raise node.error(f"the mode {mode!r}, {how}, is not understood")
    kind = "nearest" if mode == "nearest" else "bilinear"
    return [node.layer("Upsample", factor=tuple(map(int, scales[2:])), mode=kind)], state


def _depth_to_space(node: Node, state: State) -> tuple[list[Tree], State]:
    images(node, state)
    factor = int(node.attributes["blocksize"])
    if node.attributes.get("mode", b"DCR") != b"CRD":
        raise node.error("only the mode CRD is understood")
    channels = None if state.channels is None else state.channels // factor**2
    return [node.layer("PixelShuffle", factor=factor)], replace(state, channels=channels)


def _same(node: Node, state: State) -> tuple[list[Tree], State]:
    return [], state


def _softmax(node: Node, state: State) -> tuple[list[Tree], State]:
    return [], replace(state, ended=True)


def _elementwise(kind: str, **attributes: tuple[str, float]) -> Form:
    """A layer without weights; `attributes` names its arguments in ONNX, and their defaults."""

    def form(node: Node, state: State) -> tuple[list[Tree], State]:
        found = {
            name: node.number(theirs, default) for name, (theirs, default) in attributes.items()
        }
        return [node.layer(kind, **found)], state

    return form


def _gelu(node: Node, state: State) -> tuple[list[Tree], State]:
    if (how := node.attributes.get("approximate", b"none").decode()) != "none":
        raise node.error(f"the approximation {how} is not understood")
    return [node.layer("GELU")], state


def _swish(node: Node, state: State) -> tuple[list[Tree], State]:
    if node.number("alpha", 1.0) != 1:
        raise node.error("another alpha than 1 is not understood")
    return [node.layer("SiLU")], state


def _adaptive(node: Node, state: State) -> tuple[list[Tree], State]:
    """Of `fastconv.nn.onnx.patterns`: ONNX has no such node."""
    images(node, state)
    return [node.layer(node.op, size=tuple(map(int, node.attributes["size"])))], state


FORMS: dict[str, Form] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _dense,
    "MatMul": _dense,
    "Add": _same,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "ReduceMean": _global_pool,
    "Flatten": _flatten,
    "Reshape": _flatten,
    "Squeeze": _flatten,
    "Transpose": _transpose,
    "Pad": _pad,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "Identity": _same,
    "Dropout": _same,
    "Softmax": _softmax,
    "Relu": _elementwise("ReLU"),
    "Sigmoid": _elementwise("Sigmoid"),
    "Tanh": _elementwise("Tanh"),
    "LeakyRelu": _elementwise("LeakyReLU", slope=("alpha", 0.01)),
    "Elu": _elementwise("ELU", alpha=("alpha", 1.0)),
    "Softplus": _elementwise("Softplus"),
    "HardSwish": _elementwise("Hardswish"),
    "Gelu": _gelu,
    "Swish": _swish,
    "AdaptiveAvgPool": _adaptive,
    "AdaptiveMaxPool": _adaptive,
}
