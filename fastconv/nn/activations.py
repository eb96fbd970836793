"""Layers that work on each element alone: ReLU, sigmoid, tanh, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, positive_int, quiet, unit_interval
from fastconv.nn.draws import uniform
from fastconv.nn.lowering import Lowered, trains
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import register
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import each, relu_backward
from fastconv.program.naive import elementwise as naive_elementwise
from fastconv.program.ops import elementwise


@quiet
def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), without overflow and in the dtype of `z`.

    Parameters
    ----------
    z : ndarray of any shape

    Returns
    -------
    ndarray
        Of the same shape, in 0 .. 1; NaN where `z` is NaN.

    Examples
    --------
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    result: Array = naive_elementwise.sigmoid(z)
    return result


class _Elementwise(Layer):
    """A layer without arguments whose derivative is a function of its output."""

    def __init__(self) -> None:
        super().__init__()
        self._cache: Array | None = None

    def config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    @property
    def _elementwise(self) -> Any:
        """The module of the functions."""
        return self._pick(elementwise, naive_elementwise)

    def _function(self, x: Array) -> Array:
        raise NotImplementedError

    def _gradient(self, y: Array, dy: Array) -> Array:
        raise NotImplementedError

    def _lowered(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations."""
        name = type(self).__name__.lower()
        y = each(graph, "forward", name, x)

        def backward(dy: Value, need: bool) -> Value | None:
            return each(graph, "backward", f"{name}_delta", dy, y) if need else None

        return y, backward

    @quiet
    def forward(self, x: Array) -> Array:
        """Apply the function to every element of `x`, any shape."""
        check_array("x", x, self)
        self._cache = self._function(x)
        return self._cache

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx` = dy times the derivative at the last input."""
        y = self._saved(self._cache)
        self._check_dy(dy, y.shape, y.dtype)
        return self._gradient(y, dy)


@register(onnx=onnx.elementwise("Relu"), pixelwise=True)
class ReLU(_Elementwise):
    """y = max(x, 0). The derivative at 0 is 0; a NaN stays a NaN.

    Examples
    --------
    >>> ReLU().forward(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    rectifies = True  # so that a layer before it may do its work (see `lowering.takes_relu`)

    def _function(self, x: Array) -> Array:
        y: Array = self._elementwise.relu(x)
        return y

    def _gradient(self, y: Array, dy: Array) -> Array:
        dx: Array = self.ops.relu_backward(dy, y)
        return dx

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations."""
        y = each(graph, "forward", "relu", x)

        def backward(dy: Value, need: bool) -> Value | None:
            return relu_backward(graph, dy, y) if need else None

        return y, backward


@register(onnx=onnx.elementwise("Sigmoid"), pixelwise=True)
class Sigmoid(_Elementwise):
    """y = 1 / (1 + exp(-x)); the derivative is y (1 - y).

    Examples
    --------
    >>> Sigmoid().forward(np.zeros(1)).tolist()
    [0.5]
    """

    lower = _Elementwise._lowered

    def _function(self, x: Array) -> Array:
        y: Array = self._elementwise.sigmoid(x)
        return y

    def _gradient(self, y: Array, dy: Array) -> Array:
        dx: Array = self._elementwise.sigmoid_backward(dy, y)
        return dx


@register(onnx=onnx.elementwise("Tanh"), pixelwise=True)
class Tanh(_Elementwise):
    """y = tanh(x); the derivative is 1 - y**2.

    Examples
    --------
    >>> Tanh().forward(np.zeros(1)).tolist()
    [0.0]
    """

    lower = _Elementwise._lowered

    def _function(self, x: Array) -> Array:
        y: Array = self._elementwise.tanh(x)
        return y

    def _gradient(self, y: Array, dy: Array) -> Array:
        dx: Array = self._elementwise.tanh_backward(dy, y)
        return dx


@register(onnx=onnx.dropout, pixelwise=True)
class Dropout(Layer):
    """While training, zero each element with probability `rate` and scale the others up.

    Srivastava et al. 2014, in the "inverted" form: kept elements are divided by 1 - rate while
    training, so that evaluation does nothing.

    Parameters
    ----------
    rate : float in [0, 1)
        Probability of a zero.
    seed : int or None
        Seed of the layer's own generator. None draws one: no two layers drop the same elements,
        and `fit` reseeds the generator from its own seed and the layer's place in the network, so
        that the same `fit` gives the same weights. Checkpoints save the generator's state.

    Raises
    ------
    TypeError, ValueError
        If `rate` is not in [0, 1), or `seed` no integer of at least 0.

    Examples
    --------
    >>> Dropout(0.5, seed=1).eval().forward(np.ones((2, 3))).sum()
    np.float64(6.0)
    """

    # Where several processes share a batch: images of it before this one's, and all of them.
    _part: tuple[int, int] | None = None

    def __init__(self, rate: float, *, seed: int | None = None) -> None:
        super().__init__()
        self.rate = unit_interval("rate", rate)
        self.seed = None if seed is None else positive_int("seed", seed, minimum=0)
        self.add_generator("rng", self.seed)
        self._cache: tuple[Array | None, tuple[int, ...], Any] | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {"rate": self.rate, "seed": self.seed}

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations; the mask is drawn before all others."""
        rate = graph.setting(self, "rate")
        if not trains(graph, self) or rate == 0:
            return x, lambda dy, need: dy
        mask = graph.value(x.shape, x.dtype)
        graph.draw(
            "mask", lambda out: np.copyto(out, self._mask(out.shape, out.dtype)), (), (mask,)
        )
        y = each(graph, "forward", "multiply", x, mask)

        def backward(dy: Value, need: bool) -> Value | None:
            return each(graph, "backward", "multiply", dy, mask) if need else None

        return y, backward

    def _mask(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """0 with probability `rate`, else ``1 / (1 - rate)``."""
        kind = np.dtype(dtype).type
        drawn = uniform(self._generators["rng"], self._drawn(shape), kind, self._part)
        kept = drawn >= self.rate
        return np.broadcast_to(kept * kind(1 / (1 - self.rate)), shape)

    @staticmethod
    def _drawn(shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what is drawn for an input of a shape."""
        return shape

    @quiet
    def forward(self, x: Array) -> Array:
        """Drop elements of `x` while training; return `x` itself in evaluation."""
        check_array("x", x, self)
        mask = None
        if self.training and self.rate > 0:
            mask = self._mask(x.shape, x.dtype)
        self._cache = (mask, x.shape, x.dtype)
        return x if mask is None else self._times(x, mask)

    def _times(self, a: Array, mask: Array) -> Array:
        product: Array = self._pick(elementwise, naive_elementwise).multiply(a, mask)
        return product

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: the error of the kept elements, scaled as they were."""
        mask, shape, dtype = self._saved(self._cache)
        self._check_dy(dy, shape, dtype)
        return dy if mask is None else self._times(dy, mask)


@register(onnx=onnx.dropout, pixelwise=True)
class SpatialDropout(Dropout):
    """While training, zero whole channels of each image with probability `rate`.

    Tompson et al. 2015; neighbouring pixels tell each other what `Dropout` would hide. Kept
    channels are divided by 1 - rate.

    Parameters
    ----------
    rate, seed
        As in `Dropout`.

    Raises
    ------
    TypeError, ValueError
        If `rate` is not in [0, 1), or `seed` no integer of at least 0.

    Examples
    --------
    >>> y = SpatialDropout(0.5, seed=1).forward(np.ones((2, 4, 4, 8)))
    >>> bool((y == y[:, :1, :1]).all())
    True
    """

    def __init__(self, rate: float, *, seed: int | None = None) -> None:
        super().__init__(rate, seed=seed)

    @staticmethod
    def _drawn(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], *(1 for _ in shape[1:-1]), shape[-1]) if len(shape) > 2 else shape
