"""The products of convolution as maps that are linear in each of two operands.

Each is one corner of the same triple sum over (result, kernel, input), so the gradients of any of
them are the other two: that is all that a host needs for derivatives of every order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc

__all__ = ["CONV", "CONV_TRANSPOSE", "Bilinear"]


class Bilinear(NamedTuple):
    """A product and its transposes.

    Attributes
    ----------
    apply : callable
        ``apply(x, w, **options) -> y``
    x_grad : callable
        ``x_grad(dy, w, x_shape, **options) -> dx``
    w_grad : callable
        ``w_grad(x, dy, w_shape, **options) -> dw``
    """

    apply: Callable[..., Any]
    x_grad: Callable[..., Any]
    w_grad: Callable[..., Any]


def _transposed_x_grad(dy: Any, w: Any, x_shape: Sequence[int], **options: Any) -> Any:
    x = np.broadcast_to(np.zeros(1, dy.dtype), x_shape)  # only its shape is looked at
    return fc.conv_transpose_backward(dy, x, w, need="x", **options).dx


def _transposed_w_grad(x: Any, dy: Any, w_shape: Sequence[int], **options: Any) -> Any:
    w = np.broadcast_to(np.zeros(1, x.dtype), w_shape)
    return fc.conv_transpose_backward(dy, x, w, need="w", **options).dw


CONV = Bilinear(fc.conv, fc.conv_input_grad, fc.conv_kernel_grad)
CONV_TRANSPOSE = Bilinear(fc.conv_transpose, _transposed_x_grad, _transposed_w_grad)
