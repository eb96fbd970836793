"""The adjoint of padding: where the error of a copy of a cell goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.geometry import padding_sources

__all__ = ["fold"]


def fold(
    dy: np.ndarray, sizes: Sequence[int], pairs: Sequence[tuple[int, int]], mode: str
) -> np.ndarray:
    """The error of an input from that of the input with its padding.

    Parameters
    ----------
    dy : ndarray (m, H + lo + hi, W + lo + hi, C)
    sizes : (H, W)
        One to three spatial axes.
    pairs : sequence of (lo, hi)
    mode : str
        One of NumPy's words for what stands in the padding, see `geometry.request.PADDING_MODES`.

    Returns
    -------
    ndarray (m, H, W, C)
        Sums in an order that depends on the sizes alone. A view of `dy` where nothing is added.

    Examples
    --------
    >>> fold(np.ones((1, 5, 1)), (3,), [(1, 1)], "edge")[0, :, 0].tolist()
    [2.0, 1.0, 2.0]
    """
    for axis, (n, (low, high)) in reversed(list(enumerate(zip(sizes, pairs, strict=True), 1))):
        dx = dy[_on(axis, low, low + n)]
        if mode != "constant" and (low or high):
            dx = dx.copy()
            sources = padding_sources(n, (low, high), mode)
            for cell in (*range(low), *range(low + n, low + n + high)):
                source = int(sources[cell])
                dx[_on(axis, source, source + 1)] += dy[_on(axis, cell, cell + 1)]
        dy = dx
    return dy


def _on(axis: int, begin: int, end: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(begin, end),)
