"""The ONNX forms of layers that change the size of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.nn.onnx.padding import padded, piece
from fastconv.program.ops.adaptive import bounds

__all__ = ["adaptive", "global_max_pool", "pad", "pixel_shuffle", "upsample"]

Form = Callable[[Any, Any, Any, str], Any]


def global_max_pool(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """One maximum a channel: (m, C)."""
    x = graph.channels_first(x, path)
    name = graph.node("GlobalMaxPool", [x.name], path)
    return x._replace(name=graph.node("Flatten", [name], path), rank=0, first=False)


def upsample(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """Resize, of which the scales are given."""
    x = graph.channels_first(x, path)
    scales = np.array([1, 1, *layer.factors(x.rank)])
    inputs = [x.name, "", graph.constant(f"{path}.scales", scales, np.float32)]
    if layer.mode == "nearest":
        # pixel i is one of i // factor's copies
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return x._replace(name=graph.node("Resize", inputs, path, mode="nearest", **how))
    how = {"coordinate_transformation_mode": "half_pixel"}
    return x._replace(name=graph.node("Resize", inputs, path, mode="linear", **how))


def pixel_shuffle(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """DepthToSpace, in PyTorch's order of channels."""
    if x.rank != 2:
        raise ValueError(f"layer {path}: PixelShuffle of {x.rank}-D images has no form in ONNX")
    x = graph.channels_first(x, path)
    name = graph.node("DepthToSpace", [x.name], path, blocksize=layer.factor, mode="CRD")
    return x._replace(name=name)


def pad(graph: Any, layer: Any, x: Any, path: str) -> Any:
    """More cells around the image."""
    x = graph.channels_first(x, path)
    return padded(graph, x, layer.pairs(x.rank), layer.mode, path)


def adaptive(reduce: str, pool: str) -> Form:
    """Pooling by windows that fit the image's size: it must be known."""

    def form(graph: Any, layer: Any, x: Any, path: str) -> Any:
        x = graph.channels_first(x, path)
        sizes = graph.extents(x, path)
        counts = layer.counts((1, *sizes, 1))
        if all(n % count == 0 for n, count in zip(sizes, counts, strict=True)):
            window = [n // count for n, count in zip(sizes, counts, strict=True)]
            name = graph.node(pool, [x.name], path, kernel_shape=window, strides=window)
            return x._replace(name=name)
        name = x.name
        for axis, (n, count) in enumerate(zip(sizes, counts, strict=True), 2):
            parts = [
                graph.node(
                    reduce,
                    [piece(graph, path, name, axis, *window)],
                    path,
                    axes=[axis],
                    keepdims=1,
                )
                for window in bounds(n, count)
            ]
            name = parts[0] if count == 1 else graph.node("Concat", parts, path, axis=axis)
        return x._replace(name=name)

    return form
