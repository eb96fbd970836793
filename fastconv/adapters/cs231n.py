"""The functions of CS231n's ``fast_layers``, without its Cython extension, and the ``_naive`` ones.

Same names, arguments and rules for ties: ``from fastconv.adapters.cs231n import *`` stands where
``from .fast_layers import *`` was. Images are ``x (N, C, H, W)``, kernels ``w (F, C, HH, WW)``.
Arrays that are not of one floating-point dtype are converted to float64.
"""

from __future__ import annotations

import numpy as np

import fastconv as fc
from fastconv.adapters.shared.course import floats, tied
from fastconv.operands import channels_last
from fastconv.typing import Array, ArrayLike, ConvOptions, DataFormat, Indices

__all__ = [
    "conv_backward_fast",
    "conv_backward_naive",
    "conv_forward_fast",
    "conv_forward_naive",
    "max_pool_backward_fast",
    "max_pool_backward_naive",
    "max_pool_forward_fast",
    "max_pool_forward_naive",
]

Parameters = dict[str, int]
ConvCache = tuple[ArrayLike, ArrayLike, ArrayLike, Parameters]
PoolCache = tuple[ArrayLike, Array, Indices, Parameters]

NCHW: DataFormat = "channels_first"


def conv_forward_fast(
    x: ArrayLike, w: ArrayLike, b: ArrayLike, conv_param: Parameters
) -> tuple[Array, ConvCache]:
    """Convolution, forward; the result of the course's ``conv_forward_naive``.

    Parameters
    ----------
    x : array (N, C, H, W)
    w : array (F, C, HH, WW)
    b : array (F,)
    conv_param : dict
        ``"stride"`` and ``"pad"``.

    Returns
    -------
    out : array (N, F, H', W')
        ``H' = 1 + floor((H + 2*pad - HH) / stride)``.
    cache : tuple
        For :func:`conv_backward_fast`.

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> x, w, b = np.ones((2, 3, 4, 4)), np.ones((3, 3, 4, 4)), np.zeros(3)
    >>> conv_forward_fast(x, w, b, {"stride": 2, "pad": 1})[0].shape
    (2, 3, 2, 2)
    """
    images, filters, bias = floats(x=x, w=w, b=b)
    out = fc.conv(images, _kernel(filters), bias, **_steps(conv_param))
    return out, (x, w, b, conv_param)


def conv_backward_fast(dout: ArrayLike, cache: ConvCache) -> tuple[Array, Array, Array]:
    """Gradients of :func:`conv_forward_fast`.

    Parameters
    ----------
    dout : array (N, F, H', W')
    cache : tuple
        From :func:`conv_forward_fast`.

    Returns
    -------
    dx, dw, db : arrays
        Of the shapes of ``x``, ``w`` and ``b``.

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> x, w, b = np.ones((2, 3, 4, 4)), np.ones((3, 3, 4, 4)), np.zeros(3)
    >>> out, cache = conv_forward_fast(x, w, b, {"stride": 2, "pad": 1})
    >>> [gradient.shape for gradient in conv_backward_fast(out, cache)]
    [(2, 3, 4, 4), (3, 3, 4, 4), (3,)]
    """
    x, w, _, conv_param = cache
    dy, images, filters = floats(dout=dout, x=x, w=w)
    grads = fc.conv_backward(dy, images, _kernel(filters), **_steps(conv_param))
    dw = grads.dw.transpose(3, 2, 0, 1)  # (HH, WW, C, F) -> (F, C, HH, WW)
    return grads.dx, np.ascontiguousarray(dw), grads.db


def max_pool_forward_fast(x: ArrayLike, pool_param: Parameters) -> tuple[Array, PoolCache]:
    """Max pooling, forward.

    Parameters
    ----------
    x : array (N, C, H, W)
    pool_param : dict
        ``"pool_height"``, ``"pool_width"`` and ``"stride"``.

    Returns
    -------
    out : array (N, C, H', W')
        ``H' = 1 + floor((H - pool_height) / stride)``.
    cache : tuple
        For :func:`max_pool_backward_fast`.

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> pool = {"pool_height": 2, "pool_width": 2, "stride": 2}
    >>> max_pool_forward_fast(np.ones((2, 3, 4, 4)), pool)[0].shape
    (2, 3, 2, 2)
    """
    (images,) = floats(x=x)
    window, stride = _window(pool_param)
    out, argmax = fc.max_pool(images, window, stride=stride, return_argmax=True, data_format=NCHW)
    return out, (x, out, argmax, pool_param)


def max_pool_backward_fast(dout: ArrayLike, cache: PoolCache) -> Array:
    """Gradient of :func:`max_pool_forward_fast`.

    As in the course, tied maxima share the error where square windows tile the image; elsewhere
    the first one in scan order gets it.

    Parameters
    ----------
    dout : array (N, C, H', W')
    cache : tuple
        From :func:`max_pool_forward_fast`.

    Returns
    -------
    dx : array (N, C, H, W)

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> pool = {"pool_height": 2, "pool_width": 2, "stride": 2}
    >>> out, cache = max_pool_forward_fast(np.array([[[[7.0, 7.0], [0.0, 1.0]]]]), pool)
    >>> max_pool_backward_fast(np.array([[[[5.0]]]]), cache)[0, 0]
    array([[2.5, 2.5],
           [0. , 0. ]])
    """
    x, out, argmax, pool_param = cache
    images, y, dy = floats(x=x, out=out, dout=dout)
    window, stride = _window(pool_param)
    H, W = images.shape[2:]
    if window == (stride, stride) and H % stride == 0 and W % stride == 0:
        images, y, dy = (channels_last(array, NCHW) for array in (images, y, dy))
        dx = tied(images, y, dy, window, stride, share=True)
        return np.ascontiguousarray(dx.transpose(0, 3, 1, 2))  # (N, H, W, C) -> (N, C, H, W)
    return fc.max_pool_backward(dy, argmax, images.shape, window, stride=stride, data_format=NCHW)


# What the exercises of ``layers.py`` write as loops: to compare one's own with, or in its place.


def conv_forward_naive(
    x: ArrayLike, w: ArrayLike, b: ArrayLike, conv_param: Parameters
) -> tuple[Array, ConvCache]:
    """Convolution, forward: what the course's loops compute, at the speed of the fast function.

    Parameters
    ----------
    x, w, b, conv_param
        As in :func:`conv_forward_fast`.

    Returns
    -------
    out : array (N, F, H', W')
    cache : tuple
        ``(x, w, b, conv_param)``.

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> x, w, b = np.ones((2, 3, 4, 4)), np.ones((3, 3, 4, 4)), np.zeros(3)
    >>> conv_forward_naive(x, w, b, {"stride": 2, "pad": 1})[0].shape
    (2, 3, 2, 2)
    """
    return conv_forward_fast(x, w, b, conv_param)


def conv_backward_naive(dout: ArrayLike, cache: ConvCache) -> tuple[Array, Array, Array]:
    """Gradients of :func:`conv_forward_naive`.

    Parameters
    ----------
    dout : array (N, F, H', W')
    cache : tuple
        From the forward call.

    Returns
    -------
    dx, dw, db : arrays

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> x, w, b = np.ones((2, 3, 4, 4)), np.ones((3, 3, 4, 4)), np.zeros(3)
    >>> out, cache = conv_forward_naive(x, w, b, {"stride": 2, "pad": 1})
    >>> [gradient.shape for gradient in conv_backward_naive(out, cache)]
    [(2, 3, 4, 4), (3, 3, 4, 4), (3,)]
    """
    return conv_backward_fast(dout, cache)


def max_pool_forward_naive(
    x: ArrayLike, pool_param: Parameters
) -> tuple[Array, tuple[ArrayLike, Parameters]]:
    """Max pooling, forward: what the course's loops compute.

    Parameters
    ----------
    x, pool_param
        As in :func:`max_pool_forward_fast`.

    Returns
    -------
    out : array (N, C, H', W')
    cache : tuple
        ``(x, pool_param)``, as the exercise has it.

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> pool = {"pool_height": 2, "pool_width": 2, "stride": 2}
    >>> max_pool_forward_naive(np.ones((2, 3, 4, 4)), pool)[0].shape
    (2, 3, 2, 2)
    """
    (images,) = floats(x=x)
    window, stride = _window(pool_param)
    return fc.max_pool(images, window, stride=stride, data_format=NCHW), (x, pool_param)


def max_pool_backward_naive(dout: ArrayLike, cache: tuple[ArrayLike, Parameters]) -> Array:
    """Gradient of :func:`max_pool_forward_naive`: the first maximum of each window gets the error.

    Parameters
    ----------
    dout : array (N, C, H', W')
    cache : tuple
        From the forward call.

    Returns
    -------
    dx : array (N, C, H, W)

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> pool = {"pool_height": 2, "pool_width": 2, "stride": 2}
    >>> out, cache = max_pool_forward_naive(np.array([[[[7.0, 7.0], [0.0, 1.0]]]]), pool)
    >>> max_pool_backward_naive(np.array([[[[5.0]]]]), cache)[0, 0]
    array([[5., 0.],
           [0., 0.]])
    """
    x, pool_param = cache
    images, dy = floats(x=x, dout=dout)
    window, stride = _window(pool_param)
    _, argmax = fc.max_pool(images, window, stride=stride, return_argmax=True, data_format=NCHW)
    return fc.max_pool_backward(dy, argmax, images.shape, window, stride=stride, data_format=NCHW)


def _kernel(w: np.ndarray) -> np.ndarray:
    return w.transpose(2, 3, 1, 0)  # (F, C, HH, WW) -> (HH, WW, C, F)


def _steps(conv_param: Parameters) -> ConvOptions:
    return {"stride": conv_param["stride"], "padding": conv_param["pad"], "data_format": NCHW}


def _window(pool_param: Parameters) -> tuple[tuple[int, int], int]:
    return (pool_param["pool_height"], pool_param["pool_width"]), pool_param["stride"]
