"""The ONNX form of every layer of `fastconv.nn`: each converter adds its nodes to a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.geometry import resolved_pads, transposed_pad
from fastconv.geometry.request import Request

__all__ = ["CONVERTERS"]

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


def _conv(graph: Any, layer: nn.Conv, x: Any, path: str) -> Any:
    settings = {"window": layer.window, **layer.settings}
    window, form = _window(settings, len(layer.window))
    attributes = window | _padding(path, window, form)
    return _convolution(graph, "Conv", layer, x, path, attributes)


def _conv_transpose(graph: Any, layer: nn.ConvTranspose, x: Any, path: str) -> Any:
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


def _max_pool(graph: Any, layer: nn.MaxPool, x: Any, path: str) -> Any:
    return _pool(graph, "MaxPool", layer, x, path)


def _avg_pool(graph: Any, layer: nn.AvgPool, x: Any, path: str) -> Any:
    include = int(layer.settings["count_include_pad"])
    return _pool(graph, "AveragePool", layer, x, path, count_include_pad=include)


def _global_avg_pool(graph: Any, layer: nn.GlobalAvgPool, x: Any, path: str) -> Any:
    x = graph.channels_first(x, path)
    name = graph.node("GlobalAveragePool", [x.name], path)
    return x._replace(name=graph.node("Flatten", [name], path), rank=0, first=False)


def _flatten(graph: Any, layer: nn.Flatten, x: Any, path: str) -> Any:
    x = graph.channels_last(x, path)
    flat = x.name if x.rank else x.flat
    return x._replace(name=graph.node("Flatten", [x.name], path), rank=0, flat=flat)


def _dense(graph: Any, layer: nn.Dense, x: Any, path: str) -> Any:
    graph.takes(x, layer.inputs)
    inputs = [x.name, graph.constant(f"{path}.w", layer.w.value)]
    if layer.b is not None:
        inputs.append(graph.constant(f"{path}.b", layer.b.value))
    return x._replace(name=graph.node("Gemm", inputs, path), flat="")


def _batch_norm(graph: Any, layer: nn.BatchNorm, x: Any, path: str) -> Any:
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


def _elementwise(op: str) -> Callable[[Any, Any, Any, str], Any]:
    return lambda graph, layer, x, path: x._replace(name=graph.node(op, [x.name], path))


def _dropout(graph: Any, layer: nn.Dropout, x: Any, path: str) -> Any:
    return x  # in evaluation it does nothing


def _sequential(graph: Any, layer: nn.Sequential, x: Any, path: str) -> Any:
    for i, child in enumerate(layer.layers):
        x = graph.layer(child, x, f"{path}.{i}")
    return x


def _residual(graph: Any, layer: nn.Residual, x: Any, path: str) -> Any:
    x = graph.channels_first(x, path)  # once, for both ways
    y = graph.channels_first(graph.layer(layer.body, x, f"{path}.body"), path)
    side = x if layer.shortcut is None else graph.layer(layer.shortcut, x, f"{path}.shortcut")
    side = graph.channels_first(side, path)
    return y._replace(name=graph.node("Add", [y.name, side.name], path))


CONVERTERS: dict[type[nn.Layer], Callable[[Any, Any, Any, str], Any]] = {
    nn.AvgPool: _avg_pool,
    nn.BatchNorm: _batch_norm,
    nn.Conv: _conv,
    nn.ConvTranspose: _conv_transpose,
    nn.Dense: _dense,
    nn.Dropout: _dropout,
    nn.Flatten: _flatten,
    nn.GlobalAvgPool: _global_avg_pool,
    nn.MaxPool: _max_pool,
    nn.ReLU: _elementwise("Relu"),
    nn.Residual: _residual,
    nn.Sequential: _sequential,
    nn.Sigmoid: _elementwise("Sigmoid"),
    nn.Tanh: _elementwise("Tanh"),
}
