"""Calls of the public functions that other people's compiled code makes without Python.

What can be one call of a compiled loop on arrays where they lie is kept under a key by which it is
found again: exact products and poolings, on one thread. All else takes the way through Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.operands import channels_last, computing_dtype, native_dtype
from fastconv.plans import conv, pool
from fastconv.plans.algorithm import chosen, fast_blocks
from fastconv.plans.compiled import new_shelf, product_kept, products
from fastconv.threads import building

if TYPE_CHECKING:
    from fastconv.engine.kept import KeptCall, Shelf

__all__ = ["keep", "shelf"]

Arrays = Sequence[Any]


@lru_cache(1)
def shelf() -> Shelf:
    """Where the calls are; there is one, and it stays where it is.

    Compiled code cannot see which ``with algorithm(...)`` it is in: while any asks for "fast", it
    finds no call.
    """
    return new_shelf(fast_blocks)


def keep(key: Sequence[int], name: str, given: Arrays, results: Arrays, own: bool,
         **options: Any) -> None:  # fmt: skip
    """Keep the call that has just been made, if it can be.

    Parameters
    ----------
    key : sequence of int
        All that decides the call: what the compiled code will ask for.
    name : str
        The public function.
    given : sequence
        What was given in front of its options, but shapes: see `CALLS`.
    results : sequence of ndarray
        What it made.
    own : bool
        Whether the first result is the caller's `out`.
    options : object
        Its keywords, and shapes that were given.
    """
    arrays = [a for a in (*given, *results) if isinstance(a, np.ndarray)]
    if chosen(None) != "exact" or not all(a.size and a.dtype.isnative for a in arrays):
        return
    call = CALLS[name](given, results, **options)
    if call is not None:
        call = call._replace(shape=results[0].shape, result=RESULT[name] if own else 0)
        with building:
            shelf().keep(key, call)


def _product(
    plan: conv.ConvPlan, name: str, images: Arrays, others: Arrays, relu: bool = False
) -> KeptCall | None:
    """An exact product: of x and y with w and b, of dy and dx with w and None, of x and dy with dw.

    `images` are in the data format of the plan.
    """
    product = products(plan.geometry, computing_dtype(plan.dtype)).product(name)
    first, second = (channels_last(a, plan.data_format) for a in images)
    operands = (first, second, *others) if name == "kernel_grad" else (first, *others, second)
    return product_kept(product, *operands, relu=relu)


# Options in the order of the public functions: what those have planned is found by that order too.


def _conv(given: Arrays, results: Arrays, *, activation: Any, **options: Any) -> KeptCall | None:
    x, w, b = given
    plan = conv.planned(
        x.shape, w.shape, native_dtype(x), "x w", **options, algorithm="exact",
        activation=activation, padding_mode="constant",
    )  # fmt: skip
    return _product(plan, "forward", (x, results[0]), (w, b), activation == "relu")


def _gradient_plan(x_shape: Any, w_shape: Any, dtype: np.dtype, names: str,
                   options: dict[str, Any]) -> conv.ConvPlan:  # fmt: skip
    return conv.planned(
        x_shape, w_shape, dtype, names, **options, padding_mode="constant", algorithm="exact"
    )


def _conv_input_grad(
    given: Arrays, results: Arrays, *, x_shape: Any, **options: Any
) -> KeptCall | None:
    dy, w = given
    plan = _gradient_plan(x_shape, w.shape, native_dtype(dy), "x_shape w", options)
    return _product(plan, "input_grad", (dy, results[0]), (w, None))


def _conv_kernel_grad(
    given: Arrays, results: Arrays, *, w_shape: Any, **options: Any
) -> KeptCall | None:
    x, dy = given
    plan = _gradient_plan(x.shape, w_shape, native_dtype(x), "x w_shape", options)
    return _product(plan, "kernel_grad", (x, dy), results)


def _max_pool(
    given: Arrays, results: Arrays, *, window: Any, return_argmax: bool = False, **options: Any
) -> KeptCall | None:
    (x,) = given
    pooling = pool.planned(x.shape, window, native_dtype(x), "x", **options)
    if return_argmax:
        return pooling.kept_call("argmax", x, *results)
    return pooling.kept_call("max", x, *results, None)


def _max_pool_backward(
    given: Arrays, results: Arrays, *, x_shape: Any, window: Any, **options: Any
) -> KeptCall | None:
    dy, argmax = given
    pooling = pool.planned(x_shape, window, native_dtype(dy), "x_shape", **options)
    return pooling.kept_call("scatter", dy, argmax, *results)


def _avg_pool(
    given: Arrays, results: Arrays, *, window: Any, count_include_pad: bool, **options: Any
) -> KeptCall | None:
    (x,) = given
    pooling = pool.planned(
        x.shape, window, native_dtype(x), "x", **options, include_pad=count_include_pad
    )
    return pooling.kept_call("mean", x, *results, None)


def _avg_pool_backward(
    given: Arrays, results: Arrays, *, x_shape: Any, window: Any, count_include_pad: bool,
    **options: Any,
) -> KeptCall | None:  # fmt: skip
    (dy,) = given
    pooling = pool.planned(
        x_shape, window, native_dtype(dy), "x_shape", **options, include_pad=count_include_pad
    )
    return pooling.kept_call("spread", dy, None, *results)


# By the name of the public function, ``(given, results, **options)``: x, w, b; dy, w; x, dy; x;
# dy, argmax; x; dy.
CALLS: dict[str, Callable[..., KeptCall | None]] = {
    "conv": _conv,
    "conv_input_grad": _conv_input_grad,
    "conv_kernel_grad": _conv_kernel_grad,
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "avg_pool": _avg_pool,
    "avg_pool_backward": _avg_pool_backward,
}
# Which operand of the kept call the first result is.
RESULT = {"conv": 4, "conv_input_grad": 4, "conv_kernel_grad": 3, "max_pool": 2,
          "max_pool_backward": 3, "avg_pool": 2, "avg_pool_backward": 3}  # fmt: skip
