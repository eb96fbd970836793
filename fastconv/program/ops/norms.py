"""Normalisation within images (group, layer and instance normalisation), in NumPy.

`x (m, P, C)` are images of P pixels; each of G groups of channels is normalised on its own:
``C / G`` channels of all pixels of one image. Sums are float64 and run along one axis at a time, so
that the bits of an image do not depend on the others in its batch.
"""

from __future__ import annotations

import numpy as np

__all__ = ["group_norm", "group_norm_backward"]


def _means(a: np.ndarray, groups: int) -> np.ndarray:
    """Means of each image's groups: (m, P, C) -> (m, 1, C), the same for a group's channels."""
    m, P, C = a.shape
    sums = a.sum(axis=1)  # (m, C)
    means = sums.reshape(m, groups, C // groups).sum(axis=2) / (P * (C // groups))
    return np.repeat(means, C // groups, axis=1)[:, None]


def group_norm(
    x: np.ndarray, scale: np.ndarray, shift: np.ndarray, groups: int, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``y = normal * scale + shift``, where ``normal = (x - mean) / sqrt(variance + epsilon)``.

    Returns
    -------
    y, normal : ndarray (m, P, C)
        The second is rounded once.
    inverse : ndarray (m, 1, C) of float64
        What `group_norm_backward` needs besides.
    """
    wide = x.astype(np.float64)
    wide -= _means(wide, groups)
    inverse = 1 / np.sqrt(_means(wide * wide, groups) + epsilon)
    normal = (wide * inverse).astype(x.dtype)
    return normal * scale + shift, normal, inverse


def group_norm_backward(
    dy: np.ndarray, normal: np.ndarray, inverse: np.ndarray, scale: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``dx``, and the gradients of scale and shift."""
    wide, n = dy.astype(np.float64), normal.astype(np.float64)
    scale_grad, shift_grad = (wide * n).sum(axis=(0, 1)), wide.sum(axis=(0, 1))
    # mean and variance depend on x: take out of the error its mean and its part along `normal`
    wide *= scale
    dx = inverse * (wide - _means(wide, groups) - n * _means(wide * n, groups))
    kind = dy.dtype
    return dx.astype(kind), scale_grad.astype(kind), shift_grad.astype(kind)
