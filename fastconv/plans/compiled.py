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
from fastconv.operands import computing_dtype
from fastconv.threads import building
from fastconv.typing import Algorithm

if TYPE_CHECKING:
    from fastconv.engine.call import Call
    from fastconv.engine.finished import FinishedConvolution
    from fastconv.engine.kept import KeptCall, Shelf
    from fastconv.engine.pools import Pools
    from fastconv.engine.products import Products
    from fastconv.engine.tables.finish import FinishedChoice

__all__ = [
    "Engine",
    "col2im_loops",
    "compile_ahead",
    "compile_network",
    "engine",
    "finished",
    "finished_choice",
    "halves",
    "new_products",
    "new_shelf",
    "pool_kept",
    "pools",
    "product_kept",
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
def finished_choice(g: Geometry, dtype: np.dtype, pool: bool) -> FinishedChoice | None:
    """What is decided for the forward product of `g` with what follows it; None where it cannot.

    With `pool` maxima are taken.
    """
    choice = products(g, dtype).product("forward").choice
    with building:
        from fastconv.engine.tables import finish

    return finish.finished_choice(choice, pool)


@lru_cache(CACHED)
def finished(
    g: Geometry, dtype: np.dtype, pool: bool, winners: bool = False
) -> FinishedConvolution:
    """The product of `finished_choice`; with `winners` it says which of four a maximum is."""
    choice = finished_choice(g, dtype, pool)
    if choice is None:
        raise ValueError("what follows the product must be done by another loop")
    with building:
        from fastconv.engine import entries
        from fastconv.engine.finished import FinishedConvolution

        entry, sweep = entries.control_address("convolve"), entries.sweep_address(choice.tile)
        name = "finish_winners" if winners else "finish"
        finish = entries.finish_address(name, choice.lanes, dtype)
        return FinishedConvolution(choice, entry, sweep, finish)


@lru_cache(CACHED)
def pools(g: Geometry, dtype: np.dtype, include_pad: bool) -> Pools:
    """The poolings of `g` over arrays of `dtype`; kept for the next call."""
    with building:
        from fastconv.engine import entries
        from fastconv.engine.pools import Pools

    return Pools(g, dtype, include_pad, entries.pool_address)


@lru_cache(1)
def halves() -> bool:
    """Whether poolings that add nothing up take float16 as it is."""
    with building:
        from fastconv.engine.tables.tiles import cpu_halves

    return cpu_halves()


class Engine(NamedTuple):
    """What makes calls of compiled loops, now or as lines of a program.

    Attributes
    ----------
    channels, columns, deltas, elementwise, finished, losses, optimizers : module
        Of calls; each takes the address of its loop first.
    loop : callable
        ``loop(name, dtype)``: the address of a key of `engine.entries.LOOPS`.
    finish_loop : callable
        ``finish_loop(name, lanes, dtype)``: the address of a key of `engine.entries.FINISHES`.
    perform : callable
        ``perform(call)``: make it now.
    """

    channels: Any
    columns: Any
    deltas: Any
    elementwise: Any
    finished: Any
    losses: Any
    optimizers: Any
    loop: Callable[[str, np.dtype], int]
    finish_loop: Callable[[str, int, np.dtype], int]
    perform: Callable[[Call], list[int]]


@lru_cache(1)
def engine() -> Engine:
    """The engine's calls of loops over arrays."""
    with building:
        from fastconv.engine import (
            channels,
            columns,
            deltas,
            elementwise,
            finished,
            losses,
            optimizers,
        )
        from fastconv.engine.call import perform
        from fastconv.engine.entries import finish_address, loop_address

    return Engine(
        channels, columns, deltas, elementwise, finished, losses, optimizers, loop_address,
        finish_address, perform,
    )  # fmt: skip


def new_shelf(blocked: np.ndarray) -> Shelf:
    """Room for calls that compiled code makes; it finds none while ``blocked[0]`` is not 0."""
    with building:
        from fastconv.engine import entries
        from fastconv.engine.kept import Shelf

        return Shelf(entries.serve_address(), blocked)


def product_kept(product: Any, *operands: np.ndarray | None, relu: bool = False) -> KeptCall | None:
    """A product of such operands as one call; see `engine.kept_calls.product_call`."""
    with building:
        from fastconv.engine.kept_calls import product_call

    return product_call(product, *operands, relu=relu)


def pool_kept(pools: Pools, name: str, *arrays: np.ndarray | None) -> KeptCall:
    """A pooling of such arrays as one call; see `engine.kept_calls.pool_call`."""
    with building:
        from fastconv.engine.kept_calls import pool_call

    return pool_call(pools, name, *arrays)


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
        warm.compile_tiles(computing_dtype(dtype))
    warm.compile_pools(op, dtype)


def compile_network(dtype: np.dtype) -> None:
    """What layers need that no public function calls."""
    with building:
        from fastconv.engine import warm

    warm.compile_network(dtype)
