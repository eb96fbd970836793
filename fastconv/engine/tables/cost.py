"""What a choice costs, in cycles: measured constants, and nothing that depends on the batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fastconv.engine.tables.boxes import region

if TYPE_CHECKING:
    from fastconv.engine.tables.conv import Choice

__all__ = ["cycles"]

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


def cycles(choice: Choice) -> float:
    """About how long the product takes: multiply-adds, tiles, sweeps, packing, gather."""
    tile, lattice = choice.tile, choice.lattice
    box = choice.box(NOMINAL_BATCH, BOXES)
    boxes = math.prod(-(-n // b) for n, b in zip(lattice.count, box[1:], strict=True))
    panels = choice.panels * choice.groups
    packed = sum(map(len, choice.runs)) * choice.tap_k * tile.line * panels
    total = 0.0
    for phase in lattice.phases:
        rows = tile.row_cost(-(-phase.pixels * box[0] // boxes))
        k = len(phase.taps) * choice.tap_k
        sweep = rows * tile.vectors * (k / 2 + 1) + rows / tile.rows * TILE_CYCLES
        if choice.columns < tile.columns and len(lattice.phases) > 1:
            sweep += rows * NARROW_CYCLES
        total += (sweep + SWEEP_CYCLES) * panels
    if not lattice.inside:
        cells = region(lattice, box)
        total += box[0] * math.prod(cells) * choice.cell_bytes / GATHER_BYTES
        total += box[0] * cells[0] * cells[1] * choice.planes * GATHER_ROW
    return total * boxes * -(-NOMINAL_BATCH // box[0]) + packed / 2
