"""Inputs that make a comparison sharp: integers without rounding, values without ties."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple, Unpack

import numpy as np

from fastconv import reference
from fastconv.typing import Array, ConvOptions, DTypeLike, Shape

__all__ = ["Operands", "integer_operands", "untied"]

LARGEST = 32  # integer operands lie in [-32, 32]
ACCUMULATIONS = 16384  # products of 32 * 32 that add up to 2**24


class Operands(NamedTuple):
    """Operands of one convolution, forward and backward.

    Attributes
    ----------
    x : array (m, H, W, C)
    w : array (KH, KW, C/G, F)
    b : array (F,)
    dy : array (m, OH, OW, F)
    """

    x: Array
    w: Array
    b: Array
    dy: Array


def integer_operands(
    x_shape: Shape,
    w_shape: Shape,
    *,
    dtype: DTypeLike = np.float32,
    seed: int = 0,
    **options: Unpack[ConvOptions],
) -> Operands:
    """Integers in [-32, 32] for which every partial sum of a convolution is exact in float32.

    A right implementation then gives the exact result in all three products, bit for bit, in
    whatever order it sums. Where a sum has more than 16384 terms, w (in y and dx) or dy (in dw)
    is made sparse enough; x and b never are.

    Parameters
    ----------
    x_shape : sequence of int
        ``(m, H, W, C)``, in the order of `data_format`; 1-D and 3-D likewise.
    w_shape : sequence of int
        ``(KH, KW, C/G, F)``.
    dtype : dtype
        Of the operands: float16, float32 or float64.
    seed : int
        Same seed, same operands.
    **options
        stride, padding, dilation, groups, data_format, as for `fastconv.conv`.

    Returns
    -------
    Operands
        ``x``, ``w``, ``b (F,)`` and ``dy``, shaped like y. For a transposed convolution, which is
        this one backwards, ``dy`` is the input and ``x`` the error.

    Raises
    ------
    ValueError
        Where the shapes do not fit together.

    Examples
    --------
    >>> x, w, b, dy = integer_operands((2, 8, 8, 3), (3, 3, 3, 4), stride=2)
    >>> dy.shape, bool(abs(x).max() <= 32)
    ((2, 3, 3, 4), True)
    """
    rng = np.random.default_rng(seed)
    given: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **options}
    data_format = given.pop("data_format", "channels_last")
    shape = reference._shape("x_shape", x_shape, data_format, len(w_shape))
    w_sizes = tuple(operator.index(n) for n in w_shape)
    _, y_shape = reference._conv_grid(shape, w_sizes, **given)
    *taps, channel, filters = range(len(w_shape))
    w = _sparse_integers(rng, w_sizes, (*taps, channel), (*taps, filters))  # for y, dx
    dy = _sparse_integers(rng, y_shape, tuple(range(len(y_shape) - 1)))  # for dw
    dy = np.moveaxis(dy, -1, 1) if data_format == "channels_first" else dy
    x = rng.integers(-LARGEST, LARGEST + 1, tuple(operator.index(n) for n in x_shape))
    b = rng.integers(-LARGEST, LARGEST + 1, w_sizes[-1])
    return Operands(*(a.astype(dtype, order="C") for a in (x, w, b, dy)))


def _sparse_integers(
    rng: np.random.Generator, shape: tuple[int, ...], *sums: tuple[int, ...]
) -> np.ndarray:
    """Integers that, each times 32, cannot pass 2**24 when summed over any of the axes `sums`."""
    values = rng.integers(-LARGEST, LARGEST + 1, shape)
    terms = max(math.prod(shape[a] for a in axes) for axes in sums)
    values[rng.random(shape) * terms >= ACCUMULATIONS] = 0
    room = ACCUMULATIONS * LARGEST - 1  # in units of 32; the bias takes one
    while any(np.abs(values).sum(axis=axes).max(initial=0) > room for axes in sums):
        values[rng.random(shape) < 0.1] = 0  # the magnitudes average 16: hardly ever needed
    return values


def untied(shape: Shape, *, dtype: DTypeLike = np.float64, seed: int = 0) -> Array:
    """Distinct values, at least 1/64 apart and away from zero, in random order.

    A step of `gradcheck` then changes no winner of a max pool and crosses no kink of a ReLU.

    Parameters
    ----------
    shape : sequence of int
        Shape of the array.
    dtype : dtype
        Floating-point type.
    seed : int
        Same seed, same array.

    Returns
    -------
    ndarray
        A permutation of the odd multiples of 1/128 around zero.

    Raises
    ------
    ValueError
        Where `dtype` has too few digits for so many values.

    Examples
    --------
    >>> np.sort(untied((2, 2)), axis=None)
    array([-0.0234375, -0.0078125,  0.0078125,  0.0234375])
    """
    sizes = tuple(operator.index(n) for n in shape)
    size = math.prod(sizes)
    if size > 2 ** (np.finfo(dtype).nmant + 1):
        raise ValueError(f"{size} values are more than {np.dtype(dtype)} can keep apart")
    odd = 2 * np.random.default_rng(seed).permutation(size) - size + 1 - size % 2
    return (odd / 128).astype(dtype).reshape(sizes)
