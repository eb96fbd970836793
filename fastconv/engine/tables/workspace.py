"""Operands by address, and scratch that a Python thread keeps between calls."""

from __future__ import annotations

import ctypes
import struct
import sys
import threading
from collections.abc import Callable

import numpy as np

from fastconv.engine import words as s
from fastconv.operands import copied

__all__ = ["CACHE_LINE", "Workspace", "address_of", "lines", "plain_array", "view", "workspace"]

CACHE_LINE = 64


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
    return copied(array, dtype, order="C")


def view(array: np.ndarray, dtype: np.dtype) -> tuple[int, ...]:
    """The words of a view (see `words`)."""
    strides = array.strides
    kind = dtype.itemsize == 8 if array.dtype is dtype else s.kind_of(array.dtype, dtype)
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

    def write(self, form: struct.Struct, words: tuple[int, ...]) -> int:
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
