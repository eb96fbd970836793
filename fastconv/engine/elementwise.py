"""Calls of the elementwise loops, on contiguous arrays of one dtype in the machine's byte order."""

from __future__ import annotations

import numpy as np

from fastconv.engine.call import Call
from fastconv.engine.loops.elementwise import BLOCK
from fastconv.engine.tables.workspace import address_of

__all__ = ["COSTS", "each_call"]

# Elements that are worth another thread, and how much longer than a sum an operation takes.
GRAIN = 100_000
COSTS = {"sigmoid": 4, "tanh": 6}


def each_call(
    entry: int, name: str, a: np.ndarray, y: np.ndarray, b: np.ndarray | None = None
) -> Call:
    """``y`` = `name` of `a`, or of `a` and `b`, which is a function of `loops.elementwise`.

    `y` may be `a` or `b`. Nothing is validated.
    """
    items = -(-a.size // BLOCK)
    other = a if b is None else b
    words = (address_of(a), address_of(other), address_of(y), a.size, items)
    work = a.size * COSTS.get(name, 1)
    return Call(entry, words, items, work, GRAIN)
