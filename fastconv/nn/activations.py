"""Layers that work on each element alone: ReLU, sigmoid, tanh, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.base import Array, Layer, check_array, positive_int, unit_interval
from fastconv.program import naive_elementwise
from fastconv.program.ops import elementwise


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), without overflow and in the dtype of `z`.

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

    def forward(self, x: Array) -> Array:
        """Apply the function to every element of `x`, any shape."""
        check_array("x", x, self)
        self._cache = self._function(x)
        return self._cache

    def backward(self, dy: Array) -> Array:
        """Return `dx` = dy times the derivative at the last input."""
        y = self._saved(self._cache)
        self._check_dy(dy, y.shape, y.dtype)
        return self._gradient(y, dy)


class ReLU(_Elementwise):
    """y = max(x, 0). The derivative at 0 is 0; a NaN stays a NaN.

    Examples
    --------
    >>> ReLU().forward(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def _function(self, x: Array) -> Array:
        y: Array = self._elementwise.relu(x)
        return y

    def _gradient(self, y: Array, dy: Array) -> Array:
        dx: Array = self.ops.relu_backward(dy, y)
        return dx


class Sigmoid(_Elementwise):
    """y = 1 / (1 + exp(-x)); the derivative is y (1 - y).

    Examples
    --------
    >>> Sigmoid().forward(np.zeros(1)).tolist()
    [0.5]
    """

    def _function(self, x: Array) -> Array:
        y: Array = self._elementwise.sigmoid(x)
        return y

    def _gradient(self, y: Array, dy: Array) -> Array:
        dx: Array = self._elementwise.sigmoid_backward(dy, y)
        return dx


class Tanh(_Elementwise):
    """y = tanh(x); the derivative is 1 - y**2.

    Examples
    --------
    >>> Tanh().forward(np.zeros(1)).tolist()
    [0.0]
    """

    def _function(self, x: Array) -> Array:
        y: Array = self._elementwise.tanh(x)
        return y

    def _gradient(self, y: Array, dy: Array) -> Array:
        dx: Array = self._elementwise.tanh_backward(dy, y)
        return dx


class Dropout(Layer):
    """While training, zero each element with probability `rate` and scale the others up.

    Srivastava et al. 2014, in the "inverted" form: kept elements are divided by 1 - rate while
    training, so that evaluation does nothing.

    Parameters
    ----------
    rate : float in [0, 1)
        Probability of a zero.
    seed : int
        Seed of the layer's own generator. Checkpoints save the generator's state.

    Examples
    --------
    >>> Dropout(0.5, seed=1).eval().forward(np.ones((2, 3))).sum()
    np.float64(6.0)
    """

    def __init__(self, rate: float, *, seed: int = 0) -> None:
        super().__init__()
        self.rate = unit_interval("rate", rate)
        self.seed = positive_int("seed", seed, minimum=0)
        self._generators["rng"] = np.random.default_rng(self.seed)
        self._cache: tuple[Array | None, tuple[int, ...], Any] | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {"rate": self.rate, "seed": self.seed}

    def forward(self, x: Array) -> Array:
        """Drop elements of `x` while training; return `x` itself in evaluation."""
        check_array("x", x, self)
        mask = None
        if self.training and self.rate > 0:
            kind = x.dtype.type
            kept = self._generators["rng"].random(x.shape, dtype=kind) >= self.rate
            mask = kept * kind(1 / (1 - self.rate))  # 0 or 1 / (1 - rate)
        self._cache = (mask, x.shape, x.dtype)
        return x if mask is None else self._times(x, mask)

    def _times(self, a: Array, mask: Array) -> Array:
        product: Array = self._pick(elementwise, naive_elementwise).multiply(a, mask)
        return product

    def backward(self, dy: Array) -> Array:
        """Return `dx`: the error of the kept elements, scaled as they were."""
        mask, shape, dtype = self._saved(self._cache)
        self._check_dy(dy, shape, dtype)
        return dy if mask is None else self._times(dy, mask)
