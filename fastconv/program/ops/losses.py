"""Losses of a batch with their gradients, on contiguous arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastconv.plans import compiled

__all__ = ["Loss", "binary_cross_entropy", "mean_squared_error", "softmax_cross_entropy"]


class Loss(NamedTuple):
    """What a loss says of a batch.

    Attributes
    ----------
    value : float
        The mean.
    dz : ndarray
        Its gradient, in the shape and dtype of `z`.
    correct : int
        Images that are predicted right; 0 where the word has no meaning.
    """

    value: float
    dz: np.ndarray
    correct: int


def softmax_cross_entropy(z: np.ndarray, y: np.ndarray) -> Loss:
    """Mean of ``-log softmax(z)[y]`` for `z` (m, classes) and labels `y` (m,) of int64.

    Raises
    ------
    ValueError
        If a label is not in 0 .. classes - 1.
    """
    return _of("softmax_cross_entropy", z, y)


def binary_cross_entropy(z: np.ndarray, y: np.ndarray) -> Loss:
    """Mean of ``max(z, 0) - z y + log(1 + exp(-|z|))`` for `y` in the shape and dtype of `z`.

    Raises
    ------
    ValueError
        If a label is not in 0 .. 1.
    """
    return _of("binary_cross_entropy", z, y)


def mean_squared_error(z: np.ndarray, y: np.ndarray) -> Loss:
    """Mean of ``(z - y)**2`` for `y` in the shape and dtype of `z`."""
    return _of("mean_squared_error", z, y)


def _of(name: str, z: np.ndarray, y: np.ndarray) -> Loss:
    engine = compiled.engine()
    rows = z.reshape(len(z), -1)
    dz, result = np.empty_like(rows), np.empty(3)
    parts = np.empty(engine.losses.parts_of(name, *rows.shape))
    entry = engine.loop(name, z.dtype)
    engine.perform(engine.losses.loss_call(entry, name, rows, y, dz, parts, result))
    value, correct, bad = result.tolist()
    if bad >= 0:
        raise ValueError(f"y: label {int(bad)} is {y.reshape(-1)[int(bad)]!r}")
    return Loss(value, dz.reshape(z.shape), int(correct))
