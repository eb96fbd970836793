"""The forward product and the input gradient: ``[pixels x K] @ [K x columns]``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.entries import control_address, sweep_address
from fastconv.engine.tables.boxes import (
    BOX_BYTES,
    Lattice,
    Table,
    backward_lattice,
    choose_box,
    forward_lattice,
)
from fastconv.engine.tables.product import (
    CALL,
    GRAIN,
    Product,
    address_of,
    call_entry,
    lines,
    plain_array,
    view,
    workspace,
)  # fmt: skip
from fastconv.engine.tables.tiles import DOT, dense_tile, depthwise_tile, dot_tile, pair_tile
from fastconv.geometry import Geometry
from fastconv.threads import parts

__all__ = ["Convolution", "InputGradient"]

# Longest chain of sums, in bytes of a column: a block of a panel, 384*NR*4 bytes = 24 KiB, then
# stays in the first-level cache. From 256 to 512 elements the speed differs by less than 5 %.
REDUCTION_BYTES = 1536
# Boxes wanted, at least, where there are threads to share them; no result depends on it.
BOXES = 16
# Cycles, measured: to start a sweep over a panel, a tile, to store a narrow row; gathered bytes a
# cycle; to gather a row.
SWEEP_CYCLES = 150
TILE_CYCLES = 25
NARROW_CYCLES = 6
GATHER_BYTES = 12
GATHER_ROW = 40
MOST_PHASES = 100
# A kernel of more bytes than this comes from the third-level cache. Boxes are larger then, to read
# it less often (3x3 on 7x7x512: 69 GFLOP/s against 52), and no tap is packed twice (57).
LARGE_KERNEL = 512 * 1024
LARGE_BOX_BYTES = 640 * 1024
# Batch for which phases are chosen.
NOMINAL_BATCH = 64


class Convolution(Product):
    """``[pixels x K] @ [K x columns]``: the forward product, and what the input gradient shares."""

    lattice_of: Any = staticmethod(forward_lattice)

    def __init__(self, g: Geometry, dtype: np.dtype) -> None:
        super().__init__(g, dtype)
        self.groups, self.reduce, self.columns, w_steps, sizes = self.sides()
        pixels = g.m * math.prod(sizes)
        plain = self.lattice_of(g)
        # One channel, one filter, stride 1: neighbours along w are the columns, and the kernel is
        # repeated for each. 5x5 on 64x64: 7 times as fast as lanes along the reduction.
        self.in_rows = g.C == g.F == 1 and plain.step[2] == plain.out_step[2] == 1
        self.in_rows &= bool(plain.phases) and sizes[-1] > 1
        dot = dot_tile(self.columns, dtype) if self.groups == 1 else None
        pair = pair_tile(self.columns, self.reduce, dtype)
        if self.in_rows:
            self.tile = depthwise_tile(sizes[-1], dtype)
            self.columns, w_steps = self.tile.columns, (w_steps[0], 0, 0, 0)
        elif self.depthwise:
            self.tile = depthwise_tile(g.C, dtype)
        else:
            self.tile = dot or pair or dense_tile(pixels, self.columns, dtype)
        self.w_bytes = tuple(step * self.size for step in w_steps)
        self.panels = -(-self.columns // self.tile.columns)
        self.tap_k = -(-self.reduce // self.tile.every)  # steps of the reduction of one tap
        self.channels = g.C if self.depthwise else self.groups * self.reduce
        self.block = self.channels  # channels of a plane of the gathered source
        if self.depthwise:
            self.block = self.tile.columns
        elif self.tile.kind == DOT:
            self.block = self.tap_k * self.tile.lanes
        self.planes = -(-self.channels // self.block)
        self.cell_bytes = self.planes * self.block * self.size  # of a gathered cell
        self.large = g.K * g.F * self.size > LARGE_KERNEL
        self.lattice = plain.in_rows(self.columns) if self.in_rows else self.best_lattice()
        self.runs = _runs([phase.taps for phase in self.lattice.phases])
        line = self.tile.line * self.size
        self.tap_bytes = self.tap_k * line
        packed = sum(map(len, self.runs)) * self.tap_bytes * self.panels * self.groups
        _, self.prior_at, self.shared_nbytes = lines(packed, self.panels * self.groups * line)
        # every result cell belongs to a phase, or some meet no tap at all
        met = sum(phase.pixels * (phase.columns or 1) for phase in self.lattice.phases)
        self.complete = met == math.prod(sizes)
        self.may_read_in_place = (
            bool(self.lattice.phases)
            and self.lattice.inside
            and (not self.depthwise or self.columns % self.tile.columns == 0)
            and self.reduce % self.tile.every == 0
        )
        self.sweep = sweep_address(self.tile)
        self.entry = control_address("convolve")

    def sides(self) -> tuple[int, int, int, tuple[int, ...], tuple[int, ...]]:
        """Groups, reduction channels, columns, w's steps (tap, channel, column, group), extents."""
        g = self.g
        c, f = g.C // g.G, g.F // g.G
        if self.depthwise:
            return 1, 1, g.C, (g.C, 0, 1, 0), g.y_size
        return g.G, c, f, (c * g.F, g.F, 1, f), g.y_size

    def box(self, lattice: Lattice, m: int, boxes: int, threads: int = 1) -> tuple[int, ...]:
        """The box for a lattice and a batch, if so many boxes are wanted for so many threads."""
        # results are visited a panel at a time; a quarter of them bounds the scratch for all
        columns = self.groups * self.columns
        pixel_bytes = max(self.tile.columns, columns // 4) * self.size
        limit = LARGE_BOX_BYTES if self.large else BOX_BYTES
        return choose_box(m, lattice, self.cell_bytes, pixel_bytes, boxes, limit, threads)

    def best_lattice(self) -> Lattice:
        """The cheapest way to treat windows that leave the source: zeros, or phases of their own.

        The choice depends on one image's shape, not on the batch: a slice of a batch has the same
        bits even where an infinite weight meets the padding.
        """
        plain = self.lattice_of(self.g)
        if not plain.phases or plain.inside:
            return plain
        axes = [(False, True) if n > 1 else (False,) for n in plain.count]
        found = [plain]
        for split in itertools.product(*axes):
            if any(split):
                lattice = self.lattice_of(self.g, split, MOST_PHASES)
                packed = sum(map(len, _runs([phase.taps for phase in lattice.phases])))
                if lattice.phases and (packed == self.g.T or not self.large):
                    found.append(lattice)
        return min(found, key=self.cycles)

    def cycles(self, lattice: Lattice) -> float:
        """About how long the product takes: multiply-adds, tiles, sweeps, packing, gather."""
        tile, box = self.tile, self.box(lattice, NOMINAL_BATCH, BOXES)
        boxes = math.prod(-(-n // b) for n, b in zip(lattice.count, box[1:], strict=True))
        packed = sum(map(len, _runs([phase.taps for phase in lattice.phases])))
        packed *= self.tap_k * tile.line * self.panels * self.groups
        total = 0.0
        for phase in lattice.phases:
            rows = tile.row_cost(-(-phase.pixels * box[0] // boxes))
            k = len(phase.taps) * self.tap_k
            sweep = rows * tile.vectors * (k / 2 + 1) + rows / tile.rows * TILE_CYCLES
            if self.columns < tile.columns and len(lattice.phases) > 1:
                sweep += rows * NARROW_CYCLES
            total += (sweep + SWEEP_CYCLES) * self.panels * self.groups
        if not lattice.inside:
            region = [
                (b - 1) * step + reach + 1
                for b, step, reach in zip(box[1:], lattice.step, lattice.reach, strict=True)
            ]
            total += box[0] * math.prod(region) * self.cell_bytes / GATHER_BYTES
            total += box[0] * region[0] * region[1] * self.planes * GATHER_ROW
        return total * boxes * -(-NOMINAL_BATCH // box[0]) + packed / 2

    def build(self, *key: bool) -> tuple[Table, int]:
        """The table of this product."""
        (in_place,) = key
        g, size, lattice, tile = self.g, self.size, self.lattice, self.tile
        columns = self.groups * self.columns
        threads = parts(self.flops, GRAIN)
        box = self.box(lattice, g.m, 1 if threads == 1 else max(BOXES, 4 * threads), threads)
        table = Table(s.PLAN_WORDS)
        table.set(s.BYTES, size, tile.rows, tile.columns, tile.line * size)
        table.set_boxes(g.m, lattice, box)
        source = (self.channels, self.block, size)
        source_bytes = table.set_source(lattice, box, *source, in_place, self.channels)
        table.set(s.GROUPS, self.groups)
        table.set(s.A_GROUP, self.reduce * size)
        table.set(s.A_PANEL, int(table.words[s.PITCH + 4]) if self.depthwise else 0)
        table.set(s.COLUMNS, self.columns)
        table.set(s.PANELS, self.panels)
        table.set(s.OUT_STEP, *lattice.out_step)
        table.set(s.TAP_STEP, *self.w_bytes)
        table.set(s.REDUCE, self.reduce)
        table.set(s.EVERY, tile.every)
        pixels = math.prod(box)
        offsets = (pixels + tile.rows) * 8
        starts = lines(s.TASK_WORDS * 8, offsets, offsets, source_bytes, pixels * columns * size)
        table.set(s.AT_TASK, *starts[:5])
        table.set(s.SCRATCH_BYTES, starts[-1])
        self._set_phases(table)
        table.set(s.SPILL, self._spill(box))
        return table, int(table.words[s.ITEMS])

    def _set_phases(self, table: Table) -> None:
        """Write what is packed, and the phases, which use parts of it."""
        lattice = self.lattice
        packs: list[tuple[int, int, int]] = []
        at: dict[tuple[int, ...], int] = {}
        holding = _Holding()
        packed = 0
        known: dict[int, tuple[int, int]] = {}
        for run in self.runs:
            holding.add(run)
            at[run] = packed
            sources = [(tap, *known.get(tap, (0, 0))) for tap in run]
            packs.append((packed, len(run), table.own(np.array(sources))))
            step = len(run) * self.tap_bytes
            for i, tap in enumerate(run):
                known.setdefault(tap, (packed + i * self.tap_bytes, step))
            packed += len(run) * self.tap_bytes * self.panels * self.groups
        table.set(s.PACKS, len(packs), table.own(np.array(packs)), self.tap_bytes)
        phases = []
        for phase in lattice.phases:
            run, skipped = holding[phase.taps]
            cuts = self.cuts(phase.taps)
            taps = table.tap_offsets(
                lattice, phase.cells, self.reduce, self.block, self.size, self.tile.every
            )
            phases.append((
                taps.size, table.own(taps), at[run] + skipped * self.tap_bytes,
                len(run) * self.tap_bytes, *phase.begin, *phase.end, *phase.start,
                len(cuts) - 1, table.own(np.array(cuts)), 0, phase.columns or self.columns,
            ))  # fmt: skip
        table.set_phases(phases)

    def _spill(self, box: tuple[int, ...]) -> int:
        """See `words.SPILL`: 0, unless one sweep computes pixels that lie one behind the other."""
        lattice, nr = self.lattice, self.tile.columns
        in_line = box[1:] == lattice.count or (box[0] == 1 and box[2:] == lattice.count[1:])
        in_line &= len(lattice.phases) == 1 and self.complete and lattice.out_step == (1, 1, 1)
        in_line &= len(self.cuts(lattice.phases[0].taps)) == 2
        narrow = self.groups == 1 and self.columns < nr
        return -(-(nr - self.columns) // self.columns) if in_line and narrow else 0

    def cuts(self, taps: tuple[int, ...]) -> list[int]:
        """Where a phase's K is cut so that a panel's block stays in the first-level cache.

        The cuts lie at the same taps in every phase, so that skipping taps in the padding, which
        add zeros, changes no bit.
        """
        longest = max(1, REDUCTION_BYTES // self.size)
        if self.tap_k > longest:
            n = -(-self.tap_k // longest)
            inner = [self.tap_k * i // n for i in range(n)]
            return [t * self.tap_k + i for t in range(len(taps)) for i in inner] + [
                len(taps) * self.tap_k
            ]
        blocks = -(-self.g.T * self.tap_k // longest)
        per_block = -(-self.g.T // blocks)
        starts = [
            i for i in range(1, len(taps)) if taps[i] // per_block != taps[i - 1] // per_block
        ]
        return [i * self.tap_k for i in (0, *starts, len(taps))]

    def run(self, source: Any, w: Any, b: Any, relu: bool, target: Any) -> None:
        """Compute `target` from `source`."""
        dtype = self.dtype
        w = plain_array(w, dtype)
        if not self.complete:
            target[...] = 0 if b is None else np.maximum(b, 0) if relu else b
            if not self.lattice.phases:
                return
        bias = 0
        if b is not None:
            b = plain_array(np.repeat(b, self.columns) if self.in_rows else b, dtype)
            bias = address_of(b)
        plain = source.dtype == dtype and source.flags.c_contiguous
        _, address, items, scratch = self.prepared(self.may_read_in_place and plain)
        to = view(target, dtype)
        if self.in_rows:
            to = (*to[:5], to[4], to[6])  # from column to column is from pixel to pixel along w
        single = target.shape[-1] == 1 and not self.in_rows
        direct = target.dtype == dtype and (to[5] == self.size or single)
        threads = min(parts(self.flops, GRAIN), items)
        space = workspace()
        packed = space.scratch(self.shared_nbytes + threads * scratch)
        call = space.write(
            CALL, 0, 0, 0, address, packed + self.shared_nbytes,
            *view(source, dtype), *to,
            address_of(w), packed, bias, packed + self.prior_at,
            relu, direct, 0, 0, self.sweep, not direct or target.flags.c_contiguous,
        )  # fmt: skip
        call_entry(self.entry, call, threads)


class InputGradient(Convolution):
    """The convolution of dy with the flipped kernel, phase by phase of the stride."""

    lattice_of = staticmethod(backward_lattice)

    def sides(self) -> tuple[int, int, int, tuple[int, ...], tuple[int, ...]]:
        """As above, with channels and filters exchanged."""
        g = self.g
        c, f = g.C // g.G, g.F // g.G
        if self.depthwise:
            return 1, 1, g.C, (g.C, 0, 1, 0), g.x_size
        return g.G, f, c, (c * g.F, 1, g.F, f), g.x_size


def _runs(taps: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The tap sequences that are packed: those that are not a part of a longer one."""
    found: list[tuple[int, ...]] = []
    holding = _Holding()
    for sequence in sorted(set(taps), key=len, reverse=True):
        if holding.find(sequence) is None:
            found.append(sequence)
            holding.add(sequence)
    return found


class _Holding:
    """Finds a run that a sequence of taps is a part of, among those that hold its first tap.

    A stride of 64 on two axes has 4096 sequences: comparing each with all takes seconds.
    """

    def __init__(self) -> None:
        self._runs: dict[int, list[tuple[tuple[int, ...], int]]] = {}

    def add(self, run: tuple[int, ...]) -> None:
        """Remember a run."""
        for i, tap in enumerate(run):
            self._runs.setdefault(tap, []).append((run, i))

    def __getitem__(self, part: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        found = self.find(part)
        if found is None:
            raise KeyError(part)
        return found

    def find(self, part: tuple[int, ...]) -> tuple[tuple[int, ...], int] | None:
        """The run and where `part` begins in it, if one has it without a gap."""
        for run, i in self._runs.get(part[0], ()):
            if run[i : i + len(part)] == part:
                return run, i
        return None
