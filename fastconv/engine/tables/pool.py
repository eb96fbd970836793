"""The words of a pooling, for the loops of the same name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.tables.table import Table
from fastconv.engine.tables.tiles import cpu_lanes
from fastconv.geometry import Geometry
from fastconv.geometry.geometry import windows_with_cells
from fastconv.operands import computing_dtype

__all__ = ["PoolChoice", "pool_table"]


@dataclass(frozen=True)
class PoolChoice:
    """What is decided for the poolings of a geometry; `dtype` is that of the arrays."""

    g: Geometry
    dtype: np.dtype
    include_pad: bool

    @property
    def most(self) -> int:
        """Elements of a vector register."""
        return cpu_lanes(computing_dtype(self.dtype))

    @property
    def lanes(self) -> int:
        """Channels of a vector: as many as a register holds, or half, a quarter, ... of them."""
        lanes = self.most
        while lanes > self.g.C:
            lanes //= 2
        return lanes

    @property
    def spacing(self) -> int:
        """Cells from a window to the next, where lanes are windows side by side; else 0.

        Windows further apart are taken one by one: most that a vector reads is between them.
        """
        step = self.g.axes3[s.W_AXIS][2]
        return step if self.g.C == 1 and step <= 2 and self.reach < 2**31 else 0

    @property
    def pairs(self) -> bool:
        """Whether the windows of a row are pairs of cells, one behind the other."""
        return self.apart and self.spacing == 2 and self.g.axes3[s.W_AXIS][1:4] == (2, 2, 1)

    @property
    def rows(self) -> int:
        """Output rows of an image."""
        return math.prod(self.g.y_size[:-1])

    @property
    def work(self) -> int:
        """Elements read or written."""
        return self.g.m * self.g.C * max(math.prod(self.g.x_size), math.prod(self.g.y_size))

    @property
    def reach(self) -> int:
        """Cells of a padded image: indices of taps in the padding must not wrap around either."""
        return math.prod(n + sum(pair) for n, pair in zip(self.g.x_size, self.g.pads, strict=True))

    @property
    def inside(self) -> int:
        """Most cells that a window has inside the input: its padding may be far larger."""
        return math.prod(min(k, (n - 1) // d + 1) for n, k, _, d, _, _ in self.g.axes)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of a thread's scratch: the cells of a window, listed."""
        return -(-16 * self.inside // 64) * 64

    @cached_property
    def apart(self) -> bool:
        """Whether no two windows share a cell."""
        return all(step > (k - 1) * d or o == 1 for _, k, step, d, _, o in self.g.axes)

    @property
    def covered(self) -> bool:
        """Whether every cell is in one window."""
        return all(
            n == k * o and step in (k, 1) and d == 1 and lo == 0
            for n, k, step, d, lo, o in self.g.axes
        )

    @property
    def vectors(self) -> bool:
        """Whether winners can be placed a whole vector at a time."""
        return self.pairs or (self.lanes == self.most and self.reach < 2**31)


def _end(axis: tuple[int, ...]) -> int:
    """The end of the windows of an axis that reach no high padding."""
    n, k, step, d, lo, o = axis
    return min(o, (n - 1 - (k - 1) * d + lo) // step + 1)


def pool_table(choice: PoolChoice) -> Table:
    """The words of a geometry."""
    g, size = choice.g, choice.dtype.itemsize
    highs = [0] * (3 - g.rank) + [hi for _, hi in g.pads]
    axes = [(*a, hi) for a, hi in zip(g.axes3, highs, strict=True)]
    table = Table(s.POOL_WORDS)
    table.set(s.POOL_AXES, *(n for axis in axes for n in axis))
    table.set(s.POOL_C, g.C)
    table.set(s.POOL_PIXEL, g.C * size)
    table.set(s.POOL_ELEMENT, size)
    table.set(s.POOL_TAPS, choice.inside)
    table.set(s.POOL_CELLS, math.prod(g.x_size))
    table.set(s.POOL_ROWS, choice.rows)
    table.set(s.POOL_PADDED, choice.include_pad)
    table.set(s.POOL_FAR, choice.reach >= 2**31)
    table.set(s.POOL_ROWS_END, _end(g.axes3[s.H_AXIS]))
    table.set(s.POOL_STRETCH_END, _end(g.axes3[s.W_AXIS]))
    table.set(s.POOL_COVERED, choice.covered)
    table.set(s.POOL_SCRATCH, choice.scratch_bytes)
    everywhere = all(axis.all() for axis in windows_with_cells(g))
    table.set(s.POOL_LEAST, 0 if everywhere else -1)
    return table
