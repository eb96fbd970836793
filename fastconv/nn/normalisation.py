"""Batch normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.nn.base import Array, Layer, check_array, positive_int, real_number, unit_interval
from fastconv.nn.init import parameter_dtype
from fastconv.program import naive_batch_norm
from fastconv.program.ops import batch_norm


class BatchNorm(Layer):
    """Normalise each channel over the batch and all pixels, then scale and shift.

    Ioffe and Szegedy 2015. Training uses the mean and variance of the batch and moves the running
    statistics towards them; evaluation uses the running statistics.

    Parameters
    ----------
    channels : int
        Length C of the last axis; the input may have any number of axes before it.
    momentum : float in [0, 1)
        Share of the old running statistics that a step keeps.
    epsilon : float
        Added to the variance.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    scale, shift : Parameter (C,)
        Start as ones and zeros.
    running_mean, running_variance : ndarray (C,)
        Start as zeros and ones. The variance is the unbiased estimate, as in the paper.

    Examples
    --------
    >>> BatchNorm(4).forward(np.ones((2, 3, 3, 4), np.float32)).shape
    (2, 3, 3, 4)
    """

    def __init__(
        self,
        channels: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.channels = positive_int("channels", channels)
        self.momentum = unit_interval("momentum", momentum)
        self.epsilon = real_number("epsilon", epsilon, minimum=0.0)
        self.dtype = parameter_dtype(dtype)
        self.scale = self.add_parameter("scale", np.ones(self.channels, self.dtype))
        self.shift = self.add_parameter("shift", np.zeros(self.channels, self.dtype))
        self.running_mean: Array = np.zeros(self.channels, self.dtype)
        self.running_variance: Array = np.ones(self.channels, self.dtype)
        self._buffers["running_mean"] = self.running_mean
        self._buffers["running_variance"] = self.running_variance
        self._cache: tuple[Array, Array, bool] | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {
            "channels": self.channels,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "dtype": self.dtype.name,
        }

    def forward(self, x: Array) -> Array:
        """Normalise `x` (..., C); an empty batch leaves the running statistics alone."""
        check_array("x", x, self)
        if x.ndim < 2 or x.shape[-1] != self.channels:
            raise ValueError(f"{self!r}: x: expected (m, ..., {self.channels}), got {x.shape}")
        if x.dtype != self.dtype:
            raise TypeError(f"{self!r}: x: expected dtype {self.dtype}, got {x.dtype}")
        use_batch = self.training and math.prod(x.shape[:-1]) > 0
        ops = self._pick(batch_norm, naive_batch_norm)
        arrays = (self.scale.value, self.shift.value, self.running_mean, self.running_variance)
        y: Array
        if use_batch:
            y, x, table = ops.batch_norm(x, *arrays, self.momentum, self.epsilon)
        else:
            y, x, table = ops.batch_norm_frozen(x, *arrays, self.epsilon)
        self._cache = (x, table, use_batch)
        return y

    def backward(self, dy: Array) -> Array:
        """Return `dx`; write the gradients of scale and shift."""
        x, table, used_batch = self._saved(self._cache)
        self._check_dy(dy, x.shape, self.dtype)
        ops = self._pick(batch_norm, naive_batch_norm)
        dx: Array = ops.batch_norm_backward(
            dy, x, table, self.scale.value, self.scale.grad, self.shift.grad, not used_batch
        )
        return dx
