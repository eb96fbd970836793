"""Transposed convolution and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.geometry.request import Int, Padding
from fastconv.geometry.resolve import (
    transpose_geometry,
)
from fastconv.operands import (
    channels_last,
    computing_dtype,
    expect_shape,
    operand,
    result,
    same_dtype,
    user_shape,
)
from fastconv.plans import deltas
from fastconv.plans.compiled import products
from fastconv.plans.conv import (
    OPERANDS,
    ConvGrads,
    bias_operand,
    check_activation,
    check_need,
    grad_results,
)

__all__ = ["conv_transpose", "conv_transpose_backward"]


def conv_transpose(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    output_padding: Int = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    activation: str | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Transposed convolution: the input gradient of a convolution, used as a forward step.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images.
    w : array (KH, KW, F/G, C)
        Kernel of the convolution whose input gradient this is.
    b : array (F,), optional
        Bias.
    padding
        What is cut from the ends of the full result. ``"same"`` gives ``OH = H * s``.
    output_padding : int or one per axis
        Added at the high end of the result; smaller than the stride or the dilation.
    stride, dilation, groups, data_format, activation, out
        As for :func:`conv`.

    Returns
    -------
    y : array (m, OH, OW, F)
        ``OH = (H - 1)*s - lo - hi + (KH - 1)*d + 1 + output_padding``.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`.

    Examples
    --------
    >>> x, w = np.ones((8, 7, 7, 16)), np.ones((3, 3, 4, 16))
    >>> conv_transpose(x, w, stride=2, padding="same").shape
    (8, 14, 14, 4)
    """
    x, w = operand("x", x), operand("w", w)
    g = transpose_geometry(
        x.shape,
        w.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        names=("x", "w"),
    )
    b, relu = bias_operand(b, g.C), check_activation(activation)
    dtype = same_dtype(x=x, w=w, b=b)
    y = result(out, user_shape(g.x_shape, data_format), dtype, x=x, w=w, b=b)
    with np.errstate(all="ignore"):
        products(g, computing_dtype(dtype)).input_grad(
            channels_last(x, data_format), w, b, relu, channels_last(y, data_format)
        )
    return y


def conv_transpose_backward(
    dy: Any,
    x: Any,
    w: Any,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    output_padding: Int = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    need: Sequence[str] = OPERANDS,
    out: Sequence[np.ndarray | None] | None = None,
) -> ConvGrads:
    """All gradients of :func:`conv_transpose`.

    The step forward was an input gradient, so ``dx`` is a convolution of `dy`, and ``dw`` a kernel
    gradient in which `dy` and `x` change places.

    Parameters
    ----------
    dy : array (m, OH, OW, F)
        Gradient with respect to the output, before any activation.
    x, w : array
        Operands of the forward call.
    stride, padding, output_padding, dilation, groups, data_format
        As in the forward call.
    need, out
        As for :func:`conv_backward`.

    Returns
    -------
    ConvGrads
        ``dx`` like `x`, ``dw`` like `w`, ``db (F,)``.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`.

    Examples
    --------
    >>> dy, x, w = np.ones((8, 14, 14, 4)), np.ones((8, 7, 7, 16)), np.ones((2, 2, 4, 16))
    >>> conv_transpose_backward(dy, x, w, stride=2).dx.shape
    (8, 7, 7, 16)
    """
    wanted = check_need(need)
    x, w, dy = operand("x", x), operand("w", w), operand("dy", dy)
    g = transpose_geometry(
        x.shape,
        w.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        names=("x", "w"),
    )
    dtype = same_dtype(dy=dy, x=x, w=w)
    expect_shape("dy", dy, user_shape(g.x_shape, data_format), "the shape of the forward output")
    dx, dw, db = grad_results(wanted, out, (x.shape, w.shape, (g.C,)), dtype, dy=dy, x=x, w=w)
    plan, last_dy = products(g, computing_dtype(dtype)), channels_last(dy, data_format)
    with np.errstate(all="ignore"):
        if dx is not None:
            plan.forward(last_dy, w, None, False, channels_last(dx, data_format))
        if dw is not None:
            plan.kernel_grad(last_dy, channels_last(x, data_format), dw)
        if db is not None:
            deltas.bias_grad(last_dy, db)
    return ConvGrads(dx, dw, db)
