"""Minimal filtering of 3x3 windows at stride 1: what is chosen, and its table.

A tile of R x R results is ``A' [(G g G') * (B' d B)] A`` with its (R + 2) x (R + 2) source cells d
and the window g: Winograd, "Arithmetic complexity of computations" (1980); Lavin and Gray, "Fast
algorithms for convolutional neural networks" (2016). Summed over channels, the element by element
product is (R + 2)**2 products of matrices, [tiles x channels] @ [channels x columns], instead of
the 9 R**2 of the direct way: 16 for 36 with R = 2, 36 for 144 with R = 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.tables.lattice import Lattice, backward_lattice, forward_lattice
from fastconv.engine.tables.table import Table
from fastconv.engine.tables.tiles import Tile, dense_tile
from fastconv.engine.tables.workspace import lines
from fastconv.geometry import Geometry

__all__ = ["EDGES", "RUN", "MinimalChoice", "edge_of", "is_minimal", "minimal_choice",
           "minimal_table"]  # fmt: skip

# What the sources and the sums of a block of tiles may take of the second-level cache, and its
# tiles, at least and at most: fewer do not use the packed window often enough.
BLOCK_BYTES = 512 * 1024
LEAST_TILES, MOST_TILES = 16, 64
# What a thread's block may take at all: more channels than that are computed with a smaller R, or
# directly.
THREAD_BYTES = 2816 * 1024
# Channels that are summed as one chain, at most; shorter chains round less.
REDUCTION = 256
# Tiles in a row whose cells are gathered at once, where the source is not read in place.
RUN = 8
LINE_BYTES = 64

EDGES = (2, 4)  # R
# Measured on an AMD EPYC (Zen 4) with AVX-512, as the processor time of one thread on a busy
# machine: what a point of a channel of a tile's cells, and of its results, costs in multiply-adds;
# how many times cheaper than its direct products a tile must be; and what a point of the window
# costs for a channel and a column. Those are made once a call, here for a batch of so many images.
# Times faster than the direct product, R = 2 and 4, float32, forward; channels x edge of the image:
#   8 x 32    0.66 1.10     32 x 8    1.33 2.03    64 x 4    1.25 1.74    128 x 16   1.67 2.55
#   16 x 8    1.14 1.66     32 x 32   1.61 2.67    64 x 7    1.17 1.84    256 x 14   1.73 1.57
#   16 x 32   1.20 1.97     48 x 16   1.75 2.78    64 x 16   1.74 2.90    512 x 7    1.19 1.73
POINT_COST = 10
MARGIN = 1.2
WINDOW_COST = 14
NOMINAL_BATCH = 16
LEAST_CHANNELS = 16


def is_minimal(g: Geometry) -> bool:
    """Whether minimal filtering can compute it."""
    steps = g.stride + g.dilation
    padded = all(0 <= p <= 2 for pair in g.pads for p in pair)
    return bool(g.m) and g.G == 1 and g.window == (3, 3) and steps == (1,) * 4 and padded


def _block_nbytes(edge: int, channels: int, tile: Tile, tiles: int) -> int:
    """Bytes of the sources and the sums of a block, with the rest of a tile of the micro-kernel."""
    each = (edge + 2) ** 2 * (channels + tile.columns) * tile.dtype.itemsize
    return each * (tiles + tile.rows)


def edge_of(name: str, g: Geometry, dtype: np.dtype) -> int:
    """R, results of a tile along an axis, or 0 where the direct product is as fast.

    It depends on one image's shape, not on the batch: a slice of a batch has the same bits.
    """
    if name == "kernel_grad" or not is_minimal(g) or min(g.C, g.F) < LEAST_CHANNELS:
        return 0
    size = g.y_size if name == "forward" else g.x_size
    products = g.C * g.F
    reduce, columns = (g.C, g.F) if name == "forward" else (g.F, g.C)
    tile = dense_tile(4096, columns, dtype)
    # a rest of a vector's channels is read with masks, which takes twice as long
    read = reduce + (2 * tile.lanes if reduce % tile.lanes else 0)
    fits = [R for R in EDGES if _block_nbytes(R, reduce, tile, tile.rows) <= THREAD_BYTES]

    def cost(edge: int) -> float:
        tiles = math.prod(-(-n // edge) for n in size)
        image = tiles * (products + POINT_COST * (read + columns))
        return (edge + 2) ** 2 * (image + WINDOW_COST * products / NOMINAL_BATCH)

    best = min(fits, key=cost, default=0)
    return best if best and cost(best) * MARGIN < 9 * math.prod(g.y_size) * products else 0


def odd_lines(nbytes: int) -> int:
    """At least so many bytes, an odd number of cache lines: what lies so far apart is in all sets.

    Points that were 2**16 bytes apart were written three times more slowly.
    """
    return (-(-nbytes // LINE_BYTES) | 1) * LINE_BYTES


@dataclass(frozen=True)
class MinimalChoice:
    """What is decided for a product by minimal filtering; `Choice` has the words' meanings.

    Attributes
    ----------
    g : Geometry
    dtype : numpy.dtype
    edge : int
        R, results of a tile along an axis.
    reduce, columns : int
        Channels that are summed; columns of the result.
    w_bytes : (tap, channel, column)
        Bytes from one of them to the next in the kernel; of a flipped kernel a tap's is negative.
    low : (h, w)
        The first source cell of the first tile.
    source_size, size : (h, w)
        Extents of the source and of the result.
    tile : Tile
    lattice : Lattice
        That of the direct product.
    """

    g: Geometry
    dtype: np.dtype
    edge: int
    reduce: int
    columns: int
    w_bytes: tuple[int, int, int]
    low: tuple[int, int]
    source_size: tuple[int, ...]
    size: tuple[int, ...]
    tile: Tile
    lattice: Lattice
    groups: int = 1
    complete: bool = True
    in_rows: bool = False
    may_read_in_place: bool = False

    @property
    def panels(self) -> int:
        """Panels of NR columns."""
        return -(-self.columns // self.tile.columns)

    @property
    def points(self) -> int:
        """Products of matrices: (R + 2)**2."""
        return (self.edge + 2) ** 2

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles of an image along h and w."""
        h, w = (-(-n // self.edge) for n in self.size)
        return h, w

    @property
    def tap_bytes(self) -> int:
        """Bytes of a panel of the reduction channels of one tap."""
        return self.reduce * self.tile.columns * self.dtype.itemsize

    @property
    def point_bytes(self) -> int:
        """From one point of a panel to the next."""
        return odd_lines(self.tap_bytes)

    @property
    def panel_bytes(self) -> int:
        """Of a panel: its 9 taps, for tiles that are computed directly, and its points."""
        return 9 * self.tap_bytes + self.points * self.point_bytes

    @cached_property
    def shared(self) -> list[int]:
        """Where in the scratch that threads share lie: the packed windows, the bias; its bytes."""
        line = self.tile.columns * self.dtype.itemsize
        return lines(self.panels * self.panel_bytes, self.panels * line)


def minimal_choice(name: str, g: Geometry, dtype: np.dtype, edge: int) -> MinimalChoice:
    """What is decided for "forward" or "input_grad" with tiles of `edge` results."""
    size = dtype.itemsize
    if name == "forward":
        reduce, columns, source, result = g.C, g.F, g.x_size, g.y_size
        w_bytes = (g.C * g.F * size, g.F * size, size)
        low, lattice = tuple(-lo for lo, _ in g.pads), forward_lattice(g)
    else:
        reduce, columns, source, result = g.F, g.C, g.y_size, g.x_size
        w_bytes = (-g.C * g.F * size, size, g.F * size)
        low, lattice = tuple(lo - 2 for lo, _ in g.pads), backward_lattice(g)
    tile = dense_tile(4096, columns, dtype)
    h, w = low
    return MinimalChoice(g, dtype, edge, reduce, columns, w_bytes, (h, w), source, result, tile,
                         lattice)  # fmt: skip


def _block(choice: MinimalChoice, threads: int) -> int:
    """Tiles of a block."""
    total, tile = choice.g.m * math.prod(choice.tiles), choice.tile

    def nbytes(tiles: int) -> int:
        return _block_nbytes(choice.edge, choice.reduce, tile, tiles)

    best = tile.rows  # whole tiles of the micro-kernel
    for n in range(tile.rows, MOST_TILES + 1, tile.rows):
        if nbytes(n) <= (THREAD_BYTES if n <= LEAST_TILES else BLOCK_BYTES):
            best = n
    return max(1, min(best, -(-total // threads)))


def minimal_table(choice: MinimalChoice, threads: int) -> Table:
    """The words of a product by minimal filtering, for so many threads."""
    size, tile, across = choice.dtype.itemsize, choice.tile, choice.edge + 2
    lanes, nr, line = tile.lanes, tile.columns, tile.columns * size
    block = _block(choice, threads)
    cell = -(-choice.reduce // lanes) * lanes * size
    table = Table(s.TABLE_WORDS)
    table.set(s.BYTES, size, tile.rows, nr, line)
    table.set(s.M, choice.g.m)
    table.set(s.ITEMS, -(-choice.g.m * math.prod(choice.tiles) // block))
    table.set(s.COLUMNS, choice.columns)
    table.set(s.PANELS, choice.panels)
    table.set(s.TAP_STEP, *choice.w_bytes)
    table.set(s.REDUCE, choice.reduce)
    table.set(s.REDUCTION, REDUCTION)
    table.set(s.LOW, 0, *choice.low)
    table.set(s.SIZE, 1, *choice.source_size)
    table.set(s.COUNT, 1, *choice.size)
    table.set(s.MINIMAL_BLOCK, block)
    table.set(s.MINIMAL_TILES, *choice.tiles)
    rows = block + tile.rows  # a rest of a tile computes more, which nobody reads
    between, sums = odd_lines(rows * cell), odd_lines(rows * line)
    table.set(s.MINIMAL_CELL, cell, between, sums)
    table.set(s.MINIMAL_WINDOW, choice.point_bytes, choice.panel_bytes)
    table.set(s.MINIMAL_ZEROS, table.keep(np.zeros(max(cell, line), np.uint8)))
    reduction = np.arange(choice.reduce) * size
    tiles = np.arange(max(block, choice.edge**2) + tile.rows)
    table.set(s.MINIMAL_ROWS, table.own(tiles * cell), table.own(tiles * line),
              table.own(reduction))  # fmt: skip
    # a tile that is computed directly: its results, and its taps, from its first source cell
    pixels = np.add.outer(np.arange(choice.edge) * across, np.arange(choice.edge)).ravel() * cell
    taps = np.add.outer(np.arange(3) * across, np.arange(3)).ravel() * cell
    pixels = np.append(pixels, [pixels[-1]] * tile.rows)
    table.set(s.MINIMAL_PIXELS, table.own(pixels), table.own(np.add.outer(taps, reduction)))
    starts = lines(
        s.TASK_WORDS * 8, choice.points * 8, choice.edge**2 * 8, choice.points * LINE_BYTES,
        choice.points * between, choice.points * sums,
        across * (choice.edge * RUN + 2) * cell, (choice.edge**2 + tile.rows) * line,
    )  # fmt: skip
    table.set(s.AT_TASK, starts[0])
    table.set(s.AT_ADDRESSES, *starts[1:8])
    table.set(s.SCRATCH_BYTES, starts[-1])
    return table
