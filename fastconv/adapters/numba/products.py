"""The convolutions that Numba compiles into its callers: a kept call, else Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import objmode, types

import fastconv as fc
from fastconv.adapters.numba.calls import TEXT, asking, form_of_sources, learn
from fastconv.adapters.numba.checks import bias, floats, made, names, shape, steps

__all__ = ["IMPLEMENTATIONS"]


def _conv(
    x, w, b=None, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
    data_format="channels_last", activation=None, out=None,
):  # fmt: skip
    names(keywords_only)
    dtype = floats(x=x, w=w)
    bias(b, dtype)
    steps(padding, stride=stride, dilation=dilation, groups=groups)
    kind = made(out, dtype, x.ndim)
    ask, known = asking(), 0
    if asking().askable(
        stride, padding, dilation, groups, data_format, activation, x, w, b, out=out
    ):
        known = form_of_sources()

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
    ask, known = asking(), 0
    if asking().askable(x_shape, stride, padding, dilation, groups, data_format, dy, w, out=out):
        known = form_of_sources()

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
    ask, known = asking(), 0
    if asking().askable(w_shape, stride, padding, dilation, groups, data_format, x, dy, out=out):
        known = form_of_sources()

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


IMPLEMENTATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    fc.conv: _conv,
    fc.conv_input_grad: _conv_input_grad,
    fc.conv_kernel_grad: _conv_kernel_grad,
}
