"""Compiled entry points: one C function ``void (int64 call, int64 thread)`` for each use of a tile.

Every entry is compiled when it is first wanted and kept on disk under a name of its own, with one
signature. Numba looks for changes in the file of the compiled function only, so a digest of all
sources of the engine is part of what an entry closes over, and with it of the key of the cache.

`run` is the one parallel function: it calls entries by address, so no entry pays the two to three
seconds that compiling with ``parallel=True`` takes.
"""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.core.ccallback import CFunc

from fastconv._jit import kernel, not_kept, own_files
from fastconv.engine import delta_loop, loop, packing, pool_loop
from fastconv.engine.emit_pool import ARGMAX, MAX, MEAN
from fastconv.engine.inner import OPTIONS
from fastconv.engine.primitives import call_entry
from fastconv.engine.tiles import Tile

__all__ = ["control_address", "delta_address", "pool_address", "run", "run_serial", "sweep_address"]

SOURCES = (
    "tiles.py",
    "delta_loop.py",
    "emit.py",
    "emit_pool.py",
    "primitives.py",
    "gather.py",
    "loop.py",
    "packing.py",
    "pool_loop.py",
    "slots.py",
    "entries.py",
    "inner.py",
)
_compiling = threading.RLock()


@lru_cache(1)
def sources_digest() -> int:
    """A number, never 0, that changes with the engine's sources."""
    folder = Path(__file__).parent
    text = b"".join((folder / name).read_bytes() for name in SOURCES)
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "little") | 1


def _sweep(tile: Any, digest: int) -> Any:
    def entry(task):
        if digest != 0:
            loop.sweep(task, tile)

    return entry


@lru_cache(256)
def sweep_address(tile: Tile) -> int:
    """Address of the sweep of a tile; compiles it, or loads it from disk, at the first call."""
    zeros = [(0,) * n for n in (tile.rows, tile.rows_left, tile.vectors, tile.lanes)]
    shape = (*zeros, (0,) * tile.kind, tile.dtype.type(0))
    return _compile(_sweep(shape, sources_digest()), f"sweep_{tile.name}", 1)


def _convolve(digest: int) -> Any:
    def entry(call, thread):
        if digest != 0:
            loop.convolve(call, thread)

    return entry


def _kernel_gradient(digest: int) -> Any:
    def entry(call, thread):
        if digest != 0:
            loop.kernel_gradient(call, thread)

    return entry


def _pack(digest: int) -> Any:
    def entry(call, thread):
        if digest != 0:
            packing.pack(call, thread)

    return entry


def _check_winners(digest: int) -> Any:
    def entry(call, thread):
        if digest != 0:
            pool_loop.check_winners(call, thread)

    return entry


CONTROL = {
    "check_winners": _check_winners,
    "convolve": _convolve,
    "kernel_gradient": _kernel_gradient,
    "pack": _pack,
}


@lru_cache(8)
def control_address(name: str) -> int:
    """Address of a key of `CONTROL`; it serves every tile and dtype."""
    return _compile(CONTROL[name](sources_digest()), name, 2)


# One maker for each loop: an entry that closed over the loop would get a new key in every process.


def _pool_rows(tile: Any, digest: int) -> Any:
    def entry(call, thread):
        if digest != 0:
            pool_loop.pool_rows(call, thread, tile)

    return entry


def _give_errors(tile: Any, digest: int) -> Any:
    def entry(call, thread):
        if digest != 0:
            pool_loop.give_errors(call, thread, tile)

    return entry


def _bias_sums(zero: Any, digest: int) -> Any:
    def entry(call, thread):
        if digest != 0:
            delta_loop.bias_sums(call, thread, zero)

    return entry


def _relu_delta(zero: Any, digest: int) -> Any:
    def entry(call, thread):
        if digest != 0:
            delta_loop.relu_delta(call, thread, zero)

    return entry


POOLS = {
    "max": (_pool_rows, MAX),
    "argmax": (_pool_rows, ARGMAX),
    "mean": (_pool_rows, MEAN),
    "spread": (_give_errors, MEAN),
    "scatter": (_give_errors, MAX),
}


@lru_cache(256)
def pool_address(name: str, lanes: int, dtype: np.dtype) -> int:
    """Address of a key of `POOLS` for vectors of so many channels."""
    make, kind = POOLS[name]
    tile = ((0,) * lanes, (0,) * kind, dtype.type(-np.inf))
    return _compile(make(tile, sources_digest()), f"{name}_{dtype.name}_{lanes}", 2)


DELTAS = {"bias_sums": _bias_sums, "relu_delta": _relu_delta}


@lru_cache(8)
def delta_address(name: str, dtype: np.dtype) -> int:
    """Address of a key of `DELTAS` for a dtype."""
    entry = DELTAS[name](dtype.type(0), sources_digest())
    return _compile(entry, f"{name}_{dtype.name}", 2)


_alive: list[Any] = []


def _compile(python: Any, name: str, arguments: int) -> int:
    """Compile a C function of int64 arguments, or load it from disk."""
    python.__name__ = python.__qualname__ = name  # names its files in the cache
    with _compiling:
        entry: Any = CFunc(
            python, ((types.int64,) * arguments, types.void), {}, {**OPTIONS, "nopython": True}
        )
        try:
            entry.enable_caching()
            own_files(entry._cache)
        except RuntimeError as error:
            not_kept(error)
        entry.compile()
    _alive.append(entry)  # the machine code lives as long as the entry
    address: Any = entry.address
    return int(address)


@kernel(parallel=True)
def run(threads, packers, packing, entry, call):
    """Call `packing` on `packers` threads, then `entry` on `threads` threads."""
    if packing != 0:
        for thread in numba.prange(packers):
            call_entry(packing, call, np.int64(thread))
    for thread in numba.prange(threads):
        call_entry(entry, call, np.int64(thread))


@kernel
def run_serial(packing, entry, call):
    """`run` on this thread."""
    if packing != 0:
        call_entry(packing, call, 0)
    call_entry(entry, call, 0)
