"""Compiled entry points: one C function ``void (int64 call, int64 thread)`` for each use of a tile.

Every entry is compiled when it is first wanted and kept on disk in a file of its own (see
`fastconv.cache`); one that comes from disk solves a known problem before it is used.

`run` is the one parallel function: it calls entries by address, so no entry pays the two to three
seconds that compiling with ``parallel=True`` takes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba.core import types
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target

from fastconv.compiler.files import KernelFile, distrust, load
from fastconv.compiler.inner import OPTIONS
from fastconv.compiler.kernel import build_key, kernel, once_on_this_machine
from fastconv.engine.emit.intrinsics import call_entry
from fastconv.engine.emit.pool import ARGMAX, FILL, MAX, MEAN, PLACE, SPREAD
from fastconv.engine.known_answers import delta_works, pool_works, product_works, sweep_works
from fastconv.engine.known_training import training_works
from fastconv.engine.loops import conv as conv_loop
from fastconv.engine.loops import deltas as delta_loop
from fastconv.engine.loops import losses as loss_loop
from fastconv.engine.loops import optimizers as optimizer_loop
from fastconv.engine.loops import pool as pool_loop
from fastconv.engine.tables.tiles import Tile, dense_tile, host_lanes
from fastconv.threads import building

__all__ = ["control_address", "delta_address", "pool_address", "run", "run_serial",
           "sweep_address", "training_address"]  # fmt: skip

_sweeps: dict[Tile, int] = {}
_controls: dict[str, int] = {}
_others: dict[str, int] = {}
_untested: dict[str, int] = {}
_alive: list[Any] = []  # machine code lives as long as its library


def sweep_address(tile: Tile) -> int:
    """Address of the sweep of a tile; compiles it, or loads it from disk, at the first call."""
    found = _sweeps.get(tile)
    if found is None:
        with building:
            found = _sweeps.get(tile)
            if found is None:
                name, make = f"sweep_{tile.name}", partial(_sweep, tile)
                found, _ = _obtain(name, make, lambda address: sweep_works(address, tile))
                _sweeps[tile] = found
    return found


def _sweep(tile: Tile) -> Any:
    zeros = [(0,) * n for n in (tile.rows, tile.rows_left, tile.vectors, tile.lanes)]
    shape = (*zeros, (0,) * tile.kind, tile.dtype.type(0))

    def entry(task):
        conv_loop.sweep(task, shape)

    return entry


def _convolve() -> Any:
    def entry(call, thread):
        conv_loop.convolve(call, thread)

    return entry


def _kernel_gradient() -> Any:
    def entry(call, thread):
        conv_loop.kernel_gradient(call, thread)

    return entry


CONTROL: dict[str, Callable[[], Any]] = {
    "convolve": _convolve,
    "kernel_gradient": _kernel_gradient,
}


def control_address(name: str) -> int:
    """Address of "convolve" or "kernel_gradient"; they serve every tile and dtype."""
    found = _controls.get(name)
    if found is None:
        with building:
            found = _controls.get(name) or _untested.get(name) or _control(name)
    return found


def _control(name: str) -> int:
    """Load or compile a control loop; one that comes from disk computes a known product."""
    found, from_disk = _obtain(name, CONTROL[name], lambda _: True)
    if from_disk:
        _untested[name] = found  # the product of the test asks for it
        tile = next(reversed(_sweeps), dense_tile(8, 8, np.dtype(np.float32)))
        try:
            works = product_works(name, tile)
        finally:
            del _untested[name]
        if not works:
            distrust(_file(name), "gave a wrong answer to a known problem")
            found = _compile(name, CONTROL[name])
    _controls[name] = found
    return found


POOLS = {
    "max": (pool_loop.pool_rows, MAX),
    "argmax": (pool_loop.pool_rows, ARGMAX),
    "mean": (pool_loop.pool_rows, MEAN),
    "spread": (pool_loop.errors_to_cells, SPREAD),
    "fill": (pool_loop.errors_to_cells, FILL),
    "place": (pool_loop.errors_to_cells, PLACE),
    "scatter": (pool_loop.scatter_errors, MAX),
}
DELTAS = {"bias_sums": delta_loop.bias_sums, "relu_delta": delta_loop.relu_delta}
TRAINING = {
    "softmax_cross_entropy": loss_loop.softmax_cross_entropy,
    "binary_cross_entropy": loss_loop.binary_cross_entropy,
    "mean_squared_error": loss_loop.mean_squared_error,
    "sgd": optimizer_loop.sgd,
    "adam": optimizer_loop.adam,
}


@lru_cache(256)
def pool_address(name: str, lanes: int, dtype: np.dtype) -> int:
    """Address of a key of `POOLS` for vectors of so many channels."""
    loop_of, kind = POOLS[name]
    tile = ((0,) * lanes, (0,) * kind, dtype.type(-np.inf))

    def works(address: int) -> bool:
        return pool_works(address, name, lanes, dtype)

    return _other(f"{name}_{dtype.name}_{lanes}", loop_of, tile, works)


@lru_cache(8)
def delta_address(name: str, dtype: np.dtype) -> int:
    """Address of a key of `DELTAS` for a dtype."""

    def works(address: int) -> bool:
        return delta_works(address, name, dtype)

    return _other(f"{name}_{dtype.name}", DELTAS[name], dtype.type(0), works)


@lru_cache(16)
def training_address(name: str, dtype: np.dtype) -> int:
    """Address of a key of `TRAINING` for a dtype."""
    kind = ((0,) * host_lanes(dtype), dtype.type(0))

    def works(address: int) -> bool:
        return training_works(address, name, dtype)

    return _other(f"{name}_{dtype.name}", TRAINING[name], kind, works)


def _other(name: str, loop_of: Any, kind: Any, works: Callable[[int], bool]) -> int:
    """Address of a loop that calls no other entry, specialised for the type of `kind`."""
    found = _others.get(name)
    if found is None:

        def make() -> Any:
            def entry(call, thread):
                loop_of(call, thread, kind)

            return entry

        with building:
            found = _others.get(name)
            if found is None:
                found, _ = _obtain(name, make, works)
                _others[name] = found
    return found


def _file(name: str) -> KernelFile:
    return KernelFile(name, build_key())


def _obtain(name: str, make: Callable[[], Any], works: Callable[[int], bool]) -> tuple[int, bool]:
    """Address of a C function, and whether it comes from disk; else it is compiled and kept."""
    file = _file(name)
    found = load(file, _rebuild, works)
    if found is None:
        with once_on_this_machine(file):
            found = load(file, _rebuild, works)  # another process may have been faster
            if found is None:
                return _compile(name, make), False
    return found, True


def _rebuild(code: bytes) -> int:
    """Link an object file, and find the C function in it."""
    symbol, serialized = pickle.loads(code)
    context = cpu_target.target_context
    context.refresh()
    library = context.codegen().unserialize_library(serialized)
    _alive.append(library)
    address = library.get_pointer_to_function(symbol)
    if not address:
        raise ValueError(f"has no function {symbol}")
    return int(address)


def _compile(name: str, make: Callable[[], Any]) -> int:
    """Compile a C function of int64 arguments, and keep it on disk."""
    python = make()
    python.__name__ = python.__qualname__ = name
    arguments = (types.int64,) * python.__code__.co_argcount
    entry: Any = CFunc(python, (arguments, types.void), {}, {**OPTIONS, "nopython": True})
    entry.compile()
    _file(name).write(pickle.dumps(_reduce(entry)))
    _alive.append(entry)
    return int(entry.address)


def _reduce(entry: Any) -> tuple[str, Any]:
    """The name of a C function, and its object file as Numba serializes it.

    The bitcode, which is for linking into other functions and takes longer to read than the object
    file, is replaced by that of an empty function with the same name.
    """
    name, kind, (code, _) = entry._library.serialize_using_object_code()
    symbol = entry.native_name
    stub = binding.parse_assembly(f'define void @"{symbol}"() {{ ret void }}')
    return symbol, (name, kind, (code, stub.as_bitcode()))


@kernel(parallel=True)
def run(threads, entry, call):
    """Call `entry` on `threads` threads."""
    for thread in numba.prange(threads):
        call_entry(entry, call, np.int64(thread))


@kernel
def run_serial(entry, call):
    """`run` on this thread."""
    call_entry(entry, call, 0)
