"""Transposed convolution and its gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack, overload

import numpy as np  # noqa: F401 - the examples'

from fastconv.operands import operand, same_dtype
from fastconv.plans.algorithm import chosen
from fastconv.plans.conv_transpose import planned
from fastconv.plans.gradients import OPERANDS, ConvGrads
from fastconv.typing import (
    Activation,
    Algorithm,
    Array,
    ArrayLike,
    ConvTransposeOptions,
    DataFormat,
    Int,
    Operand,
    Padding,
)

__all__ = ["conv_transpose", "conv_transpose_backward"]


def conv_transpose(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    output_padding: Int = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: DataFormat = "channels_last",
    activation: Activation | None = None,
    out: Array | None = None,
    algorithm: Algorithm | None = None,
) -> Array:
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
    stride, dilation, groups, data_format, activation, algorithm, out
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
    plan = planned(
        x.shape,
        w.shape,
        same_dtype(x=x, w=w),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        algorithm=chosen(algorithm),
        activation=activation,
    )
    return plan.forward(x, w, b, out=out)


@overload
def conv_transpose_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    out: Sequence[Array | None] | None = None,
    **options: Unpack[ConvTransposeOptions],
) -> ConvGrads[Array]: ...


@overload
def conv_transpose_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    need: Operand | Iterable[Operand],
    out: Sequence[Array | None] | None = None,
    **options: Unpack[ConvTransposeOptions],
) -> ConvGrads[Array | None]: ...


def conv_transpose_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    output_padding: Int = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: DataFormat = "channels_last",
    need: Operand | Iterable[Operand] = OPERANDS,
    out: Sequence[Array | None] | None = None,
    algorithm: Algorithm | None = None,
) -> ConvGrads[Array | None]:
    """All gradients of :func:`conv_transpose`.

    The step forward was an input gradient, so ``dx`` is a convolution of `dy`, and ``dw`` a kernel
    gradient in which `dy` and `x` change places.

    Parameters
    ----------
    dy : array (m, OH, OW, F)
        Gradient with respect to the output, before any activation.
    x, w : array
        Operands of the forward call.
    stride, padding, output_padding, dilation, groups, data_format, algorithm
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
    x, w, dy = operand("x", x), operand("w", w), operand("dy", dy)
    plan = planned(
        x.shape,
        w.shape,
        same_dtype(dy=dy, x=x, w=w),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        algorithm=chosen(algorithm),
    )
    return plan.backward(dy, x, w, need=need, out=out)
