"""Max and average pooling and their gradients."""

from __future__ import annotations

import math
from typing import Literal, Unpack, overload

import numpy as np

from fastconv.geometry.request import boolean
from fastconv.geometry.resolve import pool_geometry
from fastconv.operands import (
    as_array,
    channels_last,
    expect_shape,
    native_dtype,
    operand,
    pooled,
    result,
    user_shape,
)
from fastconv.plans import integers
from fastconv.plans.pool import planned
from fastconv.typing import (
    Array,
    ArrayLike,
    DataFormat,
    Indices,
    Int,
    Padding,
    PoolOptions,
    Shape,
)

# Of an argmax, in either byte order.
WINNERS = (np.dtype("<i8"), np.dtype(">i8"))

__all__ = ["avg_pool", "avg_pool_backward", "max_pool", "max_pool_backward"]


@overload
def max_pool(
    x: ArrayLike,
    window: Int,
    *,
    return_argmax: Literal[False] = False,
    out: Array | None = None,
    **options: Unpack[PoolOptions],
) -> Array: ...


@overload
def max_pool(
    x: ArrayLike,
    window: Int,
    *,
    return_argmax: Literal[True],
    out: Array | None = None,
    **options: Unpack[PoolOptions],
) -> tuple[Array, Indices]: ...


@overload
def max_pool(
    x: ArrayLike,
    window: Int,
    *,
    return_argmax: bool,
    out: Array | None = None,
    **options: Unpack[PoolOptions],
) -> Array | tuple[Array, Indices]: ...


def max_pool(
    x: ArrayLike,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    return_argmax: bool = False,
    data_format: DataFormat = "channels_last",
    out: Array | None = None,
) -> Array | tuple[Array, Indices]:
    """Maximum over each window, per channel.

    Ties go to the first cell in scan order, a NaN is chosen and propagates, and padding is minus
    infinity, never zero.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images: here also integers of any width, or bool, which are pooled as they are.
    window : int or one per spatial axis
        Extent of the window.
    stride : optional
        The window's extents if None.
    padding
        At most half the effective window.
    dilation, data_format, out
        As for :func:`conv`; `out` takes ``y``.
    ceil_mode : bool
        Keep a last window, even if it is the only one, that reaches beyond the padded input,
        unless it would start in the high padding: PyTorch's rule.
    return_argmax : bool
        Also return where the maxima were, for :func:`max_pool_backward`.

    Returns
    -------
    y : array (m, OH, OW, C)
    argmax : int64 array, same shape; only with `return_argmax`
        Flat spatial index (``h*W + w``) of the chosen input cell; -1 for a window without one,
        whose maximum is minus infinity, or the least of the integers.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`.

    Examples
    --------
    >>> x = np.arange(16.0).reshape(1, 4, 4, 1)
    >>> y, argmax = max_pool(x, 2, return_argmax=True)
    >>> y[0, :, :, 0], argmax[0, :, :, 0]
    (array([[ 5.,  7.],
           [13., 15.]]), array([[ 5,  7],
           [13, 15]]))
    """
    x = pooled("x", x)
    keep_argmax = boolean("return_argmax", return_argmax)
    if x.dtype.kind in "biu":
        options: PoolOptions = {"stride": stride, "padding": padding, "dilation": dilation}
        options |= {"ceil_mode": ceil_mode, "data_format": data_format}
        return _max_of_integers(x, window, keep_argmax, out, options)
    pool = planned(
        x.shape,
        window,
        native_dtype(x),
        "x",
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        data_format=data_format,
    )
    y = result(out, pool.y_shape, pool.dtype, x=x)
    argmax = np.empty(pool.y_shape, np.int64) if keep_argmax else None
    pool.max_pool(x, y, argmax)
    return y if argmax is None else (y, argmax)


def _max_of_integers(
    x: np.ndarray, window: Int, keep_argmax: bool, out: Array | None, options: PoolOptions
) -> Array | tuple[Array, Indices]:
    g = pool_geometry(x.shape, window, name="x", **options)
    y_shape, data_format = user_shape(g.y_shape, options["data_format"]), options["data_format"]
    y = result(out, y_shape, x.dtype.newbyteorder("="), x=x)
    argmax = np.empty(y_shape, np.int64) if keep_argmax else None
    winners = None if argmax is None else channels_last(argmax, data_format)
    integers.max_pool(g, channels_last(x, data_format), channels_last(y, data_format), winners)
    return y if argmax is None else (y, argmax)


def max_pool_backward(
    dy: ArrayLike,
    argmax: ArrayLike,
    x_shape: Shape,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    data_format: DataFormat = "channels_last",
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`max_pool`: each error goes to its window's winner, the rest get zero.

    Parameters
    ----------
    dy : array (m, OH, OW, C)
        Gradient with respect to the output.
    argmax : int64 array, same shape
        From ``max_pool(..., return_argmax=True)``.
    x_shape : sequence of int
        Shape of `x`, in the order of `data_format`.
    window, stride, padding, dilation, ceil_mode, data_format, out
        As in the forward call.

    Returns
    -------
    dx : array of shape `x_shape`
        Errors of overlapping windows with one winner add up.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`; also if `argmax` has another shape or dtype, points outside the image, or
        is -1 for a window that has a cell.

    Examples
    --------
    >>> y, argmax = max_pool(np.arange(4.0).reshape(1, 2, 2, 1), 2, return_argmax=True)
    >>> max_pool_backward(y, argmax, (1, 2, 2, 1), 2)[0, :, :, 0]
    array([[0., 0.],
           [0., 3.]])
    """
    dy = operand("dy", dy)
    pool = planned(
        x_shape,
        window,
        native_dtype(dy),
        "x_shape",
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        data_format=data_format,
    )
    expect_shape("dy", dy, pool.y_shape, "the shape of the forward output")
    winners = as_array("argmax", argmax)
    if winners.dtype not in WINNERS:
        raise ValueError(f"argmax has dtype {winners.dtype}, not int64")
    expect_shape("argmax", winners, pool.y_shape, "the shape of the forward output")
    dx = result(out, pool.x_shape, pool.dtype, dy=dy, argmax=winners)
    if not pool.max_pool_backward(dy, winners, dx):
        raise ValueError(
            f"argmax holds {winners.min()} to {winners.max()}; an image has cells 0 to "
            f"{math.prod(pool.geometry.x_size) - 1}, and -1 is for a window without a cell alone"
        )
    return dx


def avg_pool(
    x: ArrayLike,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    data_format: DataFormat = "channels_last",
    out: Array | None = None,
) -> Array:
    """Mean over each window, per channel.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images.
    window, stride, padding, dilation, ceil_mode, data_format, out
        As for :func:`max_pool`.
    count_include_pad : bool
        Divide by the window's cells inside the padded input instead of those inside the input.

    Returns
    -------
    y : array (m, OH, OW, C)
        A window without a cell in the input gives 0.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`.

    Examples
    --------
    >>> avg_pool(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    x = operand("x", x)
    include_pad = boolean("count_include_pad", count_include_pad)
    pool = planned(
        x.shape,
        window,
        native_dtype(x),
        "x",
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        data_format=data_format,
        include_pad=include_pad,
    )
    y = result(out, pool.y_shape, pool.dtype, x=x)
    pool.avg_pool(x, y)
    return y


def avg_pool_backward(
    dy: ArrayLike,
    x_shape: Shape,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    data_format: DataFormat = "channels_last",
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`avg_pool`: each error is spread evenly over its window.

    Parameters
    ----------
    dy : array (m, OH, OW, C)
        Gradient with respect to the output.
    x_shape : sequence of int
        Shape of `x`, in the order of `data_format`.
    window, stride, padding, dilation, ceil_mode, count_include_pad, data_format, out
        As in the forward call.

    Returns
    -------
    dx : array of shape `x_shape`

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`.

    Examples
    --------
    >>> avg_pool_backward(np.ones((1, 1, 1, 1)), (1, 2, 2, 1), 2)[0, :, :, 0]
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    dy = operand("dy", dy)
    include_pad = boolean("count_include_pad", count_include_pad)
    pool = planned(
        x_shape,
        window,
        native_dtype(dy),
        "x_shape",
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        data_format=data_format,
        include_pad=include_pad,
    )
    expect_shape("dy", dy, pool.y_shape, "the shape of the forward output")
    dx = result(out, pool.x_shape, pool.dtype, dy=dy)
    pool.avg_pool_backward(dy, dx)
    return dx
