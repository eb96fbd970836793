"""The only door into the engine: what plans run, with its machine code.

The engine brings in Numba, which takes longer to import than everything else, so it is imported at
the first call, and by one thread: a fork waits for that.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.geometry import Geometry
from fastconv.threads import building

if TYPE_CHECKING:
    from fastconv.engine.pools import Pools
    from fastconv.engine.products import Products

__all__ = [
    "bias_memory",
    "bias_plane_sums",
    "bias_sums",
    "col2im_loops",
    "compile_ahead",
    "compile_network",
    "new_products",
    "pools",
    "products",
    "relu_delta",
]

# Products and pools that are kept between calls: tables of some kB. Workspaces belong to threads.
CACHED = 256


def new_products(g: Geometry, dtype: np.dtype) -> Products:
    """The three products of `g`, computed in `dtype`; nothing is chosen or compiled yet."""
    with building:
        from fastconv.engine import entries
        from fastconv.engine.products import Products

    return Products(g, dtype, entries.control_address, entries.sweep_address)


products = lru_cache(CACHED)(new_products)


@lru_cache(CACHED)
def pools(g: Geometry, dtype: np.dtype, include_pad: bool) -> Pools:
    """The poolings of `g`, computed in `dtype`; kept for the next call."""
    with building:
        from fastconv.engine import entries
        from fastconv.engine.pools import Pools

    return Pools(g, dtype, include_pad, entries.pool_address)


@lru_cache(1)
def _deltas() -> tuple[Any, Any]:
    """The module of the deltas' calls, and what gives their entries."""
    with building:
        from fastconv.engine import deltas, entries

    return deltas, entries.delta_address


def bias_plane_sums(dy: np.ndarray, sums: np.ndarray) -> None:
    """The images' sums of ``dy (m, F, ...)``, whose pixels lie one behind the other, in float64."""
    calls, address = _deltas()
    calls.bias_plane_sums(address("bias_plane_sums", dy.dtype), dy, sums)


@lru_cache(1)
def _channels() -> tuple[Any, Any]:
    """The module of the sums' calls, and what makes one."""
    with building:
        from fastconv.engine import call, channels

    return channels, call.perform


def bias_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Doubles for the images' sums of a ``dy (m, ..., F)``, which come first, and `bias_sums`."""
    channels, _ = _channels()
    return np.empty(channels.bias_sums_nbytes(shape) // 8)


def bias_sums(dy: np.ndarray, sums: np.ndarray, db: np.ndarray | None) -> None:
    """The images' sums of ``dy (m, ..., F)``, in float64, and their sum, if it is wanted.

    They are the first of what `bias_memory` gives.
    """
    channels, perform = _channels()
    perform(channels.bias_grad_call(dy, sums.ctypes.data, db))


def relu_delta(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """``dx = dy`` where ``y > 0``, else 0."""
    calls, address = _deltas()
    calls.relu_delta(address("relu_delta", dy.dtype), dy, y, dx)


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
