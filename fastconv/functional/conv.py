"""Convolution and its gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack, overload

import numpy as np  # noqa: F401 - the examples'

from fastconv.operands import bias_operand, operand, same_dtype
from fastconv.plans.algorithm import chosen
from fastconv.plans.conv import planned
from fastconv.plans.gradients import OPERANDS, ConvGrads
from fastconv.typing import (
    Activation,
    Algorithm,
    Array,
    ArrayLike,
    ConvOptions,
    DataFormat,
    Int,
    Operand,
    Padding,
    PaddingMode,
    Shape,
)

__all__ = ["conv", "conv_backward", "conv_input_grad", "conv_kernel_grad"]


def conv(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: DataFormat = "channels_last",
    activation: Activation | None = None,
    padding_mode: PaddingMode = "constant",
    out: Array | None = None,
    algorithm: Algorithm | None = None,
) -> Array:
    """Convolution (cross-correlation) of a batch of images, 1-D, 2-D or 3-D.

    ``y[n,i,j,f] = b[f] + sum over u,v,c of x[n, i*s+u*d-p, j*s+v*d-p, c] * w[u,v,c,f]``: the
    matrix product ``cols @ w`` with the im2col matrix of `x`.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images; the number of spatial axes is ``x.ndim - 2``.
    w : array (KH, KW, C/G, F)
        Kernel, in this order in both data formats.
    b : array (F,), optional
        Bias.
    stride, padding, dilation, groups, data_format, padding_mode, algorithm, out
        As in :mod:`fastconv.functional`. ``"same"`` gives ``OH = ceil(H / s)``, with an odd cell
        of padding on the high side.
    activation : {None, "relu"}
        Applied to the result.

    Returns
    -------
    y : array (m, OH, OW, F)
        ``OH = floor((H + lo + hi - (KH - 1)*d - 1) / s) + 1``. It is `out` if that is given.

    Raises
    ------
    TypeError
        For a dtype other than float32, float64, float16, mixed dtypes, or non-integers.
    ValueError
        For sizes that do not fit, naming the argument, or an unusable `out`.

    Notes
    -----
    Chellapilla, Puri and Simard (2006) introduced convolution as a matrix product.

    Examples
    --------
    >>> x, w = np.ones((64, 28, 28, 1)), np.ones((3, 3, 1, 8))
    >>> conv(x, w, padding="same", stride=2).shape
    (64, 14, 14, 8)
    """
    x, w = operand("x", x), operand("w", w)
    plan = planned(
        x.shape,
        w.shape,
        same_dtype(x=x, w=w),
        "x w",
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        algorithm=chosen(algorithm),
        activation=activation,
        padding_mode=padding_mode,
    )
    if b is not None:
        b = bias_operand(b, plan.geometry.F, plan.dtype, "x")
    return plan.forward(x, w, b, out=out)


def conv_input_grad(
    dy: ArrayLike,
    w: ArrayLike,
    x_shape: Shape,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: DataFormat = "channels_last",
    padding_mode: PaddingMode = "constant",
    out: Array | None = None,
    algorithm: Algorithm | None = None,
) -> Array:
    """Gradient of the loss with respect to the input of :func:`conv`.

    ``dx = col2im(dy @ w.T)``. At stride 1 this is the full convolution of `dy` with the flipped,
    transposed kernel.

    Parameters
    ----------
    dy : array (m, OH, OW, F)
        Gradient with respect to the output, before any activation.
    w : array (KH, KW, C/G, F)
        Kernel.
    x_shape : sequence of int
        Shape of `x`, in the order of `data_format`.
    stride, padding, dilation, groups, data_format, padding_mode, algorithm, out
        As in the forward call.

    Returns
    -------
    dx : array of shape `x_shape`

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`; also if `dy` does not have the forward output's shape.

    Examples
    --------
    >>> dy, w = np.ones((64, 26, 26, 8)), np.ones((3, 3, 1, 8))
    >>> conv_input_grad(dy, w, (64, 28, 28, 1)).shape
    (64, 28, 28, 1)
    """
    dy, w = operand("dy", dy), operand("w", w)
    plan = planned(
        x_shape,
        w.shape,
        same_dtype(dy=dy, w=w),
        "x_shape w",
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        padding_mode=padding_mode,
        algorithm=chosen(algorithm),
    )
    return plan.input_grad(dy, w, out=out)


def conv_kernel_grad(
    x: ArrayLike,
    dy: ArrayLike,
    w_shape: Shape,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: DataFormat = "channels_last",
    padding_mode: PaddingMode = "constant",
    out: Array | None = None,
    algorithm: Algorithm | None = None,
) -> Array:
    """Gradient of the loss with respect to the kernel of :func:`conv`.

    ``dw[u,v,c,f] = sum over n,i,j of dy[n,i,j,f] * x[n, i*s+u*d-p, j*s+v*d-p, c]``: the product
    ``cols.T @ dy``, the gradient of one patch summed over all patches.

    Parameters
    ----------
    x : array (m, H, W, C)
        Input of the forward call.
    dy : array (m, OH, OW, F)
        Gradient with respect to the output, before any activation.
    w_shape : sequence of int
        ``(KH, KW, C/G, F)``.
    stride, padding, dilation, groups, data_format, padding_mode, algorithm, out
        As in the forward call.

    Returns
    -------
    dw : array (KH, KW, C/G, F)
        Exactly zero for an empty batch.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`; also if `dy` does not have the forward output's shape.

    Examples
    --------
    >>> x, dy = np.ones((64, 28, 28, 1)), np.ones((64, 26, 26, 8))
    >>> conv_kernel_grad(x, dy, (3, 3, 1, 8)).shape
    (3, 3, 1, 8)
    """
    x, dy = operand("x", x), operand("dy", dy)
    plan = planned(
        x.shape,
        w_shape,
        same_dtype(x=x, dy=dy),
        "x w_shape",
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        padding_mode=padding_mode,
        algorithm=chosen(algorithm),
    )
    return plan.kernel_grad(x, dy, out=out)


@overload
def conv_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    out: Sequence[Array | None] | None = None,
    **options: Unpack[ConvOptions],
) -> ConvGrads[Array]: ...


@overload
def conv_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    need: Operand | Iterable[Operand],
    out: Sequence[Array | None] | None = None,
    **options: Unpack[ConvOptions],
) -> ConvGrads[Array | None]: ...


def conv_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: DataFormat = "channels_last",
    padding_mode: PaddingMode = "constant",
    need: Operand | Iterable[Operand] = OPERANDS,
    out: Sequence[Array | None] | None = None,
    algorithm: Algorithm | None = None,
) -> ConvGrads[Array | None]:
    """All gradients of :func:`conv`.

    Parameters
    ----------
    dy : array (m, OH, OW, F)
        Gradient with respect to the output, before any activation.
    x, w : array
        Operands of the forward call.
    stride, padding, dilation, groups, data_format, padding_mode, algorithm
        As in the forward call.
    need : {"x", "w", "b"}, or several of them
        The gradients to compute; the others are None.
    out : sequence of three arrays or None, optional
        Where dx, dw and db go.

    Returns
    -------
    ConvGrads
        ``dx`` like `x`, ``dw`` like `w`, ``db (F,)``, the sum of `dy` over images and pixels.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`.

    Examples
    --------
    >>> x, w, dy = np.ones((8, 9, 9, 2)), np.ones((3, 3, 2, 4)), np.ones((8, 7, 7, 4))
    >>> grads = conv_backward(dy, x, w, need=("w", "b"))
    >>> grads.dx, grads.dw.shape, grads.db
    (None, (3, 3, 2, 4), array([392., 392., 392., 392.]))
    """
    x, w, dy = operand("x", x), operand("w", w), operand("dy", dy)
    plan = planned(
        x.shape,
        w.shape,
        same_dtype(x=x, w=w, dy=dy),
        "x w",
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        padding_mode=padding_mode,
        algorithm=chosen(algorithm),
    )
    return plan.backward(dy, x, w, need=need, out=out)
