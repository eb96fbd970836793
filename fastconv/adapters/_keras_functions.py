"""Convolution and pooling under Keras's names, with its arguments and its kernels.

Kernels are `(*window, C/G, F)` in both layouts. Arrays keep their dtype: bfloat16 is computed in
float32, integers exactly. An output without elements is a ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import fft as scipy_fft

import fastconv as fc
from fastconv.adapters._host import host
from fastconv.adapters._numbers import as_float, product
from fastconv.adapters._transpose import conv_transpose as transposed
from fastconv.operands import quiet

__all__ = ["FUNCTIONS", "TRANSFORMS"]


def conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> np.ndarray:
    """Convolution; groups are the ratio of the input's channels to the kernel's."""
    x, w, layout = *_operands(inputs, kernel), _layout(data_format)
    C, c_group = _channels(x, layout), w.shape[-2]
    if C % c_group:
        raise ValueError(
            "The number of input channels must be a multiple of the kernel's. "
            f"Received: input channels={C}, kernel input channels={c_group}"
        )
    return product(
        lambda x, w: fc.conv(
            x,
            w,
            stride=_integers(strides),
            padding=padding.lower(),
            dilation=_integers(dilation_rate),
            groups=C // c_group,
            data_format=layout,
        ),
        x,
        w,
    )


def depthwise_conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> np.ndarray:
    """Every channel by itself: the kernel's `(*window, C, n)` are C groups of n filters."""
    x, w, layout = *_operands(inputs, kernel), _layout(data_format)
    _check_channels(_channels(x, layout), w.shape[-2])
    w = w.reshape(*w.shape[:-2], 1, w.shape[-2] * w.shape[-1])
    return conv(x, w, strides, padding, layout, dilation_rate)


def conv_transpose(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> np.ndarray:
    """Transposed convolution with a kernel `(*window, F, C)`."""
    utilities = host("keras.src.backend.common.backend_utils", "keras")
    x, w, layout = *_operands(inputs, kernel), _layout(data_format)
    _check_channels(_channels(x, layout), w.shape[-1])
    rank = w.ndim - 2
    s, d = _per_axis(strides, rank), _per_axis(dilation_rate, rank)
    # JAX convolves the stretched input, padded by these; each leaves effective - 1 at most.
    padded = utilities.compute_conv_transpose_padding_args_for_jax(
        input_shape=x.shape,
        kernel_shape=w.shape,
        strides=s,
        padding=padding,
        output_padding=output_padding,
        dilation_rate=d,
    )
    reach = [(k - 1) * step for k, step in zip(w.shape[:rank], d, strict=True)]
    cut = [(r - lo, r - hi) for r, (lo, hi) in zip(reach, padded, strict=True)]
    return product(
        lambda x, w: transposed(x, w, stride=s, cut=cut, dilation=d, data_format=layout), x, w
    )


def max_pool(
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> np.ndarray:
    """Largest element of each window, in the input's dtype."""
    x = _array(inputs)
    y: np.ndarray = fc.max_pool(as_float(x), **_pooling(pool_size, strides, padding, data_format))
    return y.astype(x.dtype, copy=False)


def average_pool(
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> np.ndarray:
    """Mean of each window's cells inside the input: in the input's dtype, of integers float64."""
    x = _array(inputs)
    if x.dtype.kind == "b":
        raise TypeError("average_pool: inputs are bool; convert them to numbers")
    integers = x.dtype.kind in "iu"
    y = fc.avg_pool(
        as_float(x).astype(np.float64) if integers else as_float(x),
        **_pooling(pool_size, strides, padding, data_format),
    )
    return y if integers else y.astype(x.dtype, copy=False)


def fft(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Fourier transform of (real, imaginary) over the last axis."""
    return _transform(scipy_fft.fft, x)


def fft2(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Fourier transform of (real, imaginary) over the last two axes."""
    return _transform(scipy_fft.fft2, x)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: quiet(f) for f in (conv, depthwise_conv, conv_transpose, max_pool, average_pool)
}
# In Keras these two are JAX's as well.
TRANSFORMS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (fft, fft2)}


def _transform(function: Callable[..., Any], x: Any) -> tuple[np.ndarray, np.ndarray]:
    real, imaginary = (_array(part) for part in x)
    y = function(real + 1j * imaginary)
    return y.real.astype(real.dtype), y.imag.astype(real.dtype)


def _array(value: Any) -> np.ndarray:
    """A tensor as it is; a variable or nested list as an array."""
    if isinstance(value, np.ndarray):
        return value
    array: np.ndarray = host("keras", "keras").ops.convert_to_tensor(value)
    return array


def _operands(inputs: Any, kernel: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays. Where they differ in 32 against 64 bits only, the kernel follows."""
    x, w = _array(inputs), _array(kernel)
    if x.dtype.kind == w.dtype.kind and x.dtype.itemsize + w.dtype.itemsize == 4 + 8:
        w = w.astype(x.dtype)
    return x, w


def _layout(data_format: str | None) -> str:
    layout: str = data_format or host("keras", "keras").config.image_data_format()
    return layout


def _channels(x: np.ndarray, layout: str) -> int:
    return x.shape[-1] if layout == "channels_last" else x.shape[1]


def _check_channels(C: int, expected: int) -> None:
    if expected != C:
        raise ValueError(
            "The number of input channels must match the kernel's input channels. "
            f"Received: input channels={C}, kernel input channels={expected}"
        )


def _integers(value: int | Sequence[int]) -> Any:
    return value if isinstance(value, int) else tuple(value)


def _per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _pooling(pool_size: Any, strides: Any, padding: str, data_format: str | None) -> dict[str, Any]:
    """Arguments of a pooling, in fastconv's words."""
    return {
        "window": _integers(pool_size),
        "stride": None if strides is None else _integers(strides),
        "padding": padding.lower(),
        "data_format": _layout(data_format),
    }
