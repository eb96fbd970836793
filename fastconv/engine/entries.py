"""Addresses of compiled entries: one C function ``void (int64 call, int64 thread)`` for each use.

Every entry is compiled when it is first wanted and kept on disk in a file of its own (see
`fastconv.cache`); one that comes from disk solves a known problem before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from fastconv.compiler.entry import obtain
from fastconv.engine.emit.pool import ARGMAX, FILL, MAX, MEAN, PLACE, SPREAD
from fastconv.engine.known_finishes import (
    finish_works,
    pool_winners_works,
    winners_backward_works,
    winners_works,
)
from fastconv.engine.known_kept import serve_works
from fastconv.engine.known_loops import loop_works
from fastconv.engine.known_plans import (
    minimal_works,
    pool_works,
    product_works,
    program_works,
    sweep_works,
)
from fastconv.engine.loops import (
    batch_norm,
    columns,
    conv,
    deltas,
    elementwise,
    kept,
    kernel_grad,
    losses,
    norm_statistics,
    optimizers,
    pool,
    pool_lines,
    program,
    rectifiers,
    winners,
    winograd,
)
from fastconv.engine.loops.bias_grad import bias_grad
from fastconv.engine.loops.fill import fill_rows
from fastconv.engine.loops.finish import finish
from fastconv.engine.loops.image_means import image_means
from fastconv.engine.loops.sweep import sweep
from fastconv.engine.tables.tiles import Tile, cpu_lanes, dense_tile
from fastconv.operands import computing_dtype
from fastconv.threads import building

__all__ = ["control_address", "finish_address", "loop_address", "minimal_address", "pool_address",
           "program_address", "serve_address", "sweep_address"]  # fmt: skip

_sweeps: dict[Tile, int] = {}
_controls: dict[str, int] = {}
_others: dict[str, int] = {}


def sweep_address(tile: Tile) -> int:
    """Address of the sweep of a tile; compiles it, or loads it from disk, at the first call."""
    found = _sweeps.get(tile)
    if found is None:
        with building:
            found = _sweeps.get(tile)
            if found is None:
                name, make = f"sweep_{tile.name}", partial(_sweep, tile)
                found = obtain(name, make, lambda address: sweep_works(address, tile))
                _sweeps[tile] = found
    return found


def _sweep(tile: Tile) -> Any:
    zeros = [(0,) * n for n in (tile.rows, tile.rows_left, tile.vectors, tile.lanes)]
    shape = (*zeros, (0,) * tile.kind.number, tile.dtype.type(0))

    def entry(task):
        sweep(task, shape)

    return entry


def _convolve() -> Any:
    def entry(call, thread):
        conv.convolve(call, thread)

    return entry


def _kernel_gradient() -> Any:
    def entry(call, thread):
        kernel_grad.kernel_gradient(call, thread)

    return entry


CONTROL: dict[str, Callable[[], Any]] = {
    "convolve": _convolve,
    "kernel_gradient": _kernel_gradient,
}


def control_address(name: str) -> int:
    """Address of "convolve" or "kernel_gradient"; they serve every tile and dtype."""
    found = _controls.get(name)
    if found is None:

        def works(address: int) -> bool:
            tile = next(reversed(_sweeps), dense_tile(8, 8, np.dtype(np.float32)))
            return product_works(address, name, tile, sweep_address)

        with building:
            found = _controls.get(name)
            if found is None:
                found = _controls[name] = obtain(name, CONTROL[name], works)
    return found


POOLS = {
    "max": (pool.pool_rows, MAX),
    "argmax": (pool.pool_rows, ARGMAX),
    "mean": (pool.pool_rows, MEAN),
    "spread": (pool.errors_to_cells, SPREAD),
    "fill": (pool.errors_to_cells, FILL),
    "place": (pool.errors_to_cells, PLACE),
    "scatter": (pool.scatter_errors, MAX),
}
# Of images of one channel, with lanes that are windows side by side; FILL and PLACE of pairs.
LINES = {
    "max": (pool_lines.pool_lines, MAX),
    "argmax": (pool_lines.pool_lines, ARGMAX),
    "mean": (pool_lines.pool_lines, MEAN),
    "fill": (pool_lines.errors_to_lines, FILL),
    "place": (pool_lines.errors_to_lines, PLACE),
}
# Loops over arrays of one dtype, whatever their shape.
LOOPS = {
    **{name: getattr(elementwise, name) for name in elementwise.__all__ if name != "BLOCK"},
    **{name: getattr(rectifiers, name) for name in rectifiers.__all__},
    "bias_grad": bias_grad,
    "bias_plane_sums": deltas.bias_plane_sums,
    "relu_delta": deltas.relu_delta,
    "columns": columns.columns,
    "fill_rows": fill_rows,
    "image_means": image_means,
    "norm_statistics": norm_statistics.statistics,
    "norm_frozen": norm_statistics.frozen_statistics,
    "norm_forward": batch_norm.forward,
    "norm_forward_relu": batch_norm.forward_relu,
    "norm_sums": batch_norm.error_sums,
    "norm_sums_relu": batch_norm.error_sums_relu,
    "norm_backward": batch_norm.backward,
    "norm_backward_relu": batch_norm.backward_relu,
    "norm_frozen_backward": batch_norm.frozen_backward,
    "norm_frozen_backward_relu": batch_norm.frozen_backward_relu,
    "softmax_cross_entropy": losses.softmax_cross_entropy,
    "binary_cross_entropy": losses.binary_cross_entropy,
    "mean_squared_error": losses.mean_squared_error,
    "sgd": optimizers.sgd,
    "adam": optimizers.adam,
    "rmsprop": optimizers.rmsprop,
}


@lru_cache(256)
def pool_address(name: str, lanes: int, spacing: int, dtype: np.dtype) -> int:
    """Address of a key of `POOLS` for vectors of so many channels, where `spacing` is 0.

    Else of one of `LINES`, for vectors of windows of which the next begins `spacing` cells later.
    """
    loop_of, kind = LINES[name] if spacing else POOLS[name]
    lowest = computing_dtype(dtype).type(-np.inf)
    tile = ((0,) * lanes, (0,) * kind, lowest, (0,) * spacing, (0,) * (dtype.itemsize == 2))

    def works(address: int) -> bool:
        return pool_works(address, name, lanes, spacing, dtype)

    apart = f"_every_{spacing}" if spacing else ""
    return _other(f"{name}_{dtype.name}_{lanes}{apart}", loop_of, tile, works)


# What follows a product, and maxima with their winners, for vectors of so many channels.
FINISHES = {
    "finish": (finish, finish_works),
    "finish_winners": (winners.finish_winners, winners_works),
    "pool_winners": (winners.pool_winners, pool_winners_works),
    "winners_backward": (winners.winners_backward, winners_backward_works),
}


@lru_cache(64)
def finish_address(name: str, lanes: int, dtype: np.dtype) -> int:
    """Address of a key of `FINISHES` for vectors of so many channels."""
    kind = ((0,) * lanes, dtype.type(0), (0,) * dtype.itemsize)
    loop_of, proof = FINISHES[name]
    return _other(f"{name}_{dtype.name}_{lanes}", loop_of, kind, lambda at: proof(at, lanes, dtype))


@lru_cache(16)
def minimal_address(edge: int, dtype: np.dtype) -> int:
    """Address of the loop of minimal filtering for tiles of ``edge x edge`` results."""
    kind = ((0,) * cpu_lanes(dtype), dtype.type(0), (0,) * (edge + 2))

    def works(address: int) -> bool:
        return minimal_works(address, edge, dtype, sweep_address)

    return _other(f"minimal_{edge}_{dtype.name}", winograd.minimal, kind, works)


@lru_cache(1)
def program_address() -> int:
    """Address of the walk over a program's calls."""
    return _other("program", program.walk, 0.0, program_works)


@lru_cache(1)
def serve_address() -> int:
    """Address of what finds kept calls and makes them."""
    return _other("serve", kept.serve, 0.0, serve_works)


@lru_cache(128)
def loop_address(name: str, dtype: np.dtype) -> int:
    """Address of a key of `LOOPS` for a dtype."""
    kind = ((0,) * cpu_lanes(dtype), dtype.type(0), (0,) * dtype.itemsize)

    def works(address: int) -> bool:
        return loop_works(address, name, dtype)

    return _other(f"{name}_{dtype.name}", LOOPS[name], kind, works)


def _other(name: str, loop_of: Any, kind: Any, works: Callable[[int], bool]) -> int:
    """Address of a loop, specialised for the type of `kind`."""
    found = _others.get(name)
    if found is None:

        def make() -> Any:
            def entry(call, thread):
                loop_of(call, thread, kind)

            return entry

        with building:
            found = _others.get(name)
            if found is None:
                found = _others[name] = obtain(name, make, works)
    return found
