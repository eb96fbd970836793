"""Tiles along the rows of one panel, by the micro-kernel."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.intrinsics import columns_of, product
from fastconv.engine.emit.memory import word, words

__all__ = ["sweep"]


@inner
def sweep(task, tile):
    """Tiles along all rows of one panel; the only function that knows the tile.

    Parameters
    ----------
    task : int
        Address of the words of a task (`words.TASK_ROWS`, ...): rows, steps of the sum, and where
        the operands lie; offsets are in bytes.
    tile : tuple
        Its type is the tile, see `emit.intrinsics.product`.
    """
    rows, k = words(task, s.TASK_ROWS, 2)
    a, row, red = words(task, s.TASK_LEFT, 3)
    right = words(task, s.TASK_RIGHT, 2)
    c, c_row, cols = words(task, s.TASK_RESULT, 3)
    ending, wide = words(task, s.TASK_ENDING, 3), word(task, s.TASK_WIDE)
    nr = columns_of(tile)
    i = 0
    while i + len(tile[0]) <= rows:
        stored = nr if i + len(tile[0]) <= wide else cols
        product(tile, 0, k, (a, row + 8 * i, red), right, (c, c_row + 8 * i, stored), ending)
        i += len(tile[0])
    while i < rows:
        product(tile, 1, k, (a, row + 8 * i, red), right, (c, c_row + 8 * i, cols), ending)
        i += len(tile[1])
