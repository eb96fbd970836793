"""Normalisation within each image: layer, group and instance normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import (
    Array,
    check_array,
    layer_error,
    positive_int,
    quiet,
    real_number,
)
from fastconv.nn.init import parameter_dtype
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import register
from fastconv.program.naive import norms as naive_norms
from fastconv.program.ops import norms
from fastconv.typing import DTypeLike

__all__ = ["GroupNorm", "InstanceNorm", "LayerNorm"]


class _Norm(Layer):
    """What the three share; `groups` are of channels, and are normalised each on its own."""

    def __init__(self, groups: int, channels: int, epsilon: float, dtype: DTypeLike) -> None:
        super().__init__()
        self.groups, self.channels = groups, channels
        self.epsilon = real_number("epsilon", epsilon, minimum=0.0)
        self.dtype = parameter_dtype(dtype)
        self.scale = self.add_parameter("scale", np.ones(channels, self.dtype))
        self.shift = self.add_parameter("shift", np.zeros(channels, self.dtype))
        self._cache: tuple[Array, Array, tuple[int, ...]] | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {"channels": self.channels, "epsilon": self.epsilon, "dtype": self.dtype.name}

    def _images(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """What is normalised as images of pixels: (images, pixels, channels)."""
        return shape[0], math.prod(shape[1:-1]), shape[-1]

    @quiet
    def forward(self, x: Array) -> Array:
        """Normalise `x` (m, ..., C); training and evaluation do the same."""
        check_array("x", x, self)
        if x.ndim < 2 or x.shape[-1] != self.channels:
            cause = f"x: expected (m, ..., {self.channels}), got {x.shape}"
            raise layer_error(ValueError, self, cause)
        if x.dtype != self.dtype:
            raise layer_error(TypeError, self, f"x: expected dtype {self.dtype}, got {x.dtype}")
        images = self._images(x.shape)
        y, *kept = self._pick(norms, naive_norms).group_norm(
            x.reshape(images), self.scale.value, self.shift.value, self.groups, self.epsilon
        )
        self._cache = (*kept, x.shape)
        result: Array = y.reshape(x.shape)
        return result

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`; write the gradients of scale and shift."""
        normal, inverse, shape = self._saved(self._cache)
        self._check_dy(dy, shape, self.dtype)
        dx, self.scale.grad[...], self.shift.grad[...] = self._pick(
            norms, naive_norms
        ).group_norm_backward(
            dy.reshape(normal.shape), normal, inverse, self.scale.value, self.groups
        )
        result: Array = dx.reshape(shape)
        return result


@register(onnx=onnx.layer_norm, takes=onnx.channels_of, pixelwise=True)
class LayerNorm(_Norm):
    """Normalise the channels of each pixel, then scale and shift: Ba et al. 2016.

    As PyTorch's ``nn.LayerNorm(channels)`` on channels-last images, and Keras's
    ``LayerNormalization``.

    Parameters
    ----------
    channels : int
        Length C of the last axis; the input may have any number of axes before it.
    epsilon : float
        Added to the variance.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    scale, shift : Parameter (C,)
        Start as ones and zeros.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> LayerNorm(4).forward(np.ones((2, 3, 3, 4), np.float32)).shape
    (2, 3, 3, 4)
    """

    def __init__(
        self, channels: int, *, epsilon: float = 1e-5, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__(1, positive_int("channels", channels), epsilon, dtype)

    def _images(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        return math.prod(shape[:-1]), 1, shape[-1]


@register(onnx=onnx.group_norm, takes=onnx.channels_of)
class GroupNorm(_Norm):
    """Normalise groups of channels of each image, then scale and shift: Wu and He 2018.

    Parameters
    ----------
    groups, channels : int
        The channels C, the last axis, are split into so many groups of neighbours.
    epsilon, dtype
        As in `LayerNorm`.

    Attributes
    ----------
    scale, shift : Parameter (C,)
        Start as ones and zeros.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; also where the groups do not divide the channels.

    Examples
    --------
    >>> GroupNorm(2, 4).forward(np.ones((2, 3, 3, 4), np.float32)).shape
    (2, 3, 3, 4)
    """

    def __init__(
        self, groups: int, channels: int, *, epsilon: float = 1e-5, dtype: DTypeLike = np.float32
    ) -> None:
        groups, channels = positive_int("groups", groups), positive_int("channels", channels)
        if channels % groups:
            raise ValueError(f"groups: {groups} does not divide channels = {channels}")
        super().__init__(groups, channels, epsilon, dtype)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {"groups": self.groups, **super().config()}


@register(onnx=onnx.group_norm, takes=onnx.channels_of)
class InstanceNorm(_Norm):
    """Normalise each channel of each image, then scale and shift: Ulyanov et al. 2016.

    Parameters
    ----------
    channels, epsilon, dtype
        As in `LayerNorm`.

    Attributes
    ----------
    scale, shift : Parameter (C,)
        Start as ones and zeros.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; in a pass, where an image has one pixel: its deviation from its own
        mean says nothing.

    Examples
    --------
    >>> InstanceNorm(4).forward(np.ones((2, 3, 3, 4), np.float32)).shape
    (2, 3, 3, 4)
    """

    def __init__(
        self, channels: int, *, epsilon: float = 1e-5, dtype: DTypeLike = np.float32
    ) -> None:
        channels = positive_int("channels", channels)
        super().__init__(channels, channels, epsilon, dtype)

    def _images(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        if math.prod(shape[1:-1]) == 1:
            cause = f"x: more than one pixel is needed, got {shape}"
            raise layer_error(ValueError, self, cause)
        return super()._images(shape)
