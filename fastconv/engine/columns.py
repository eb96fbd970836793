"""The call of im2col's loop."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.tables.pool import PoolChoice, pool_table
from fastconv.engine.tables.table import Table
from fastconv.engine.tables.workspace import address_of, view
from fastconv.geometry import Geometry

__all__ = ["columns_call"]

# Elements of cols that are worth another thread, and of a block that a thread takes.
GRAIN = 200_000
BLOCK = 16384
CACHED = 256


def columns_call(entry: int, g: Geometry, x: np.ndarray, cols: np.ndarray) -> Call:
    """Every window of ``x (m, [D, H,] W, C)`` as a row of `cols`, which is contiguous.

    Both are of the entry's dtype, in the machine's byte order; float16 is given as int16.
    """
    total = g.m * math.prod(g.y_size[:-1])
    items = max(1, min(total, cols.size // BLOCK))
    words = s.columns_words(
        table=_table(g, x.dtype).address,
        x=view(x, x.dtype),
        cols=address_of(cols),
        total=total,
        items=items,
    )
    return Call(entry, words[s.TABLE :], items, cols.size, GRAIN)


@lru_cache(CACHED)
def _table(g: Geometry, dtype: np.dtype) -> Table:
    """Windows of im2col are those of a pooling."""
    return pool_table(PoolChoice(g, dtype, False))
