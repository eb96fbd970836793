"""What the three products share: operands by address, workspaces, tables, launching."""

from __future__ import annotations

import ctypes
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.entries import run, run_serial
from fastconv.engine.loops.gather import kind_of
from fastconv.engine.tables.boxes import Table
from fastconv.geometry import Geometry
from fastconv.threads import launch, parts

__all__ = ["CALL", "GRAIN", "Prepared", "Product", "Workspace", "address_of", "call_entry",
           "lines", "plain_array", "view", "workspace"]  # fmt: skip

# Work of a thread, in flops: some 20 us, against 5 us to 30 us to start and join threads.
GRAIN = 1_000_000
CACHE_LINE = 64
# The words of a call.
CALL = struct.Struct(f"{s.CALL_WORDS}q")


def _address_reader() -> Callable[[np.ndarray], int]:
    """How to learn where an array's data lie.

    ``a.ctypes.data`` takes 1.2 us to 2 us, six times a call. CPython's arrays have the pointer
    right behind their header; where it lies is found out by looking, or else not used.
    """
    read = ctypes.c_size_t.from_address
    if sys.implementation.name == "cpython":
        probes = [np.empty(n) for n in (3, 1000)]
        for offset in (16, 24, 32):
            if all(read(id(a) + offset).value == a.ctypes.data for a in probes):
                return lambda array: read(id(array) + offset).value
    return lambda array: int(array.ctypes.data)


address_of = _address_reader()


def lines(*sizes: int) -> list[int]:
    """Where pieces of these sizes start, each on a cache line; the total last."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // CACHE_LINE) * CACHE_LINE)
    return starts


def plain_array(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`array`, contiguous and of that dtype."""
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array, dtype)


def view(array: np.ndarray, dtype: np.dtype) -> tuple[int, ...]:
    """The words of a view (see `words`)."""
    strides = array.strides
    kind = dtype.itemsize == 8 if array.dtype is dtype else kind_of(array.dtype, dtype)
    if len(strides) == 4:  # by far the most frequent
        return (address_of(array), strides[0], 0, *strides[1:], kind)
    return (address_of(array), strides[0], *(0,) * (5 - len(strides)), *strides[1:], kind)


class Workspace:
    """Scratch of one Python thread, kept between calls, and the words of the call."""

    def __init__(self) -> None:
        self.words = np.zeros(s.CALL_WORDS, np.int64)
        self.call = address_of(self.words)
        self._bytes = memoryview(self.words.data).cast("B")
        self._scratch = np.empty(0, np.uint8)
        self._address = 0

    def scratch(self, nbytes: int) -> int:
        """Address, on a cache line, of at least `nbytes` bytes that no other thread uses."""
        if self._scratch.nbytes < nbytes + CACHE_LINE:
            self._scratch = np.empty(0, np.uint8)  # free the old before there is a new one
            self._scratch = np.empty(nbytes + CACHE_LINE, np.uint8)
            self._address = -(-address_of(self._scratch) // CACHE_LINE) * CACHE_LINE
        return self._address

    def write(self, form: struct.Struct, *words: int) -> int:
        """Write the words of a call; returns their address."""
        form.pack_into(self._bytes, 0, *words)
        return self.call


class _Local(threading.local):
    workspace: Workspace | None = None


_local = _Local()


def workspace() -> Workspace:
    """The workspace of this Python thread."""
    found = _local.workspace
    if found is None:
        found = _local.workspace = Workspace()
    return found


class Prepared(NamedTuple):
    """A plan's table and what is read from it at every call."""

    table: Table
    address: int
    units: int
    scratch_bytes: int


class Product:
    """One of the three products of a geometry."""

    shared_nbytes = 0
    gathered: tuple[bool, ...] = (False,)  # the key of a table that reads nothing in place

    def __init__(self, g: Geometry, dtype: np.dtype) -> None:
        self.g, self.dtype, self.size = g, dtype, dtype.itemsize
        self.flops = g.flops
        self.depthwise = g.G == g.C == g.F and g.G > 1
        self._prepared: dict[Any, Prepared] = {}

    @property
    def workspace_nbytes(self) -> int:
        """Bytes of scratch of a call."""
        prepared = self.prepared(*self.gathered)
        threads = min(parts(self.flops, GRAIN), prepared.units)
        return self.shared_nbytes + threads * prepared.scratch_bytes + CACHE_LINE

    def prepared(self, *key: bool) -> Prepared:
        """The table for operands that are read in place, or gathered."""
        found = self._prepared.get(key)
        if found is None:
            table, units = self.build(*key)
            scratch = int(table.words[s.SCRATCH_BYTES])
            found = self._prepared[key] = Prepared(table, table.address, units, scratch)
        return found

    def build(self, *key: bool) -> tuple[Table, int]:
        """Make a table, and say into how many units the work is cut."""
        raise NotImplementedError

    def run(self, *operands: Any) -> None:
        """Compute the product."""
        raise NotImplementedError


def call_entry(entry: int, call: int, threads: int) -> None:
    """Call an entry on so many threads."""
    if threads == 1:
        run_serial(entry, call)
    else:
        launch(run, threads, entry, call)
