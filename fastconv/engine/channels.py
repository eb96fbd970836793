"""Calls of the loops over channels: fills, sums and means of images, and batch normalisation.

Arrays are contiguous, in the machine's byte order, of one dtype; nothing is validated. Cuts depend
on the shape alone, so sums have the same bits whatever the threads, the host's vectors or the
layout that the caller copied from. The entry knows whether a ReLU
follows and whether statistics are frozen.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastconv.engine import array_words as aw
from fastconv.engine.call import Call
from fastconv.engine.loops.bias_grad import CHAINS, FEW
from fastconv.engine.tables.workspace import address_of

__all__ = ["bias_grad_call", "bias_sums_nbytes", "fill_call", "image_means_call",
           "norm_backward_call", "norm_forward_call", "norm_frozen_call", "norm_parts_nbytes",
           "norm_statistics_call", "norm_sums_call", "table_shape"]  # fmt: skip

# Elements that are worth another thread.
GRAIN = 100_000
# Elements of an item, at least, and rows of it: a part's sums are small beside what is summed.
ITEM = 2**14
ITEM_ROWS = 64
# Bytes of a block, which stays in the first-level cache, and rows of it, at least.
BLOCK = 2**13
BLOCK_ROWS = 16
# Bytes of the block of a pass that writes, but a row at least: what is written must lie in a row.
# (128 images of 26x26x32: 0.66 ms, and 1.29 ms in blocks of 8 KiB.)
STRIP = 2**10
# Few channels: several pixels make a row of whole vectors, of so many elements at most.
LANES = 16
WIDTH = 512
# A row has several pixels only if there are so many rows.
ROWS = 8
# Bytes of pixels of an image that are summed together, and pixels, at least.
BIAS_BLOCK = 2**14
BIAS_ROWS = 4


def bias_sums_nbytes(shape: tuple[int, ...]) -> int:
    """Bytes of the sums of `bias_grad_call` for a dy of a shape: of images, then the items' own."""
    return 8 * (shape[0] * shape[-1] + _image_items(shape) * CHAINS * FEW)


def _image_items(shape: tuple[int, ...]) -> int:
    """Into how many items images are cut."""
    return max(1, min(shape[0], math.prod(shape) // ITEM))


def bias_grad_call(entry: int, dy: np.ndarray, sums: int, db: np.ndarray | None) -> Call:
    """``db[f]`` = sum of ``dy[..., f]``, of at least one image.

    Parameters
    ----------
    dy : ndarray (m, ..., F)
    sums : int
        Address of `bias_sums_nbytes` bytes, which begin with the images' sums (m, F).
    db : ndarray (F,), optional
        Without it the images' sums are all that is wanted.
    """
    m, F = dy.shape[0], dy.shape[-1]
    pixels = math.prod(dy.shape[1:-1])
    block = max(BIAS_ROWS, BIAS_BLOCK // (F * dy.itemsize))
    items = _image_items(dy.shape)
    words = (address_of(dy), sums, 0 if db is None else address_of(db), m, pixels, F, block, items)
    return Call(entry, words, items, dy.size, GRAIN)


def image_means_call(entry: int, x: np.ndarray, y: np.ndarray) -> Call:
    """``y[n, c]`` = mean of ``x[n, ..., c]``, of at least one pixel."""
    m, C = x.shape[0], x.shape[-1]
    pixels = math.prod(x.shape[1:-1])
    items = _image_items(x.shape)
    words = (address_of(x), address_of(y), m, pixels, C, items)
    return Call(entry, words, items, x.size, GRAIN)


def fill_call(entry: int, y: np.ndarray, b: np.ndarray | None, relu: bool) -> Call:
    """``y[..., f] = b[f]``, with `relu` ``max(b[f], 0)``; 0 without `b`."""
    F = y.shape[-1]
    rows = y.size // max(1, F)
    items = max(1, min(rows, y.size // ITEM))
    words = (address_of(y), 0 if b is None else address_of(b), rows, F, relu, items)
    return Call(entry, words, items, y.size, GRAIN)


# ------------------------------------------------------------------------------- normalisation


def table_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int]:
    """Shape of the table that the calls of one batch normalisation share, of the array's dtype."""
    return aw.TABLE_ROWS, _cuts(shape, dtype.itemsize, False).width


def norm_parts_nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of the parts of `norm_statistics_call` and `norm_sums_call`."""
    cuts = _cuts(shape, dtype.itemsize, False)
    return 16 * cuts.items * cuts.width


class _Cuts(NamedTuple):
    """How an array is cut: elements of a row, items, and the words from `CHANNELS_C` on."""

    width: int
    items: int
    words: tuple[int, ...]


@lru_cache(512)
def _cuts(shape: tuple[int, ...], itemsize: int, strips: bool) -> _Cuts:
    """The cuts of an array (..., C); `strips` is for passes that write."""
    pixels, C = math.prod(shape[:-1]), shape[-1]
    group = LANES // math.gcd(C, LANES)
    if group * C > WIDTH or pixels < ROWS * group:
        group = 1
    width = group * C
    rows, rest = divmod(pixels, group)
    items = max(1, min(rows * width // ITEM, rows // ITEM_ROWS))
    nbytes, least = (STRIP, 1) if strips else (BLOCK, BLOCK_ROWS)
    block = max(least, nbytes // (width * itemsize))
    return _Cuts(width, items, (C, width, rows, rest * C, block, items))


def _call(
    entry: int, like: np.ndarray, addresses: tuple[int, ...], others: tuple[int, ...] = (), *,
    arrays: int, strips: bool = True,
) -> Call:  # fmt: skip
    """A call for an array like `like`, whose work is as that of `arrays` arrays."""
    cuts = _cuts(like.shape, like.itemsize, strips)
    words = (*addresses, *cuts.words, *others)
    return Call(entry, words, cuts.items, arrays * like.size, GRAIN)


def _bits(value: float) -> int:
    """The int64 of a double's bits."""
    return int(struct.unpack("q", struct.pack("d", value))[0])


def _channels(
    scale: np.ndarray, shift: np.ndarray, mean: np.ndarray, variance: np.ndarray,
    momentum: float, epsilon: float,
) -> tuple[int, ...]:  # fmt: skip
    """The words of a call of statistics from `array_words.CHANNELS_SUM_GRADS` on."""
    addresses = map(address_of, (scale, shift, mean, variance))
    return (0, 0, *addresses, _bits(momentum), _bits(epsilon))


def norm_statistics_call(
    entry: int, x: np.ndarray, parts: int, table: np.ndarray, scale: np.ndarray, shift: np.ndarray,
    mean: np.ndarray, variance: np.ndarray, momentum: float, epsilon: float,
) -> Call:  # fmt: skip
    """Statistics of the batch `x` into `table`; the running `mean` and `variance` move.

    Parameters
    ----------
    x : ndarray (..., C)
        At least one pixel.
    parts : int
        Address of `norm_parts_nbytes` bytes, of this call alone.
    table : ndarray
        Of `table_shape`; written.
    scale, shift, mean, variance : ndarray (C,)
    momentum, epsilon : float
    """
    addresses = (address_of(x), 0, 0, address_of(table), parts)
    others = _channels(scale, shift, mean, variance, momentum, epsilon)
    return _call(entry, x, addresses, others, arrays=1, strips=False)


def norm_frozen_call(
    entry: int, shape: tuple[int, ...], table: np.ndarray, scale: np.ndarray, shift: np.ndarray,
    mean: np.ndarray, variance: np.ndarray, epsilon: float,
) -> Call:  # fmt: skip
    """The running statistics into `table`, for arrays of a shape."""
    cuts = _cuts(shape, table.itemsize, False)
    others = _channels(scale, shift, mean, variance, 0.0, epsilon)
    words = (0, 0, 0, address_of(table), 0, *cuts.words, *others)
    return Call(entry, words, 1, 0, GRAIN)


def norm_forward_call(entry: int, x: np.ndarray, table: np.ndarray, y: np.ndarray) -> Call:
    """``y = (x - mean) * inverse * scale + shift``, each operation rounded; or max(y, 0)."""
    addresses = (address_of(x), address_of(x), address_of(y), address_of(table), 0)
    return _call(entry, x, addresses, arrays=2)


def norm_sums_call(
    entry: int, dy: np.ndarray, x: np.ndarray, parts: int, table: np.ndarray, scale: np.ndarray,
    scale_grad: np.ndarray, shift_grad: np.ndarray,
) -> Call:  # fmt: skip
    """Gradients of scale and shift, and what `norm_backward_call` needs, into `table`.

    `dy` is the error of y, or of max(y, 0). `parts` as in `norm_statistics_call`.
    """
    addresses = (address_of(dy), address_of(x), 0, address_of(table), parts)
    others = tuple(map(address_of, (shift_grad, scale_grad, scale)))
    return _call(entry, x, addresses, others, arrays=2, strips=False)


def norm_backward_call(
    entry: int, dy: np.ndarray, x: np.ndarray, table: np.ndarray, dx: np.ndarray
) -> Call:
    """``dx = factor * (dy - mean_dy - normal * mean_dy_normal)``; frozen: ``factor * dy``."""
    addresses = (address_of(dy), address_of(x), address_of(dx), address_of(table), 0)
    return _call(entry, x, addresses, arrays=3)
