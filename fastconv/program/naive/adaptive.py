"""The functions of `program.ops.adaptive` as loops over elements."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["max_pool", "max_pool_backward", "mean_pool", "mean_pool_backward"]


def _cells(
    place: tuple[int, ...], sizes: Sequence[int], counts: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """Cells of the window at `place`, in the order of the scan."""
    ways = []
    for i, n, count in zip(place, sizes, counts, strict=True):
        ways.append([h for h in range(n) if h * count > i * n - count and h * count < (i + 1) * n])
    yield from itertools.product(*ways)


def mean_pool(x: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Means of windows."""
    sizes = x.shape[1:-1]
    y = np.empty((len(x), *counts, x.shape[-1]), x.dtype)
    for i, *place, c in np.ndindex(*y.shape):
        values = [float(x[i, *cell, c]) for cell in _cells(tuple(place), sizes, counts)]
        y[i, *place, c] = sum(values) / len(values)
    return y


def mean_pool_backward(dy: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Each window's error in equal parts to its cells."""
    dx = np.zeros((len(dy), *sizes, dy.shape[-1]), dy.dtype)
    for i, *place, c in np.ndindex(*dy.shape):
        cells = list(_cells(tuple(place), sizes, dy.shape[1:-1]))
        for cell in cells:
            dx[i, *cell, c] += dy[i, *place, c] / dy.dtype.type(len(cells))
    return dx


def max_pool(x: np.ndarray, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Maxima of windows, and where they are."""
    sizes = x.shape[1:-1]
    y = np.empty((len(x), *counts, x.shape[-1]), x.dtype)
    argmax = np.empty(y.shape, np.int64)
    for i, *place, c in np.ndindex(*y.shape):
        best, *others = _cells(tuple(place), sizes, counts)
        for cell in others:
            value, most = x[i, *cell, c], x[i, *best, c]
            if value > most or (np.isnan(value) and not np.isnan(most)):
                best = cell
        y[i, *place, c] = x[i, *best, c]
        argmax[i, *place, c] = np.ravel_multi_index(best, sizes)
    return y, argmax


def max_pool_backward(dy: np.ndarray, argmax: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Each window's error at its winner."""
    dx = np.zeros((len(dy), *sizes, dy.shape[-1]), dy.dtype)
    for i, *place, c in np.ndindex(*dy.shape):
        dx[i, *np.unravel_index(argmax[i, *place, c], sizes), c] += dy[i, *place, c]
    return dx
