"""Plans of transposed convolutions: the three products of another convolution, in other roles.

A transposed convolution's step forward is the input gradient of the convolution with the same
kernel; its input gradient is that convolution's step forward, and its kernel gradient that
convolution's, in which `x` and `dy` change places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastconv.geometry import Geometry
from fastconv.geometry.memo import remembered
from fastconv.geometry.resolve import transpose_geometry
from fastconv.operands import (
    bias_operand,
    channels_last,
    check_activation,
    computing_dtype,
    expect_shape,
    result,
    user_shape,
)
from fastconv.plans.deltas import bias_grad
from fastconv.plans.fast import products_of
from fastconv.plans.gradients import OPERANDS, ConvGrads, check_need, grad_results
from fastconv.typing import Algorithm, Operand

__all__ = ["ConvTransposePlan", "planned"]

CACHED_PLANS = 256


class ConvTransposePlan:
    """One transposed convolution, ready to run.

    Parameters
    ----------
    g : Geometry
        Of the convolution whose input gradient this is: its x is the result here, its y the input.
    dtype : numpy.dtype
        Of all operands and results.
    data_format : str
    relu : bool
    algorithm : {"exact", "fast"}

    Attributes
    ----------
    x_shape, w_shape, y_shape : tuple of int
        Shapes in the plan's data format: ``(m, H, W, C)``, ``(KH, KW, F/G, C)``,
        ``(m, OH, OW, F)``.
    """

    def __init__(
        self, g: Geometry, dtype: np.dtype, data_format: str, relu: bool, algorithm: Algorithm
    ) -> None:
        self.geometry, self.dtype, self.data_format = g, dtype, data_format
        self.x_shape = user_shape(g.y_shape, data_format)
        self.w_shape = g.w_shape
        self.y_shape = user_shape(g.x_shape, data_format)
        self._relu = relu
        self._products = products_of(g, computing_dtype(dtype), algorithm)

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: Any = None, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """``y``, then the activation. See :func:`fastconv.conv_transpose`."""
        if b is not None:
            b = bias_operand(b, self.geometry.C, self.dtype, "x")
        y = result(out, self.y_shape, self.dtype, x=x, w=w, b=b)
        self._products.input_grad(self._last(x), w, b, self._relu, self._last(y))
        return y

    def backward(
        self,
        dy: np.ndarray,
        x: np.ndarray,
        w: np.ndarray,
        *,
        need: Operand | Iterable[Operand] = OPERANDS,
        out: Sequence[np.ndarray | None] | None = None,
    ) -> ConvGrads:
        """All gradients, or those of `need`. See :func:`fastconv.conv_transpose_backward`."""
        wanted = check_need(need)
        expect_shape("dy", dy, self.y_shape, "the shape of the forward output")
        shapes = (self.x_shape, self.w_shape, (self.geometry.C,))
        dx, dw, db = grad_results(wanted, out, shapes, self.dtype, dy=dy, x=x, w=w)
        last_dy = self._last(dy)
        if dx is not None:
            self._products.forward(last_dy, w, None, False, self._last(dx))
        if dw is not None:
            self._products.kernel_grad(last_dy, self._last(x), dw)
        if db is not None:
            bias_grad(last_dy, db)
        return ConvGrads(dx, dw, db)

    def _last(self, array: np.ndarray) -> np.ndarray:
        return channels_last(array, self.data_format)


@remembered(CACHED_PLANS)
def planned(
    x_shape: Any,
    w_shape: Any,
    dtype: np.dtype,
    *,
    data_format: Any,
    activation: Any = None,
    algorithm: Any = "exact",
    **options: Any,
) -> ConvTransposePlan:
    """Kept plan for these arguments."""
    g = transpose_geometry(x_shape, w_shape, data_format=data_format, names=("x", "w"), **options)
    return ConvTransposePlan(g, dtype, data_format, check_activation(activation), algorithm)
