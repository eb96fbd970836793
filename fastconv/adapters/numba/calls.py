"""The implementations that Numba compiles into its callers: a kept call, else Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from numba import objmode, types
from numba.core.errors import TypingError

import fastconv as fc
from fastconv.adapters.numba.checks import bias, floats, made, names, shape, steps

__all__ = ["IMPLEMENTATIONS", "learn"]

TEXT = types.unicode_type


@lru_cache(1)
def _asking() -> Any:
    """The module `request`, which brings in a part of the engine, when it is first needed."""
    return import_module("fastconv.adapters.numba.request")


@lru_cache(1)
def _form() -> int:
    """A number for the sources that compiled code and kept calls have in common; 0 if unknown."""
    sources = import_module("fastconv.compiler.sources")
    try:
        return int(sources.number_of(__file__, str(import_module("fastconv.plans").__file__)))
    except sources.NoCodeError:
        return 0


def learn(
    form: int, request: int, words: int, function: Callable[..., Any], given: tuple[Any, ...],
    out: Any, **options: Any,
) -> tuple[Any, str, int]:  # fmt: skip
    """Call a public function on this thread alone, which may be one of a ``prange``, and keep it.

    Returns the result, "" and the place of kept calls; or something of the result's type, what a
    ValueError said, and 0: nopython code can catch only what nopython code raises.

    Parameters
    ----------
    form : int
        `_form` of the sources that the caller was compiled for.
    request, words : int
        Address of a request, and the length of its key; 0 if it has none.
    function : callable
    given : tuple
        Its operands, by position.
    out, options
        Its keywords.
    """
    try:
        with fc.num_threads(1):
            found = function(*given, out=out, **options)
    except ValueError as error:
        nothing = np.empty((0,) * given[0].ndim, given[0].dtype.newbyteorder("="))
        y = nothing if out is None else out
        pair = options.get("return_argmax", False)
        return (y, nothing.astype(np.int64)) if pair else y, str(error), 0
    if not words or not form or form != _form():
        return found, "", 0
    results = found if isinstance(found, tuple) else (found,)
    key = _asking().key_of(request, words)
    calls = import_module("fastconv.plans.calls")
    calls.keep(key, function.__name__, given, results, out is not None, **options)
    return found, "", calls.shelf().address


# ------------------------------------------------------------------------- implementations


def _conv(
    x, w, b=None, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
    data_format="channels_last", activation=None, out=None,
):  # fmt: skip
    names(keywords_only)
    dtype = floats(x=x, w=w)
    bias(b, dtype)
    steps(padding, stride=stride, dilation=dilation, groups=groups)
    kind = made(out, dtype, x.ndim)
    ask, known = _asking(), 0
    if _asking().askable(
        stride, padding, dilation, groups, data_format, activation, x, w, b, out=out
    ):
        known = _form()

    def conv(
        x, w, b=None, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
        data_format="channels_last", activation=None, out=None,
    ):  # fmt: skip
        request = ask.request()
        at = ask.put_number(request, 0, 1)
        at = ask.put_array(request, at, 1, x)
        at = ask.put_array(request, at, 2, w)
        at = ask.put_array(request, at, 3, b)
        at = ask.put(request, at, stride)
        at = ask.put(request, at, padding)
        at = ask.put(request, at, dilation)
        at = ask.put(request, at, groups)
        at = ask.put(request, at, data_format)
        at = ask.put(request, at, activation)
        at = ask.put_array(request, at, 4, out)
        if ask.found(request, at, known):
            y = ask.target(request, x, out)
            scratch = np.empty(ask.scratch_bytes(request), np.uint8)
            if ask.done(request, scratch, 4, y, None):
                return y
        version = known
        with objmode(y=kind, wrong=TEXT, shelf=types.int64):
            y, wrong, shelf = learn(
                version,
                request,
                at,
                fc.conv,
                (x, w, b),
                out,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                data_format=data_format,
                activation=activation,
            )
        if wrong:
            raise ValueError(wrong)
        ask.learn_shelf(shelf)
        return y

    return conv


def _conv_input_grad(
    dy, w, x_shape, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
    data_format="channels_last", out=None,
):  # fmt: skip
    names(keywords_only)
    dtype = floats(dy=dy, w=w)
    shape("x_shape", x_shape, dy.ndim)
    steps(padding, stride=stride, dilation=dilation, groups=groups)
    kind = made(out, dtype, dy.ndim)
    ask, known = _asking(), 0
    if _asking().askable(x_shape, stride, padding, dilation, groups, data_format, dy, w, out=out):
        known = _form()

    def conv_input_grad(
        dy, w, x_shape, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
        data_format="channels_last", out=None,
    ):  # fmt: skip
        request = ask.request()
        at = ask.put_number(request, 0, 2)
        at = ask.put_array(request, at, 1, dy)
        at = ask.put_array(request, at, 2, w)
        at = ask.put(request, at, x_shape)
        at = ask.put(request, at, stride)
        at = ask.put(request, at, padding)
        at = ask.put(request, at, dilation)
        at = ask.put(request, at, groups)
        at = ask.put(request, at, data_format)
        at = ask.put_array(request, at, 4, out)
        if ask.found(request, at, known):
            y = ask.target(request, dy, out)
            scratch = np.empty(ask.scratch_bytes(request), np.uint8)
            if ask.done(request, scratch, 4, y, None):
                return y
        version = known
        with objmode(y=kind, wrong=TEXT, shelf=types.int64):
            y, wrong, shelf = learn(
                version,
                request,
                at,
                fc.conv_input_grad,
                (dy, w),
                out,
                x_shape=x_shape,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                data_format=data_format,
            )
        if wrong:
            raise ValueError(wrong)
        ask.learn_shelf(shelf)
        return y

    return conv_input_grad


def _conv_kernel_grad(
    x, dy, w_shape, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
    data_format="channels_last", out=None,
):  # fmt: skip
    names(keywords_only)
    dtype = floats(x=x, dy=dy)
    shape("w_shape", w_shape, x.ndim)
    steps(padding, stride=stride, dilation=dilation, groups=groups)
    kind = made(out, dtype, x.ndim)
    ask, known = _asking(), 0
    if _asking().askable(w_shape, stride, padding, dilation, groups, data_format, x, dy, out=out):
        known = _form()

    def conv_kernel_grad(
        x, dy, w_shape, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
        data_format="channels_last", out=None,
    ):  # fmt: skip
        request = ask.request()
        at = ask.put_number(request, 0, 3)
        at = ask.put_array(request, at, 1, x)
        at = ask.put_array(request, at, 2, dy)
        at = ask.put(request, at, w_shape)
        at = ask.put(request, at, stride)
        at = ask.put(request, at, padding)
        at = ask.put(request, at, dilation)
        at = ask.put(request, at, groups)
        at = ask.put(request, at, data_format)
        at = ask.put_array(request, at, 3, out)
        if ask.found(request, at, known):
            y = ask.target(request, x, out)
            scratch = np.empty(ask.scratch_bytes(request), np.uint8)
            if ask.done(request, scratch, 3, y, None):
                return y
        version = known
        with objmode(y=kind, wrong=TEXT, shelf=types.int64):
            y, wrong, shelf = learn(
                version,
                request,
                at,
                fc.conv_kernel_grad,
                (x, dy),
                out,
                w_shape=w_shape,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                data_format=data_format,
            )
        if wrong:
            raise ValueError(wrong)
        ask.learn_shelf(shelf)
        return y

    return conv_kernel_grad


def _max_pool(
    x, window, keywords_only=None, stride=None, padding=0, dilation=1, ceil_mode=False,
    return_argmax=False, data_format="channels_last", out=None,
):  # fmt: skip
    names(keywords_only)
    dtype = floats(x=x)
    steps(padding, window=window, stride=stride, dilation=dilation)
    kind, winners = made(out, dtype, x.ndim), types.Array(types.int64, x.ndim, "C")
    wanted = getattr(return_argmax, "literal_value", getattr(return_argmax, "value", return_argmax))
    if not isinstance(wanted, bool):
        raise TypingError("return_argmax must be written as True or False: it decides the type")
    ask, known = _asking(), 0
    if _asking().askable(window, stride, padding, dilation, ceil_mode, data_format, x, out=out):
        known = _form()

    def max_pool(
        x, window, keywords_only=None, stride=None, padding=0, dilation=1, ceil_mode=False,
        return_argmax=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        request = ask.request()
        at = ask.put_number(request, 0, 4)
        at = ask.put_array(request, at, 1, x)
        at = ask.put(request, at, window)
        at = ask.put(request, at, stride)
        at = ask.put(request, at, padding)
        at = ask.put(request, at, dilation)
        at = ask.put(request, at, ceil_mode)
        at = ask.put(request, at, data_format)
        at = ask.put_array(request, at, 2, out)
        if ask.found(request, at, known):
            y = ask.target(request, x, out)
            scratch = np.empty(ask.scratch_bytes(request), np.uint8)
            if ask.done(request, scratch, 2, y, None):
                return y
        version = known
        with objmode(y=kind, wrong=TEXT, shelf=types.int64):
            y, wrong, shelf = learn(
                version,
                request,
                at,
                fc.max_pool,
                (x,),
                out,
                window=window,
                stride=stride,
                padding=padding,
                dilation=dilation,
                ceil_mode=ceil_mode,
                data_format=data_format,
            )
        if wrong:
            raise ValueError(wrong)
        ask.learn_shelf(shelf)
        return y

    def max_pool_and_winners(
        x, window, keywords_only=None, stride=None, padding=0, dilation=1, ceil_mode=False,
        return_argmax=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        request = ask.request()
        at = ask.put_number(request, 0, 8)
        at = ask.put_array(request, at, 1, x)
        at = ask.put(request, at, window)
        at = ask.put(request, at, stride)
        at = ask.put(request, at, padding)
        at = ask.put(request, at, dilation)
        at = ask.put(request, at, ceil_mode)
        at = ask.put(request, at, data_format)
        at = ask.put_array(request, at, 2, out)
        if ask.found(request, at, known):
            y = ask.target(request, x, out)
            argmax = np.empty(y.shape, np.int64)
            scratch = np.empty(ask.scratch_bytes(request), np.uint8)
            if ask.done(request, scratch, 2, y, argmax):
                return y, argmax
        version = known
        with objmode(y=kind, argmax=winners, wrong=TEXT, shelf=types.int64):
            (y, argmax), wrong, shelf = learn(
                version,
                request,
                at,
                fc.max_pool,
                (x,),
                out,
                window=window,
                stride=stride,
                padding=padding,
                dilation=dilation,
                ceil_mode=ceil_mode,
                data_format=data_format,
                return_argmax=True,
            )
        if wrong:
            raise ValueError(wrong)
        ask.learn_shelf(shelf)
        return y, argmax

    return max_pool_and_winners if wanted else max_pool


def _max_pool_backward(
    dy, argmax, x_shape, window, keywords_only=None, stride=None, padding=0, dilation=1,
    ceil_mode=False, data_format="channels_last", out=None,
):  # fmt: skip
    names(keywords_only)
    dtype = floats(dy=dy)
    if not (isinstance(argmax, types.Array) and argmax.dtype == types.int64):
        raise TypingError(f"argmax is {argmax}; an array of int64 is needed")
    shape("x_shape", x_shape, dy.ndim)
    steps(padding, window=window, stride=stride, dilation=dilation)
    kind = made(out, dtype, dy.ndim)
    ask, known = _asking(), 0
    if _asking().askable(
        x_shape, window, stride, padding, dilation, ceil_mode, data_format, dy, argmax, out=out
    ):
        known = _form()

    def max_pool_backward(
        dy, argmax, x_shape, window, keywords_only=None, stride=None, padding=0, dilation=1,
        ceil_mode=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        request = ask.request()
        at = ask.put_number(request, 0, 5)
        at = ask.put_array(request, at, 1, dy)
        at = ask.put_array(request, at, 2, argmax)
        at = ask.put(request, at, x_shape)
        at = ask.put(request, at, window)
        at = ask.put(request, at, stride)
        at = ask.put(request, at, padding)
        at = ask.put(request, at, dilation)
        at = ask.put(request, at, ceil_mode)
        at = ask.put(request, at, data_format)
        at = ask.put_array(request, at, 3, out)
        if ask.found(request, at, known):
            y = ask.target(request, dy, out)
            scratch = np.empty(ask.scratch_bytes(request), np.uint8)
            if ask.done(request, scratch, 3, y, None):
                return y
        version = known
        with objmode(y=kind, wrong=TEXT, shelf=types.int64):
            y, wrong, shelf = learn(
                version,
                request,
                at,
                fc.max_pool_backward,
                (dy, argmax),
                out,
                x_shape=x_shape,
                window=window,
                stride=stride,
                padding=padding,
                dilation=dilation,
                ceil_mode=ceil_mode,
                data_format=data_format,
            )
        if wrong:
            raise ValueError(wrong)
        ask.learn_shelf(shelf)
        return y

    return max_pool_backward


def _avg_pool(
    x, window, keywords_only=None, stride=None, padding=0, dilation=1,
    ceil_mode=False, count_include_pad=False, data_format="channels_last", out=None,
):  # fmt: skip
    names(keywords_only)
    dtype = floats(x=x)
    steps(padding, window=window, stride=stride, dilation=dilation)
    kind = made(out, dtype, x.ndim)
    ask, known = _asking(), 0
    if _asking().askable(
        window, stride, padding, dilation, ceil_mode, count_include_pad, data_format, x, out=out
    ):
        known = _form()

    def avg_pool(
        x, window, keywords_only=None, stride=None, padding=0, dilation=1,
        ceil_mode=False, count_include_pad=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        request = ask.request()
        at = ask.put_number(request, 0, 6)
        at = ask.put_array(request, at, 1, x)
        at = ask.put(request, at, window)
        at = ask.put(request, at, stride)
        at = ask.put(request, at, padding)
        at = ask.put(request, at, dilation)
        at = ask.put(request, at, ceil_mode)
        at = ask.put(request, at, count_include_pad)
        at = ask.put(request, at, data_format)
        at = ask.put_array(request, at, 2, out)
        if ask.found(request, at, known):
            y = ask.target(request, x, out)
            scratch = np.empty(ask.scratch_bytes(request), np.uint8)
            if ask.done(request, scratch, 2, y, None):
                return y
        version = known
        with objmode(y=kind, wrong=TEXT, shelf=types.int64):
            y, wrong, shelf = learn(
                version,
                request,
                at,
                fc.avg_pool,
                (x,),
                out,
                window=window,
                stride=stride,
                padding=padding,
                dilation=dilation,
                ceil_mode=ceil_mode,
                count_include_pad=count_include_pad,
                data_format=data_format,
            )
        if wrong:
            raise ValueError(wrong)
        ask.learn_shelf(shelf)
        return y

    return avg_pool


def _avg_pool_backward(
    dy, x_shape, window, keywords_only=None, stride=None, padding=0, dilation=1,
    ceil_mode=False, count_include_pad=False, data_format="channels_last", out=None,
):  # fmt: skip
    names(keywords_only)
    dtype = floats(dy=dy)
    shape("x_shape", x_shape, dy.ndim)
    steps(padding, window=window, stride=stride, dilation=dilation)
    kind = made(out, dtype, dy.ndim)
    ask, known = _asking(), 0
    if _asking().askable(
        x_shape,
        window,
        stride,
        padding,
        dilation,
        ceil_mode,
        count_include_pad,
        data_format,
        dy,
        out=out,
    ):
        known = _form()

    def avg_pool_backward(
        dy, x_shape, window, keywords_only=None, stride=None, padding=0, dilation=1,
        ceil_mode=False, count_include_pad=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        request = ask.request()
        at = ask.put_number(request, 0, 7)
        at = ask.put_array(request, at, 1, dy)
        at = ask.put(request, at, x_shape)
        at = ask.put(request, at, window)
        at = ask.put(request, at, stride)
        at = ask.put(request, at, padding)
        at = ask.put(request, at, dilation)
        at = ask.put(request, at, ceil_mode)
        at = ask.put(request, at, count_include_pad)
        at = ask.put(request, at, data_format)
        at = ask.put_array(request, at, 3, out)
        if ask.found(request, at, known):
            y = ask.target(request, dy, out)
            scratch = np.empty(ask.scratch_bytes(request), np.uint8)
            if ask.done(request, scratch, 3, y, None):
                return y
        version = known
        with objmode(y=kind, wrong=TEXT, shelf=types.int64):
            y, wrong, shelf = learn(
                version,
                request,
                at,
                fc.avg_pool_backward,
                (dy,),
                out,
                x_shape=x_shape,
                window=window,
                stride=stride,
                padding=padding,
                dilation=dilation,
                ceil_mode=ceil_mode,
                count_include_pad=count_include_pad,
                data_format=data_format,
            )
        if wrong:
            raise ValueError(wrong)
        ask.learn_shelf(shelf)
        return y

    return avg_pool_backward


IMPLEMENTATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    fc.conv: _conv,
    fc.conv_input_grad: _conv_input_grad,
    fc.conv_kernel_grad: _conv_kernel_grad,
    fc.max_pool: _max_pool,
    fc.max_pool_backward: _max_pool_backward,
    fc.avg_pool: _avg_pool,
    fc.avg_pool_backward: _avg_pool_backward,
}
