"""Batched deltas over arrays of any layout: the bias's gradient and the activation's mask."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from fastconv import threads
from fastconv.operands import computing_dtype, native_dtype
from fastconv.plans.pool import in_place

__all__ = ["bias_grad", "relu_delta"]

# Elements copied at a time where a copy is needed.
BLOCK = 2**18


@lru_cache(1)
def _engine() -> Any:
    """The module of the mask's calls, which the first one imports."""
    with threads.building:
        from fastconv.engine import deltas as delta

    return delta


@lru_cache(1)
def _channels() -> Any:
    """The module of the sums' calls, and how to make one."""
    with threads.building:
        from fastconv.engine import call, channels

    return channels, call.perform


def bias_grad(dy: np.ndarray, db: np.ndarray) -> None:
    """``db[f]`` = sum of ``dy[..., f]`` over images and pixels; exactly 0 for an empty batch.

    Images are summed one by one in float64, then their sums in the images' order, so the bits
    depend on the shape alone: neither on threads nor on the layout.
    """
    channels, perform = _channels()
    dtype = computing_dtype(native_dtype(dy))
    m, F = dy.shape[0], dy.shape[-1]
    if dy.size == 0:
        db[...] = 0
        return
    memory = np.empty(channels.bias_sums_nbytes(dy.shape) // 8)
    sums = memory[: m * F].reshape(m, F)
    if in_place(dy, db) and db.dtype == dtype:
        perform(channels.bias_grad_call(dy, memory.ctypes.data, db))
        return
    step = m if in_place(dy) else max(1, BLOCK * m // dy.size)
    # In parts: a part's call writes behind its own images' sums, but those are not there yet.
    for n in range(0, m, step):
        part = dy[n : n + step]
        if not in_place(part):
            part = np.array(part, dtype, order="C")
        perform(channels.bias_grad_call(part, sums[n:].ctypes.data, None))
    db[...] = np.add.accumulate(sums)[-1]


def relu_delta(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """``dx = dy`` where ``y > 0``, else exactly 0."""
    if in_place(dy, y, dx):
        _engine().relu_delta(dy, y, dx)
    else:
        dx[...] = np.where(y > 0, dy, dy.dtype.type(0))
