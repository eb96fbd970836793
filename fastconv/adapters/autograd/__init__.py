"""Convolution and pooling that autograd differentiates, in both modes and any number of times.

The functions are those of `fastconv`, without `out` and `activation`. The products are linear in
each operand and closed under transposition, so their gradients are products of the same three, and
so are the gradients of those.
"""

from __future__ import annotations

from typing import Any

import fastconv as fc
from fastconv._extras import host
from fastconv.typing import Int, Padding

host("autograd", "autograd")

from autograd.tracer import getval, isbox  # noqa: E402

from fastconv.adapters.autograd.primitives import (  # noqa: E402
    CONV_PRIMITIVES,
    CONV_TRANSPOSE_PRIMITIVES,
    call,
    maxima,
    means,
)

__all__ = ["avg_pool", "conv", "conv_transpose", "max_pool"]


def conv(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: str = "channels_last",
) -> Any:
    """Differentiable :func:`fastconv.conv`.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images; 1-D and 3-D likewise.
    w : array (KH, KW, C/G, F)
        Kernel.
    b : array (F,), optional
        Bias.
    stride, padding, dilation, groups, data_format
        As for :func:`fastconv.conv`.

    Returns
    -------
    y : array (m, OH, OW, F)

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.conv`.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> x, w = np.ones((2, 8, 8, 1)), np.ones((3, 3, 1, 4))
    >>> grad(lambda w: np.sum(conv(x, w) ** 2))(w).shape
    (3, 3, 1, 4)
    """
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    return call(CONV_PRIMITIVES, x, w, b, **steps, groups=groups, data_format=data_format)


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
) -> Any:
    """Differentiable :func:`fastconv.conv_transpose`.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images.
    w : array (KH, KW, F/G, C)
        Kernel of the convolution whose input gradient this is.
    b : array (F,), optional
        Bias.
    stride, padding, output_padding, dilation, groups, data_format
        As for :func:`fastconv.conv_transpose`.

    Returns
    -------
    y : array (m, OH, OW, F)

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.conv_transpose`.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose(np.ones((2, 4, 4, 8)), np.ones((2, 2, 3, 8)), stride=2).shape
    (2, 8, 8, 3)
    """
    steps = {"stride": stride, "padding": padding, "output_padding": output_padding}
    options = {"dilation": dilation, "groups": groups, "data_format": data_format}
    return call(CONV_TRANSPOSE_PRIMITIVES, x, w, b, **steps, **options)


def max_pool(
    x: Any,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    data_format: str = "channels_last",
) -> Any:
    """Differentiable :func:`fastconv.max_pool`.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images.
    window, stride, padding, dilation, ceil_mode, data_format
        As for :func:`fastconv.max_pool`.

    Returns
    -------
    y : array (m, OH, OW, C)
        Its gradient goes to the first maximum of each window.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.max_pool`.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> x = np.arange(4.0).reshape(1, 2, 2, 1)
    >>> grad(lambda x: np.sum(max_pool(x, 2)))(x)[0, :, :, 0]
    array([[0., 0.],
           [0., 1.]])
    """
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "data_format": data_format,
    }
    if not isbox(x):
        return fc.max_pool(x, window, **options)
    y, argmax = fc.max_pool(getval(x), window, return_argmax=True, **options)
    return maxima(x, y, argmax, window, options)


def avg_pool(
    x: Any,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    data_format: str = "channels_last",
) -> Any:
    """Differentiable :func:`fastconv.avg_pool`.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images.
    window, stride, padding, dilation, ceil_mode, count_include_pad, data_format
        As for :func:`fastconv.avg_pool`.

    Returns
    -------
    y : array (m, OH, OW, C)

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.avg_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "data_format": data_format,
    }
    return means(x, window, **options)
