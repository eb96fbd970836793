"""Subsampling layers: the maximum or the mean of a window."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, layer_error, plain, quiet
from fastconv.nn.lowering import Lowered
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import register
from fastconv.program.finish import maxima, maxima_backward
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import Pooling, image_means
from fastconv.program.ops import pooling
from fastconv.typing import Int, Padding


def _lowered(pool: Pooling) -> Lowered:
    return pool.y, lambda dy, need: pool.backward(dy) if need else None


class _Pool(Layer):
    """Arguments that both poolings share."""

    def __init__(self, window: Any, stride: Any, padding: Any, ceil_mode: bool) -> None:
        super().__init__()
        self.window = plain(window)
        self.settings = {
            "stride": plain(stride),
            "padding": plain(padding),
            "ceil_mode": bool(ceil_mode),
        }

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {"window": self.window, **self.settings}


@register(onnx=onnx.max_pool)
class MaxPool(_Pool):
    """Maximum of each window; the error goes back to the element that won.

    Parameters
    ----------
    window : int or tuple of int
        Window size.
    stride : int, tuple of int or None
        None means the window: windows that touch and do not overlap.
    padding : as in `fastconv.max_pool`
        Padded cells are minus infinity and never win.
    ceil_mode : bool
        Whether a last, partial window counts.

    Raises
    ------
    TypeError, ValueError
        At the first forward pass, naming the argument.

    Examples
    --------
    >>> MaxPool(2).window
    2
    """

    def __init__(
        self,
        window: Int,
        *,
        stride: Int | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(window, stride, padding, ceil_mode)
        self._cache: tuple[tuple[int, ...], Array, Array] | None = None

    subsamples = True  # so that a convolution before it may do its work (see `nn.fusing`)

    def halves(self, graph: Graph) -> bool:
        """Whether windows are 2x2, touch, and lie in the image."""
        window, settings = graph.setting(self, "window"), graph.setting(self, "settings")
        stride = window if settings["stride"] is None else settings["stride"]
        apart = all(n in (2, [2, 2], (2, 2)) for n in (window, stride))
        return apart and settings["padding"] == 0 and not settings["ceil_mode"]

    @property
    def argmax(self) -> Array:
        """Flat spatial index (h*W + w) of each window's winner in the last forward pass."""
        argmax: Array = self._saved(self._cache)[2]
        return argmax

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations."""
        settings, window = graph.setting(self, "settings"), graph.setting(self, "window")
        if graph.inference or not self.halves(graph) or len(x.shape) != 4 or min(x.shape[1:3]) < 2:
            return _lowered(Pooling(graph, "max", x, window, **settings))
        y, winners = maxima(graph, x)

        def backward(dy: Value, need: bool) -> Value | None:
            return maxima_backward(graph, dy, y, winners, x.shape, False) if need else None

        return y, backward

    @quiet
    def forward(self, x: Array) -> Array:
        """Pool `x` (m, H, W, C) into `y` (m, OH, OW, C)."""
        check_array("x", x, self)
        y, argmax = self.ops.max_pool(x, self.window, **self.settings, return_argmax=True)
        self._cache = (x.shape, y, argmax)
        return y

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: each window's error at its winner, zero elsewhere."""
        x_shape, y, argmax = self._saved(self._cache)
        self._check_dy(dy, y.shape, y.dtype)
        dx: Array = self.ops.max_pool_backward(dy, argmax, x_shape, self.window, **self.settings)
        return dx


@register(onnx=onnx.avg_pool)
class AvgPool(_Pool):
    """Mean of each window; the error goes back to all its elements in equal parts.

    Parameters
    ----------
    window, stride, padding, ceil_mode
        As in `MaxPool`.
    count_include_pad : bool
        Whether padded cells count in the divisor.

    Raises
    ------
    TypeError, ValueError
        At the first forward pass, naming the argument.

    Examples
    --------
    >>> AvgPool((2, 2)).window
    (2, 2)
    """

    def __init__(
        self,
        window: Int,
        *,
        stride: Int | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
    ) -> None:
        super().__init__(window, stride, padding, ceil_mode)
        self.settings["count_include_pad"] = bool(count_include_pad)
        self._cache: tuple[tuple[int, ...], Array] | None = None

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations."""
        settings, window = dict(graph.setting(self, "settings")), graph.setting(self, "window")
        include_pad = settings.pop("count_include_pad")
        return _lowered(Pooling(graph, "mean", x, window, include_pad, **settings))

    @quiet
    def forward(self, x: Array) -> Array:
        """Pool `x` (m, H, W, C) into `y` (m, OH, OW, C)."""
        check_array("x", x, self)
        y: Array = self.ops.avg_pool(x, self.window, **self.settings)
        self._cache = (x.shape, y)
        return y

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: each window's error divided by its number of cells."""
        x_shape, y = self._saved(self._cache)
        self._check_dy(dy, y.shape, y.dtype)
        dx: Array = self.ops.avg_pool_backward(dy, x_shape, self.window, **self.settings)
        return dx


@register(onnx=onnx.global_avg_pool, takes=onnx.nothing_of)
class GlobalAvgPool(Layer):
    """Mean of each channel over the whole image: (m, H, W, C) -> (m, C).

    Examples
    --------
    >>> GlobalAvgPool().parameters()
    []
    """

    def __init__(self) -> None:
        super().__init__()
        self._cache: tuple[tuple[int, ...], Any] | None = None

    def config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations."""
        self._check_axes(x.shape)
        y = image_means(graph, x)
        pool = Pooling(graph, "mean", x, x.shape[1:-1], backward_only=True)

        def backward(dy: Value, need: bool) -> Value | None:
            return pool.backward(graph.view(dy, pool.y.shape)) if need else None

        return y, backward

    def _check_axes(self, shape: tuple[int, ...]) -> None:
        if not 3 <= len(shape) <= 5:
            raise layer_error(ValueError, self, f"x: expected (m, H, W, C), got {shape}")

    @quiet
    def forward(self, x: Array) -> Array:
        """Average `x` (m, H, W, C) over H and W (1-D: W; 3-D: D, H, W)."""
        check_array("x", x, self)
        self._check_axes(x.shape)
        y: Array
        if self._ops is None and x.size:
            y = pooling.global_avg_pool(x)
        else:
            y = self.ops.avg_pool(x, x.shape[1:-1])  # (m, 1, 1, C): one window, the image
        self._cache = (x.shape, x.dtype)
        return y.reshape(x.shape[0], x.shape[-1])

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: each channel's error divided by H*W, at every pixel."""
        x_shape, dtype = self._saved(self._cache)
        self._check_dy(dy, (x_shape[0], x_shape[-1]), dtype)
        window = x_shape[1:-1]
        dy = np.reshape(dy, (x_shape[0], *(1 for _ in window), x_shape[-1]))  # (m, 1, 1, C)
        dx: Array = self.ops.avg_pool_backward(dy, x_shape, window)
        return dx
