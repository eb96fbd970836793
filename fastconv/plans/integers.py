"""Max pooling of integers and bool: one pass over the input for each tap, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.geometry import Geometry

__all__ = ["least", "max_pool"]


def least(dtype: np.dtype) -> Any:
    """The least number of a dtype: what a window without a cell gives, and what never wins."""
    return False if dtype.kind == "b" else np.iinfo(dtype).min


def max_pool(g: Geometry, x: np.ndarray, y: np.ndarray, argmax: np.ndarray | None) -> None:
    """Maximum of every window, and the winner's flat spatial index if `argmax` is given.

    Parameters
    ----------
    g : Geometry
    x : ndarray (m, H, W, C)
        Any strides and byte order; no copy of it is made.
    y, argmax : ndarray (m, OH, OW, C)
        Written.

    Examples
    --------
    >>> from fastconv.geometry.resolve import pool_geometry
    >>> x, y = np.arange(6, dtype=np.uint8).reshape(1, 6, 1), np.empty((1, 3, 1), np.uint8)
    >>> max_pool(pool_geometry(x.shape, 2), x, y, None)
    >>> y.ravel().tolist()
    [1, 3, 5]
    """
    y[...] = least(y.dtype)
    if argmax is not None:
        argmax[...] = -1
    for tap in np.ndindex(g.window):
        cells, pixels = _met(g, tap)
        source, best = x[(slice(None), *cells)], y[(slice(None), *pixels)]
        if argmax is None:
            np.maximum(best, source, out=best)
            continue
        winners = argmax[(slice(None), *pixels)]
        wins = (source > best) | (winners < 0)  # the first of equal cells stays
        np.copyto(best, source, where=wins)
        np.copyto(winners, _numbers(g, cells), where=wins)


def _met(g: Geometry, tap: tuple[int, ...]) -> tuple[list[slice], list[slice]]:
    """The cells of the input that a tap meets, and the pixels for which it meets them."""
    cells, pixels = [], []
    for (n, _, s, d, lo, o), u in zip(g.axes, tap, strict=True):
        at = u * d - lo  # of pixel 0
        first, end = max(0, -(at // s)), min(o, (n - 1 - at) // s + 1)
        end = max(first, end)
        pixels.append(slice(first, end))
        begin = first * s + at
        cells.append(slice(begin, begin + (end - first) * s, s) if end > first else slice(0, 0))
    return cells, pixels


def _numbers(g: Geometry, cells: list[slice]) -> np.ndarray:
    """Flat spatial indices of some cells, as ``(H, W, 1)``."""
    axes = [np.arange(n)[which] for n, which in zip(g.x_size, cells, strict=True)]
    steps = np.cumprod([1, *g.x_size[:0:-1]])[::-1]
    grids = np.ix_(*(axis * step for axis, step in zip(axes, steps, strict=True)))
    numbers: np.ndarray = sum(grids, np.zeros((1,) * g.rank, np.int64))
    return numbers[..., None]
