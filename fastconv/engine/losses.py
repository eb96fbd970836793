"""Calls of the losses' loops, on contiguous arrays in the machine's byte order.

`z` is (rows, width) and float32 or float64; `dz` is like it and shares no memory with it. `parts`
is `parts_of(...)` doubles for the call's own use; the three doubles of `result` are the mean of the
losses, how many rows are predicted right, and the first bad label or -1 (``words.LOSS_VALUE``).
With a bad label the mean is NaN, and only `dz`, `parts` and `result` have been written.
"""

from __future__ import annotations

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.entries import training_address
from fastconv.engine.tables.workspace import address_of

__all__ = ["binary_cross_entropy", "mean_squared_error", "parts_of", "softmax_cross_entropy"]

# Elements of an item, at least where there are as many; elements that are worth a thread.
BLOCK = 1024
GRAIN = 20_000


def _cuts(name: str, rows: int, width: int) -> tuple[int, int, int]:
    """Rows of an item, pieces of a row, and items; of the shape alone."""
    if width <= BLOCK or name == "softmax_cross_entropy":
        block = max(1, BLOCK // width)
        return block, 1, -(-rows // block)
    cuts = -(-width // BLOCK)
    return 1, cuts, rows * cuts


def parts_of(name: str, rows: int, width: int) -> tuple[int, int]:
    """Shape of `parts`."""
    return _cuts(name, rows, width)[2], s.LOSS_RESULTS


def softmax_cross_entropy(
    z: np.ndarray,
    y: np.ndarray,
    dz: np.ndarray,
    parts: np.ndarray,
    result: np.ndarray,
    entry: int = 0,
) -> Call:
    """``-log softmax(z)[y]`` of labels `y` (rows,) of int64; the mean is over the rows."""
    return _call("softmax_cross_entropy", z, y, dz, parts, result, len(z), entry)


def binary_cross_entropy(
    z: np.ndarray,
    y: np.ndarray,
    dz: np.ndarray,
    parts: np.ndarray,
    result: np.ndarray,
    entry: int = 0,
) -> Call:
    """``-y log p - (1 - y) log(1 - p)``, p the sigmoid of z, of labels `y` like z; of elements."""
    return _call("binary_cross_entropy", z, y, dz, parts, result, z.size, entry)


def mean_squared_error(
    z: np.ndarray,
    y: np.ndarray,
    dz: np.ndarray,
    parts: np.ndarray,
    result: np.ndarray,
    entry: int = 0,
) -> Call:
    """``(z - y)**2`` of numbers `y` like z; the mean is over the elements, none is right."""
    return _call("mean_squared_error", z, y, dz, parts, result, z.size, entry)


def _call(
    name: str,
    z: np.ndarray,
    y: np.ndarray,
    dz: np.ndarray,
    parts: np.ndarray,
    result: np.ndarray,
    count: int,
    entry: int,
) -> Call:
    rows, width = z.shape
    block, cuts, items = _cuts(name, rows, width)
    words = (
        z.itemsize, address_of(z), address_of(y), address_of(dz), rows, width, count, block, cuts,
        items, address_of(parts), address_of(result),
    )  # fmt: skip
    return Call(entry or training_address(name, z.dtype), words, items, z.size, GRAIN)
