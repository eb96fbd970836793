"""Products and pools as callbacks of JAX, with their derivatives and their behaviour under vmap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fastconv as fc
from fastconv.adapters._bilinear import Bilinear
from fastconv.adapters._numbers import as_float
from fastconv.operands import float_dtype, quiet, refuse_foreign

__all__ = ["frozen", "images_operand", "maximum_of", "mean_of", "product_of"]

Options = tuple[tuple[str, Any], ...]
CACHED = 256


def frozen(**options: Any) -> Options:
    """Options as a key: lists and arrays become tuples."""
    return tuple((name, _tuples(value)) for name, value in options.items())


def _tuples(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


# ------------------------------------------------------------------------- products


def product_of(product: Bilinear, options: Options, x: Any, w: Any, b: Any) -> jax.Array:
    x, w = images_operand("x", x), images_operand("w", w)
    plain, biased = _differentiable(product, options)
    operands = (x, w) if b is None else (x, w, images_operand("b", b))
    for name, operand in zip("xwb", operands, strict=False):
        if operand.dtype != x.dtype:
            raise TypeError(f"{name} has dtype {operand.dtype}, but x has {x.dtype}: convert one")
    return plain(x, w) if b is None else biased(*operands)


def images_operand(name: str, value: Any) -> jax.Array:
    """`value` as an array of a dtype that is computed: fastconv's, or bfloat16 in float32."""
    refuse_foreign(name, value)
    array = jnp.asarray(value)
    if array.dtype != jnp.bfloat16:
        float_dtype(name, array.dtype)
    return array


def _computing(dtype: Any) -> Any:
    return np.dtype(np.float32) if dtype == jnp.bfloat16 else dtype


def _widened(*arrays: np.ndarray) -> list[np.ndarray]:
    """Arrays as fastconv computes them: bfloat16 in float32, which holds each of its values."""
    return [as_float(a) if a.dtype == jnp.bfloat16 else a for a in arrays]


@lru_cache(CACHED)
def _differentiable(product: Bilinear, options: Options) -> tuple[Any, Any]:
    """The product, and the product plus bias, with their reverse-mode derivatives."""
    keywords = dict(options)
    call = partial(_callback, keywords=keywords)
    channels = -1 if keywords["data_format"] == "channels_last" else 1

    def apply(x: Any, w: Any) -> Any:
        return call(product.apply, _shape(product, x, w, None, keywords), x, w)

    def x_grad(dy: Any, w: Any, x_shape: Any) -> Any:
        return call(product.x_grad, x_shape, dy, w, extra=x_shape)

    def w_grad(x: Any, dy: Any, w_shape: Any) -> Any:
        return call(product.w_grad, w_shape, x, dy, extra=w_shape, joins=False)

    def with_bias(x: Any, w: Any, b: Any) -> Any:
        return call(product.apply, _shape(product, x, w, b, keywords), x, w, b)

    apply_, x_grad_, w_grad_, biased = (
        jax.custom_vjp(apply),
        jax.custom_vjp(x_grad, nondiff_argnums=(2,)),
        jax.custom_vjp(w_grad, nondiff_argnums=(2,)),
        jax.custom_vjp(with_bias),
    )

    def backward(saved: Any, dy: Any) -> Any:
        x, w = saved[:2]
        return x_grad_(dy, w, x.shape), w_grad_(x, dy, w.shape)

    def biased_backward(saved: Any, dy: Any) -> Any:
        axes = tuple(axis for axis in range(dy.ndim) if axis != channels % dy.ndim)
        return *backward(saved, dy), dy.sum(axes)

    apply_.defvjp(lambda x, w: (apply_(x, w), (x, w)), backward)
    biased.defvjp(lambda x, w, b: (biased(x, w, b), (x, w)), biased_backward)
    x_grad_.defvjp(
        lambda dy, w, x_shape: (x_grad_(dy, w, x_shape), (dy, w)),
        lambda _, saved, x: (apply_(x, saved[1]), w_grad_(x, saved[0], saved[1].shape)),
    )
    w_grad_.defvjp(
        lambda x, dy, w_shape: (w_grad_(x, dy, w_shape), (x, dy)),
        lambda _, saved, w: (x_grad_(saved[1], w, saved[0].shape), apply_(saved[0], w)),
    )
    return apply_, biased


def _shape(product: Bilinear, x: Any, w: Any, b: Any, keywords: dict[str, Any]) -> tuple[int, ...]:
    """Shape of the result, or the error."""
    w = np.broadcast_to(np.zeros(1, _computing(w.dtype)), w.shape)
    b = None if b is None else np.zeros(b.shape, _computing(b.dtype))
    return _checked(lambda images: product.apply(images, w, b, **keywords), x)


def _checked(function: Callable[..., Any], x: Any) -> tuple[int, ...]:
    """Shape of ``function(x)``, or its error: an empty batch has all checks and no work."""
    images = np.zeros((0, *x.shape[1:]), _computing(x.dtype))
    try:
        return (*x.shape[:1], *function(images).shape[1:])
    except ValueError as error:
        shown = str(error).replace(str(images.shape), str(x.shape))
        raise ValueError(shown) from None


def _callback(
    function: Callable[..., Any],
    shape: tuple[int, ...],
    first: Any,
    second: Any,
    *more: Any,
    keywords: dict[str, Any],
    extra: Any = None,
    joins: bool = True,
) -> Any:
    """Call a product of two operands from inside compiled code.

    Parameters
    ----------
    function : callable
        ``function(first, second, *more or extra, **keywords)``
    shape : tuple of int
        Of the result.
    first, second, more : arrays
    extra : tuple of int or None
        The shape argument of a gradient. Its batch is that of `first` once axes have joined it.
    joins : bool
        Whether mapped axes of `first` may join the batch where `second` is not mapped.
    """
    ranks = [operand.ndim for operand in (first, second, *more)]

    @quiet
    def run(*operands: Any) -> Any:
        arrays = _widened(*map(np.asarray, operands))
        return np.asarray(product(arrays)).astype(first.dtype, copy=False)  # rounded once

    def product(arrays: list[np.ndarray]) -> Any:
        mapped = [a.shape[: a.ndim - rank] for a, rank in zip(arrays, ranks, strict=True)]
        axes = np.broadcast_shapes(*mapped)
        if not axes:
            return function(*arrays, *([] if extra is None else [extra]), **keywords)
        if joins and all(set(lead) <= {1} for lead in mapped[1:]):
            return _joined(function, arrays, ranks, extra, keywords, shape)
        whole = [
            np.broadcast_to(a, (*axes, *a.shape[a.ndim - rank :]))
            for a, rank in zip(arrays, ranks, strict=True)
        ]
        result = np.empty((*axes, *shape), arrays[0].dtype)
        for i in np.ndindex(*axes):
            result[i] = product([a[i] for a in whole])
        return result

    like = jax.ShapeDtypeStruct(shape, first.dtype)
    return jax.pure_callback(run, like, first, second, *more, vmap_method="expand_dims")


def _joined(function, arrays, ranks, extra, keywords, shape):  # type: ignore[no-untyped-def]
    """One call for all mapped images: their axes join the batch."""
    first, *others = arrays
    axes = first.shape[: first.ndim - ranks[0]]
    rows = math.prod(axes) * first.shape[len(axes)]
    others = [a.reshape(a.shape[a.ndim - r :]) for a, r in zip(others, ranks[1:], strict=True)]
    sizes = [] if extra is None else [(rows, *extra[1:])]
    batch = first.reshape(rows, *first.shape[len(axes) + 1 :])
    return function(batch, *others, *sizes, **keywords).reshape(*axes, *shape)


# ------------------------------------------------------------------------- pooling


@lru_cache(CACHED)
def maximum_of(options: Options) -> Any:
    """Max pooling with its reverse-mode derivatives of every order."""
    keywords = dict(options)
    last = keywords["data_format"] == "channels_last"

    def values(x: Any, x_shape: Any) -> Any:
        shape = _checked(partial(fc.max_pool, **keywords), x)
        (y,) = _images(lambda a: [fc.max_pool(a, **keywords)], [(shape, x.dtype)], x)
        return y

    def with_winners(x: Any, x_shape: Any) -> Any:
        shape = _checked(partial(fc.max_pool, **keywords), x)

        def run(a: np.ndarray) -> Any:
            y, argmax = fc.max_pool(a, return_argmax=True, **keywords)
            return y, argmax.astype(np.int32)  # the integers that JAX has unless told otherwise

        return tuple(_images(run, [(shape, x.dtype), (shape, np.int32)], x))

    def scatter(dy: Any, argmax: Any, x_shape: Any) -> Any:
        def run(error: np.ndarray, where: np.ndarray) -> Any:
            shape = (len(error), *x_shape[1:])
            return [fc.max_pool_backward(error, where.astype(np.int64), shape, **keywords)]

        (dx,) = _images(run, [(x_shape, dy.dtype)], dy, argmax)
        return dx

    def gather(x: Any, argmax: Any) -> Any:
        cells, where = (
            a.reshape((len(a), -1, a.shape[-1]) if last else (*a.shape[:2], -1))
            for a in (x, argmax)
        )
        found = jnp.take_along_axis(cells, jnp.maximum(where, 0), 1 if last else 2)
        return jnp.where(where < 0, 0, found).reshape(argmax.shape)

    maximum, both = (jax.custom_vjp(f, nondiff_argnums=(1,)) for f in (values, with_winners))
    to_winners = jax.custom_vjp(scatter, nondiff_argnums=(2,))

    maximum.defvjp(
        lambda x, x_shape: both(x, x_shape),
        lambda x_shape, argmax, dy: (to_winners(dy, argmax, x_shape),),
    )

    def kept(x: Any, x_shape: Any) -> Any:
        y, argmax = both(x, x_shape)
        return (y, argmax), argmax

    # A step forward that is differentiated again. The second of its errors is argmax's: none.
    both.defvjp(kept, lambda x_shape, argmax, dys: (to_winners(dys[0], argmax, x_shape),))
    to_winners.defvjp(
        lambda dy, argmax, x_shape: (to_winners(dy, argmax, x_shape), argmax),
        lambda _, argmax, x: (gather(x, argmax), None),
    )
    return maximum


@lru_cache(CACHED)
def mean_of(options: Options) -> Any:
    """Average pooling; it and its transpose are each the gradient of the other."""
    keywords = dict(options)

    def mean(x: Any, x_shape: Any) -> Any:
        shape = _checked(partial(fc.avg_pool, **keywords), x)
        (y,) = _images(lambda a: [fc.avg_pool(a, **keywords)], [(shape, x.dtype)], x)
        return y

    def spread(dy: Any, x_shape: Any) -> Any:
        def run(error: np.ndarray) -> Any:
            return [fc.avg_pool_backward(error, (len(error), *x_shape[1:]), **keywords)]

        (dx,) = _images(run, [(x_shape, dy.dtype)], dy)
        return dx

    mean_, spread_ = (jax.custom_vjp(f, nondiff_argnums=(1,)) for f in (mean, spread))
    mean_.defvjp(
        lambda x, x_shape: (mean_(x, x_shape), None),
        lambda x_shape, _, dy: (spread_(dy, x_shape),),
    )
    spread_.defvjp(
        lambda dy, x_shape: (spread_(dy, x_shape), None),
        lambda x_shape, _, x: (mean_(x, x_shape),),
    )
    return mean_


def _images(function: Callable[..., Any], results: Sequence[Any], *operands: Any) -> Any:
    """Call a function of images; mapped axes join the batch. `results` are (shape, dtype)."""
    ranks = [operand.ndim for operand in operands]

    @quiet
    def run(*given: Any) -> Any:
        arrays = _widened(*map(np.asarray, given))
        axes = arrays[0].shape[: arrays[0].ndim - ranks[0]]
        joined = [
            a.reshape(math.prod(a.shape[: len(axes) + 1]), *a.shape[len(axes) + 1 :])
            for a in arrays
        ]
        made = function(*joined)
        return [
            y.reshape(*axes, *shape).astype(dtype, copy=False)
            for y, (shape, dtype) in zip(made, results, strict=True)
        ]

    like = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results]
    return jax.pure_callback(run, like, *operands, vmap_method="broadcast_all")
