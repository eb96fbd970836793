"""Losses with weights, in NumPy and float64: blocks of rows, so that no copy of all is made.

Each takes ``z (rows, n)``, what its rows should be, and a weight for each row; it returns the loss
and writes its gradient to `dz`, which is like `z`. The mean divides by the sum of the weights;
where that is 0 nothing counts, and loss and gradient are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

__all__ = ["binary_focal", "elementwise", "focal", "huber", "softmax_hard", "softmax_soft",
           "squared", "weighted_binary"]  # fmt: skip

# Elements that are worked on at once.
BLOCK = 2**16

# function(z, y) -> (losses, derivatives by z), element by element and in float64
Pointwise: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _blocks(z: np.ndarray) -> Iterator[slice]:
    step = max(1, BLOCK // z.shape[1])
    for first in range(0, len(z), step):
        yield slice(first, first + step)


def _log_softmax(z: np.ndarray) -> np.ndarray:
    """log(softmax(z)) of rows, in float64."""
    z = z.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    return z


def _shares(weights: np.ndarray, total: float) -> np.ndarray:
    return weights / total if total > 0 else np.zeros_like(weights)


def softmax_hard(
    z: np.ndarray, y: np.ndarray, weights: np.ndarray, class_weight: np.ndarray, smoothing: float,
    dz: np.ndarray,
) -> float:  # fmt: skip
    """Softmax cross-entropy for classes ``y (rows,)``; rows of weight 0 may have any label.

    With smoothing e a row's label is 1 - e of its class, and e / classes of each; each class's part
    is multiplied by its weight. The mean divides by the sum of the weights of rows, times those of
    their classes.
    """
    classes = z.shape[1]
    y = np.where(weights > 0, y, 0)
    shares = _shares(weights, float((weights * class_weight[y]).sum()))
    spread = smoothing / classes * class_weight  # (classes,)
    value = 0.0
    for rows in _blocks(z):
        log_p, label, share = _log_softmax(z[rows]), y[rows], shares[rows]
        at = np.arange(len(label)), label
        of_label = (1 - smoothing) * class_weight[label]
        losses = -of_label * log_p[at]
        if smoothing:
            losses -= log_p @ spread
        value += float(np.where(share > 0, losses * share, 0).sum())
        d = np.exp(log_p) * (of_label + spread.sum())[:, None] - spread
        d[at] -= of_label
        dz[rows] = np.where(share[:, None] > 0, d * share[:, None], 0)
    return value


def softmax_soft(
    z: np.ndarray, y: np.ndarray, weights: np.ndarray, class_weight: np.ndarray, smoothing: float,
    dz: np.ndarray,
) -> float:  # fmt: skip
    """Softmax cross-entropy for shares ``y (rows, classes)``; the mean divides by the weights."""
    shares = _shares(weights, float(weights.sum()))
    value = 0.0
    for rows in _blocks(z):
        log_p, share = _log_softmax(z[rows]), shares[rows]
        q = y[rows].astype(np.float64) * (1 - smoothing) + smoothing / z.shape[1]
        q *= class_weight
        losses = -np.where(q > 0, q * log_p, 0).sum(axis=1)
        value += float(np.where(share > 0, losses * share, 0).sum())
        d = np.exp(log_p) * q.sum(axis=1, keepdims=True) - q
        dz[rows] = np.where(share[:, None] > 0, d * share[:, None], 0)
    return value


def focal(z: np.ndarray, y: np.ndarray, weights: np.ndarray, gamma: float, dz: np.ndarray) -> float:
    """``-(1 - p)**gamma log p`` of each row, where p is the softmax's share of its class."""
    shares = _shares(weights, float(weights.sum()))
    value = 0.0
    for rows in _blocks(z):
        log_p, share, label = _log_softmax(z[rows]), shares[rows], y[rows]
        at = np.arange(len(label)), label
        p = np.exp(log_p)
        others = p.copy()
        others[at] = 0
        q = np.minimum(others.sum(axis=1), 1.0)  # 1 - p, of which nothing has cancelled
        losses, slope = _focal(log_p[at], p[at], q, gamma)
        value += float((losses * share).sum())
        # d log p[label] / dz is 1 at the label, less p
        d = -p * (slope * share)[:, None]
        d[at] = q * slope * share
        dz[rows] = d
    return value


def _focal(
    log_p: np.ndarray, p: np.ndarray, q: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """``-q**gamma log p`` and its derivative by log p, where ``q = 1 - p``."""
    power = q**gamma
    # gamma q**(gamma - 1) p log p; where q is 0, log p is -q to the first order
    ratio = np.where(q > 0, p * log_p / np.where(q > 0, q, 1), -1.0)
    return -power * log_p, power * (gamma * ratio - 1)


def elementwise(
    function: Pointwise, z: np.ndarray, y: np.ndarray, weights: np.ndarray, dz: np.ndarray
) -> float:
    """The weighted mean over all elements of a loss of each; ``y (rows, n)`` is like `z`."""
    shares = _shares(weights, float(weights.sum()) * z.shape[1])
    value = 0.0
    for rows in _blocks(z):
        share = shares[rows, None]
        losses, d = function(z[rows].astype(np.float64), y[rows].astype(np.float64))
        value += float(np.where(share > 0, losses * share, 0).sum())
        dz[rows] = np.where(share > 0, d * share, 0)
    return value


def squared(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(z - y)**2``."""
    error = z - y
    return error * error, 2 * error


def huber(delta: float) -> Pointwise:
    """``e**2 / 2`` for an error e of at most `delta`, else ``delta (|e| - delta / 2)``."""

    def function(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        error = z - y
        size = np.abs(error)
        losses = np.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))
        return losses, np.clip(error, -delta, delta)

    return function


def _binary(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``-log p`` and 1 - p, where p is the sigmoid of `z`."""
    small = np.exp(-np.abs(z))
    return np.maximum(-z, 0) + np.log1p(small), np.where(z > 0, small, 1.0) / (1 + small)


def weighted_binary(positive: np.ndarray) -> Pointwise:
    """``-w y log p - (1 - y) log(1 - p)`` with p = sigmoid(z); ``w`` is `positive`."""

    def function(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loss, q = _binary(z)
        factor = 1 + (positive - 1) * y
        # -log(1 - p) is z - log p
        return (1 - y) * z + factor * loss, (1 - y) - factor * q

    return function


def binary_focal(gamma: float) -> Pointwise:
    """``-(1 - p)**gamma log p``, where p is what sigmoid(z) gives the label 0 or 1."""

    def function(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sign = np.where(y > 0.5, 1.0, -1.0)
        loss, q = _binary(sign * z)
        losses, slope = _focal(-loss, np.exp(-loss), q, gamma)
        return losses, slope * q * sign

    return function
