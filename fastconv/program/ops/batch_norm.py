"""Batch normalisation (Ioffe and Szegedy 2015) on arrays of any layout.

`x (..., C)` is float32 or float64 in the machine's byte order, as all other arrays; those of the
channels are `(C,)` and contiguous. Nothing is validated. `program.naive.batch_norm` has the same
functions in NumPy.

Rounding: mean and variance of a batch are computed in float64 and rounded to the dtype of x once,
the variance as ``1 / sqrt(variance + epsilon)``. Of ``normal = (x - mean) * inverse`` and ``y =
normal * scale + shift`` every operation is rounded, and so is each of the backward pass, whose sums
are float64. Running statistics move in float64 and are rounded once.
"""

from __future__ import annotations

import numpy as np

from fastconv.plans import compiled
from fastconv.program.ops.elementwise import contiguous

__all__ = ["apply", "batch_norm", "batch_norm_backward", "batch_norm_frozen", "own", "parts_of"]


def parts_of(x: np.ndarray) -> np.ndarray:
    """Room for the sums of the items of a call, in float64."""
    return np.empty(compiled.engine().channels.norm_parts_nbytes(x.shape, x.dtype) // 8)


def own(array: np.ndarray, like: np.ndarray) -> np.ndarray:
    """An array of channels that the engine may read and write: this one, or a copy."""
    flags = array.flags
    if array.dtype == like.dtype and flags.c_contiguous and flags.writeable:
        return array
    return np.array(array, like.dtype, order="C")


def batch_norm(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    momentum: float,
    epsilon: float,
    relu: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise by the statistics of the batch; the running `mean` and `variance` move.

    Returns
    -------
    y : ndarray
        Shape of `x`; with `relu`, 0 where it is negative.
    x, table : ndarray
        What `batch_norm_backward` needs.
    """
    engine, x = compiled.engine(), contiguous(x)
    table = np.empty(engine.channels.table_shape(x.shape, x.dtype), x.dtype)
    parts, running = parts_of(x), (mean, variance)
    channels = [own(array, x) for array in (scale, shift, *running)]
    entry = engine.loop("norm_statistics", x.dtype)
    engine.perform(engine.channels.norm_statistics_call(
        entry, x, parts.ctypes.data, table, *channels, momentum, epsilon
    ))  # fmt: skip
    for array, written in zip(running, channels[2:], strict=True):
        if written is not array:
            array[...] = written
    return apply(x, table, relu)


def batch_norm_frozen(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
    relu: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise by the running statistics; returned is what `batch_norm` returns."""
    engine, x = compiled.engine(), contiguous(x)
    table = np.empty(engine.channels.table_shape(x.shape, x.dtype), x.dtype)
    channels = [own(array, x) for array in (scale, shift, mean, variance)]
    entry = engine.loop("norm_frozen", x.dtype)
    engine.perform(engine.channels.norm_frozen_call(entry, x.shape, table, *channels, epsilon))
    return apply(x, table, relu)


def apply(
    x: np.ndarray, table: np.ndarray, relu: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise by the numbers of a table."""
    engine, y = compiled.engine(), np.empty(x.shape, x.dtype)
    entry = engine.loop("norm_forward_relu" if relu else "norm_forward", x.dtype)
    engine.perform(engine.channels.norm_forward_call(entry, x, table, y))
    return y, x, table


def batch_norm_backward(
    dy: np.ndarray,
    x: np.ndarray,
    table: np.ndarray,
    scale: np.ndarray,
    scale_grad: np.ndarray,
    shift_grad: np.ndarray,
    frozen: bool = False,
    relu: bool = False,
) -> np.ndarray:
    """Return `dx`, and write the gradients of scale and shift.

    Parameters
    ----------
    dy : ndarray
        Shape of `x`. With `relu`, the error of max(y, 0).
    x, table : ndarray
        From the forward pass; the table is written to.
    scale, scale_grad, shift_grad : ndarray (C,)
    frozen : bool
        Whether the statistics were the running ones, which do not depend on x.
    relu : bool
    """
    engine, dy = compiled.engine(), contiguous(dy)
    parts = parts_of(x)
    dx = np.empty(x.shape, x.dtype)
    grads = scale_grad, shift_grad
    channels = [own(array, x) for array in (scale, *grads)]
    entry = engine.loop("norm_sums_relu" if relu else "norm_sums", x.dtype)
    engine.perform(
        engine.channels.norm_sums_call(entry, dy, x, parts.ctypes.data, table, *channels)
    )
    for array, written in zip(grads, channels[1:], strict=True):
        if written is not array:
            array[...] = written
    entry = engine.loop(f"norm{'_frozen' * frozen}_backward{'_relu' * relu}", x.dtype)
    engine.perform(engine.channels.norm_backward_call(entry, dy, x, table, dx))
    return dx
