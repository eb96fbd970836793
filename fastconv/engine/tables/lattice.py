"""Which source cells meet which result pixels: phases of pixels with the same taps.

Plain Python integers, done once for a geometry.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from fastconv.geometry import Geometry

__all__ = ["Lattice", "Phase", "Triple", "backward_lattice", "forward_lattice", "triple"]

Triple = tuple[int, int, int]


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
        cells = tuple(triple([u[1] for u in us]) for us in met)
        begin = triple([segment.begin for segment in trio])
        end = triple([segment.end for segment in trio])
        start = triple([segment.start for segment in trio])
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
    size, step = triple([a[0] for a in g.axes3]), triple([a[2] for a in g.axes3])
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
    size, stride = triple([a[5] for a in g.axes3]), triple([a[2] for a in g.axes3])
    return _lattice(axes, [a[1] for a in g.axes3], size, (1, 1, 1), stride, most)


def triple(values: Sequence[int]) -> Triple:
    """Three integers (d, h, w) as a tuple."""
    d, h, w = values
    return d, h, w
