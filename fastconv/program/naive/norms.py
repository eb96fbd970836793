"""The functions of `program.ops.norms`, image by image and group by group."""

from __future__ import annotations

import numpy as np

__all__ = ["group_norm", "group_norm_backward"]


def group_norm(
    x: np.ndarray, scale: np.ndarray, shift: np.ndarray, groups: int, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``y``, the normalised x, and 1 / deviation of each image's channels."""
    m, _, C = x.shape
    normal, inverse = np.empty_like(x), np.empty((m, 1, C))
    for i in range(m):
        for g in range(groups):
            of_group = slice(g * C // groups, (g + 1) * C // groups)
            values = x[i, :, of_group].astype(np.float64)
            deviation = np.sqrt(values.var() + epsilon)
            inverse[i, 0, of_group] = 1 / deviation
            normal[i, :, of_group] = (values - values.mean()) / deviation
    return normal * scale + shift, normal, inverse


def group_norm_backward(
    dy: np.ndarray, normal: np.ndarray, inverse: np.ndarray, scale: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``dx``, and the gradients of scale and shift."""
    m, _, C = dy.shape
    wide, n, dx = dy.astype(np.float64), normal.astype(np.float64), np.empty_like(dy)
    for i in range(m):
        for g in range(groups):
            of_group = slice(g * C // groups, (g + 1) * C // groups)
            error, along = wide[i, :, of_group] * scale[of_group], n[i, :, of_group]
            rest = error - error.mean() - along * (error * along).mean()
            dx[i, :, of_group] = inverse[i, 0, of_group] * rest
    kind = dy.dtype
    return dx, (wide * n).sum(axis=(0, 1)).astype(kind), wide.sum(axis=(0, 1)).astype(kind)
