"""The kernel gradient: ``[K x pixels] @ [pixels x F]``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.entries import control_address, sweep_address
from fastconv.engine.tables.boxes import Phase, Table, choose_box, forward_lattice
from fastconv.engine.tables.product import (
    CALL,
    GRAIN,
    Product,
    address_of,
    call_entry,
    lines,
    view,
    workspace,
)  # fmt: skip
from fastconv.engine.tables.tiles import TWIN, Tile, dense_tile, depthwise_tile, twin_tile
from fastconv.geometry import Geometry
from fastconv.threads import parts

__all__ = ["KernelGradient"]

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
# Pixels of x that lie as far apart as this (bytes) are each on a page of their own. Where enough
# columns meet them and few groups of columns repeat it, gathering them pays (1x1, 1024 to 256
# channels: 83 instead of 63 GFLOP/s).
FAR = 4096
FAR_COLUMNS = 128
FAR_GROUPS = 8
# The micro-kernel's bias.
ZEROS = np.zeros(64)


class KernelGradient(Product):
    """``[K x pixels] @ [pixels x F]``."""

    gathered = (False, False)

    def __init__(self, g: Geometry, dtype: np.dtype) -> None:
        super().__init__(g, dtype)
        # A strided depthwise product does so little with each cell that gathering dy, of which
        # there is less, for phases that stay inside x beats gathering x.
        self.lattice = forward_lattice(g)
        self.split = self.depthwise and max(g.stride) > 1 and not self.lattice.inside
        if self.split:
            lattice = forward_lattice(g, (True,) * 3, MOST_PHASES)
            self.split = bool(lattice.phases)
            self.lattice = lattice if self.split else self.lattice
        self.groups, self.k, self.columns = g.G, g.K, g.F // g.G
        self.reduce = g.C // g.G
        if self.depthwise:
            self.groups, self.k, self.columns, self.reduce = 1, g.T, g.C, 1
            self._choose(depthwise_tile(g.C, dtype))
        else:
            self._choose(twin_tile(self.columns, dtype) or dense_tile(self.k, self.columns, dtype))
        if self.tile.kind == TWIN and self.parts == 1:  # no room for the rows of no element
            self._choose(dense_tile(self.k, self.columns, dtype))
        self.sweep = sweep_address(self.tile)
        self.entry = control_address("kernel_gradient")

    def _choose(self, tile: Tile) -> None:
        """Cut the work for a tile."""
        self.tile = tile
        self._prepared.clear()
        nr = self.tile.columns
        self.panels = -(-self.columns // nr)
        self.part_rows = self.k + (tile.kind == TWIN)  # the last is of no element: see _rows
        self.part_bytes = self.groups * self.part_rows * self.panels * nr * self.size
        self.column_groups = self.row_groups = 1
        self.row_channels = self.g.C  # channels of a row group
        if 2 * self.part_bytes > PARTS_BYTES and self.groups == 1:
            self.column_groups = -(-self.panels * nr // 128)
            # the rows of a group are all taps of some blocks of channels: only these are gathered
            least = math.lcm(BLOCK * self.g.T, self.tile.rows) // self.g.T
            if self.reduce % BLOCK == 0:
                self.row_channels = least * max(1, GROUP_ROWS // (least * self.g.T))
                self.row_groups = -(-self.g.C // self.row_channels)
        self.group_panels = -(-self.panels // self.column_groups)
        self.parts = int(self.prepared(*self.gathered).table.words[s.PARTS])
        self.shared_nbytes = lines(self.parts * self.part_bytes if self.parts > 1 else 0)[1]
        whole = self.columns % nr == 0
        self.x_in_place = self.lattice.inside and (whole or not self.depthwise)
        far = self.g.C * self.size >= FAR and self.columns >= FAR_COLUMNS
        self.x_in_place &= not (far and self.column_groups <= FAR_GROUPS)
        step = self.groups * self.columns * self.size
        self.dy_in_place = (whole or self.groups == 1) and (step <= DY_STEP or self.k < DY_ROWS)
        self.dy_in_place &= not self.split
        if tile.kind == TWIN and self.x_in_place:  # nothing behind x's last element is read
            self.prepared(True, False)
            self.x_in_place = not self._alone

    def build(self, *key: bool) -> tuple[Table, int]:
        """The table of this product."""
        x_in_place, dy_in_place = key
        g, size, lattice, tile = self.g, self.size, self.lattice, self.tile
        nr = tile.columns
        block = nr if self.depthwise else BLOCK if self.reduce % BLOCK == 0 else g.C
        dy_bytes = self.groups * self.group_panels * nr * size
        cell_bytes = -(-self.row_channels // block) * block * size
        box = choose_box(g.m, lattice, cell_bytes, dy_bytes, BOXES, BOX_BYTES)
        table = Table(s.PLAN_WORDS)
        table.set(s.BYTES, size, tile.rows, tile.columns)
        table.set_boxes(g.m, lattice, box)
        source = (g.C, block, size)
        source_bytes = table.set_source(lattice, box, *source, x_in_place, self.row_channels)
        plane = int(table.words[s.PITCH + 4])
        table.set(s.GROUPS, self.groups)
        per_group = self.reduce // block * plane if self.reduce % block == 0 else self.reduce * size
        table.set(s.A_GROUP, per_group)
        table.set(s.A_PANEL, plane if self.depthwise else 0)
        table.set(s.COLUMNS, self.columns)
        table.set(s.PANELS, self.panels)
        table.set(s.REDUCTION, REDUCTION_BYTES // size)
        pixels = math.prod(box)
        offsets = (pixels + tile.rows) * 8
        starts = lines(s.TASK_WORDS * 8, offsets, source_bytes, pixels * dy_bytes)
        table.set(s.AT_TASK, starts[0], starts[1])
        table.set(s.AT_SOURCE, starts[2])
        table.set(s.AT_DY, starts[3])
        table.set(s.SCRATCH_BYTES, starts[-1])
        table.set(s.DY_IN_PLACE, int(dy_in_place))
        table.set(s.DY_BYTES, g.P * self.groups * self.columns * size)
        rows = [self._rows(table, phase, block) for phase in self.lattice.phases]
        self._set_parts(table, max(left.size for left, _ in rows))
        table.set(s.K, self.k)
        self._set_phases(table, rows)
        units = table.words[[s.PARTS, s.COLUMN_GROUPS, s.ROW_GROUPS]]
        return table, int(units.prod())

    def _rows(self, table: Table, phase: Phase, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Offsets of a phase's rows (tap, channel), and which rows of the result they are.

        TWIN takes rows by twos that lie side by side. Where the second would not, it is a row of no
        element, which goes behind the last row of the result.
        """
        taps = table.tap_offsets(self.lattice, phase.cells, self.reduce, block, self.size)
        k = np.array(phase.taps)[:, None] * self.reduce + np.arange(self.reduce)
        starts = range(0, self.reduce, self.row_channels)
        taps, k = (
            np.concatenate([rows[:, c : c + self.row_channels].ravel() for c in starts])
            for rows in (taps, k)
        )
        self._alone = False
        if self.tile.kind != TWIN:
            return taps, k
        left, rows, i = [], [], 0
        while i < k.size:
            together = i + 1 < k.size and taps[i + 1] == taps[i] + self.size
            left += [taps[i]] * 2
            rows += [k[i], k[i + 1] if together else self.k]
            self._alone |= not together
            i += 1 + together
        return np.array(left), np.array(rows)

    def _set_parts(self, table: Table, rows: int) -> None:
        """How the sum over pixels, and the result, are split: by the shape alone."""
        tile, items = self.tile, int(table.words[s.ITEMS])
        parts = max(1, min(PARTS, items, PARTS_BYTES // self.part_bytes))
        if parts > 1:
            pitch = self.panels * tile.columns * self.size
            group = self.part_rows * pitch
        else:
            pitch, group = self.groups * self.columns * self.size, self.columns * self.size
        group_rows = -(-rows // tile.rows) * tile.rows
        if self.row_groups > 1:
            group_rows = self.row_channels * self.g.T
        table.set(s.PARTS, parts)
        table.set(s.PART_BYTES, self.part_bytes if parts > 1 else self.k * pitch)
        table.set(s.PART_GROUP, group)
        table.set(s.COLUMN_GROUPS, -(-self.panels // self.group_panels))
        table.set(s.GROUP_PANELS, self.group_panels)
        table.set(s.ROW_GROUPS, -(-rows // group_rows))
        table.set(s.GROUP_ROWS, group_rows)
        table.set(s.RESULT_ROWS, table.own(np.arange(self.k) * pitch))

    def _set_phases(self, table: Table, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Write the rows of every phase: offsets of its taps in the source and in the result."""
        tile = self.tile
        pitch = self.panels * tile.columns if table.words[s.PARTS] > 1 else self.g.F
        phases = []
        for phase, (taps, k) in zip(self.lattice.phases, rows, strict=True):
            to = k * pitch * self.size
            left, right = (table.own(repeat_last(a, tile)) for a in (taps, to))
            ends = (*phase.begin, *phase.end)
            phases.append((taps.size, left, 0, 0, *ends, 0, 0, 0, 0, 0, right, 0))
        table.set(s.ZERO_FIRST, int(self.split))  # no phase has the rows of all taps for sure
        table.set_phases(phases)

    def run(self, x: Any, dy: Any, dw: Any) -> None:
        """Compute `dw`."""
        dtype = self.dtype
        plain = dw.dtype == dtype and dw.flags.c_contiguous
        result = dw if plain else np.empty(dw.shape, dtype)
        x_in_place = self.x_in_place and x.dtype == dtype and x.flags.c_contiguous
        dy_in_place = self.dy_in_place and dy.dtype == dtype and dy.flags.c_contiguous
        _, address, units, scratch = self.prepared(x_in_place, dy_in_place)
        threads = min(parts(self.flops, GRAIN), units)
        space = workspace()
        partial = space.scratch(self.shared_nbytes + threads * scratch)
        to = address_of(result)
        call = space.write(
            CALL, 0, 0, 0, address, partial + self.shared_nbytes, *view(x, dtype), *view(dy, dtype),
            0, 0, 0, address_of(ZEROS), 0, 0, partial if self.parts > 1 else to, to, self.sweep, 0,
        )  # fmt: skip
        call_entry(self.entry, call, threads)
        if result is not dw:
            dw[...] = result


def repeat_last(table: np.ndarray, tile: Tile) -> np.ndarray:
    """`table`, with its last entry (TWIN: two) repeated, for a rest of fewer rows than a tile's."""
    last = table[-2:] if tile.kind == TWIN else table[-1:]
    return np.concatenate([table, np.tile(last, tile.rows)])
