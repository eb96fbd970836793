"""Products and pools as autograd's primitives, with their derivatives in both modes."""

from __future__ import annotations

import math
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import def_linear, defjvp, defvjp, primitive
from autograd.tracer import isbox

import fastconv as fc
from fastconv.adapters._bilinear import CONV, CONV_TRANSPOSE, Bilinear
from fastconv.operands import as_array, quiet

__all__ = ["CONV_PRIMITIVES", "CONV_TRANSPOSE_PRIMITIVES", "call", "maxima", "means"]


# ------------------------------------------------------------------------- products


def _narrow(function: Any) -> Any:
    """`function` as a primitive of two operands that accepts a widened gradient.

    autograd hands float64 gradients of float32 results around (those of a mean, for example). They
    return to the narrower of the two dtypes, that of the operand that the caller gave.
    """

    @quiet
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


CONV_PRIMITIVES = _primitives(CONV)
CONV_TRANSPOSE_PRIMITIVES = _primitives(CONV_TRANSPOSE)


def call(functions: tuple[Any, Any], x: Any, w: Any, b: Any, **options: Any) -> Any:
    """Run a product with or without bias, after the one check that `_narrow` would hide."""
    apply, biased = functions
    x, w = (a if isbox(a) else as_array(name, a) for name, a in (("x", x), ("w", w)))
    if b is not None:
        return biased(x, w, b, **options)
    if x.dtype != w.dtype:
        raise TypeError(f"w has dtype {w.dtype}, but x has {x.dtype}: convert one")
    return apply(x, w, **options)


# ------------------------------------------------------------------------- pooling


@primitive
def maxima(x: Any, y: Any, argmax: Any, window: Any, options: dict[str, Any]) -> Any:
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
    maxima,
    lambda y, x, _, argmax, window, options: (
        lambda dy: _to_winners(dy, argmax, x.shape, window, options)
    ),
    argnums=(0,),
)
defjvp(
    maxima,
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

means = primitive(fc.avg_pool)
_spread = primitive(fc.avg_pool_backward)
defvjp(
    means,
    lambda y, x, window, **options: lambda dy: _spread(dy, x.shape, window, **options),
    argnums=(0,),
)
defvjp(
    _spread,
    lambda dx, dy, x_shape, window, **options: lambda x: means(x, window, **options),
    argnums=(0,),
)
for _linear in (_to_winners, _from_winners, means, _spread):
    def_linear(_linear)
