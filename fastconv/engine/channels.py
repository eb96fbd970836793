"""Calls of the loops over channels: the bias's gradient, and batch normalisation.

Arrays are contiguous, in the machine's byte order, of one dtype; nothing is validated. Cuts depend
on the shape alone, so sums have the same bits whatever the threads, the host's vectors or the
layout that the caller copied from.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.entries import network_address
from fastconv.engine.tables.workspace import address_of

__all__ = ["Cuts", "bias_cuts", "bias_grad_call", "channel_cuts", "norm_backward_call",
           "norm_forward_call", "norm_frozen_call", "norm_parts_nbytes", "norm_statistics_call",
           "norm_sums_call", "table_shape"]  # fmt: skip

# Elements that are worth another thread.
GRAIN = 100_000
# Elements of an item, at least, and rows of it: a part's sums are small beside what is summed.
ITEM = 2**14
ITEM_ROWS = 64
# Bytes of a block, which stays in the first-level cache, and rows of it, at least.
BLOCK = 2**13
BLOCK_ROWS = 16
# Few channels: several pixels make a row of whole vectors, of so many elements at most.
LANES = 16
WIDTH = 512
# A row has several pixels only if there are so many rows.
ROWS = 8


@dataclass(frozen=True)
class Cuts:
    """How the pixels of an array are cut into items (see `loops.channels`).

    Attributes
    ----------
    width : int
        Elements of a row: those of ``width // C`` pixels.
    items : int
    words : tuple of int
        From `words.CHANNELS_C` on.
    ends : tuple of int
        Where units end, in pixels. A unit is whole images or a whole image, and `cuts` items.
    """

    width: int
    items: int
    elements: int
    words: tuple[int, ...]
    units: int
    unit_pixels: int
    cuts: int


@lru_cache(512)
def channel_cuts(pixels: int, C: int, itemsize: int) -> Cuts:
    """Cut an array (pixels, C)."""
    return _cuts(pixels, pixels, C, itemsize)


@lru_cache(512)
def bias_cuts(m: int, pixels: int, C: int, itemsize: int) -> Cuts:
    """Cut an array (m, pixels, C) at images, so that a copy of some is cut as the whole is."""
    images = max(1, ITEM // max(1, pixels * C))
    return _cuts(m * pixels, min(images, max(m, 1)) * pixels, C, itemsize)


def _cuts(pixels: int, unit: int, C: int, itemsize: int) -> Cuts:
    group = LANES // math.gcd(C, LANES)
    if group * C > WIDTH or unit < ROWS * group:
        group = 1
    width, units = group * C, max(1, -(-pixels // max(1, unit)))
    last = pixels - (units - 1) * unit
    rows, rest = divmod(unit, group)
    last_rows, last_rest = divmod(last, group)
    cuts = max(1, min(rows * width // ITEM, rows // ITEM_ROWS))
    block = max(BLOCK_ROWS, BLOCK // (width * itemsize))
    words = (C, width, rows, rest * C, units, last_rows, last_rest * C, cuts, block, units * cuts)
    return Cuts(width, units * cuts, pixels * C, words, units, unit, cuts)


def _call(name: str, dtype: np.dtype, cuts: Cuts, addresses: tuple[int, ...],
          others: tuple[int, ...] = (), *, entry: int = 0, arrays: int = 1) -> Call:  # fmt: skip
    """A call whose work is as that of `arrays` arrays."""
    words = (*addresses, *cuts.words, *others)
    entry = entry or network_address(name, dtype)
    return Call(entry, words, cuts.items, arrays * cuts.elements, GRAIN)


def bias_grad_call(
    dy: np.ndarray, parts: int, db: np.ndarray | None, cuts: Cuts, *, entry: int = 0
) -> Call:
    """``db[f]`` = sum of ``dy[..., f]``; `parts`: address of ``8 * items * width`` bytes.

    With None in place of `db` the sums of the items are all that is wanted.
    """
    addresses = (address_of(dy), 0, 0, 0, parts)
    others = (0 if db is None else address_of(db),)
    return _call("bias_grad", dy.dtype, cuts, addresses, others, entry=entry)


# ------------------------------------------------------------------------------- normalisation


def table_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int]:
    """Shape of the table that the calls of one batch normalisation share, of the array's dtype."""
    return s.TABLE_ROWS, _norm_cuts(shape, dtype).width


def norm_parts_nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of the parts of `norm_statistics_call` and `norm_sums_call`."""
    cuts = _norm_cuts(shape, dtype)
    return 16 * cuts.items * cuts.width


def _norm_cuts(shape: tuple[int, ...], dtype: np.dtype) -> Cuts:
    return channel_cuts(math.prod(shape[:-1]), shape[-1], dtype.itemsize)


def _bits(value: float) -> int:
    """The int64 of a double's bits."""
    return int(struct.unpack("q", struct.pack("d", value))[0])


def _statistics(
    name: str, x: np.ndarray | None, parts: int, table: np.ndarray, cuts: Cuts, items: int,
    scale: np.ndarray, shift: np.ndarray, mean: np.ndarray, variance: np.ndarray,
    momentum: float, epsilon: float, entry: int,
) -> Call:  # fmt: skip
    addresses = (0 if x is None else address_of(x), 0, 0, address_of(table), parts)
    others = (0, 0, *map(address_of, (scale, shift, mean, variance)), _bits(momentum),
              _bits(epsilon))  # fmt: skip
    call = _call(name, table.dtype, cuts, addresses, others, entry=entry)
    return call._replace(items=items, work=call.work if items > 1 else 0)


def norm_statistics_call(
    x: np.ndarray, parts: int, table: np.ndarray, scale: np.ndarray, shift: np.ndarray,
    mean: np.ndarray, variance: np.ndarray, momentum: float, epsilon: float, *, entry: int = 0,
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
    entry : int
        Address of an entry to try.
    """
    cuts = _norm_cuts(x.shape, x.dtype)
    return _statistics("norm_statistics", x, parts, table, cuts, cuts.items, scale, shift, mean,
                       variance, momentum, epsilon, entry)  # fmt: skip


def norm_frozen_call(
    shape: tuple[int, ...], table: np.ndarray, scale: np.ndarray, shift: np.ndarray,
    mean: np.ndarray, variance: np.ndarray, epsilon: float, *, entry: int = 0,
) -> Call:  # fmt: skip
    """The running statistics into `table`, for arrays of a shape."""
    cuts = _norm_cuts(shape, table.dtype)
    return _statistics("norm_frozen", None, 0, table, cuts, 1, scale, shift, mean, variance,
                       0.0, epsilon, entry)  # fmt: skip


def norm_forward_call(
    x: np.ndarray, table: np.ndarray, y: np.ndarray, relu: bool = False, *, entry: int = 0
) -> Call:
    """``y = (x - mean) * inverse * scale + shift``, each operation rounded; then max(y, 0)."""
    cuts = _norm_cuts(x.shape, x.dtype)
    addresses = (address_of(x), address_of(x), address_of(y), address_of(table), 0)
    name = "norm_forward_relu" if relu else "norm_forward"
    return _call(name, x.dtype, cuts, addresses, entry=entry, arrays=2)


def norm_sums_call(
    dy: np.ndarray, x: np.ndarray, parts: int, table: np.ndarray, scale: np.ndarray,
    scale_grad: np.ndarray, shift_grad: np.ndarray, relu: bool = False, *, entry: int = 0,
) -> Call:  # fmt: skip
    """Gradients of scale and shift, and what `norm_backward_call` needs, into `table`.

    `dy` is the error of y, with `relu` of max(y, 0). `parts` as in `norm_statistics_call`.
    """
    cuts = _norm_cuts(x.shape, x.dtype)
    addresses = (address_of(dy), address_of(x), 0, address_of(table), parts)
    others = tuple(map(address_of, (shift_grad, scale_grad, scale)))
    name = "norm_sums_relu" if relu else "norm_sums"
    return _call(name, x.dtype, cuts, addresses, others, entry=entry, arrays=2)


def norm_backward_call(
    dy: np.ndarray, x: np.ndarray, table: np.ndarray, dx: np.ndarray, relu: bool = False,
    frozen: bool = False, *, entry: int = 0,
) -> Call:  # fmt: skip
    """``dx = factor * (dy - mean_dy - normal * mean_dy_normal)``; frozen: ``factor * dy``."""
    cuts = _norm_cuts(x.shape, x.dtype)
    addresses = (address_of(dy), address_of(x), address_of(dx), address_of(table), 0)
    name = f"norm{'_frozen' * frozen}_backward{'_relu' * relu}"
    return _call(name, x.dtype, cuts, addresses, entry=entry, arrays=3)
