"""The losses as their formulas stand, in NumPy: value, gradient, right predictions.

Each takes ``z (m, ...)`` and labels, computes in the dtype of `z` - pass float64 for a standard to
measure errors by - and returns ``(value, dz, correct)``.
"""

from __future__ import annotations

import numpy as np

__all__ = ["binary_cross_entropy", "mean_squared_error", "softmax_cross_entropy"]


def softmax_cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, int]:
    """-log softmax(z)[y], `z` (m, classes) and `y` (m,)."""
    losses, dz, correct = [], np.empty_like(z), 0
    for i, (row, label) in enumerate(zip(z, y, strict=True)):
        exponentials = np.exp(row - row.max())
        losses.append(np.log(exponentials.sum()) - (row[label] - row.max()))
        dz[i] = exponentials / exponentials.sum()
        dz[i, label] -= 1
        correct += int(row.argmax() == label)
    return float(np.mean(losses, dtype=np.float64)), dz / z.dtype.type(len(z)), correct


def binary_cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, int]:
    """-y log p - (1 - y) log(1 - p) with p = sigmoid(z); `y` in the shape of `z`."""
    small = np.exp(-np.abs(z))
    losses = np.maximum(z, 0) - z * y + np.log1p(small)
    p = np.where(z >= 0, z.dtype.type(1), small) / (1 + small)
    right = (z > 0) == (y > 0.5)
    correct = sum(bool(row.all()) for row in right)
    return float(losses.mean(dtype=np.float64)), (p - y) / z.dtype.type(z.size), correct


def mean_squared_error(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, int]:
    """(z - y)**2; `y` in the shape of `z`."""
    error = z - y
    value = float(np.square(error).mean(dtype=np.float64))
    return value, error * z.dtype.type(2 / z.size), 0
