"""Images made larger: by repetition, interpolation, moved channels and padding; and the adjoints.

All take ``x (m, H, W, C)`` with one to three spatial axes, and add in an order that depends on the
sizes alone. `program.naive.resampling` has the same functions as loops.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from fastconv.geometry import padding_sources
from fastconv.plans.fold import fold

__all__ = ["bilinear", "bilinear_backward", "nearest", "nearest_backward", "pad", "pad_backward",
           "pixel_shuffle", "pixel_shuffle_backward"]  # fmt: skip

Pairs = Sequence[tuple[int, int]]


def nearest(x: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Every pixel, `factors` times on each axis."""
    for axis, factor in enumerate(factors, 1):
        x = np.repeat(x, factor, axis)
    return x


def nearest_backward(dy: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """The sum of the errors of each pixel's copies."""
    first, *others = itertools.product(*map(range, factors))
    dx = dy[_every(first, factors)].copy()
    for copy in others:
        dx += dy[_every(copy, factors)]
    return dx


def _every(copy: Sequence[int], factors: Sequence[int]) -> tuple[slice, ...]:
    """One of the copies of all pixels."""
    return (slice(None), *(slice(i, None, f) for i, f in zip(copy, factors, strict=True)))


def _phases(factor: int) -> Iterator[tuple[int, int, float]]:
    """Where a pixel's copies lie: k, the pixel below, and the share of the one above that.

    Pixels are counted from the one before, so that it is 0 or 1.
    """
    for k in range(factor):
        at = (k + 0.5) / factor - 0.5
        before = math.floor(at)
        yield k, before + 1, at - before


def _on(axis: int, where: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (where,)


def bilinear(x: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Linear interpolation on each axis between the centres of pixels, constant at the edges."""
    for axis, factor in enumerate(factors, 1):
        n, kind = x.shape[axis], x.dtype.type
        ends = [(0, 0)] * x.ndim
        ends[axis] = (1, 1)
        wide = np.pad(x, ends, "edge")
        y = np.empty((*x.shape[:axis], n * factor, *x.shape[axis + 1 :]), x.dtype)
        for k, first, share in _phases(factor):
            low, high = (wide[_on(axis, slice(i, i + n))] for i in (first, first + 1))
            y[_on(axis, slice(k, None, factor))] = low * kind(1 - share) + high * kind(share)
        x = y
    return x


def bilinear_backward(dy: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """The adjoint of `bilinear`."""
    for axis, factor in reversed(list(enumerate(factors, 1))):
        n, kind = dy.shape[axis] // factor, dy.dtype.type
        wide = np.zeros((*dy.shape[:axis], n + 2, *dy.shape[axis + 1 :]), dy.dtype)
        for k, first, share in _phases(factor):
            part = dy[_on(axis, slice(k, None, factor))]
            wide[_on(axis, slice(first, first + n))] += part * kind(1 - share)
            wide[_on(axis, slice(first + 1, first + 1 + n))] += part * kind(share)
        wide[_on(axis, slice(1, 2))] += wide[_on(axis, slice(0, 1))]
        wide[_on(axis, slice(n, n + 1))] += wide[_on(axis, slice(n + 1, n + 2))]
        dy = wide[_on(axis, slice(1, n + 1))]
    return np.ascontiguousarray(dy)


def pixel_shuffle(x: np.ndarray, factor: int) -> np.ndarray:
    """Channel ``(c, i, j)`` of a pixel to channel c of the ``(i, j)``-th of its parts."""
    m, *sizes, channels = x.shape
    rank = len(sizes)
    parts = x.reshape(m, *sizes, channels // factor**rank, *[factor] * rank)
    # (m, h, w, c, i, j) -> (m, h, i, w, j, c)
    pairs = [axis for k in range(rank) for axis in (1 + k, 2 + rank + k)]
    moved = parts.transpose(0, *pairs, 1 + rank)
    return moved.reshape(m, *(n * factor for n in sizes), channels // factor**rank)


def pixel_shuffle_backward(dy: np.ndarray, factor: int) -> np.ndarray:
    """The inverse of `pixel_shuffle`."""
    m, *sizes, channels = dy.shape
    rank = len(sizes)
    parts = dy.reshape(m, *(n for size in sizes for n in (size // factor, factor)), channels)
    # (m, h, i, w, j, c) -> (m, h, w, c, i, j)
    first, second = range(1, 2 * rank, 2), range(2, 2 * rank + 1, 2)
    moved = parts.transpose(0, *first, 2 * rank + 1, *second)
    return moved.reshape(m, *(n // factor for n in sizes), channels * factor**rank)


def pad(x: np.ndarray, pairs: Pairs, mode: str) -> np.ndarray:
    """`x` with ``(lo, hi)`` more cells on each spatial axis, as `numpy.pad` makes them."""
    if mode == "constant":
        return np.pad(x, ((0, 0), *pairs, (0, 0)))
    for axis, pair in enumerate(pairs, 1):
        if any(pair):
            x = x.take(padding_sources(x.shape[axis], pair, mode), axis)
    return x


def pad_backward(dy: np.ndarray, sizes: Sequence[int], pairs: Pairs, mode: str) -> np.ndarray:
    """The adjoint: the error of every copy goes to its cell."""
    return np.ascontiguousarray(fold(dy, sizes, pairs, mode))
