"""The forward product and the input gradient, ``[pixels x K] @ [K x columns]``: what is chosen.

`forward_choice` and `input_choice` decide everything that depends on the shapes, `conv_table`
writes it down for the loop (`loops.conv`). Nothing here computes, and nothing changes once made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.emit.kinds import DOT
from fastconv.engine.tables import cost
from fastconv.engine.tables.boxes import BOX_BYTES, choose_box
from fastconv.engine.tables.lattice import Lattice, backward_lattice, forward_lattice
from fastconv.engine.tables.table import Source, Table
from fastconv.engine.tables.tap_runs import Holding, runs
from fastconv.engine.tables.tiles import (
    Tile,
    dense_tile,
    depthwise_tile,
    dot_tile,
    is_depthwise,
    narrow_lanes,
    pair_tile,
)
from fastconv.engine.tables.workspace import lines
from fastconv.geometry import Geometry

__all__ = ["Choice", "conv_table", "forward_choice", "input_choice"]

# Longest chain of sums, in bytes of a column: a block of a panel, 384*NR*4 bytes = 24 KiB, then
# stays in the first-level cache. From 256 to 512 elements the speed differs by less than 5 %.
REDUCTION_BYTES = 1536
# Boxes wanted, at least, where there are threads to share them; no result depends on it.
BOXES = 16
MOST_PHASES = 100
# A kernel of more bytes than this comes from the third-level cache. Boxes are larger then, to read
# it less often (3x3 on 7x7x512: 69 GFLOP/s against 52), and no tap is packed twice (57).
LARGE_KERNEL = 512 * 1024
LARGE_BOX_BYTES = 640 * 1024


@dataclass(frozen=True)
class Choice:
    """What is decided for one product of a geometry.

    Attributes
    ----------
    g : Geometry
    dtype : numpy.dtype
        Of the sums.
    depthwise : bool
        Whether channels are the columns, each with a kernel of its own.
    in_rows : bool
        Whether neighbours along w are the columns: one channel, one filter.
    groups, reduce, columns : int
        Groups; reduction channels and columns of one of them.
    w_bytes : (tap, channel, column, group)
        Bytes from one of them to the next in the kernel.
    size : tuple of int
        Spatial extents of the result.
    tile : Tile
    lattice : Lattice
        Which source cells meet which result pixels.
    """

    g: Geometry
    dtype: np.dtype
    depthwise: bool
    in_rows: bool
    groups: int
    reduce: int
    columns: int
    w_bytes: tuple[int, int, int, int]
    size: tuple[int, ...]
    tile: Tile
    lattice: Lattice

    behind = 0  # bytes that may be read behind a box of results in scratch

    @property
    def panels(self) -> int:
        """Panels of NR columns that a group has."""
        return -(-self.columns // self.tile.columns)

    @property
    def tap_k(self) -> int:
        """Steps of the reduction of one tap."""
        return -(-self.reduce // self.tile.every)

    @property
    def channels(self) -> int:
        """Channels of a source cell."""
        return self.g.C if self.depthwise else self.groups * self.reduce

    @property
    def block(self) -> int:
        """Channels of a plane of the gathered source."""
        if self.depthwise:
            return self.tile.columns
        return self.tap_k * self.tile.lanes if self.tile.kind is DOT else self.channels

    @property
    def planes(self) -> int:
        """Planes of the gathered source."""
        return -(-self.channels // self.block)

    @property
    def cell_bytes(self) -> int:
        """Bytes of a gathered cell."""
        return self.planes * self.block * self.dtype.itemsize

    @property
    def large(self) -> bool:
        """Whether the kernel is too large for the second-level cache."""
        return self.g.K * self.g.F * self.dtype.itemsize > LARGE_KERNEL

    @cached_property
    def runs(self) -> list[tuple[int, ...]]:
        """The runs of taps that are packed."""
        return runs([phase.taps for phase in self.lattice.phases])

    @property
    def tap_bytes(self) -> int:
        """Bytes of a packed tap of one panel."""
        return self.tap_k * self.tile.line * self.dtype.itemsize

    @cached_property
    def shared(self) -> list[int]:
        """Where in the scratch that threads share lie: the packed kernel, the bias; its bytes."""
        panels = self.panels * self.groups
        packed = sum(map(len, self.runs)) * self.tap_bytes * panels
        return lines(packed, panels * self.tile.line * self.dtype.itemsize)

    @cached_property
    def complete(self) -> bool:
        """Whether every result cell belongs to a phase; others meet no tap at all."""
        met = sum(phase.pixels * (phase.columns or 1) for phase in self.lattice.phases)
        return met == math.prod(self.size)

    @cached_property
    def may_read_in_place(self) -> bool:
        """Whether a contiguous source may be read where it lies."""
        return (
            bool(self.lattice.phases)
            and self.lattice.inside
            and (not self.depthwise or self.columns % self.tile.columns == 0)
            and self.reduce % self.tile.every == 0
        )

    def box(self, m: int, boxes: int, threads: int = 1) -> tuple[int, ...]:
        """The box for a batch, if so many boxes are wanted for so many threads."""
        # results are visited a panel at a time; a quarter of them bounds the scratch for all
        columns = self.groups * self.columns
        pixel_bytes = max(self.tile.columns, columns // 4) * self.dtype.itemsize
        limit = LARGE_BOX_BYTES if self.large else BOX_BYTES
        return choose_box(m, self.lattice, self.cell_bytes, pixel_bytes, boxes, limit, threads)

    def cuts(self, taps: tuple[int, ...]) -> list[int]:
        """Where a phase's K is cut so that a panel's block stays in the first-level cache.

        The cuts lie at the same taps in every phase, so that skipping taps in the padding, which
        add zeros, changes no bit.
        """
        longest = max(1, REDUCTION_BYTES // self.dtype.itemsize)
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

    def spill(self, box: tuple[int, ...]) -> int:
        """See `words.SPILL`: 0, unless one sweep computes pixels that lie one behind the other."""
        lattice, nr = self.lattice, self.tile.columns
        in_line = box[1:] == lattice.count or (box[0] == 1 and box[2:] == lattice.count[1:])
        in_line &= len(lattice.phases) == 1 and self.complete and lattice.out_step == (1, 1, 1)
        in_line &= len(self.cuts(lattice.phases[0].taps)) == 2
        narrow = self.groups == 1 and self.columns < nr
        return -(-(nr - self.columns) // self.columns) if in_line and narrow else 0


def forward_choice(g: Geometry, dtype: np.dtype) -> Choice:
    """What is decided for ``y = cols @ w``."""
    c, f = g.C // g.G, g.F // g.G
    steps = (c * g.F, g.F, 1, f)
    return _choice(g, dtype, forward_lattice, (g.G, c, f), steps, g.y_size)


def input_choice(g: Geometry, dtype: np.dtype) -> Choice:
    """What is decided for ``dx``: the convolution of dy with the flipped kernel.

    One convolution for each phase of the stride; channels and filters are exchanged. Where copies
    of cells stand in the padding, it is the gradient of the padded input: see `plans.fold`.
    """
    if g.padding_mode != "constant":
        g = g.padded
    c, f = g.C // g.G, g.F // g.G
    steps = (c * g.F, 1, g.F, f)
    return _choice(g, dtype, backward_lattice, (g.G, f, c), steps, g.x_size)


def _choice(
    g: Geometry,
    dtype: np.dtype,
    lattice_of: Callable[..., Lattice],
    sides: tuple[int, int, int],
    w_steps: tuple[int, int, int, int],
    size: tuple[int, ...],
) -> Choice:
    """`sides` are groups, reduction channels and columns; steps of w are in elements."""
    depthwise = is_depthwise(g)
    if depthwise:
        sides, w_steps = (1, 1, g.C), (g.C, 0, 1, 0)
    groups, reduce, columns = sides
    plain = lattice_of(g)
    # One channel, one filter, stride 1: neighbours along w are the columns, and the kernel is
    # repeated for each. 5x5 on 64x64: 7 times as fast as lanes along the reduction.
    in_rows = g.C == g.F == 1 and plain.step[2] == plain.out_step[2] == 1
    in_rows &= bool(plain.phases) and size[-1] > 1
    if in_rows:
        tile = depthwise_tile(size[-1], dtype)
        columns, w_steps = tile.columns, (w_steps[0], 0, 0, 0)
        plain = plain.in_rows(columns)
    elif depthwise:
        tile = depthwise_tile(g.C, dtype)
    else:
        dot = dot_tile(columns, dtype) if groups == 1 else None
        pair = pair_tile(columns, reduce, dtype)
        lanes = narrow_lanes(columns, dtype)
        tile = dot or pair or dense_tile(g.m * math.prod(size), columns, dtype, lanes)
    tap, channel, column, group = (step * dtype.itemsize for step in w_steps)
    choice = Choice(
        g,
        dtype,
        depthwise,
        in_rows,
        groups,
        reduce,
        columns,
        (tap, channel, column, group),
        size,
        tile,
        plain,
    )
    return choice if in_rows else _cheapest(choice, lattice_of)


def _cheapest(choice: Choice, lattice_of: Callable[..., Lattice]) -> Choice:
    """The cheapest way to treat windows that leave the source: zeros, or phases of their own.

    It depends on one image's shape, not on the batch: a slice of a batch has the same bits even
    where an infinite weight meets the padding.
    """
    if not choice.lattice.phases or choice.lattice.inside or choice.g.padding_mode != "constant":
        return choice
    return min((choice, *_split(choice, lattice_of)), key=_cycles)


def _cycles(choice: Choice) -> float:
    return cost.cycles(
        tile=choice.tile,
        lattice=choice.lattice,
        box=choice.box(cost.NOMINAL_BATCH, cost.BOXES),
        taps=sum(map(len, choice.runs)),
        tap_k=choice.tap_k,
        panels=choice.panels * choice.groups,
        columns=choice.columns,
        cell_bytes=choice.cell_bytes,
        planes=choice.planes,
    )


def _split(choice: Choice, lattice_of: Callable[..., Lattice]) -> Iterator[Choice]:
    """The choice with phases of their own for padding on some axes."""
    axes = [(False, True) if n > 1 else (False,) for n in choice.lattice.count]
    for split in itertools.product(*axes):
        if any(split):
            other = replace(choice, lattice=lattice_of(choice.g, split, MOST_PHASES))
            packed = sum(map(len, other.runs))
            if other.lattice.phases and (packed == choice.g.T or not choice.large):
                yield other


def conv_table(choice: Choice, in_place: bool, threads: int) -> Table:
    """The words of a product, whose source is read in place or gathered, for so many threads."""
    size, lattice, tile = choice.dtype.itemsize, choice.lattice, choice.tile
    columns = choice.groups * choice.columns
    box = choice.box(choice.g.m, 1 if threads == 1 else max(BOXES, 4 * threads), threads)
    channels = choice.channels
    source = Source(lattice, box, channels, choice.block, channels, size, in_place)
    table = Table(s.TABLE_WORDS)
    table.set(s.BYTES, size, tile.rows, tile.columns, tile.line * size)
    table.set_boxes(choice.g.m, lattice, box)
    table.set_source(source)
    table.set_outside(choice.g, lattice.wide)
    table.set(s.GROUPS, choice.groups)
    table.set(s.A_GROUP, choice.reduce * size)
    table.set(s.A_PANEL, source.pitch[4] if choice.depthwise else 0)
    table.set(s.COLUMNS, choice.columns)
    table.set(s.PANELS, choice.panels)
    table.set(s.OUT_STEP, *lattice.out_step)
    table.set(s.TAP_STEP, *choice.w_bytes)
    table.set(s.REDUCE, choice.reduce)
    table.set(s.EVERY, tile.every)
    pixels = math.prod(box)
    offsets = (pixels + tile.rows) * 8
    results = pixels * columns * size + choice.behind
    task = (s.TASK_WORDS + s.BOX_WORDS) * 8
    starts = lines(task, offsets, offsets, source.nbytes, results)
    table.set(s.AT_TASK, *starts[:5])
    table.set(s.SCRATCH_BYTES, starts[-1])
    _set_phases(table, choice, source)
    table.set(s.SPILL, choice.spill(box))
    return table


def _set_phases(table: Table, choice: Choice, source: Source) -> None:
    """Write what is packed, and the phases, which use parts of it."""
    panels = choice.panels * choice.groups
    packs: list[tuple[int, int, int]] = []
    at: dict[tuple[int, ...], int] = {}
    holding = Holding()
    packed = 0
    known: dict[int, tuple[int, int]] = {}
    for run in choice.runs:
        holding.add(run)
        at[run] = packed
        sources = [(tap, *known.get(tap, (0, 0))) for tap in run]
        packs.append((packed, len(run), table.own(np.array(sources))))
        step = len(run) * choice.tap_bytes
        for i, tap in enumerate(run):
            known.setdefault(tap, (packed + i * choice.tap_bytes, step))
        packed += len(run) * choice.tap_bytes * panels
    table.set(s.PACKS, len(packs), table.own(np.array(packs)), choice.tap_bytes)
    phases = []
    for phase in choice.lattice.phases:
        run, skipped = holding[phase.taps]
        cuts = choice.cuts(phase.taps)
        taps = source.offsets(phase.cells, choice.reduce, choice.tile.every)
        phases.append(s.phase_words(
            k=taps.size, offsets=table.own(taps), packed=at[run] + skipped * choice.tap_bytes,
            panel=len(run) * choice.tap_bytes, begin=phase.begin, end=phase.end,
            start=phase.start, blocks=len(cuts) - 1, block_table=table.own(np.array(cuts)),
            columns=phase.columns or choice.columns,
        ))  # fmt: skip
    table.set_phases(phases)
