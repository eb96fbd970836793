"""The only door into the engine: what plans run, with its machine code.

The engine brings in Numba, which takes longer to import than everything else, so it is imported at
the first call, and by one thread: a fork waits for that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastconv.geometry import Geometry
from fastconv.threads import building
from fastconv.typing import Algorithm

if TYPE_CHECKING:
    from fastconv.engine.call import Call
    from fastconv.engine.pools import Pools
    from fastconv.engine.products import Products

__all__ = [
    "Engine",
    "col2im_loops",
    "compile_ahead",
    "compile_network",
    "engine",
    "new_products",
    "pools",
    "products",
]

# Products and pools that are kept between calls: tables of some kB. Workspaces belong to threads.
CACHED = 256


def new_products(g: Geometry, dtype: np.dtype, algorithm: Algorithm = "exact") -> Products:
    """The three products of `g`, computed in `dtype`; nothing is chosen or compiled yet."""
    with building:
        from fastconv.engine import entries
        from fastconv.engine.minimal import MinimalProducts
        from fastconv.engine.products import Products

    if algorithm == "exact":
        return Products(g, dtype, entries.control_address, entries.sweep_address)
    return MinimalProducts(
        g, dtype, entries.control_address, entries.sweep_address, entries.minimal_address
    )


@lru_cache(CACHED)
def products(g: Geometry, dtype: np.dtype, algorithm: Algorithm = "exact") -> Products:
    """The three products of `g`, kept for the next call."""
    return new_products(g, dtype, algorithm)


@lru_cache(CACHED)
def pools(g: Geometry, dtype: np.dtype, include_pad: bool) -> Pools:
    """The poolings of `g`, computed in `dtype`; kept for the next call."""
    with building:
        from fastconv.engine import entries
        from fastconv.engine.pools import Pools

    return Pools(g, dtype, include_pad, entries.pool_address)


class Engine(NamedTuple):
    """What makes calls of compiled loops, now or as lines of a program.

    Attributes
    ----------
    channels, deltas, elementwise, losses, optimizers : module
        Of calls; each takes the address of its loop first.
    loop : callable
        ``loop(name, dtype)``: the address of a key of `engine.entries.LOOPS`.
    perform : callable
        ``perform(call)``: make it now.
    """

    channels: Any
    deltas: Any
    elementwise: Any
    losses: Any
    optimizers: Any
    loop: Callable[[str, np.dtype], int]
    perform: Callable[[Call], list[int]]


@lru_cache(1)
def engine() -> Engine:
    """The engine's calls of loops over arrays."""
    with building:
        from fastconv.engine import channels, deltas, elementwise, losses, optimizers
        from fastconv.engine.call import perform
        from fastconv.engine.entries import loop_address

    return Engine(channels, deltas, elementwise, losses, optimizers, loop_address, perform)


def col2im_loops() -> tuple[Any, Any]:
    """col2im on one thread, and on several: see `engine.loops.col2im`."""
    with building:
        from fastconv.engine.loops.col2im import col2im_rows, col2im_rows_parallel

    return col2im_rows, col2im_rows_parallel


def compile_ahead(op: str, dtype: np.dtype) -> None:
    """What a public function may need for other channels than those it is called with."""
    with building:
        from fastconv.engine import warm

    if op.startswith("conv"):
        warm.compile_tiles(dtype)
    warm.compile_pools(op, dtype)


def compile_network(dtype: np.dtype) -> None:
    """What layers need that no public function calls."""
    with building:
        from fastconv.engine import warm

    warm.compile_network(dtype)
