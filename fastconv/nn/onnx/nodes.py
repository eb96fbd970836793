"""The layer of each ONNX node that `fastconv.nn.onnx.reader` understands.

A form takes a node and the state of its input, and returns layers and the state after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from fastconv._extras import host
from fastconv.nn.registry import ENTRIES

__all__ = ["FORMS", "Leaf", "Node", "State", "Tree", "joined_channels", "number_of_axes"]

Tree: TypeAlias = Any  # a Leaf, or the reader's Join


@dataclass(frozen=True)
class State:
    """What is known of a result.

    Attributes
    ----------
    dtype : numpy.dtype
    rank : int
        Axes in the file.
    order : {"first", "last"}
        Where the file has the channels; "last" of rows.
    channels : int, or None
    turned : int
        Of rows that Flatten made of images with channels first: how many channels those had;
        1 where the order is ours.
    pooled : bool
        Whether ours are rows already where the file's are images of one pixel.
    ended : bool
        Whether a softmax, which is left out, has made probabilities of it.
    """

    dtype: np.dtype[Any]
    rank: int
    order: str
    channels: int | None
    turned: int = 1
    pooled: bool = False
    ended: bool = False

    def check_end(self) -> None:
        """Raise where our order of the rows could not be that of the file."""
        if self.turned > 1:
            raise ValueError("it ends with images that are flattened channels first")


@dataclass
class Leaf:
    """A layer: its description, and its arrays by the attributes that hold them."""

    description: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def takes_bias(self) -> bool:
        """Whether it is a product without a bias."""
        return self.description.get("bias") is False

    def with_bias(self, node: Node, state: State) -> Leaf:
        """The layer with the constant of an Add as its bias."""
        b = next(node.constants[name] for name in node.inputs if name in node.constants)
        if b.size != state.channels or max(b.shape, default=1) != b.size:
            raise node.error(f"a constant of shape {b.shape} is no bias")
        return Leaf({**self.description, "bias": True}, {**self.arrays, "b": b.reshape(-1)})


class Node:
    """A node with its attributes and constants."""

    def __init__(
        self, proto: Any, constants: dict[str, np.ndarray], ranks: dict[str, int | None]
    ) -> None:
        onnx = host("onnx", "onnx")
        self.proto, self.op, self.constants, self.ranks = proto, proto.op_type, constants, ranks
        self.inputs, self.output = list(proto.input), proto.output[0]
        self.attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}

    def error(self, cause: str) -> ValueError:
        """A ValueError that names the node."""
        name = self.proto.name or self.output
        return ValueError(f"node {name!r} ({self.op}): {cause}")

    def constant(self, i: int) -> np.ndarray:
        """The i-th input, which must be a constant."""
        found = self.constant_or_none(i)
        if found is None:
            raise self.error(f"input {i} is needed, as a constant")
        return found

    def constant_or_none(self, i: int) -> np.ndarray | None:
        """The i-th input, a constant; None if there is none."""
        if i >= len(self.inputs) or not self.inputs[i]:
            return None
        if self.inputs[i] not in self.constants:
            raise self.error(f"input {i}, {self.inputs[i]!r}, is no constant")
        return self.constants[self.inputs[i]]

    def fold(self, constants: dict[str, np.ndarray]) -> None:
        """Compute what depends on constants alone."""
        if self.op == "Constant":
            value = next(iter(self.attributes.values()))
            if hasattr(value, "data_type"):
                value = host("onnx", "onnx").numpy_helper.to_array(value)
            constants[self.output] = np.asarray(value)
        elif self.op == "Identity":
            constants[self.output] = constants[self.inputs[0]]
        elif self.op == "Transpose":
            axes = self.attributes.get("perm")
            constants[self.output] = constants[self.inputs[0]].transpose(axes)
        elif self.op == "Reshape":
            shape = [int(n) for n in constants[self.inputs[1]]]
            constants[self.output] = constants[self.inputs[0]].reshape(shape)
        else:
            raise self.error("it computes with constants only, which is not understood")

    def layer(self, kind: str, **arguments: Any) -> Leaf:
        """A layer of a class by its name."""
        if kind not in ENTRIES:
            raise self.error(f"no layer stands for it: there is no {kind}")
        return Leaf({"type": kind, **arguments})


Form: TypeAlias = Callable[[Node, State], tuple[list[Tree], State]]


def number_of_axes(value: Any) -> int | None:
    """Axes of a value; None where the file does not say."""
    kind = value.type.tensor_type
    return len(kind.shape.dim) if kind.HasField("shape") else None


def _images(node: Node, state: State) -> int:
    """Spatial axes of images with channels first."""
    if state.order != "first" or state.pooled:
        raise node.error("images with channels first are needed")
    return state.rank - 2


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
    n, transposed = _images(node, state), node.op == "ConvTranspose"
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
    leaf.arrays = _arrays(state, w=w, b=b)
    return [leaf], replace(state, channels=filters)


def _arrays(state: State, **arrays: np.ndarray | None) -> dict[str, np.ndarray]:
    return {k: np.asarray(a, state.dtype) for k, a in arrays.items() if a is not None}


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
    w = _in_our_order(node, w, state.turned)
    bias = None if b is None else np.broadcast_to(b, (1, w.shape[1])).reshape(-1)
    leaf = node.layer(
        "Dense", inputs=w.shape[0], outputs=w.shape[1], bias=bias is not None,
        dtype=state.dtype.name,
    )  # fmt: skip
    leaf.arrays = _arrays(state, w=w, b=bias)
    return [leaf], State(state.dtype, 2, "last", w.shape[1])


def _in_our_order(node: Node, rows: np.ndarray, channels: int) -> np.ndarray:
    """Rows that count c, h, w, counted h, w, c."""
    if len(rows) % channels:
        raise node.error(f"{len(rows)} weights do not belong to {channels} channels")
    cells = rows.reshape(channels, -1, *rows.shape[1:])
    return cells.swapaxes(0, 1).reshape(rows.shape)


def _batch_norm(node: Node, state: State) -> tuple[list[Tree], State]:
    if state.rank > 2 and state.order != "first" and not state.pooled:
        raise node.error("images with channels first are needed")
    if node.attributes.get("training_mode", 0):
        raise node.error("the file is in training mode")
    found = [_in_our_order(node, node.constant(i), state.turned) for i in range(1, 5)]
    leaf = node.layer(
        "BatchNorm", channels=len(found[0]), momentum=0.9,
        epsilon=float(node.attributes.get("epsilon", 1e-5)), dtype=state.dtype.name,
    )  # fmt: skip
    names = ("scale", "shift", "running_mean", "running_variance")
    leaf.arrays = _arrays(state, **dict(zip(names, found, strict=True)))
    return [leaf], state


def _pool(node: Node, state: State) -> tuple[list[Tree], State]:
    _images(node, state)
    if len(node.proto.output) > 1 and node.proto.output[1]:
        raise node.error("its second result is not understood")
    window = tuple(map(int, node.attributes["kernel_shape"]))
    arguments = _geometry(node, window)
    if "dilation" in arguments:
        raise node.error("dilations are not understood")
    arguments["ceil_mode"] = bool(node.attributes.get("ceil_mode", 0))
    kind = "MaxPool" if node.op == "MaxPool" else "AvgPool"
    if kind == "AvgPool":
        arguments["count_include_pad"] = bool(node.attributes.get("count_include_pad", 0))
    return [node.layer(kind, window=window, **arguments)], state


def _global_pool(node: Node, state: State) -> tuple[list[Tree], State]:
    n = _images(node, state)
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
    n = _images(node, state)
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
    n, given = _images(node, state), node.attributes
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
    _images(node, state)
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
            name: float(node.attributes.get(theirs, default))
            for name, (theirs, default) in attributes.items()
        }
        return [node.layer(kind, **found)], state

    return form


FORMS: dict[str, Form] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _dense,
    "MatMul": _dense,
    "Add": _same,
    "BatchNormalization": _batch_norm,
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
    "Elu": _elementwise("ELU"),
    "Softplus": _elementwise("Softplus"),
    "HardSwish": _elementwise("Hardswish"),
}
