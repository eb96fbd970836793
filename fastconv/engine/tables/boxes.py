"""How a product's pixels are cut into boxes, and where the cells that a box reads lie.

Everything here is plain Python integers, done once for a plan.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastconv.engine import words as s
from fastconv.geometry import Geometry

__all__ = [
    "BOX_BYTES",
    "Lattice",
    "Phase",
    "Table",
    "backward_lattice",
    "choose_box",
    "forward_lattice",
]

Triple = tuple[int, int, int]

# What a box's source, results and tables may take: a quarter of the second-level cache of the
# smallest machines of today (512 KiB to 2 MiB a core), which they share with the packed kernel.
BOX_BYTES = 256 * 1024
BOX_PIXELS = 2048
# Pixels that a box keeps even if fewer boxes than wanted are left: some rows of tiles.
SMALLEST = 256


@dataclass(frozen=True)
class Phase:
    """Pixels that are computed with the same taps: those from `begin` up to `end`.

    Pixel j is result cell ``start + j*out_step``; tap i reads source cell ``j*step + cells[i]``.
    `columns` of the result are stored, or all if it is 0.
    """

    begin: Triple
    end: Triple
    start: Triple
    taps: tuple[int, ...]
    cells: tuple[Triple, ...]
    columns: int = 0

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return math.prod(b - a for a, b in zip(self.begin, self.end, strict=True))


@dataclass(frozen=True)
class Lattice:
    """Which source cells meet which result pixels, on three spatial axes.

    From each cell that it meets, a pixel reads `wide` neighbours along w.
    """

    size: Triple
    step: Triple
    out_step: Triple
    phases: tuple[Phase, ...]
    wide: int = 1

    @cached_property
    def count(self) -> Triple:
        """The end of the pixels along each axis."""
        d, h, w = (max(phase.end[i] for phase in self.phases) for i in range(3))
        return d, h, w

    @cached_property
    def low(self) -> Triple:
        """The first source cell that pixel 0 would read with any tap."""
        d, h, w = (min(c[i] for p in self.phases for c in p.cells) for i in range(3))
        return d, h, w

    @cached_property
    def reach(self) -> Triple:
        """How far the cells of one pixel lie apart."""
        last = (max(c[i] for p in self.phases for c in p.cells) for i in range(3))
        d, h, w = (b - a for a, b in zip(self.low, last, strict=True))
        return d, h, w + self.wide - 1

    @cached_property
    def inside(self) -> bool:
        """Whether no pixel reads outside the source."""
        size = (*self.size[:2], self.size[2] - self.wide + 1)
        return all(
            phase.begin[i] * self.step[i] + min(c[i] for c in phase.cells) >= 0
            and (phase.end[i] - 1) * self.step[i] + max(c[i] for c in phase.cells) < size[i]
            for phase in self.phases
            for i in range(3)
        )

    def in_rows(self, n: int) -> Lattice:
        """The same with `n` neighbours along w as the columns of one pixel.

        What is left at the end of a row is a phase of fewer columns. Pixels must follow each other
        along w, in the source and in the result.
        """
        phases = []
        for phase in self.phases:
            (d, h, _), (end_d, end_h, width) = phase.begin, phase.end
            full, left = divmod(width, n)
            for begin, end, columns in ((0, full, n), (full, full + 1, left)):
                if begin < end and columns:
                    phases.append(replace(phase, begin=(d, h, begin), end=(end_d, end_h, end),
                                          columns=columns))  # fmt: skip
        step, out_step = ((*steps[:2], n) for steps in (self.step, self.out_step))
        return Lattice(self.size, step, out_step, tuple(phases), n)


class _Segment(NamedTuple):
    """Pixels of one axis with the same taps: (tap, cell of pixel 0)."""

    begin: int
    end: int
    start: int
    taps: tuple[tuple[int, int], ...]


def _segments(count: int, start: int, taps: list[tuple[int, int]], step: int, size: int,
              split: bool) -> list[_Segment]:  # fmt: skip
    """One segment; or, split, the runs of pixels whose taps meet the same cells inside."""
    if not split:
        return [_Segment(0, count, start, tuple(taps))]
    inside = [(u, cell, -(cell // step), (size - 1 - cell) // step + 1) for u, cell in taps]
    ends = {min(max(j, 0), count) for *_, a, b in inside for j in (a, b)}
    cuts = sorted(ends | {0, count})
    found = []
    for begin, end in itertools.pairwise(cuts):
        met = tuple((u, cell) for u, cell, a, b in inside if a <= begin < b)
        if met:
            found.append(_Segment(begin, end, start, met))
    return found


def _lattice(axes: Sequence[Sequence[_Segment]], window: Sequence[int], size: Triple, step: Triple,
             out_step: Triple, most: float) -> Lattice:  # fmt: skip
    """Every combination of the three axes' segments is a phase; none if there are too many."""
    phases: list[Phase] = []
    if math.prod(map(len, axes)) > most:
        axes = ((), (), ())
    for trio in itertools.product(*axes):
        met = list(itertools.product(*(segment.taps for segment in trio)))
        index = tuple((d[0] * window[1] + h[0]) * window[2] + w[0] for d, h, w in met)
        cells = tuple(_triple([u[1] for u in us]) for us in met)
        begin = _triple([segment.begin for segment in trio])
        end = _triple([segment.end for segment in trio])
        start = _triple([segment.start for segment in trio])
        phases.append(Phase(begin, end, start, index, cells))
    return Lattice(size, step, out_step, tuple(phases))


def forward_lattice(
    g: Geometry, split: Sequence[bool] = (False,) * 3, most: float = math.inf
) -> Lattice:
    """Output pixel o and tap u meet at input cell ``o*s + u*d - lo``.

    On the axes to `split`, pixels whose windows leave the input are phases of their own that skip
    the taps in the padding; otherwise padding cells are zeros that the gather writes. More than
    `most` phases are not worth making: the lattice then has none.
    """
    axes = [
        _segments(o, 0, [(u, u * d - lo) for u in range(k)], s, n, cut)
        for (n, k, s, d, lo, o), cut in zip(g.axes3, split, strict=True)
    ]
    size, step = _triple([a[0] for a in g.axes3]), _triple([a[2] for a in g.axes3])
    return _lattice(axes, [a[1] for a in g.axes3], size, step, (1, 1, 1), most)


def backward_lattice(
    g: Geometry, split: Sequence[bool] = (False,) * 3, most: float = math.inf
) -> Lattice:
    """Input cell ``a + j*s`` and tap u meet at output pixel ``j + (a + lo - u*d)/s``.

    That is a whole number for the taps of phase a only: one convolution of stride 1 for each phase
    that has taps and cells. Cells of no phase meet no tap at all.
    """
    axes = []
    for (n, k, step, d, lo, o), cut in zip(g.axes3, split, strict=True):
        found: dict[int, list[tuple[int, int]]] = {}
        for u in range(k):
            a = (u * d - lo) % step
            if a < n:
                found.setdefault(a, []).append((u, (a + lo - u * d) // step))
        axes.append([
            segment
            for a, taps in sorted(found.items())
            for segment in _segments(-(-(n - a) // step), a, taps, 1, o, cut)
        ])  # fmt: skip
    size, stride = _triple([a[5] for a in g.axes3]), _triple([a[2] for a in g.axes3])
    return _lattice(axes, [a[1] for a in g.axes3], size, (1, 1, 1), stride, most)


def _triple(values: Sequence[int]) -> Triple:
    d, h, w = values
    return d, h, w


def choose_box(
    m: int, lattice: Lattice, cell_bytes: int, pixel_bytes: int, boxes: int, limit: int = BOX_BYTES,
    threads: int = 1,
) -> tuple[int, ...]:  # fmt: skip
    """``(n, d, h, w)``: pixels of a box. Whole images, else whole rows, else a piece of one row.

    Parameters
    ----------
    m : int
        Images.
    lattice : Lattice
    cell_bytes, pixel_bytes : int
        Bytes of one source cell and, apart from that, of one pixel.
    boxes : int
        How many boxes are wanted, for balance between threads.
    limit : int
        Bytes of a box.
    threads : int
        Boxes are made smaller, down to half, where the busiest thread then computes less.

    Examples
    --------
    >>> phase = Phase((0, 0, 0), (1, 64, 64), (0, 0, 0), (0,), ((0, 0, 0),))
    >>> choose_box(8, Lattice((1, 64, 64), (1, 1, 1), (1, 1, 1), (phase,)), 4, 4, 16)
    (1, 1, 32, 64)
    """
    count = lattice.count
    wanted = max(SMALLEST, -(-m * math.prod(count) // boxes))

    def fits(box: Sequence[int]) -> bool:
        pixels = math.prod(box)
        region = box[0] * math.prod(
            (n - 1) * step + reach + 1
            for n, step, reach in zip(box[1:], lattice.step, lattice.reach, strict=True)
        )
        nbytes = region * cell_bytes + pixels * pixel_bytes
        return nbytes <= limit and pixels <= min(BOX_PIXELS, wanted)

    box = [m, *count]
    for axis in range(4):
        low, high = 1, box[axis]
        while low < high:  # the most that fits; 1 where nothing does, and the next axis is cut
            middle = (low + high + 1) // 2
            box[axis] = middle
            low, high = (middle, high) if fits(box) else (low, middle - 1)
        box[axis] = low
        if low > 1 or fits(box):
            break
    axis_length, outer = (m, *count)[axis], math.prod((m, *count)[:axis])

    def longest(n: int) -> int:
        """What the busiest thread computes, with boxes of `n`."""
        return -(-outer * -(-axis_length // n) // threads) * n

    if threads > 1:
        box[axis] = min(range(box[axis], box[axis] // 2, -1), key=longest)
    box[axis] = -(-axis_length // -(-axis_length // box[axis]))  # boxes of about equal size
    return tuple(box)


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

    def set_phases(self, rows: Sequence[Sequence[int]]) -> None:
        """Write the phases; every row must have all words of a phase."""
        self.set(s.PHASES, len(rows), self.own(np.array(rows).reshape(len(rows), s.PHASE_WORDS)))

    def set_boxes(self, m: int, lattice: Lattice, box: Sequence[int]) -> None:
        """Write the words on boxes."""
        blocks = [-(-n // b) for n, b in zip((m, *lattice.count), box, strict=True)]
        self.set(s.M, m)
        self.set(s.ITEMS, math.prod(blocks))
        self.set(s.BOX, *box)
        self.set(s.BLOCKS, *blocks)
        self.set(s.COUNT, *lattice.count)
        self.set(s.STEP, *lattice.step)
        self.set(s.LOW, *lattice.low)
        self.set(s.REACH, *lattice.reach)
        self.set(s.SIZE, *lattice.size)

    def set_source(
        self, lattice: Lattice, box: Sequence[int], channels: int, block: int, size: int,
        in_place: bool, gathered: int,
    ) -> int:  # fmt: skip
        """Write where source cells lie; returns the bytes of a box's gathered source.

        In place: as in the caller's contiguous array. Gathered: planes of `block` channels, for
        `gathered` channels at once.
        """
        if in_place:
            extent, w = lattice.size, channels * size
        else:
            extent = _triple([
                (n - 1) * step + reach + 1
                for n, step, reach in zip(box[1:], lattice.step, lattice.reach, strict=True)
            ])  # fmt: skip
            w = block * size
        h = extent[2] * w
        d = extent[1] * h
        n = extent[0] * d
        plane = block * size if in_place else box[0] * n
        self.set(s.IN_PLACE, int(in_place))
        self.set(s.CHANNELS, channels)
        self.set(s.BLOCK, block)
        self.set(s.GATHERED, gathered)
        self.set(s.PITCH, n, d, h, w, plane)
        return 0 if in_place else -(-gathered // block) * plane

    def tap_offsets(
        self, lattice: Lattice, cells: Sequence[Triple], channels: int, block: int, size: int,
        every: int = 1,
    ) -> np.ndarray:  # fmt: skip
        """Offsets of (tap, channel) from the first cell of a pixel, of `every`-th channels."""
        pitch = self.words[s.PITCH : s.PITCH + 5]
        apart = np.asarray(cells, np.int64) - np.asarray(lattice.low)
        c = np.arange(0, channels, every)
        return (apart @ pitch[1:4])[:, None] + c // block * pitch[4] + c % block * size
