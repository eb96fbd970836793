"""Calls of the batched deltas' loops, on contiguous arrays in the machine's byte order."""

from __future__ import annotations

import math
import struct

import numpy as np

from fastconv.engine import slots as s
from fastconv.engine.entries import delta_address
from fastconv.engine.product import address_of, call_entry_points, workspace
from fastconv.threads import parts

__all__ = ["bias_sums", "relu_delta"]

# Elements that are worth another thread; blocks of a thread.
GRAIN = 100_000
BLOCKS = 4
CALL = struct.Struct(f"{s.DELTA_CALL_WORDS}q")


def bias_sums(dy: np.ndarray, sums: np.ndarray) -> None:
    """``sums (m, F)`` over the pixels of ``dy (m, ..., F)``, in float64."""
    m, *size, F = dy.shape
    threads = min(parts(dy.size, GRAIN), m) or 1
    _run("bias_sums", threads, dy, (0, address_of(sums), m, m, math.prod(size), F))


def relu_delta(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """``dx = dy`` where ``y > 0``, else 0."""
    threads = parts(dy.size, GRAIN)
    _run(
        "relu_delta",
        threads,
        dy,
        (address_of(y), address_of(dx), dy.size, BLOCKS * threads, 0, 0),
    )


def _run(name: str, threads: int, dy: np.ndarray, words: tuple[int, ...]) -> None:
    entry = delta_address(name, dy.dtype)
    call = workspace().write(CALL, 0, 0, 0, dy.dtype.itemsize, address_of(dy), *words)
    call_entry_points(0, entry, call, threads, 1)
