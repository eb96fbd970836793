"""A forward product whose results another loop finishes, a box at a time: what is chosen.

See `loops.finish`. Sums are those of the plain product, bit for bit: the same tile, lattice and
cuts, of fewer pixels where a 2x2 pooling leaves out an odd last row or column.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.tables.boxes import choose_box
from fastconv.engine.tables.conv import Choice
from fastconv.engine.tables.lattice import Lattice, triple
from fastconv.engine.tables.tiles import cpu_lanes
from fastconv.engine.tables.workspace import address_of

__all__ = ["FinishedChoice", "finish_words", "finished_choice"]

# Bytes of a box, source and results: these lie in scratch until they are finished.
BOX_BYTES = 384 * 1024


@dataclass(frozen=True)
class FinishedChoice(Choice):
    """A choice, and whether 2x2 maxima are taken of its results."""

    pool: bool

    @property
    def lanes(self) -> int:
        """Channels that are finished together (see `loops.finish.finish`)."""
        lanes, channels = cpu_lanes(self.dtype), self.groups * self.columns
        while lanes > channels and (lanes // 2 >= channels or not self.pool):
            lanes //= 2
        return lanes

    @property
    def behind(self) -> int:  # type: ignore[override]
        """Bytes that may be read behind a box of results."""
        return self.lanes * self.dtype.itemsize

    def box(self, m: int, boxes: int, threads: int = 1) -> tuple[int, ...]:
        """The box for a batch; pixels of which one maximum is taken lie in one."""
        pixel_bytes = self.groups * self.columns * self.dtype.itemsize
        return choose_box(
            m, self.lattice, self.cell_bytes, pixel_bytes, boxes, BOX_BYTES, threads, 1 + self.pool
        )


def finished_choice(choice: Choice, pool: bool) -> FinishedChoice | None:
    """The choice for a product that is finished, or None where it cannot be.

    It is of images of one or two axes of which every result cell meets a tap.
    """
    lattice = choice.lattice
    if choice.in_rows or not lattice.phases or not choice.complete or choice.g.rank > 2:
        return None
    height, width = lattice.count[1:]
    if pool:
        if min(height, width) < 2:
            return None
        lattice = _cut_short(lattice, (1, height // 2 * 2, width // 2 * 2))
    given = {field.name: getattr(choice, field.name) for field in fields(Choice)}
    return FinishedChoice(**{**given, "lattice": lattice}, pool=pool)


def _cut_short(lattice: Lattice, ends: tuple[int, int, int]) -> Lattice:
    """The lattice without the pixels from `ends` on."""
    phases = []
    for phase in lattice.phases:
        end = triple([min(pair) for pair in zip(phase.end, ends, strict=True)])
        if all(a < b for a, b in zip(phase.begin, end, strict=True)):
            phases.append(replace(phase, end=end))
    return replace(lattice, phases=tuple(phases))


def finish_words(
    target: np.ndarray, *, table: np.ndarray | None = None, added: np.ndarray | None = None,
    relu: bool = False, pool: bool = False, winners: np.ndarray | None = None,
) -> tuple[int, ...]:  # fmt: skip
    """The words of what finishes the results that go to `target` (m, [OH,] OW, C), contiguous.

    `table` is one of a normalisation (see `engine.channels`), `added` an array like `target`,
    `winners` one of bytes.
    """
    width, C, size = target.shape[-2], target.shape[-1], target.itemsize
    height = target.shape[1] if target.ndim == 4 else 1
    row = width * C * size
    found = [0] * s.FINISH_WORDS
    found[s.FINISH_TARGET : s.FINISH_TABLE] = address_of(target), height * row, row, C * size
    if table is not None:
        found[s.FINISH_TABLE : s.FINISH_ADDED] = address_of(table), table.shape[1] * size
    found[s.FINISH_ADDED] = 0 if added is None else address_of(added)
    found[s.FINISH_WINNERS] = 0 if winners is None else address_of(winners)
    found[s.FINISH_RELU], found[s.FINISH_POOL], found[s.FINISH_C] = relu, pool, C
    return tuple(found)
