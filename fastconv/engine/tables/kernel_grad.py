"""The kernel gradient, ``[K x pixels] @ [pixels x F]``: what is chosen, and the words for it.

`kernel_choice` decides everything that depends on the shapes, `kernel_table` writes it down for the
loop (`loops.kernel_grad`). Nothing here computes, and nothing changes once made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.emit.kinds import TWIN
from fastconv.engine.tables.boxes import choose_box, cut
from fastconv.engine.tables.lattice import Lattice, Phase, forward_lattice
from fastconv.engine.tables.table import Source, Table
from fastconv.engine.tables.tiles import (
    Tile,
    dense_tile,
    depthwise_tile,
    is_depthwise,
    narrow_lanes,
    twin_tile,
)
from fastconv.engine.tables.workspace import lines
from fastconv.geometry import Geometry

__all__ = ["KernelChoice", "kernel_choice", "kernel_table"]

# Longest chain of sums, in bytes of a column: a block of dy, 128*NR*4 bytes = 8 KiB, and the cells
# that it meets then stay in the first-level cache. Twice as long: 3x3 on 32 channels at 76 instead
# of 87 GFLOP/s, 1x1 at 66 instead of 77.
REDUCTION_BYTES = 512
# Boxes wanted: how the sum over pixels is cut depends on the shape alone.
BOXES = 32
# Bytes of a box: larger than elsewhere, because a longer sum of pixels stores results less often.
BOX_BYTES = 512 * 1024
# Bytes of all parts together; a larger kernel is split by columns and rows instead.
PARTS_BYTES = 2 * 1024 * 1024
PARTS = 16
# Pixels of dy that lie further apart than this (bytes) hit few sets of the first-level cache, so
# that packing them pays (1.05 to 1.5 times as fast) from so many rows on that share the packed dy.
DY_STEP = 128
DY_ROWS = 128
MOST_PHASES = 100
# Channels of a gathered plane where they divide by it; rows of the result that a thread takes at
# once of a large one, with 128 columns: 128 KiB.
BLOCK = 16
GROUP_ROWS = 256
GROUP_COLUMNS = 128
# Pixels of x that lie as far apart as this (bytes) are each on a page of their own. Where enough
# columns meet them and few groups of columns repeat it, gathering them pays (1x1, 1024 to 256
# channels: 83 instead of 63 GFLOP/s).
FAR = 4096
FAR_COLUMNS = 128
FAR_GROUPS = 8


@dataclass(frozen=True)
class KernelChoice:
    """What is decided for the kernel gradient of a geometry.

    Attributes
    ----------
    g : Geometry
    dtype : numpy.dtype
        Of the sums.
    depthwise : bool
        Whether channels are the columns, each with a kernel of its own.
    split : bool
        Whether phases skip the taps in the padding.
    groups, k, columns, reduce : int
        Groups; rows of the result, its columns, and channels of a tap, of one of them.
    lattice : Lattice
        Which cells of x meet which pixels of dy.
    tile : Tile
    cut_for : Tile
        The tile by which the sum over pixels is cut: of whole vectors, so that its order does not
        depend on whether they are narrow.
    """

    g: Geometry
    dtype: np.dtype
    depthwise: bool
    split: bool
    groups: int
    k: int
    columns: int
    reduce: int
    lattice: Lattice
    tile: Tile
    cut_for: Tile

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def panels(self) -> int:
        """Panels of NR columns that a group has."""
        return -(-self.columns // self.tile.columns)

    @property
    def part_rows(self) -> int:
        """Rows of a part of the result; TWIN has one more, of no element (see `_rows`)."""
        return self.k + (self.tile.kind is TWIN)

    @property
    def part_bytes(self) -> int:
        """Bytes of a part of the result."""
        return self.groups * self.part_rows * self.panels * self.tile.columns * self.size

    @cached_property
    def uncut(self) -> KernelChoice:
        """The choice of the tile by which sums are cut."""
        return replace(self, tile=self.cut_for)

    @property
    def halved(self) -> bool:
        """Whether two parts would be too large: columns and rows are shared among threads then."""
        return 2 * self.uncut.part_bytes > PARTS_BYTES and self.groups == 1

    @property
    def column_groups(self) -> int:
        """Groups of panels that are shared among threads."""
        return -(-self.panels * self.tile.columns // GROUP_COLUMNS) if self.halved else 1

    @property
    def group_panels(self) -> int:
        """Panels of a column group."""
        return -(-self.panels // self.column_groups)

    @property
    def row_channels(self) -> int:
        """Channels of a row group: its rows are all taps of them, and only these are gathered."""
        if not self.halved or self.reduce % BLOCK:
            return self.g.C
        least = math.lcm(BLOCK * self.g.T, self.tile.rows) // self.g.T
        return least * max(1, GROUP_ROWS // (least * self.g.T))

    @property
    def row_groups(self) -> int:
        """Groups of rows that are shared among threads."""
        return -(-self.g.C // self.row_channels)

    @property
    def block(self) -> int:
        """Channels of a plane of the gathered x."""
        if self.depthwise:
            return self.tile.columns
        return BLOCK if self.reduce % BLOCK == 0 else self.g.C

    @property
    def dy_bytes(self) -> int:
        """Bytes of a pixel of the gathered dy."""
        return self.groups * self.group_panels * self.tile.columns * self.size

    @cached_property
    def box(self) -> tuple[int, ...]:
        """``(n, d, h, w)``: pixels of a box."""
        cell_bytes = -(-self.row_channels // self.block) * self.block * self.size
        dy_bytes = self.uncut.dy_bytes
        return choose_box(self.g.m, self.lattice, cell_bytes, dy_bytes, BOXES, BOX_BYTES)

    @cached_property
    def parts(self) -> int:
        """Into how many parts the sum over pixels is split: by the shape alone."""
        boxes = math.prod(cut(self.g.m, self.lattice, self.box))
        return max(1, min(PARTS, boxes, PARTS_BYTES // self.uncut.part_bytes))

    @cached_property
    def shared_nbytes(self) -> int:
        """Bytes of scratch that threads share: the parts, if there are several."""
        return lines(self.parts * self.part_bytes if self.parts > 1 else 0)[1]

    @cached_property
    def x_in_place(self) -> bool:
        """Whether a contiguous x may be read where it lies."""
        far = self.g.C * self.size >= FAR and self.columns >= FAR_COLUMNS
        if not self.lattice.inside or (far and self.column_groups <= FAR_GROUPS):
            return False
        if self.depthwise:
            return self.columns % self.tile.columns == 0
        # nothing behind x's last element is read
        return self.tile.kind is not TWIN or not self._alone

    @property
    def _alone(self) -> bool:
        """Whether TWIN's rows have one of no element, where x is read in place."""
        source = self.source(True)
        return any((self.rows(phase, source)[1] == self.k).any() for phase in self.lattice.phases)

    @cached_property
    def dy_in_place(self) -> bool:
        """Whether a contiguous dy may be read where it lies."""
        whole = self.columns % self.tile.columns == 0 or self.groups == 1
        step = self.groups * self.columns * self.size
        return whole and (step <= DY_STEP or self.k < DY_ROWS) and not self.split

    def source(self, in_place: bool) -> Source:
        """Where the cells of x lie."""
        return Source(
            self.lattice, self.box, self.g.C, self.block, self.row_channels, self.size, in_place
        )

    def rows(self, phase: Phase, source: Source) -> tuple[np.ndarray, np.ndarray]:
        """Offsets of a phase's rows (tap, channel), and which rows of the result they are.

        TWIN takes rows by twos that lie side by side. Where the second would not, it is a row of no
        element, which goes behind the last row of the result.
        """
        taps = source.offsets(phase.cells, self.reduce)
        k = np.array(phase.taps)[:, None] * self.reduce + np.arange(self.reduce)
        starts = range(0, self.reduce, self.row_channels)
        taps, k = (
            np.concatenate([rows[:, c : c + self.row_channels].ravel() for c in starts])
            for rows in (taps, k)
        )
        if self.tile.kind is not TWIN:
            return taps, k
        left, rows, i = [], [], 0
        while i < k.size:
            together = i + 1 < k.size and taps[i + 1] == taps[i] + self.size
            left += [taps[i]] * 2
            rows += [k[i], k[i + 1] if together else self.k]
            i += 1 + together
        return np.array(left), np.array(rows)


def kernel_choice(g: Geometry, dtype: np.dtype) -> KernelChoice:
    """What is decided for ``dw = cols.T @ dy``."""
    depthwise = is_depthwise(g)
    lattice, split = _lattice(g, depthwise)
    sizes = (1, g.T, g.C, 1) if depthwise else (g.G, g.K, g.F // g.G, g.C // g.G)
    groups, k, columns, reduce = sizes
    dense = depthwise_tile(g.C, dtype) if depthwise else dense_tile(k, columns, dtype)
    choice = KernelChoice(
        g, dtype, depthwise, split, groups, k, columns, reduce, lattice, dense, dense
    )
    if depthwise:
        return choice
    lanes = narrow_lanes(columns, dtype)
    twin = twin_tile(columns, dtype)
    if twin is not None:
        few = replace(choice, tile=replace(twin, lanes=lanes), cut_for=twin)
        if few.parts > 1:  # else there is no room for the rows of no element
            return few
    return replace(choice, tile=dense_tile(k, columns, dtype, lanes))


def _lattice(g: Geometry, depthwise: bool) -> tuple[Lattice, bool]:
    """The lattice, and whether its phases skip the taps in the padding.

    A strided depthwise product does so little with each cell that gathering dy, of which there is
    less, for phases that stay inside x beats gathering x.
    """
    plain = forward_lattice(g)
    if not depthwise or max(g.stride) == 1 or plain.inside or g.padding_mode != "constant":
        return plain, False
    split = forward_lattice(g, (True,) * 3, MOST_PHASES)
    return (split, True) if split.phases else (plain, False)


def kernel_table(choice: KernelChoice, x_in_place: bool, dy_in_place: bool) -> Table:
    """The words of a product whose operands are read in place or gathered."""
    size, lattice, tile, block = choice.size, choice.lattice, choice.tile, choice.block
    source = choice.source(x_in_place)
    plane = source.pitch[4]
    table = Table(s.TABLE_WORDS)
    table.set(s.BYTES, size, tile.rows, tile.columns)
    table.set_boxes(choice.g.m, lattice, choice.box)
    table.set_source(source)
    table.set_outside(choice.g, lattice.wide)
    table.set(s.GROUPS, choice.groups)
    whole = choice.reduce % block == 0
    table.set(s.A_GROUP, choice.reduce // block * plane if whole else choice.reduce * size)
    table.set(s.A_PANEL, plane if choice.depthwise else 0)
    table.set(s.COLUMNS, choice.columns)
    table.set(s.PANELS, choice.panels)
    table.set(s.REDUCTION, REDUCTION_BYTES // size)
    pixels = math.prod(choice.box)
    offsets = (pixels + tile.rows) * 8
    starts = lines(s.TASK_WORDS * 8, offsets, source.nbytes, pixels * choice.dy_bytes)
    table.set(s.AT_TASK, starts[0])
    table.set(s.AT_ROWS, starts[1])
    table.set(s.AT_SOURCE, starts[2])
    table.set(s.AT_DY, starts[3])
    table.set(s.SCRATCH_BYTES, starts[-1])
    table.set(s.DY_IN_PLACE, int(dy_in_place))
    table.set(s.DY_BYTES, choice.g.P * choice.groups * choice.columns * size)
    rows = [choice.rows(phase, source) for phase in lattice.phases]
    _set_parts(table, choice, max(left.size for left, _ in rows))
    table.set(s.K, choice.k)
    _set_phases(table, choice, rows)
    return table


def _set_parts(table: Table, choice: KernelChoice, rows: int) -> None:
    """How the sum over pixels, and the result, are split: by the shape alone."""
    nr, size = choice.tile.columns, choice.size
    if choice.parts > 1:
        pitch = choice.panels * nr * size
        group = choice.part_rows * pitch
    else:
        pitch, group = choice.groups * choice.columns * size, choice.columns * size
    group_rows = -(-rows // choice.tile.rows) * choice.tile.rows
    if choice.row_groups > 1:
        group_rows = choice.row_channels * choice.g.T
    table.set(s.PARTS, choice.parts)
    table.set(s.PART_BYTES, choice.part_bytes if choice.parts > 1 else choice.k * pitch)
    table.set(s.PART_GROUP, group)
    table.set(s.COLUMN_GROUPS, -(-choice.panels // choice.group_panels))
    table.set(s.GROUP_PANELS, choice.group_panels)
    table.set(s.ROW_GROUPS, -(-rows // group_rows))
    table.set(s.GROUP_ROWS, group_rows)
    table.set(s.RESULT_ROWS, table.own(np.arange(choice.k) * pitch))


def _set_phases(
    table: Table, choice: KernelChoice, rows: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Write the rows of every phase: offsets of its taps in the source and in the result."""
    pitch = choice.panels * choice.tile.columns if choice.parts > 1 else choice.g.F
    phases = []
    for phase, (taps, k) in zip(choice.lattice.phases, rows, strict=True):
        left, right = (
            table.own(_repeat_last(a, choice.tile)) for a in (taps, k * pitch * choice.size)
        )
        phases.append(
            s.phase_words(k=taps.size, offsets=left, begin=phase.begin, end=phase.end, rows=right)
        )
    table.set(s.ZERO_FIRST, int(choice.split))  # no phase has the rows of all taps for sure
    table.set_phases(phases)


def _repeat_last(table: np.ndarray, tile: Tile) -> np.ndarray:
    """`table`, with its last entry (TWIN: two) repeated, for a rest of fewer rows than a tile's."""
    last = table[-2:] if tile.kind is TWIN else table[-1:]
    return np.concatenate([table, np.tile(last, tile.rows)])
