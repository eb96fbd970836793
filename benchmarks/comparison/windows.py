"""Windows of padded images, and their maxima, in NumPy that shares nothing with any library."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def windows(x: np.ndarray, k: int, s: int, p: int, fill: float) -> np.ndarray:
    """Windows of the padded images: (m, OH, OW, C, k * k)."""
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), constant_values=fill)
    found = sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::s, ::s]
    return found.reshape(*found.shape[:4], k * k)


def max_pool(x: np.ndarray, k: int, s: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Maxima and their flat spatial indices; the first of equal ones."""
    cells = windows(x, k, s, p, -np.inf)
    winner = cells.argmax(-1)
    y = np.take_along_axis(cells, winner[..., None], -1)[..., 0]
    height, width = np.arange(y.shape[1]), np.arange(y.shape[2])
    rows = height[:, None, None] * s - p + winner // k
    columns = width[:, None] * s - p + winner % k
    return y, rows * x.shape[2] + columns
