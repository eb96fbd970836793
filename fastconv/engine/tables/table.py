"""Tables of int64 words, as the compiled loops read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.tables.boxes import cut, region
from fastconv.engine.tables.lattice import Lattice, Triple
from fastconv.geometry import Geometry, padding_sources

__all__ = ["Source", "Table"]


@dataclass(frozen=True)
class Source:
    """Where the source cells of a box lie, as the micro-kernel sees them.

    In place: as in the caller's contiguous array. Gathered: planes of `block` channels, for
    `gathered` channels at once.

    Attributes
    ----------
    lattice : Lattice
    box : (n, d, h, w)
        Pixels of a box.
    channels : int
        Channels of a source cell.
    block, gathered : int
        Channels of a plane, and those that are gathered at once.
    size : int
        Bytes of an element.
    in_place : bool
        Whether the source is read where it lies.
    """

    lattice: Lattice
    box: tuple[int, ...]
    channels: int
    block: int
    gathered: int
    size: int
    in_place: bool

    @cached_property
    def pitch(self) -> tuple[int, int, int, int, int]:
        """Bytes from an image, layer, row, cell and plane to the next."""
        if self.in_place:
            (_, height, width), w = self.lattice.size, self.channels * self.size
            depth = self.lattice.size[0]
        else:
            (depth, height, width), w = region(self.lattice, self.box), self.block * self.size
        h = width * w
        d = height * h
        n = depth * d
        return n, d, h, w, self.block * self.size if self.in_place else self.box[0] * n

    @property
    def nbytes(self) -> int:
        """Bytes of a box's gathered source."""
        return 0 if self.in_place else -(-self.gathered // self.block) * self.pitch[4]

    def offsets(self, cells: Sequence[Triple], channels: int, every: int = 1) -> np.ndarray:
        """Bytes of (tap, channel) from the first cell of a pixel, of `every`-th channels."""
        apart = np.asarray(cells, np.int64) - np.asarray(self.lattice.low)
        c = np.arange(0, channels, every)
        taps = apart @ np.array(self.pitch[1:4])
        return taps[:, None] + c // self.block * self.pitch[4] + c % self.block * self.size


class Table:
    """A table of int64 that compiled loops read by address, and the tables it points to."""

    def __init__(self, words: int) -> None:
        self.words = np.zeros(words, np.int64)
        self._owned: list[np.ndarray] = []

    @property
    def address(self) -> int:
        """Where the words lie."""
        return int(self.words.ctypes.data)

    def set(self, first: int, *values: int) -> None:
        """Write consecutive words."""
        self.words[first : first + len(values)] = values

    def own(self, values: np.ndarray) -> int:
        """Keep a table alive and return its address."""
        values = np.ascontiguousarray(values, np.int64)
        self._owned.append(values)
        return int(values.ctypes.data)

    def keep(self, array: np.ndarray) -> int:
        """Keep an array alive, of elements or bytes, and return its address."""
        self._owned.append(array)
        return int(array.ctypes.data)

    def set_phases(self, rows: Sequence[Sequence[int]]) -> None:
        """Write the phases; every row must have all words of a phase."""
        self.set(s.PHASES, len(rows), self.own(np.array(rows).reshape(len(rows), s.PHASE_WORDS)))

    def set_boxes(self, m: int, lattice: Lattice, box: Sequence[int]) -> None:
        """Write the words on boxes."""
        blocks = cut(m, lattice, box)
        self.set(s.M, m)
        self.set(s.ITEMS, math.prod(blocks))
        self.set(s.BOX, *box)
        self.set(s.BLOCKS, *blocks)
        self.set(s.COUNT, *lattice.count)
        self.set(s.STEP, *lattice.step)
        self.set(s.LOW, *lattice.low)
        self.set(s.REACH, *lattice.reach)
        self.set(s.SIZE, *lattice.size)

    def set_outside(self, g: Geometry, wide: int) -> None:
        """Write what stands in the padding of x, which the lattice of a product may leave.

        A row of pixels that are computed together may reach `wide` cells beyond that: any will do.
        """
        if g.padding_mode == "constant":
            return
        pads = ((0, 0),) * (3 - g.rank) + g.pads
        for axis, ((n, *_), pair) in enumerate(zip(g.axes3, pads, strict=True)):
            sources = np.append(padding_sources(n, pair, g.padding_mode), np.zeros(wide, np.int64))
            self.set(s.COPIED + axis, self.own(sources) + 8 * pair[0])

    def set_source(self, source: Source) -> None:
        """Write the words on the source."""
        self.set(s.IN_PLACE, int(source.in_place))
        self.set(s.CHANNELS, source.channels)
        self.set(s.BLOCK, source.block)
        self.set(s.GATHERED, source.gathered)
        self.set(s.PITCH, *source.pitch)
