"""Convolution and pooling that autograd differentiates, in both modes and any number of times.

The functions are those of `fastconv`, without `out` and `activation`. The products are linear in
each operand and closed under transposition, so their gradients are products of the same three, and
so are the gradients of those.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.adapters._bilinear import CONV, CONV_TRANSPOSE, Bilinear
from fastconv.adapters._host import host
from fastconv.arguments import Int, Padding

host("autograd", "autograd")

import autograd.numpy as anp  # noqa: E402
from autograd.extend import def_linear, defjvp, defvjp, primitive  # noqa: E402
from autograd.tracer import getval, isbox  # noqa: E402

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
    >>> from autograd import grad
    >>> x, w = np.ones((2, 8, 8, 1)), np.ones((3, 3, 1, 4))
    >>> grad(lambda w: anp.sum(conv(x, w) ** 2))(w).shape
    (3, 3, 1, 4)
    """
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    return _call(_conv, x, w, b, **steps, groups=groups, data_format=data_format)


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
    >>> conv_transpose(np.ones((2, 4, 4, 8)), np.ones((2, 2, 3, 8)), stride=2).shape
    (2, 8, 8, 3)
    """
    steps = {"stride": stride, "padding": padding, "output_padding": output_padding}
    options = {"dilation": dilation, "groups": groups, "data_format": data_format}
    return _call(_conv_transpose, x, w, b, **steps, **options)


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
    >>> from autograd import grad
    >>> x = np.arange(4.0).reshape(1, 2, 2, 1)
    >>> grad(lambda x: anp.sum(max_pool(x, 2)))(x)[0, :, :, 0]
    array([[0., 0.],
           [0., 1.]])
    """
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "data_format": data_format,
    }
    if not isbox(x):
        return fc.max_pool(x, window, **options)
    y, argmax = fc.max_pool(getval(x), window, return_argmax=True, **options)
    return _maxima(x, y, argmax, window, options)


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
    >>> avg_pool(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "data_format": data_format,
    }
    return _means(x, window, **options)


# ------------------------------------------------------------------------- products


def _narrow(function: Any) -> Any:
    """`function` as a primitive of two operands that accepts a widened gradient.

    autograd hands float64 gradients of float32 results around (those of a mean, for example). They
    return to the narrower of the two dtypes, that of the operand that the caller gave.
    """

    def narrow(first: Any, second: Any, *args: Any, **options: Any) -> Any:
        dtype = min(first.dtype, second.dtype, key=lambda kind: kind.itemsize)
        operands = first.astype(dtype, copy=False), second.astype(dtype, copy=False)
        return function(*operands, *args, **options)

    narrow.__name__ = function.__name__
    return primitive(narrow)


def _primitives(product: Bilinear) -> tuple[Any, Any]:
    """The product, and the product plus bias, with derivatives of every order."""
    apply, x_grad, w_grad = map(_narrow, product)
    defvjp(
        apply,
        lambda y, x, w, **o: lambda dy: x_grad(dy, w, x.shape, **o),
        lambda y, x, w, **o: lambda dy: w_grad(x, dy, w.shape, **o),
    )
    defvjp(
        x_grad,
        lambda dx, dy, w, x_shape, **o: lambda x: apply(x, w, **o),
        lambda dx, dy, w, x_shape, **o: lambda x: w_grad(x, dy, w.shape, **o),
    )
    defvjp(
        w_grad,
        lambda dw, x, dy, w_shape, **o: lambda w: x_grad(dy, w, x.shape, **o),
        lambda dw, x, dy, w_shape, **o: lambda w: apply(x, w, **o),
    )
    for linear in (apply, x_grad, w_grad):
        def_linear(linear)

    biased = primitive(product.apply)
    defvjp(
        biased,
        lambda y, x, w, b, **o: lambda dy: x_grad(dy, w, x.shape, **o),
        lambda y, x, w, b, **o: lambda dy: w_grad(x, dy, w.shape, **o),
        lambda y, x, w, b, **o: lambda dy: anp.sum(dy, axis=_pixels(dy, o["data_format"])),
    )
    defjvp(
        biased,
        lambda dx, y, x, w, b, **o: apply(dx, w, **o),
        lambda dw, y, x, w, b, **o: apply(x, dw, **o),
        lambda db, y, x, w, b, **o: anp.zeros(y.shape) + _beside_channels(db, y, o["data_format"]),
    )
    return apply, biased


def _pixels(y: Any, data_format: str) -> tuple[int, ...]:
    """All axes but the channels."""
    channels = y.ndim - 1 if data_format == "channels_last" else 1
    return tuple(axis for axis in range(y.ndim) if axis != channels)


def _beside_channels(b: Any, y: Any, data_format: str) -> Any:
    """`b` (F,) with the axes of `y`."""
    return anp.reshape(b, [1 if i in _pixels(y, data_format) else -1 for i in range(y.ndim)])


_conv = _primitives(CONV)
_conv_transpose = _primitives(CONV_TRANSPOSE)


def _call(functions: tuple[Any, Any], x: Any, w: Any, b: Any, **options: Any) -> Any:
    """Run a product with or without bias, after the one check that `_narrow` would hide."""
    apply, biased = functions
    x, w = (a if isbox(a) else np.asarray(a) for a in (x, w))
    if b is not None:
        return biased(x, w, b, **options)
    if x.dtype != w.dtype:
        raise TypeError(f"w has dtype {w.dtype}, but x has {x.dtype}: convert one")
    return apply(x, w, **options)


# ------------------------------------------------------------------------- pooling


@primitive
def _maxima(x: Any, y: Any, argmax: Any, window: Any, options: dict[str, Any]) -> Any:
    """``y``, which is x at argmax: where the winners are was found with it."""
    return y


@primitive
def _to_winners(dy: Any, argmax: Any, x_shape: Any, window: Any, options: dict[str, Any]) -> Any:
    return fc.max_pool_backward(dy, argmax, x_shape, window, **options)


@primitive
def _from_winners(x: Any, argmax: Any, window: Any, options: dict[str, Any]) -> Any:
    """``x[argmax]``, the transpose of `_to_winners`; 0 where a window has no winner."""
    last = options["data_format"] == "channels_last"
    cells, winners = (_joined(a, last) for a in (x, argmax))
    found = np.take_along_axis(cells, np.maximum(winners, 0), 1 if last else 2)
    return np.where(winners < 0, 0, found).reshape(argmax.shape)


def _joined(array: np.ndarray, last: bool) -> np.ndarray:
    """`array` with its spatial axes joined to one."""
    shape = array.shape
    if last:
        return array.reshape(shape[0], math.prod(shape[1:-1]), shape[-1])
    return array.reshape(shape[0], shape[1], math.prod(shape[2:]))


defvjp(
    _maxima,
    lambda y, x, _, argmax, window, options: (
        lambda dy: _to_winners(dy, argmax, x.shape, window, options)
    ),
    argnums=(0,),
)
defjvp(
    _maxima,
    lambda dx, y, x, _, argmax, window, options: _from_winners(dx, argmax, window, options),
    argnums=(0,),
)
defvjp(
    _to_winners,
    lambda dx, dy, argmax, x_shape, window, options: (
        lambda x: _from_winners(x, argmax, window, options)
    ),
    argnums=(0,),
)
defvjp(
    _from_winners,
    lambda y, x, argmax, window, options: (
        lambda dy: _to_winners(dy, argmax, x.shape, window, options)
    ),
    argnums=(0,),
)

_means = primitive(fc.avg_pool)
_spread = primitive(fc.avg_pool_backward)
defvjp(
    _means,
    lambda y, x, window, **options: lambda dy: _spread(dy, x.shape, window, **options),
    argnums=(0,),
)
defvjp(
    _spread,
    lambda dx, dy, x_shape, window, **options: lambda x: _means(x, window, **options),
    argnums=(0,),
)
for _linear in (_to_winners, _from_winners, _means, _spread):
    def_linear(_linear)
