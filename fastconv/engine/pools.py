"""Pooling of one geometry: the table that the compiled loops read, and the calls.

Arrays are contiguous, in the machine's byte order, of the computing dtype; nothing is validated
but the argmax of a gradient, whose every element would be an address.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.entries import pool_address
from fastconv.engine.tables.boxes import Table
from fastconv.engine.tables.product import address_of, call_entry, workspace
from fastconv.engine.tables.tiles import host_lanes
from fastconv.geometry import Geometry
from fastconv.threads import parts

__all__ = ["PoolPlan", "pool_plan"]

# Elements, read or written, that are worth a thread; blocks of a thread, at least.
GRAIN = 100_000
BLOCKS = 8
CACHED_PLANS = 256
POOL_CALL = struct.Struct(f"{s.POOL_CALL_WORDS}q")


class PoolPlan:
    """Max and average pooling, and their gradients, of one geometry and computing dtype.

    Examples
    --------
    >>> from fastconv.geometry.resolve import pool_geometry
    >>> plan = PoolPlan(pool_geometry((1, 4, 4, 1), 2), np.dtype("float32"), False)
    >>> y = np.empty((1, 2, 2, 1), "float32")
    >>> plan.reduce("max", np.arange(16, dtype="float32"), y, None)
    >>> y.ravel()
    array([ 5.,  7., 13., 15.], dtype=float32)
    """

    def __init__(self, g: Geometry, dtype: np.dtype, include_pad: bool) -> None:
        self.dtype = dtype
        self.lanes = host_lanes(dtype)
        while self.lanes > g.C:
            self.lanes //= 2
        self.m, self.rows = g.m, math.prod(g.y_size[:-1])
        cells = math.prod(g.x_size)
        self.work = g.m * g.C * max(cells, math.prod(g.y_size))
        # indices of taps that lie in the padding are computed too, and must not wrap around
        reach = math.prod(n + sum(pair) for n, pair in zip(g.x_size, g.pads, strict=True))
        highs = [0] * (3 - g.rank) + [hi for _, hi in g.pads]
        axes = [(*a, hi) for a, hi in zip(g.axes3, highs, strict=True)]
        pixel = g.C * dtype.itemsize
        # most cells that a window has inside the input: its padding may be far larger
        inside = math.prod(min(k, (n - 1) // d + 1) for n, k, _, d, _, _ in g.axes)
        self.scratch_bytes = -(-16 * inside // 64) * 64
        self._table = Table(s.POOL_WORDS)
        self._table.set(s.POOL_AXES, *(n for a in axes for n in a))
        self._table.set(s.POOL_C, g.C, pixel, dtype.itemsize, inside, cells, self.rows)
        ends = [min(o, (n - 1 - (k - 1) * d + lo) // step + 1) for n, k, step, d, lo, o in g.axes]
        whole = all(
            n == k * o and step in (k, 1) and d == 1 and lo == 0 for n, k, step, d, lo, o in g.axes
        )
        self._table.set(s.POOL_PADDED, include_pad, reach >= 2**31, ends[-1], whole)
        self._table.set(s.POOL_SCRATCH, self.scratch_bytes)
        # whether no two windows share a cell
        self.apart = all(step > (k - 1) * d or o == 1 for _, k, step, d, _, o in g.axes)
        self.vectors = self.lanes == host_lanes(dtype) and reach < 2**31
        self._address = self._table.address

    def reduce(self, name: str, x: np.ndarray, y: np.ndarray, argmax: np.ndarray | None) -> None:
        """``y``, and `argmax` with "argmax", by "max", "argmax" or "mean"."""
        self.call(self._entry(name), self.m * self.rows, x, y, argmax)

    def spread(self, dy: np.ndarray, dx: np.ndarray) -> None:
        """The gradient of "mean"."""
        self.call(self._entry("fill" if self.apart else "spread"), self.m, dx, dy, None)

    def scatter(self, dy: np.ndarray, argmax: np.ndarray, dx: np.ndarray) -> bool:
        """The gradient of "max"; False, and `dx` untouched, if an argmax is outside the image."""
        if self.apart and self.vectors:
            bad = self.call(self._entry("place"), self.m, dx, dy, argmax)
            if bad != s.ELSEWHERE:  # of such a winner, only the scatter finds the cell
                return not bad
        return not self.call(self._entry("scatter"), self.m, dx, dy, argmax)

    def _entry(self, name: str) -> int:
        return pool_address(name, 1 if name == "scatter" else self.lanes, self.dtype)

    def call(self, entry: int, total: int, x: np.ndarray, y: np.ndarray,
             argmax: np.ndarray | None) -> int:  # fmt: skip
        """Call an entry; what it says of argmax (see `words.POOL_BAD`)."""
        threads = min(parts(self.work, GRAIN), total) or 1
        items = min(total, BLOCKS * threads)
        space = workspace()
        scratch = space.scratch(threads * self.scratch_bytes)
        winners = 0 if argmax is None else address_of(argmax)
        call = space.write(
            POOL_CALL, 0, 0, 0, self._address, scratch, address_of(x), address_of(y), winners,
            total, items, 0,
        )  # fmt: skip
        call_entry(entry, call, threads)
        return int(space.words[s.POOL_BAD])


@lru_cache(CACHED_PLANS)
def pool_plan(g: Geometry, dtype: np.dtype, include_pad: bool = False) -> PoolPlan:
    """The plan, kept, of a geometry."""
    return PoolPlan(g, dtype, include_pad)
