"""The functions of `program.ops.batch_norm` in NumPy: what they are compared with, for reading.

The table here is mean, inverse deviation, scale and shift, one row each.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["batch_norm", "batch_norm_backward", "batch_norm_frozen"]


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
    """Normalise by the statistics of the batch; the running `mean` and `variance` move."""
    pixels = x.reshape(-1, x.shape[-1]).astype(np.float64)  # (P, C)
    P = len(pixels)
    seen = pixels.sum(axis=0) / P
    square = np.square(pixels - seen).sum(axis=0)
    mean[...] = momentum * mean.astype(np.float64) + (1 - momentum) * seen
    unbiased = square / P * (P / max(P - 1, 1))
    variance[...] = momentum * variance.astype(np.float64) + (1 - momentum) * unbiased
    return _apply(x, seen, square / P, scale, shift, epsilon, relu)


def batch_norm_frozen(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
    relu: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise by the running statistics."""
    return _apply(x, mean, variance.astype(np.float64), scale, shift, epsilon, relu)


def _apply(
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    epsilon: float,
    relu: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inverse = 1.0 / np.sqrt(variance + epsilon)
    table = np.stack([mean, inverse, scale, shift]).astype(x.dtype)  # (4, C)
    y = _scaled(x, table)
    return (np.maximum(y, x.dtype.type(0)) if relu else y), x, table


def _normal(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    mean, inverse = table[:2]
    normal: np.ndarray = (x - mean) * inverse
    return normal


def _scaled(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    scale, shift = table[2:]
    y: np.ndarray = _normal(x, table) * scale + shift
    return y


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
    """Return `dx`, and write the gradients of scale and shift."""
    kind = x.dtype.type
    if relu:
        dy = np.where(_scaled(x, table) > 0, dy, kind(0))
    normal, axes = _normal(x, table), tuple(range(x.ndim - 1))
    sum_dy = dy.sum(axis=axes, dtype=np.float64)  # (C,)
    sum_dy_normal = (dy.astype(np.float64) * normal).sum(axis=axes)  # (C,)
    shift_grad[...] = sum_dy
    scale_grad[...] = sum_dy_normal
    factor = scale * table[1]  # (C,)
    if frozen:
        dx: np.ndarray = dy * factor
        return dx
    # The batch's own mean and variance depend on x: take out of dy its mean and its component
    # along the normalised input.
    P = math.prod(x.shape[:-1])
    mean_dy, mean_dy_normal = (
        (total / max(P, 1)).astype(x.dtype) for total in (sum_dy, sum_dy_normal)
    )
    dx = factor * ((dy - mean_dy) - normal * mean_dy_normal)
    return dx
