"""Calls of the batched deltas' loops, on contiguous arrays in the machine's byte order."""

from __future__ import annotations

import math
import struct

import numpy as np

from fastconv.engine import slots as s
from fastconv.engine.entries import delta_address
from fastconv.engine.product import address_of, call_entry, workspace
from fastconv.threads import parts

__all__ = ["bias_plane_sums", "bias_sums", "relu_delta"]

# Elements that are worth another thread; blocks of a thread.
GRAIN = 100_000
BLOCKS = 4
CALL = struct.Struct(f"{s.DELTA_CALL_WORDS}q")


def bias_sums(dy: np.ndarray, sums: np.ndarray, entry: int = 0) -> None:
    """``sums (m, F)`` over the pixels of ``dy (m, ..., F)``, in float64, by an entry to try."""
    m, *size, F = dy.shape
    threads = min(parts(dy.size, GRAIN), m) or 1
    words = (0, address_of(sums), m, m, math.prod(size), F)
    _call(entry or delta_address("bias_sums", dy.dtype), threads, dy, words)


def bias_plane_sums(dy: np.ndarray, sums: np.ndarray, entry: int = 0) -> None:
    """`bias_sums` of ``dy (m, F, ...)``, whose channels are planes, by an entry to try."""
    m, F, *size = dy.shape
    threads = min(parts(dy.size, GRAIN), m) or 1
    items = max(1, min(BLOCKS * threads, m * F // 4))
    words = (0, address_of(sums), m * F, items, math.prod(size), F)
    _call(entry or delta_address("bias_plane_sums", dy.dtype), threads, dy, words)


def relu_delta(dy: np.ndarray, y: np.ndarray, dx: np.ndarray, entry: int = 0) -> None:
    """``dx = dy`` where ``y > 0``, else 0, by an entry to try; float16 is given as int16."""
    threads = parts(dy.size, GRAIN)
    words = (address_of(y), address_of(dx), dy.size, BLOCKS * threads, 0, 0)
    _call(entry or delta_address("relu_delta", dy.dtype), threads, dy, words)


def _call(entry: int, threads: int, dy: np.ndarray, words: tuple[int, ...]) -> None:
    call = workspace().write(CALL, 0, 0, 0, dy.dtype.itemsize, address_of(dy), *words)
    call_entry(entry, call, threads)
