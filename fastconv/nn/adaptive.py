"""Subsampling to a given size, whatever the image's."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, layer_error, positive_int, quiet
from fastconv.nn.lowering import Lowered, called_back
from fastconv.nn.onnx import images as onnx
from fastconv.nn.onnx.layers import nothing_of
from fastconv.nn.registry import register
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import Pooling
from fastconv.program.naive import adaptive as naive_adaptive
from fastconv.program.ops import adaptive
from fastconv.typing import Int

__all__ = ["AdaptiveAvgPool", "AdaptiveMaxPool", "GlobalMaxPool"]


@register(onnx=onnx.global_max_pool, takes=nothing_of)
class GlobalMaxPool(Layer):
    """Maximum of each channel over the whole image: (m, H, W, C) -> (m, C).

    Examples
    --------
    >>> GlobalMaxPool().forward(np.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[6.0, 7.0]]
    """

    def __init__(self) -> None:
        super().__init__()
        self._cache: tuple[tuple[int, ...], Array, Any] | None = None

    def config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations."""
        _check_axes(self, x.shape)
        pool = Pooling(graph, "max", x, x.shape[1:-1])

        def backward(dy: Value, need: bool) -> Value | None:
            return pool.backward(graph.view(dy, pool.y.shape)) if need else None

        return graph.view(pool.y, (x.shape[0], x.shape[-1])), backward

    @quiet
    def forward(self, x: Array) -> Array:
        """Maxima of `x` (m, H, W, C) over H and W (1-D: W; 3-D: D, H, W)."""
        check_array("x", x, self)
        _check_axes(self, x.shape)
        y, argmax = self.ops.max_pool(x, x.shape[1:-1], return_argmax=True)
        self._cache = (x.shape, argmax, x.dtype)
        result: Array = y.reshape(x.shape[0], x.shape[-1])
        return result

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: each channel's error at its largest pixel, zero elsewhere."""
        x_shape, argmax, dtype = self._saved(self._cache)
        self._check_dy(dy, (x_shape[0], x_shape[-1]), dtype)
        dy = np.reshape(dy, argmax.shape)  # (m, 1, 1, C)
        dx: Array = self.ops.max_pool_backward(dy, argmax, x_shape, x_shape[1:-1])
        return dx


def _check_axes(layer: Layer, shape: tuple[int, ...]) -> None:
    if not 3 <= len(shape) <= 5:
        raise layer_error(ValueError, layer, f"x: expected (m, H, W, C), got {shape}")


class _Adaptive(Layer):
    """What both share: sizes, and the windows that all are alike where those divide the image's."""

    kind = ""

    def __init__(self, size: Int) -> None:
        super().__init__()
        given: Any = size
        if isinstance(given, tuple | list):
            self.size: Int = tuple(positive_int("size", n) for n in given)
        else:
            self.size = positive_int("size", given)
        self._cache: tuple[tuple[int, ...], tuple[int, ...], Array | None, Any] | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {"size": self.size}

    def counts(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Windows on each spatial axis of images of a shape."""
        _check_axes(self, shape)
        rank = len(shape) - 2
        counts: Any = self.size if isinstance(self.size, tuple) else (self.size,) * rank
        if len(counts) != rank:
            cause = f"size: {self.size} must be one number, or {rank}: one per spatial axis"
            raise layer_error(ValueError, self, cause)
        return tuple(counts)

    def _window(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The window, and stride, of an ordinary pooling that does the same; None if there is none.

        Where an axis has more windows than cells, cells are in several.
        """
        pairs = list(zip(shape[1:-1], self.counts(shape), strict=True))
        if any(n % count for n, count in pairs):
            return None
        return tuple(n // count for n, count in pairs)

    def _lowered(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations; called back where windows differ."""
        window = self._window(x.shape)
        graph.setting(self, "size")
        if window is None or self._ops is not None:
            return called_back(self, graph, x)
        pool = Pooling(graph, self.kind, x, window)
        return pool.y, lambda dy, need: pool.backward(dy) if need else None

    def _checked(self, x: Array) -> tuple[int, ...] | None:
        check_array("x", x, self)
        window = self._window(x.shape)
        if not all(x.shape[1:]):
            raise layer_error(ValueError, self, f"x: images without cells, got {x.shape}")
        return window


@register(onnx=onnx.adaptive("ReduceMean", "AveragePool"))
class AdaptiveAvgPool(_Adaptive):
    """Means of as many windows as `size` says: (m, H, W, C) -> (m, *size, C).

    Window i of n on an axis of H cells is ``i * H // n`` to ``ceil((i + 1) * H / n)``, as in
    PyTorch: all are alike where n divides H, else some overlap.

    Parameters
    ----------
    size : int or tuple of int
        Of the result: for all spatial axes, or one for each.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> AdaptiveAvgPool(2).forward(np.array([[[1.0], [2.0], [6.0]]])).ravel().tolist()
    [1.5, 4.0]
    """

    kind = "mean"
    lower = _Adaptive._lowered

    def __init__(self, size: Int) -> None:
        super().__init__(size)

    @quiet
    def forward(self, x: Array) -> Array:
        """Pool `x` (m, H, W, C) into `y` (m, *size, C)."""
        window = self._checked(x)
        y: Array
        if window is not None:
            y = self.ops.avg_pool(x, window)
        else:
            y = self._pick(adaptive, naive_adaptive).mean_pool(x, self.counts(x.shape))
        self._cache = (x.shape, y.shape, None, x.dtype)
        return y

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: each window's error divided by its number of cells."""
        x_shape, y_shape, _, dtype = self._saved(self._cache)
        self._check_dy(dy, y_shape, dtype)
        dx: Array
        if (window := self._window(x_shape)) is not None:
            dx = self.ops.avg_pool_backward(dy, x_shape, window)
        else:
            dx = self._pick(adaptive, naive_adaptive).mean_pool_backward(dy, x_shape[1:-1])
        return dx


@register(onnx=onnx.adaptive("ReduceMax", "MaxPool"))
class AdaptiveMaxPool(_Adaptive):
    """Maxima of as many windows as `size` says: (m, H, W, C) -> (m, *size, C).

    The windows are those of `AdaptiveAvgPool`.

    Parameters
    ----------
    size : int or tuple of int
        Of the result: for all spatial axes, or one for each.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> AdaptiveMaxPool(2).forward(np.array([[[1.0], [6.0], [2.0]]])).ravel().tolist()
    [6.0, 6.0]
    """

    kind = "max"
    lower = _Adaptive._lowered

    def __init__(self, size: Int) -> None:
        super().__init__(size)

    @quiet
    def forward(self, x: Array) -> Array:
        """Pool `x` (m, H, W, C) into `y` (m, *size, C)."""
        window = self._checked(x)
        if window is not None:
            y, argmax = self.ops.max_pool(x, window, return_argmax=True)
        else:
            y, argmax = self._pick(adaptive, naive_adaptive).max_pool(x, self.counts(x.shape))
        self._cache = (x.shape, y.shape, argmax, x.dtype)
        result: Array = y
        return result

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: each window's error at its winner, zero elsewhere."""
        x_shape, y_shape, argmax, dtype = self._saved(self._cache)
        self._check_dy(dy, y_shape, dtype)
        dx: Array
        if (window := self._window(x_shape)) is not None:
            dx = self.ops.max_pool_backward(dy, argmax, x_shape, window)
        else:
            dx = self._pick(adaptive, naive_adaptive).max_pool_backward(dy, argmax, x_shape[1:-1])
        return dx
