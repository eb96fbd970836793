"""Calls of the losses' loops, on contiguous arrays in the machine's byte order.

`z` is (rows, width) and float32 or float64; `dz` is like it and shares no memory with it. `parts`
is `parts_of(...)` doubles for the call's own use; the three doubles of `result` are the mean of the
losses, how many rows are predicted right, and the first bad label or -1 (``LOSS_VALUE``).
With a bad label the mean is NaN, and only `dz`, `parts` and `result` have been written.
"""

from __future__ import annotations

import numpy as np

from fastconv.engine import array_words as aw
from fastconv.engine.call import Call
from fastconv.engine.tables.workspace import address_of

__all__ = ["loss_call", "parts_of"]

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
    return _cuts(name, rows, width)[2], aw.LOSS_RESULTS


def loss_call(
    entry: int, name: str, z: np.ndarray, y: np.ndarray, dz: np.ndarray, parts: np.ndarray,
    result: np.ndarray,
) -> Call:  # fmt: skip
    """The loss `name`, which is a function of `loops.losses`.

    Of "softmax_cross_entropy" `y` are labels (rows,) of int64, and the mean is over the rows; of
    the others it is an array like `z`, and the mean is over the elements.
    """
    rows, width = z.shape
    count = rows if name == "softmax_cross_entropy" else z.size
    block, cuts, items = _cuts(name, rows, width)
    words = (
        z.itemsize, address_of(z), address_of(y), address_of(dz), rows, width, count, block, cuts,
        items, address_of(parts), address_of(result),
    )  # fmt: skip
    return Call(entry, words, items, z.size, GRAIN)
