"""Batched deltas over arrays of any layout: the bias's gradient and the activation's mask."""

from __future__ import annotations

import math

import numpy as np

from fastconv.operands import computing_dtype, native_dtype
from fastconv.plans import compiled
from fastconv.plans.layout import in_place

__all__ = ["bias_grad", "relu_delta"]

# Elements copied at a time where a copy is needed.
BLOCK = 2**18


def bias_grad(dy: np.ndarray, db: np.ndarray) -> None:
    """``db[f]`` = sum of ``dy[..., f]`` over images and pixels; exactly 0 for an empty batch.

    Images are summed one by one in float64, then their sums, so the bits depend on the shape
    alone: neither on threads nor on the layout.
    """
    m, F = dy.shape[0], dy.shape[-1]
    pixels = math.prod(dy.shape[1:-1])
    sums = np.empty((m, F))
    step = m if in_place(dy) else max(1, BLOCK // (pixels * F))
    for n in range(0, m, step or 1):
        part = dy[n : n + step]
        if not in_place(part):
            part = np.array(part, computing_dtype(native_dtype(dy)), order="C")
        compiled.bias_sums(part, sums[n : n + step])
    db[...] = sums.sum(axis=0)


def relu_delta(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """``dx = dy`` where ``y > 0``, else exactly 0."""
    if in_place(dy, y, dx):
        compiled.relu_delta(dy, y, dx)
    else:
        dx[...] = np.where(y > 0, dy, dy.dtype.type(0))
