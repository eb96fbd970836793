"""The ONNX form of every layer of `fastconv.nn`.

Each form adds the nodes of its layer to a `fastconv.nn.onnx.writer.Graph`, for the result `x`, and
returns the result after them; layers name their form where they are registered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv.geometry import resolved_pads, transposed_pad
from fastconv.geometry.request import Request
from fastconv.nn.onnx.padding import padded

__all__ = [
    "avg_pool",
    "batch_norm",
    "channels_of",
    "concat",
    "conv",
    "conv_transpose",
    "dense",
    "dropout",
    "elementwise",
    "flatten",
    "gelu",
    "global_avg_pool",
    "group_norm",
    "images_of",
    "layer_norm",
    "max_pool",
    "nothing_of",
    "residual",
    "rows_of",
    "sequential",
    "silu",
]

AUTO = {"auto_pad": "SAME_UPPER"}


def _flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    """ONNX's order: all low ends, then all high ends."""
    return [lo for lo, _ in pads] + [hi for _, hi in pads]


def _window(settings: dict[str, Any], rank: int) -> tuple[dict[str, list[int]], Any]:
    """Kernel, strides and dilations as attributes, and the padding in a canonical form."""
    ask = Request("channels_last", **settings)
    names = {"kernel_shape": "window", "strides": "stride", "dilations": "dilation"}
    found = {name: list(ask.positive(own, rank)) for name, own in names.items() if own in settings}
    return found, ask.padding(rank)


def _padding(path: str, window: dict[str, list[int]], form: Any) -> dict[str, Any]:
    """``pads``, or ``auto_pad`` where they depend on the image's size."""
    k, s = window["kernel_shape"], window["strides"]
    d = window.get("dilations", [1] * len(k))
    if form == "same" and any(step > 1 for step in s):
        if any(step > 1 for step in d) or any(a > b for a, b in zip(s, k, strict=True)):
            raise ValueError(
                f'layer {path}: padding="same" with a stride of {tuple(s)}, a window of {tuple(k)} '
                f"and a dilation of {tuple(d)} is not the same in ONNX Runtime; give numbers"
            )
        return AUTO
    # At stride 1 "same" does not depend on the size.
    return {"pads": _flat(resolved_pads(form, [max(k)] * len(k), k, s, d))}


def _kernel(w: np.ndarray) -> np.ndarray:
    """(KH, KW, C/G, F) -> (F, C/G, KH, KW)."""
    return w.transpose(w.ndim - 1, w.ndim - 2, *range(w.ndim - 2))


def _convolution(
    graph: Any, op: str, layer: Any, x: Any, path: str, attributes: dict[str, Any]
) -> Any:
    x = graph.channels_first(x, path)
    inputs = [x.name, graph.constant(f"{path}.w", _kernel(layer.w.value))]
    if layer.b is not None:
        inputs.append(graph.constant(f"{path}.b", layer.b.value))
    name = graph.node(op, inputs, path, group=layer.groups, **attributes)
    if layer.activation == "relu":
        name = graph.node("Relu", [name], path)
    return x._replace(name=name)


def conv(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Convolution, and ReLU where it is fused."""
    settings = {"window": layer.window, **layer.settings}
    mode = settings.pop("padding_mode", "constant")
    window, form = _window(settings, len(layer.window))
    padding = _padding(path, window, form)
    if mode != "constant":
        if padding == AUTO:
            raise ValueError(
                f'layer {path}: padding="same" with a stride and padding_mode={mode!r} has no form '
                f"in ONNX; give numbers"
            )
        pads = padding["pads"]
        pairs = list(zip(pads[: x.rank], pads[x.rank :], strict=True))
        x = padded(graph, graph.channels_first(x, path), pairs, mode, path)
        padding = {}
    return _convolution(graph, "Conv", layer, x, path, window | padding)


def conv_transpose(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Transposed convolution, and ReLU where it is fused."""
    rank = len(layer.window)
    settings = {"window": layer.window, **layer.settings}
    window, form = _window(settings, rank)
    extras = Request("channels_last", **settings).per_axis("output_padding", rank)
    pads, added = [], []
    for i, (k, s, d) in enumerate(zip(*window.values(), strict=True)):
        lo, hi = transposed_pad(form if isinstance(form, str) else form[i], k, s, d)
        pads.append((lo, max(0, hi)))
        added.append(extras[i] + max(0, -hi))
    attributes = window | {"pads": _flat(pads), "output_padding": added}
    return _convolution(graph, "ConvTranspose", layer, x, path, attributes)


def _pool(graph: Any, op: str, layer: Any, x: Any, path: str, **attributes: Any) -> Any:
    x = graph.channels_first(x, path)
    settings = {"window": layer.window, **layer.settings}
    if settings["stride"] is None:
        settings["stride"] = layer.window
    window, form = _window(settings, x.rank)
    attributes |= window | _padding(path, window, form)
    if layer.settings["ceil_mode"] and "pads" in attributes:  # "same" leaves no partial window
        written = [0] * len(attributes["pads"])
        if attributes.get("count_include_pad"):  # as zeros: what windows overhang does not count
            written, attributes["pads"] = attributes["pads"], written
            attributes["count_include_pad"] = 0
        if any(written):
            rank = len(written) // 2
            ends = np.array([0, 0, *written[:rank], 0, 0, *written[rank:]])
            name = graph.constant(f"{path}.pads", ends, np.int64)
            x = x._replace(name=graph.node("Pad", [x.name, name], path))
        attributes["pads"] = _ceil_pads(attributes, written)
    return x._replace(name=graph.node(op, [x.name], path, **attributes))


def _ceil_pads(attributes: dict[str, Any], written: Sequence[int]) -> list[int]:
    """Pads with which as many windows fit whole as `ceil_mode` has, at every size of the image.

    A high end of ``hi + s - 1`` makes floor of ceil, one of ``k - 1`` lets no window start behind
    the input: the smaller gives what is left after PyTorch's rule, which drops such a window. ONNX
    has that rule too, but its shape inference (1.23) keeps the window and declares a wrong shape.
    `written` are pads, in the same order, that the image has got already.
    """
    k, s, pads = (attributes[name] for name in ("kernel_shape", "strides", "pads"))
    low, high = pads[: len(k)], pads[len(k) :]
    rows = zip(k, s, high, written[len(k) :], strict=True)
    return low + [min(hi + b - 1, a - 1 - done) for a, b, hi, done in rows]


def max_pool(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Maxima of windows."""
    return _pool(graph, "MaxPool", layer, x, path)


def avg_pool(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Means of windows."""
    include = int(layer.settings["count_include_pad"])
    return _pool(graph, "AveragePool", layer, x, path, count_include_pad=include)


def global_avg_pool(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """One mean a channel: (m, C)."""
    x = graph.channels_first(x, path)
    name = graph.node("GlobalAveragePool", [x.name], path)
    return x._replace(name=graph.node("Flatten", [name], path), rank=0, first=False)


def flatten(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Rows of the cells of each image, channels last."""
    x = graph.channels_last(x, path)
    flat = x.name if x.rank else x.flat
    return x._replace(name=graph.node("Flatten", [x.name], path), rank=0, flat=flat)


def dense(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """A matrix product, plus bias."""
    graph.takes(x, layer.inputs)
    inputs = [x.name, graph.constant(f"{path}.w", layer.w.value)]
    if layer.b is not None:
        inputs.append(graph.constant(f"{path}.b", layer.b.value))
    return x._replace(name=graph.node("Gemm", inputs, path), flat="")


def batch_norm(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Normalisation with the running statistics."""
    x = graph.channels_first(x, path)
    if not x.rank:
        graph.takes(x, layer.channels)
    arrays = {
        "scale": layer.scale.value,
        "shift": layer.shift.value,
        "running_mean": layer.running_mean,
        "running_variance": layer.running_variance,
    }
    inputs = [graph.constant(f"{path}.{name}", array) for name, array in arrays.items()]
    name = graph.node("BatchNormalization", [x.name, *inputs], path, epsilon=layer.epsilon)
    return x._replace(name=name)


def elementwise(op: str, **names: str) -> Callable[[Any, Any, Any, str], Any]:
    """The form of a layer that is one node of one input; its attributes are some of the layer's."""

    def form(graph: Any, layer: Any, x: Any, path: str) -> Any:
        numbers = {name: getattr(layer, own) for name, own in names.items()}
        return x._replace(name=graph.node(op, [x.name], path, **numbers))

    return form


def silu(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """``x sigmoid(x)``."""
    share = graph.node("Sigmoid", [x.name], path)
    return x._replace(name=graph.node("Mul", [x.name, share], path))


def gelu(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """``x (1 + erf(x / sqrt(2))) / 2``: opset 20 has it as one node."""
    root, one, half = (
        graph.constant(f"{path}.{name}", np.array(value))
        for name, value in (("root2", np.sqrt(2)), ("one", 1), ("half", 0.5))
    )
    error = graph.node("Erf", [graph.node("Div", [x.name, root], path)], path)
    twice = graph.node("Mul", [x.name, graph.node("Add", [error, one], path)], path)
    return x._replace(name=graph.node("Mul", [twice, half], path))


def dropout(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Nothing: in evaluation it drops nothing."""
    return x


def sequential(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """The layers, one after the other."""
    for i, child in enumerate(layer.layers):
        x = graph.layer(child, x, f"{path}.{i}")
    return x


def residual(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Body and shortcut, and their sum."""
    x = graph.channels_first(x, path)  # once, for both ways
    y = graph.channels_first(graph.layer(layer.body, x, f"{path}.body"), path)
    side = x if layer.shortcut is None else graph.layer(layer.shortcut, x, f"{path}.shortcut")
    side = graph.channels_first(side, path)
    return y._replace(name=graph.node("Add", [y.name, side.name], path))


def layer_norm(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Normalisation of the last axis."""
    x = graph.channels_last(x, path)
    inputs = [x.name, *_scale_and_shift(graph, layer, path, ())]
    name = graph.node("LayerNormalization", inputs, path, axis=-1, epsilon=layer.epsilon)
    return x._replace(name=name)


def group_norm(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """InstanceNormalization of groups, as images of one axis; opset 18 has it as one node."""
    x = graph.channels_first(x, path)
    if not x.rank:
        graph.takes(x, layer.channels)
    groups, numbers = layer.groups, (np.ones(layer.groups), np.zeros(layer.groups))
    shape = graph.constant(f"{path}.groups", np.array([0, groups, -1]), np.int64)
    parts = graph.node("Reshape", [x.name, shape], path)
    ones, zeros = (
        graph.constant(f"{path}.{name}", n)
        for name, n in zip(("ones", "zeros"), numbers, strict=True)
    )
    options = {"epsilon": layer.epsilon}
    parts = graph.node("InstanceNormalization", [parts, ones, zeros], path, **options)
    name = graph.node("Reshape", [parts, graph.node("Shape", [x.name], path)], path)
    scale, shift = _scale_and_shift(graph, layer, path, (1,) * x.rank)
    name = graph.node("Add", [graph.node("Mul", [name, scale], path), shift], path)
    return x._replace(name=name)


def _scale_and_shift(graph: Any, layer: Any, path: str, behind: tuple[int, ...]) -> list[str]:
    """Constants (C, *behind)."""
    arrays = {"scale": layer.scale.value, "shift": layer.shift.value}
    return [graph.constant(f"{path}.{k}", a.reshape(-1, *behind)) for k, a in arrays.items()]


def concat(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """The branches' channels."""
    x = graph.channels_first(x, path)  # once, for all
    ways = [
        graph.channels_first(graph.layer(branch, x, f"{path}.{i}"), path)
        for i, branch in enumerate(layer.branches)
    ]
    name = graph.node("Concat", [way.name for way in ways], path, axis=1)
    return ways[0]._replace(name=name, flat="")


# What layers fix of their input's shape, see `fastconv.nn.registry.register` --------------------

AXES = {1: ("m", "W"), 2: ("m", "H", "W"), 3: ("m", "D", "H", "W")}


def images_of(layer: Any) -> tuple[Any, ...]:
    """Images with as many axes and channels as the kernel of a convolution."""
    return (*AXES[len(layer.window)], layer.channels)


def rows_of(layer: Any) -> tuple[Any, ...]:
    """Rows for the weights of a dense layer."""
    return ("m", layer.inputs)


def channels_of(layer: Any) -> tuple[Any, ...]:
    """Any images with the layer's channels."""
    return (..., layer.channels)


def nothing_of(layer: Any) -> tuple[Any, ...]:
    """The layer takes images of any shape and gives rows: what follows tells nothing of them."""
    return ()
