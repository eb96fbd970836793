"""Batch normalisation over a batch of which other processes have parts.

The functions are those of `batch_norm`, with a way to tell and hear numbers: ``gather(numbers)``
gives those of all processes as rows, in one order, and every process calls it at the same place.
Each sums its own part as `batch_norm` does, in float64; the parts' means and squares are merged in
the order of the rows (Chan, Golub and LeVeque 1979), so that all processes have the same bits. A
part may be empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from fastconv.plans import compiled
from fastconv.program.ops.batch_norm import apply, own, parts_of
from fastconv.program.ops.elementwise import contiguous

__all__ = ["Gather", "SharedTable", "batch_norm", "batch_norm_backward"]

Gather: TypeAlias = Callable[[np.ndarray], np.ndarray]

# Rows of a table: `engine.array_words.TABLE_MEAN` and `TABLE_MEAN_DY`.
MEAN, MEAN_DY = 0, 5


class SharedTable(NamedTuple):
    """What the backward pass needs.

    Attributes
    ----------
    numbers : ndarray
        The channels' numbers, as of `batch_norm`.
    pixels : float
        Pixels of all processes.
    """

    numbers: np.ndarray
    pixels: float


def batch_norm(
    x: np.ndarray, scale: np.ndarray, shift: np.ndarray, mean: np.ndarray, variance: np.ndarray,
    momentum: float, epsilon: float, gather: Gather, relu: bool = False,
) -> tuple[np.ndarray, np.ndarray, SharedTable]:  # fmt: skip
    """Normalise by the statistics of all parts; the running `mean` and `variance` move.

    Returns
    -------
    y, x, table
        As of `batch_norm.batch_norm`.
    """
    x = contiguous(x)
    table, moments = _moments(x, scale, shift)
    seen, square, pixels = _merged(gather(moments))
    if not pixels:
        return x, x, SharedTable(table, 0.0)
    unbiased = square / max(pixels - 1, 1)
    mean[...] = momentum * mean.astype(np.float64) + (1 - momentum) * seen
    variance[...] = momentum * variance.astype(np.float64) + (1 - momentum) * unbiased
    inverse = 1 / np.sqrt(square / pixels + epsilon)
    _put_rows(table, MEAN, seen, inverse, scale, shift)
    y = apply(x, table, relu)[0] if x.size else x
    return y, x, SharedTable(table, pixels)


def batch_norm_backward(
    dy: np.ndarray, x: np.ndarray, table: SharedTable, scale: np.ndarray, scale_grad: np.ndarray,
    shift_grad: np.ndarray, gather: Gather, relu: bool = False,
) -> np.ndarray:  # fmt: skip
    """Return `dx`, and write the gradients of scale and shift: this part's share of their sums."""
    engine, dy, C = compiled.engine(), contiguous(dy), x.shape[-1]
    grads, sums = (scale_grad, shift_grad), np.zeros((2, C))
    if x.size:
        parts = parts_of(x)
        channels = [own(array, x) for array in (scale, *grads)]
        entry = engine.loop("norm_sums_relu" if relu else "norm_sums", x.dtype)
        engine.perform(engine.channels.norm_sums_call(
            entry, dy, x, parts.ctypes.data, table.numbers, *channels
        ))  # fmt: skip
        # the parts begin with the sums of errors and of products, of each column of the table
        sums = parts[: 2 * table.numbers.shape[1]].reshape(2, -1, C).sum(axis=1)
    shift_grad[...], scale_grad[...] = sums
    everywhere = np.zeros((2, C))
    for row in gather(sums.reshape(-1)):
        everywhere += row.reshape(2, C)
    dx = np.empty(x.shape, x.dtype)
    if x.size:
        _put_rows(table.numbers, MEAN_DY, *(everywhere / table.pixels))
        entry = engine.loop(f"norm_backward{'_relu' * relu}", x.dtype)
        engine.perform(engine.channels.norm_backward_call(entry, dy, x, table.numbers, dx))
    return dx


def _moments(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A table, and of this part how many pixels, the channels' means and sums of squares."""
    engine, C = compiled.engine(), x.shape[-1]
    table = np.empty(engine.channels.table_shape(x.shape, x.dtype), x.dtype)
    if not x.size:
        return table, np.zeros(1 + 2 * C)
    parts = parts_of(x)
    channels = [own(scale, x), own(shift, x), np.zeros(C, x.dtype), np.ones(C, x.dtype)]
    entry = engine.loop("norm_statistics", x.dtype)
    engine.perform(engine.channels.norm_statistics_call(
        entry, x, parts.ctypes.data, table, *channels, 0.0, 1.0
    ))  # fmt: skip
    pixels = math.prod(x.shape[:-1])
    # the parts begin with the merged means and squares, each as wide as the table
    moments = parts[: 2 * table.shape[1]].reshape(2, -1)[:, :C]
    return table, np.concatenate([[pixels], *moments])


def _put_rows(table: np.ndarray, first: int, *rows: np.ndarray) -> None:
    """Write rows (C,) to a table from its row `first` on, over and over again."""
    for i, row in enumerate(rows, first):
        table[i] = np.tile(row, table.shape[1] // len(row))


def _merged(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and sum of squares (C,) of all parts together, and how many pixels they have."""
    C = (rows.shape[1] - 1) // 2
    mean, square, pixels = np.zeros(C), np.zeros(C), 0.0
    for row in rows:
        count, other, others = float(row[0]), row[1 : C + 1], row[C + 1 :]
        if count:
            off, share = other - mean, count / (pixels + count)
            mean = mean + off * share
            square = square + others + off * off * (pixels * share)
            pixels += count
    return mean, square, pixels
