"""Types of the public arguments and results, for annotations of one's own.

Functions take what NumPy can make an array of (`ArrayLike`) and return arrays (`Array`). Keyword
arguments that are passed on have a TypedDict, for ``**options: Unpack[ConvOptions]``.

Examples
--------
>>> from fastconv import conv
>>> def smooth(x: Array, padding: Padding = "same") -> Array:
...     return conv(x, np.full((3, 3, 1, 1), 1 / 9), padding=padding)
>>> smooth(np.ones((1, 3, 3, 1)))[0, 1, 1, 0].round(3)
np.float64(1.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex, TypedDict

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = [
    "Activation",
    "Algorithm",
    "Array",
    "ArrayLike",
    "ConvOptions",
    "ConvTransposeOptions",
    "DTypeLike",
    "DataFormat",
    "Indices",
    "Int",
    "Operand",
    "Padding",
    "PaddingMode",
    "PaddingName",
    "PoolOptions",
    "Shape",
]

# Operands and results: float16, float32 or float64.
Array = NDArray[np.floating[Any]]
# An argmax: flat spatial indices h*W + w.
Indices = NDArray[np.int64]
# Sizes in, such as x_shape; any integers, NumPy's too.
Shape = Sequence[SupportsIndex]
# One integer for all spatial axes, or one per axis.
Int = SupportsIndex | Sequence[SupportsIndex]
PaddingName = Literal["valid", "same", "full"]
# A name; one integer; one integer or (lo, hi) pair per axis.
Padding = PaddingName | SupportsIndex | Sequence[SupportsIndex | Sequence[SupportsIndex]]
# What stands in the padding, in NumPy's words; the constant is 0.
PaddingMode = Literal["constant", "reflect", "symmetric", "edge", "wrap"]
DataFormat = Literal["channels_last", "channels_first"]
Activation = Literal["relu"]
Algorithm = Literal["exact", "fast"]
# Whose gradient a backward function is asked for.
Operand = Literal["x", "w", "b"]


class ConvOptions(TypedDict, total=False):
    """What a convolution and all its gradients share."""

    stride: Int
    padding: Padding
    dilation: Int
    groups: int
    data_format: DataFormat
    padding_mode: PaddingMode
    algorithm: Algorithm | None


class ConvTransposeOptions(TypedDict, total=False):
    """What a transposed convolution and its gradients share."""

    stride: Int
    padding: Padding
    output_padding: Int
    dilation: Int
    groups: int
    data_format: DataFormat
    algorithm: Algorithm | None


class PoolOptions(TypedDict, total=False):
    """What poolings and their gradients share; an average has `count_include_pad` too."""

    stride: Int | None
    padding: Padding
    dilation: Int
    ceil_mode: bool
    data_format: DataFormat
