"""The poolings that Numba compiles into its callers: a kept call, else Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import objmode, types
from numba.core.errors import TypingError

import fastconv as fc
from fastconv.adapters.numba.calls import TEXT, asking, form_of_sources, learn
from fastconv.adapters.numba.checks import floats, made, names, shape, steps

__all__ = ["IMPLEMENTATIONS"]


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
    ask, known = asking(), 0
    if asking().askable(window, stride, padding, dilation, ceil_mode, data_format, x, out=out):
        known = form_of_sources()

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
    ask, known = asking(), 0
    if asking().askable(
        x_shape, window, stride, padding, dilation, ceil_mode, data_format, dy, argmax, out=out
    ):
        known = form_of_sources()

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
    ask, known = asking(), 0
    if asking().askable(
        window, stride, padding, dilation, ceil_mode, count_include_pad, data_format, x, out=out
    ):
        known = form_of_sources()

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
    ask, known = asking(), 0
    if asking().askable(
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
        known = form_of_sources()

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
    fc.max_pool: _max_pool,
    fc.max_pool_backward: _max_pool_backward,
    fc.avg_pool: _avg_pool,
    fc.avg_pool_backward: _avg_pool_backward,
}
