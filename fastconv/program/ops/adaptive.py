"""Pooling into a given number of windows, where the windows may overlap, in NumPy.

Window i of n on an axis of H cells is ``i * H // n`` to ``ceil((i + 1) * H / n)``, as in PyTorch.
`program.naive.adaptive` has the same functions as loops over elements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["bounds", "max_pool", "max_pool_backward", "mean_pool", "mean_pool_backward"]

Window = tuple[Any, Any]  # indices of all images


def bounds(extent: int, count: int) -> list[tuple[int, int]]:
    """First cell and end of each window.

    Examples
    --------
    >>> bounds(5, 3)
    [(0, 2), (1, 4), (3, 5)]
    """
    return [(i * extent // count, -(-(i + 1) * extent // count)) for i in range(count)]


def _windows(sizes: Sequence[int], counts: Sequence[int]) -> Iterator[Window]:
    """The place of each window, and its cells."""
    ways = [bounds(n, count) for n, count in zip(sizes, counts, strict=True)]
    for place in itertools.product(*(range(count) for count in counts)):
        cells = (slice(*ways[axis][i]) for axis, i in enumerate(place))
        yield (slice(None), *place), (slice(None), *cells)


def _cells(x: np.ndarray, window: Any) -> np.ndarray:
    """``(m, cells, C)`` of one window, in the order of the scan."""
    part = x[window]
    return part.reshape(len(x), math.prod(part.shape[1:-1]), x.shape[-1])


def mean_pool(x: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Means of windows; sums are float64."""
    y = np.empty((len(x), *counts, x.shape[-1]), x.dtype)
    for place, window in _windows(x.shape[1:-1], counts):
        cells = _cells(x, window)
        y[place] = cells.sum(axis=1, dtype=np.float64) / cells.shape[1]
    return y


def mean_pool_backward(dy: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """``dx``: each window's error in equal parts to its cells."""
    dx = np.zeros((len(dy), *sizes, dy.shape[-1]), dy.dtype)
    for place, window in _windows(sizes, dy.shape[1:-1]):
        cells = dx[window]
        error = dy[place] / dy.dtype.type(math.prod(cells.shape[1:-1]))
        cells += error.reshape(len(dy), *(1 for _ in sizes), dy.shape[-1])
    return dx


def max_pool(x: np.ndarray, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Maxima of windows, and the flat spatial index of each: the first, or the first NaN."""
    sizes = x.shape[1:-1]
    y = np.empty((len(x), *counts, x.shape[-1]), x.dtype)
    argmax = np.empty(y.shape, np.int64)
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    for place, window in _windows(sizes, counts):
        cells = _cells(x, window)
        best = cells.argmax(axis=1)  # (m, C)
        y[place] = np.take_along_axis(cells, best[:, None], 1)[:, 0]
        argmax[place] = numbers[window[1:]].reshape(-1)[best]
    return y, argmax


def max_pool_backward(dy: np.ndarray, argmax: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """``dx``: each window's error at its winner; a cell may have won several."""
    m, *counts, C = dy.shape
    dx = np.zeros((m, math.prod(sizes), C), dy.dtype)
    images, channels = np.arange(m)[:, None], np.arange(C)
    for place in itertools.product(*map(range, counts)):
        at: Any = (slice(None), *place)
        dx[images, argmax[at], channels] += dy[at]
    return dx.reshape(m, *sizes, C)
