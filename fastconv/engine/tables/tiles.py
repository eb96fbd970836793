"""Register tiles of the micro-kernel: which exist on this processor, and which one suits a product.

A tile is MR rows by NV vectors of VL lanes (NR = NV*VL columns). MR*NV accumulators, NV vectors of
the right operand and one broadcast must fit the registers: 16 of them with SSE and AVX, 32 with
AVX-512 and NEON. Eight accumulators at least, to hide the latency of a fused multiply-add (4
cycles, two a cycle).
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fastconv.engine.emit.kinds import DOT, ELEMENTWISE, OUTER, PAIR, TWIN, Kind
from fastconv.geometry import Geometry

__all__ = [
    "Tile",
    "all_tiles",
    "cpu_halves",
    "cpu_isa",
    "cpu_lanes",
    "dense_tile",
    "depthwise_tile",
    "dot_tile",
    "is_depthwise",
    "narrow_lanes",
    "pair_tile",
    "twin_tile",
]  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """MR rows by NV vectors of VL lanes; ``rows_left`` is the smaller tile for a rest of rows.

    The kinds are those of `emit.kinds`: OUTER, ELEMENTWISE (depthwise), DOT (few columns), PAIR
    and TWIN (columns of one vector).
    """

    rows: int
    vectors: int
    lanes: int
    dtype: np.dtype
    kind: Kind = OUTER

    @property
    def rows_left(self) -> int:
        """Rows of the tile that finishes what MR does not divide."""
        return (self.rows + 1) // 2

    @property
    def columns(self) -> int:
        """NR, the columns of the tile."""
        return self.kind.columns(self.vectors, self.lanes)

    @property
    def line(self) -> int:
        """Elements of the right operand in one step of the reduction."""
        return self.vectors * self.lanes

    @property
    def every(self) -> int:
        """Elements of the left operand in one step of the reduction."""
        return self.kind.every(self.lanes)

    def row_cost(self, rows: int) -> int:
        """Rows that are computed for `rows` rows: the last tile repeats its last row."""
        full, left = divmod(rows, self.rows)
        return full * self.rows + -(-left // self.rows_left) * self.rows_left

    @property
    def name(self) -> str:
        """Such as ``outer_float32_6x2x8``: part of the names of compiled kernels."""
        return f"{self.kind.name}_{self.dtype.name}_{self.rows}x{self.vectors}x{self.lanes}"


# Bytes of a vector register; dense tiles as (MR, NV, relative speed); depthwise tiles. Measured on
# one Zen 4 core limited to AVX2 (peak 83 GFLOP/s in float32) at K = 144: 6x2 81, 4x3 81, 10x1 69,
# and 12x1 37, because x86 has no 12 registers to spare for the addresses of the rows. The AVX-512
# rows won in a prototype on such a machine.
# isa      bytes  dense tiles                                       depthwise
TILES: dict[str, tuple[int, tuple[tuple[int, int, float], ...], tuple[tuple[int, int], ...]]] = {
    "avx512": (64, ((10, 1, 0.80), (8, 2, 1.00), (9, 2, 0.98), (6, 4, 1.00)), ((9, 1), (9, 2))),
    "avx2": (32, ((10, 1, 0.80), (6, 2, 1.00), (4, 3, 0.97)), ((9, 1), (6, 2))),
    "generic": (16, ((8, 1, 0.80), (6, 2, 1.00)), ((9, 1), (6, 2))),
    "neon": (16, ((12, 1, 0.80), (8, 2, 1.00), (6, 4, 1.00)), ((9, 1), (9, 2))),
}
# Rows of the DOT tile for 1, 2, ... columns; more columns fill a vector well enough.
DOT_ROWS = {"avx512": (12, 9, 6, 5), "avx2": (8, 5, 4), "generic": (8, 5), "neon": (12, 9)}


# Rows of the PAIR tile, of two vectors; the TWIN tile has twice as many, of one.
PAIR_ROWS = {"avx512": 8, "avx2": 6, "generic": 6, "neon": 8}


@lru_cache(1)
def cpu_isa() -> str:
    """The row of `TILES` for this processor, as Numba will compile for it.

    ``NUMBA_CPU_FEATURES`` and ``NUMBA_CPU_NAME`` are honoured, so that the code of smaller
    machines can be tested on a larger one.
    """
    return "neon" if _is_arm() else isa_of(_cpu_features())


@lru_cache(1)
def cpu_halves() -> bool:
    """Whether this processor turns vectors of float16 into float32, and back, by itself."""
    return _is_arm() or "+f16c" in _cpu_features().split(",")


def _is_arm() -> bool:
    return platform.machine().lower() in ("aarch64", "arm64")


def _cpu_features() -> str:
    """LLVM's features of an x86-64 processor, as Numba will compile for it."""
    from numba.core import config
    from numba.core.codegen import get_host_cpu_features

    if config.CPU_FEATURES is not None:
        return str(config.CPU_FEATURES)
    return "" if config.CPU_NAME == "generic" else str(get_host_cpu_features())


def cpu_lanes(dtype: np.dtype) -> int:
    """Elements of a vector register of this processor."""
    return TILES[cpu_isa()][0] // dtype.itemsize


def isa_of(features: str) -> str:
    """The row of `TILES` for LLVM's `features`, such as ``"+sse4.2,+avx,-avx512f"``.

    >>> isa_of("+avx,+fma,-avx512f"), isa_of("+sse4.2")
    ('avx2', 'generic')
    """
    present = {word[1:] for word in features.split(",") if word.startswith("+")}
    if "avx512f" in present:
        return "avx512"
    return "avx2" if {"avx", "fma"} <= present else "generic"


def narrow_lanes(columns: int, dtype: np.dtype) -> int:
    """Lanes of a vector for so many columns: with AVX-512 half a register's, where they suffice.

    A processor that multiplies 64 bytes in two halves then takes half the time; one that does not,
    waits for the broadcasts of such narrow tiles anyway. LeNet's first convolution, 6 filters, on
    Zen 4: 36 and 60 GFLOP/s.
    """
    lanes = cpu_lanes(dtype)
    return lanes // 2 if cpu_isa() == "avx512" and columns <= lanes // 2 else lanes


@lru_cache(256)
def dense_tile(rows: int, columns: int, dtype: np.dtype, lanes: int = 0) -> Tile:
    """The tile that wastes least on `rows` by `columns` results, of vectors of so many lanes.

    >>> dense_tile(9, 32, np.dtype("float32")).columns <= 64
    True
    """
    _, shapes, _ = TILES[cpu_isa()]
    lanes = lanes or cpu_lanes(dtype)

    def cost(shape: tuple[int, int, float]) -> float:
        tile = Tile(shape[0], shape[1], lanes, dtype)
        panels = -(-columns // tile.columns)
        return tile.row_cost(min(rows, 4096)) * panels * tile.vectors / shape[2]

    return Tile(*min(shapes, key=cost)[:2], lanes, dtype)


def is_depthwise(g: Geometry) -> bool:
    """Whether every channel has a filter of its own, and no more: such tiles are for that."""
    return g.G == g.C == g.F and g.G > 1


def depthwise_tile(channels: int, dtype: np.dtype) -> Tile:
    """The tile of a depthwise product: channels are the columns."""
    nbytes, _, shapes = TILES[cpu_isa()]
    lanes = nbytes // dtype.itemsize
    tiles = [Tile(rows, vectors, lanes, dtype, ELEMENTWISE) for rows, vectors in shapes]
    return min(tiles, key=lambda tile: (-channels % tile.columns, -tile.columns))


def dot_tile(columns: int, dtype: np.dtype) -> Tile | None:
    """The tile with lanes along the reduction, where columns are too few to fill a vector."""
    nbytes, *_ = TILES[cpu_isa()]
    lanes = nbytes // dtype.itemsize
    rows = DOT_ROWS[cpu_isa()]
    if columns > len(rows) or 2 * columns > lanes:
        return None
    return Tile(rows[columns - 1], columns, lanes, dtype, DOT)


def pair_tile(columns: int, reduce: int, dtype: np.dtype) -> Tile | None:
    """The tile for columns of one vector, where the reduction is made of pairs."""
    lanes = narrow_lanes(columns, dtype)
    if columns > lanes or reduce % 2:
        return None
    return Tile(PAIR_ROWS[cpu_isa()], 2, lanes, dtype, PAIR)


def twin_tile(columns: int, dtype: np.dtype) -> Tile | None:
    """The tile for columns of one vector, where rows lie side by side."""
    lanes = cpu_lanes(dtype)
    return Tile(2 * PAIR_ROWS[cpu_isa()], 1, lanes, dtype, TWIN) if columns <= lanes else None


def all_tiles(dtype: np.dtype) -> list[Tile]:
    """Every tile that this processor may use for a dtype.

    >>> len({tile.name for tile in all_tiles(np.dtype("float32"))}) >= 5
    True
    """
    nbytes, dense, depthwise = TILES[cpu_isa()]
    lanes = nbytes // dtype.itemsize
    dots = (dot_tile(columns, dtype) for columns in range(1, len(DOT_ROWS[cpu_isa()]) + 1))
    few = narrow_lanes(1, dtype)
    special = [*dots, pair_tile(lanes, 2, dtype), twin_tile(1, dtype)]
    if few < lanes:
        one = (dense_tile(1, 1, dtype), pair_tile(1, 2, dtype), twin_tile(1, dtype))
        special += [tile and replace(tile, lanes=few) for tile in one]
    return [
        *(Tile(rows, vectors, lanes, dtype) for rows, vectors, _ in dense),
        *(Tile(rows, vectors, lanes, dtype, ELEMENTWISE) for rows, vectors in depthwise),
        *(tile for tile in special if tile is not None),
    ]
