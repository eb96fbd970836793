"""The convolutional layers of the book *Deep Learning from Scratch* (its ``common/layers.py``).

Same classes, arguments, attributes and rules for ties: ``from fastconv.adapters.dlfs import
Convolution, Pooling`` stands below ``from common.layers import *``. Images are ``x (N, C, H, W)``,
kernels ``W (FN, C, FH, FW)``. Arrays that are not of one floating-point dtype are converted to
float64. The book's `im2col` and `col2im` stay its own: they copy at the speed of memory.
"""

from __future__ import annotations

import numpy as np

import fastconv as fc
from fastconv.adapters.shared.course import floats
from fastconv.typing import Array, ArrayLike, DataFormat

__all__ = ["Convolution", "Pooling"]

NCHW: DataFormat = "channels_first"


class Convolution:
    """A convolutional layer.

    Parameters
    ----------
    W : array (FN, C, FH, FW)
    b : array (FN,)
        Both are kept, not copied: what an optimizer changes in place, the layer uses.
    stride, pad : int

    Attributes
    ----------
    W, b, stride, pad
        The arguments.
    x : array (N, C, H, W) or None
        Input of the last forward call.
    dW, db : array or None
        Gradients of the last backward call, like `W` and `b`. The book's `col` and `col_W` are not
        made.

    Raises
    ------
    ValueError
        By a call, if the sizes do not fit together.

    Examples
    --------
    >>> layer = Convolution(np.ones((8, 3, 5, 5)), np.zeros(8), stride=2, pad=1)
    >>> y = layer.forward(np.ones((10, 3, 28, 28)))
    >>> y.shape, layer.backward(y).shape, layer.dW.shape
    ((10, 8, 13, 13), (10, 3, 28, 28), (8, 3, 5, 5))
    """

    def __init__(self, W: Array, b: Array, stride: int = 1, pad: int = 0) -> None:
        self.W = W
        self.b = b
        self.stride = stride
        self.pad = pad
        self.x: ArrayLike | None = None
        self.dW: Array | None = None
        self.db: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        """``(N, C, H, W) -> (N, FN, 1 + (H + 2*pad - FH) // stride, ...)``."""
        images, kernel, bias = floats(x=x, W=self.W, b=self.b)
        y = fc.conv(
            images,
            kernel.transpose(2, 3, 1, 0),  # (FN, C, FH, FW) -> (FH, FW, C, FN)
            bias,
            stride=self.stride,
            padding=self.pad,
            data_format=NCHW,
        )
        self.x = x
        return y

    def backward(self, dout: ArrayLike) -> Array:
        """The gradient of the input; those of `W` and `b` go to `dW` and `db`."""
        dy, images, kernel = floats(dout=dout, x=_last_input(self.x), W=self.W)
        dx, dw, db = fc.conv_backward(
            dy,
            images,
            kernel.transpose(2, 3, 1, 0),
            stride=self.stride,
            padding=self.pad,
            data_format=NCHW,
        )
        self.dW, self.db = np.ascontiguousarray(dw.transpose(3, 2, 0, 1)), db
        return dx


class Pooling:
    """A layer that keeps the largest cell of each window; of equal ones, the first.

    Parameters
    ----------
    pool_h, pool_w : int
        The window.
    stride : int
    pad : int
        Zeros around the image, which count: where all cells are negative, a zero is the largest.

    Attributes
    ----------
    pool_h, pool_w, stride, pad
        The arguments.
    x : array (N, C, H, W) or None
        Input of the last forward call.
    arg_max : array of int (N, C, OH, OW) or None
        Where in the padded image each largest cell is, row by row. (The book's counts within
        windows.)

    Raises
    ------
    ValueError
        By a call, if the sizes do not fit together.

    Examples
    --------
    >>> layer = Pooling(2, 2, stride=2)
    >>> y = layer.forward(np.arange(16.0).reshape(1, 1, 4, 4))
    >>> y[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    >>> layer.backward(y)[0, 0, 1]
    array([0., 5., 0., 7.])
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int = 1, pad: int = 0) -> None:
        self.pool_h = pool_h
        self.pool_w = pool_w
        self.stride = stride
        self.pad = pad
        self.x: ArrayLike | None = None
        self.arg_max: np.ndarray | None = None

    def forward(self, x: ArrayLike) -> Array:
        """``(N, C, H, W) -> (N, C, 1 + (H + 2*pad - pool_h) // stride, ...)``."""
        (images,) = floats(x=x)
        if self.pad:
            images = np.pad(images, [(0, 0), (0, 0), *[(self.pad, self.pad)] * 2])
        y, self.arg_max = fc.max_pool(
            images,
            (self.pool_h, self.pool_w),
            stride=self.stride,
            return_argmax=True,
            data_format=NCHW,
        )
        self.x = x
        return y

    def backward(self, dout: ArrayLike) -> Array:
        """The gradient of the input: each error goes to its window's largest cell."""
        (dy,) = floats(dout=dout)
        N, C, H, W = np.shape(_last_input(self.x))
        p = self.pad
        dx = fc.max_pool_backward(
            dy,
            _last_input(self.arg_max),
            (N, C, H + 2 * p, W + 2 * p),
            (self.pool_h, self.pool_w),
            stride=self.stride,
            data_format=NCHW,
        )
        return np.ascontiguousarray(dx[:, :, p : p + H, p : p + W])


def _last_input(x: ArrayLike | None) -> ArrayLike:
    if x is None:
        raise ValueError("backward before forward: there is no input whose gradient it could be")
    return x
