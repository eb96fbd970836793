"""Calls of the batched deltas' loops, on contiguous arrays in the machine's byte order."""

from __future__ import annotations

import struct

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.entries import delta_address
from fastconv.engine.tables.product import address_of, call_entry, workspace
from fastconv.threads import parts

__all__ = ["relu_delta"]

# Elements that are worth another thread; blocks of a thread.
GRAIN = 100_000
BLOCKS = 4
CALL = struct.Struct(f"{s.DELTA_CALL_WORDS}q")


def relu_delta(dy: np.ndarray, y: np.ndarray, dx: np.ndarray, entry: int = 0) -> None:
    """``dx = dy`` where ``y > 0``, else 0, by an entry to try."""
    threads = parts(dy.size, GRAIN)
    words = (address_of(y), address_of(dx), dy.size, BLOCKS * threads, 0, 0)
    _call(entry or delta_address("relu_delta", dy.dtype), threads, dy, words)


def _call(entry: int, threads: int, dy: np.ndarray, words: tuple[int, ...]) -> None:
    call = workspace().write(CALL, 0, 0, 0, dy.dtype.itemsize, address_of(dy), *words)
    call_entry(entry, call, threads)
