"""Batched deltas: the activation's mask and the bias's sum."""

from __future__ import annotations

from numba import prange

from fastconv._jit import kernel

__all__ = ["bias_sums", "bias_sums_parallel", "relu_delta", "relu_delta_parallel"]


@kernel
def bias_sums(dy, sums, start, stop):
    """``sums[n, f]`` = sum over the pixels of ``dy[n, :, f]``; `sums` is float64.

    Summing in float64 leaves one rounding, however many pixels there are.
    """
    for n in range(start, stop):
        for f in range(dy.shape[2]):
            sums[n, f] = 0.0
        for q in range(dy.shape[1]):
            for f in range(dy.shape[2]):
                sums[n, f] += dy[n, q, f]


@kernel(parallel=True)
def bias_sums_parallel(parts, dy, sums, images):
    """`bias_sums` over all images, in `parts` parts."""
    for part in prange(parts):
        bias_sums(dy, sums, part * images // parts, (part + 1) * images // parts)


@kernel
def relu_delta(dy, y, dx, start, stop):
    """``dx = dy`` where the activation was positive, exactly 0 elsewhere."""
    dy, y, dx = dy[start:stop], y[start:stop], dx[start:stop]
    zero = dy.dtype.type(0)
    for i in range(dy.size):  # from 0: an index that might be negative is not vectorised
        error = dy[i]  # read in any case: a choice of values becomes vectors, a branch does not
        dx[i] = error if y[i] > zero else zero


@kernel(parallel=True)
def relu_delta_parallel(parts, dy, y, dx, size):
    """`relu_delta` over all elements, in `parts` parts."""
    for part in prange(parts):
        relu_delta(dy, y, dx, part * size // parts, (part + 1) * size // parts)
