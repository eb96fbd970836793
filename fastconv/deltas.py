"""Batched deltas over arrays of any layout: the bias's gradient and the activation's mask."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv import threads
from fastconv.operands import computing_dtype
from fastconv.pooling import usable

__all__ = ["bias_grad", "relu_delta"]

# Elements that are worth another thread; elements copied at a time where a copy is needed.
GRAIN = 100_000
BLOCK = 2**18


@lru_cache(1)
def _kernels() -> Any:
    """The module of compiled loops, which the first call imports."""
    with threads.building:
        from fastconv.kernels import deltas

    return deltas


def bias_grad(dy: np.ndarray, db: np.ndarray) -> None:
    """``db[f]`` = sum of ``dy[..., f]`` over images and pixels; exactly 0 for an empty batch.

    Images are summed one by one in float64, then their sums, so the bits depend on the shape
    alone: neither on threads nor on the layout.
    """
    deltas = _kernels()
    m, F = dy.shape[0], dy.shape[-1]
    pixels = math.prod(dy.shape[1:-1])
    sums = np.empty((m, F))
    step = m if usable(dy) else max(1, BLOCK // (pixels * F))
    for n in range(0, m, step or 1):
        part = dy[n : n + step]
        if not usable(part):
            part = np.array(part, computing_dtype(dy.dtype.newbyteorder("=")), order="C")
        images = len(part)
        args = (part.reshape(images, pixels, F), sums[n : n + images])
        count = min(threads.parts(part.size, GRAIN), images)
        if count == 1:
            deltas.bias_sums(*args, 0, images)
        else:
            threads.launch(deltas.bias_sums_parallel, count, *args, images)
    db[...] = sums.sum(axis=0)


def relu_delta(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """``dx = dy`` where ``y > 0``, else exactly 0."""
    deltas = _kernels()
    if not (usable(dy) and usable(y) and usable(dx)):
        dx[...] = np.where(y > 0, dy, dy.dtype.type(0))
        return
    flat = (dy.reshape(-1), y.reshape(-1), dx.reshape(-1))
    count = threads.parts(dy.size, GRAIN)
    if count == 1:
        deltas.relu_delta(*flat, 0, dy.size)
    else:
        threads.launch(deltas.relu_delta_parallel, count, *flat, dy.size)
