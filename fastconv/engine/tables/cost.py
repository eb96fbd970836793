"""What a product costs, in cycles: measured constants, and nothing that depends on the batch."""

from __future__ import annotations

import math

from fastconv.engine.tables.boxes import region
from fastconv.engine.tables.lattice import Lattice
from fastconv.engine.tables.tiles import Tile

__all__ = ["BOXES", "NOMINAL_BATCH", "cycles"]

# Cycles, measured: to start a sweep over a panel, a tile, to store a narrow row; gathered bytes a
# cycle; to gather a row.
SWEEP_CYCLES = 150
TILE_CYCLES = 25
NARROW_CYCLES = 6
GATHER_BYTES = 12
GATHER_ROW = 40
# Images of the batch for which phases are chosen, and boxes that it is cut into.
NOMINAL_BATCH = 64
BOXES = 16


def cycles(
    *, tile: Tile, lattice: Lattice, box: tuple[int, ...], taps: int, tap_k: int, panels: int,
    columns: int, cell_bytes: int, planes: int,
) -> float:  # fmt: skip
    """About how long a product takes: multiply-adds, tiles, sweeps, packing, gather.

    Parameters
    ----------
    tile : Tile
    lattice : Lattice
    box : (n, d, h, w)
        Pixels of a box, for NOMINAL_BATCH images cut into BOXES.
    taps : int
        Taps that are packed.
    tap_k : int
        Steps of the reduction of one tap.
    panels, columns : int
        Panels of all groups; columns of one group.
    cell_bytes, planes : int
        Bytes and planes of a gathered cell.
    """
    boxes = math.prod(-(-n // b) for n, b in zip(lattice.count, box[1:], strict=True))
    packed = taps * tap_k * tile.line * panels
    total = 0.0
    for phase in lattice.phases:
        rows = tile.row_cost(-(-phase.pixels * box[0] // boxes))
        k = len(phase.taps) * tap_k
        sweep = rows * tile.vectors * (k / 2 + 1) + rows / tile.rows * TILE_CYCLES
        if columns < tile.columns and len(lattice.phases) > 1:
            sweep += rows * NARROW_CYCLES
        total += (sweep + SWEEP_CYCLES) * panels
    if not lattice.inside:
        cells = region(lattice, box)
        total += box[0] * math.prod(cells) * cell_bytes / GATHER_BYTES
        total += box[0] * cells[0] * cells[1] * planes * GATHER_ROW
    return total * boxes * -(-NOMINAL_BATCH // box[0]) + packed / 2
