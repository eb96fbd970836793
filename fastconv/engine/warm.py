"""Which machine code an operation may need, whatever its numbers of channels."""

from __future__ import annotations

import numpy as np

from fastconv.engine.entries import (
    FINISHES,
    LOOPS,
    finish_address,
    loop_address,
    pool_address,
    sweep_address,
)
from fastconv.engine.tables.tiles import all_tiles, cpu_lanes

__all__ = ["compile_network", "compile_pools", "compile_tiles"]

# Entries for vectors of channels; the call itself compiles those that take single elements.
POOLS = {"max_pool": ("max", "argmax"), "avg_pool": ("mean",),
         "avg_pool_backward": ("spread", "fill")}  # fmt: skip


def compile_tiles(dtype: np.dtype) -> None:
    """The sweep of every tile, which products choose by their numbers of channels."""
    for tile in all_tiles(dtype):
        sweep_address(tile)


def compile_pools(op: str, dtype: np.dtype) -> None:
    """A pooling's entries for any number of channels: vectors of 1, 2, 4, ... of them."""
    lanes = cpu_lanes(dtype)
    while lanes:
        for name in POOLS.get(op, ()):
            pool_address(name, lanes, dtype)
        lanes //= 2


def compile_network(dtype: np.dtype) -> None:
    """The loops of layers, losses and optimizers, most of which no public function calls."""
    for name in LOOPS:
        loop_address(name, dtype)
    lanes = cpu_lanes(dtype)
    while lanes:
        for name in FINISHES:
            finish_address(name, lanes, dtype)
        lanes //= 2
