"""Calls of the elementwise loops, on contiguous arrays of one dtype in the machine's byte order."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fastconv.engine.call import Call
from fastconv.engine.loops.elementwise import BLOCK
from fastconv.engine.tables.workspace import address_of

__all__ = ["COSTS", "each_call"]

# Elements that are worth another thread, and how much longer than a sum an operation takes.
GRAIN = 100_000
COSTS = {"sigmoid": 4, "tanh": 6, "elu": 5, "elu_delta": 5, "silu": 5, "silu_delta": 5,
         "softplus": 12, "softplus_delta": 5, "gelu": 15, "gelu_delta": 15}  # fmt: skip


@lru_cache(64)
def _bits(number: float) -> int:
    """The int64 that has the bits of a double."""
    return int(np.float64(number).view(np.int64))


def each_call(
    entry: int, name: str, a: np.ndarray, y: np.ndarray, b: np.ndarray | None = None,
    number: float = 0.0,
) -> Call:  # fmt: skip
    """``y`` = `name` of `a`, or of `a` and `b`, which is a function of `loops.elementwise`.

    Some of those in `loops.rectifiers` take a number, too.
    `y` may be `a` or `b`. Nothing is validated.
    """
    items = -(-a.size // BLOCK)
    other = a if b is None else b
    words = (address_of(a), address_of(other), address_of(y), a.size, items, _bits(number))
    work = a.size * COSTS.get(name, 1)
    return Call(entry, words, items, work, GRAIN)
