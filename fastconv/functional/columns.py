"""im2col and its adjoint, col2im."""

from __future__ import annotations

import numpy as np

from fastconv.geometry.resolve import window_geometry
from fastconv.operands import (
    channels_last,
    computing_dtype,
    expect_shape,
    operand,
    quiet,
    same_dtype,
    user_shape,
)
from fastconv.plans.columns import add_col2im, fill_columns
from fastconv.typing import Array, ArrayLike, DataFormat, Int, Padding, Shape

__all__ = ["col2im", "im2col"]


@quiet
def im2col(
    x: ArrayLike,
    window: Int,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    data_format: DataFormat = "channels_last",
) -> Array:
    """Every window of `x` written out as a row.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images.
    window : int or one per spatial axis
        ``(KH, KW)``.
    stride, padding, dilation, data_format
        As for :func:`conv`.

    Returns
    -------
    cols : array (m, OH, OW, KH*KW*C)
        Taps in row-major order, channels innermost, in both data formats.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`.

    Examples
    --------
    >>> from fastconv import conv
    >>> x, w = np.ones((8, 9, 9, 2)), np.ones((3, 3, 2, 4))
    >>> cols = im2col(x, 3)
    >>> cols.shape
    (8, 7, 7, 18)
    >>> np.array_equal(cols @ w.reshape(18, 4), conv(x, w))
    True
    """
    x = operand("x", x)
    g = window_geometry(
        x.shape,
        window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        data_format=data_format,
        name="x",
    )
    cols = np.empty((g.m, *g.y_size, g.T * g.C), same_dtype(x=x))
    fill_columns(channels_last(x, data_format), g, cols)
    return cols


@quiet
def col2im(
    cols: ArrayLike,
    x_shape: Shape,
    window: Int,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    data_format: DataFormat = "channels_last",
) -> Array:
    """Adjoint of :func:`im2col`: every row goes back to its window, overlapping taps add up.

    Parameters
    ----------
    cols : array (m, OH, OW, KH*KW*C)
        One row per window.
    x_shape : sequence of int
        Shape of the result, in the order of `data_format`.
    window, stride, padding, dilation, data_format
        As for :func:`im2col`.

    Returns
    -------
    x : array of shape `x_shape`

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`; also if `cols` does not have the shape that im2col gives.

    Examples
    --------
    >>> col2im(np.ones((1, 2, 4)), (1, 5, 1), 4)[0, :, 0]
    array([1., 2., 2., 2., 1.])
    """
    cols = operand("cols", cols)
    g = window_geometry(
        x_shape,
        window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        data_format=data_format,
    )
    shape = (g.m, *g.y_size, g.T * g.C)
    expect_shape("cols", cols, shape, "the shape that im2col gives for x_shape")
    x = np.empty(user_shape(g.x_shape, data_format), same_dtype(cols=cols))
    if g.m:
        computing = computing_dtype(x.dtype)
        total = np.zeros((1, *g.x_shape), computing)
        split = np.ascontiguousarray(cols, computing).reshape(1, g.m, *g.y_size, *g.window, g.C)
        add_col2im(split, g, tuple(slice(0, n) for n in (g.m, *g.y_size)), total)
        channels_last(x, data_format)[...] = total[0]
    return x
