"""The gradient of ReLU."""

from __future__ import annotations

import numpy as np  # noqa: F401 - the examples'

from fastconv.operands import expect_shape, operand, result, same_dtype
from fastconv.plans import deltas
from fastconv.typing import Array, ArrayLike

__all__ = ["relu_backward"]


def relu_backward(dy: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of ``y = max(z, 0)``: the error passes where `y` is positive, else exactly zero.

    Parameters
    ----------
    dy, y : array of any shape
        Gradient with respect to the output, and the output (or z: the sign is the same).
    out : array, optional
        Takes the result.

    Returns
    -------
    dz : array, same shape

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype, different shapes, or an unusable `out`.

    Examples
    --------
    >>> relu_backward(np.array([1.0, 2.0]), np.array([0.0, 5.0]))
    array([0., 2.])
    """
    dy, y = operand("dy", dy), operand("y", y)
    dtype = same_dtype(dy=dy, y=y)
    expect_shape("y", y, dy.shape, "the shape of dy")
    dz = deltas.like(dy) if out is None else result(out, dy.shape, dtype, dy=dy, y=y)
    deltas.relu_delta(dy, y, dz)
    return dz
