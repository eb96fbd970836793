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
from fastconv.engine.tables.tiles import all_tiles, cpu_halves, cpu_lanes
from fastconv.operands import computing_dtype

__all__ = ["compile_network", "compile_pools", "compile_tiles"]

# Entries for vectors; the call itself compiles those that take single elements.
POOLS = {"max_pool": ("max", "argmax"), "max_pool_backward": ("place",), "avg_pool": ("mean",),
         "avg_pool_backward": ("spread", "fill")}  # fmt: skip
# Those that take float16 as it is, and what spacings of windows side by side they take.
WITHOUT_SUMS = {"max": (1, 2), "argmax": (1, 2), "mean": (1, 2), "fill": (2,), "place": (2,)}


def compile_tiles(dtype: np.dtype) -> None:
    """The sweep of every tile, which products choose by their numbers of channels."""
    for tile in all_tiles(dtype):
        sweep_address(tile)


def compile_pools(op: str, dtype: np.dtype) -> None:
    """A pooling's entries for any number of channels: vectors of 1, 2, 4, ... or of windows."""
    computing = computing_dtype(dtype)
    most = cpu_lanes(computing)
    for name in POOLS.get(op, ()):
        of = dtype if cpu_halves() and name in WITHOUT_SUMS else computing
        for shift in range(1 if name == "place" else most.bit_length()):
            pool_address(name, most >> shift, 0, of)
        for spacing in WITHOUT_SUMS.get(name, ()):
            pool_address(name, most, spacing, of)
        if name == "place":  # of windows that are no pairs, channels are brought together first
            pool_address(name, most, 0, computing)


def compile_network(dtype: np.dtype) -> None:
    """The loops of layers, losses and optimizers, most of which no public function calls."""
    for name in LOOPS:
        if name != "columns":  # which no layer needs
            loop_address(name, dtype)
    lanes = cpu_lanes(dtype)
    while lanes:
        for name in FINISHES:
            finish_address(name, lanes, dtype)
        lanes //= 2
