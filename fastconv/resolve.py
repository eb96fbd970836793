"""From the caller's arguments to a Geometry: canonical forms, checks, one cache.

Each problem has a function that puts the arguments into canonical form and a cached one that
checks them and builds the Geometry, so a repeated call pays for the first only.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from typing import Any

from fastconv.arguments import Int, Padding, Request, channels_last_shape
from fastconv.geometry import Geometry, effective, output_size, resolved_pads, transposed_pad

__all__ = ["conv_geometry", "pool_geometry", "transpose_geometry", "window_geometry"]

# Padded extents stay below this, so that sums of a few of them fit a 64-bit integer.
EXTENT_LIMIT = 2**61
CACHED_GEOMETRIES = 1024


def conv_geometry(
    x_shape: Any,
    w_shape: Any,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    names: tuple[str, str] = ("x_shape", "w_shape"),
) -> Geometry:
    """Geometry of ``conv(x, w)`` and of both its gradients.

    `names` says what the caller calls the first two arguments, for errors.

    Raises
    ------
    TypeError
        Where an argument is not made of integers.
    ValueError
        Where sizes do not fit together; the message lists every quantity.
    """
    shapes = dict(zip(names, (x_shape, w_shape), strict=True))
    ask = Request(
        data_format, **shapes, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    x_shape = ask.shape(names[0], x_shape)
    rank = len(x_shape) - 2
    return _conv(
        x_shape,
        ask.shape(names[1], w_shape, rank + 2),
        ask.per_axis("stride", stride, rank),
        ask.padding(padding, rank),
        ask.per_axis("dilation", dilation, rank),
        ask.integer("groups", groups),
        data_format,
        names,
    )


def transpose_geometry(
    x_shape: Any,
    w_shape: Any,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    output_padding: Int = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    names: tuple[str, str] = ("x_shape", "w_shape"),
) -> Geometry:
    """Geometry of the convolution whose input gradient is ``conv_transpose(x, w)``.

    That convolution runs backwards: its ``x_shape`` is the shape of the transposed convolution's
    result, its ``y_shape`` that of the transposed convolution's `x`. Its filters are the channels
    of `x`, its channels the filters of the result: ``w (KH, KW, F/G, C)``.
    """
    shapes = dict(zip(names, (x_shape, w_shape), strict=True))
    ask = Request(
        data_format,
        **shapes,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
    )
    x_shape = ask.shape(names[0], x_shape)
    rank = len(x_shape) - 2
    return _transpose(
        x_shape,
        ask.shape(names[1], w_shape, rank + 2),
        ask.per_axis("stride", stride, rank),
        ask.padding(padding, rank),
        ask.per_axis("output_padding", output_padding, rank),
        ask.per_axis("dilation", dilation, rank),
        ask.integer("groups", groups),
        data_format,
        names,
    )


def pool_geometry(
    x_shape: Any,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    data_format: str = "channels_last",
    name: str = "x_shape",
) -> Geometry:
    """Geometry of max and average pooling; ``stride=None`` means the window's extents."""
    ask = Request(
        data_format,
        **{name: x_shape},
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )
    x_shape = ask.shape(name, x_shape)
    rank = len(x_shape) - 2
    taps = ask.per_axis("window", window, rank)
    return _windows(
        x_shape,
        taps,
        taps if stride is None else ask.per_axis("stride", stride, rank),
        ask.padding(padding, rank),
        ask.per_axis("dilation", dilation, rank),
        ask.boolean("ceil_mode", ceil_mode),
        data_format,
        name,
        True,
    )


def window_geometry(
    x_shape: Any,
    window: Int,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    data_format: str = "channels_last",
    name: str = "x_shape",
) -> Geometry:
    """Geometry of im2col and col2im: windows over all channels, without a kernel."""
    ask = Request(
        data_format,
        **{name: x_shape},
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    x_shape = ask.shape(name, x_shape)
    rank = len(x_shape) - 2
    return _windows(
        x_shape,
        ask.per_axis("window", window, rank),
        ask.per_axis("stride", stride, rank),
        ask.padding(padding, rank),
        ask.per_axis("dilation", dilation, rank),
        False,
        data_format,
        name,
        False,
    )


# ----------------------------------------------------- cached: canonical arguments to a Geometry


@lru_cache(CACHED_GEOMETRIES)
def _conv(  # type: ignore[no-untyped-def]
    x_shape, w_shape, stride, padding, dilation, groups, data_format, names
) -> Geometry:
    shapes = dict(zip(names, (x_shape, w_shape), strict=True))
    ask = Request(
        data_format, **shapes, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    m, *x_size, C = shape = channels_last_shape(x_shape, data_format)
    *window, c_group, F = w_shape
    ask.image(names[0], shape)
    ask.at_least_one(names[1], w_shape)
    ask.at_least_one("stride", stride)
    ask.at_least_one("dilation", dilation)
    ask.divides(groups, "C", C)
    ask.divides(groups, "F", F)
    if c_group * groups != C:
        ask.fail(names[1], f"must have C/G = {C // groups} channels on its last axis but one")
    pads = resolved_pads(padding, x_size, window, stride, dilation)
    y_size = _sizes(ask, names[1], x_size, window, stride, dilation, pads)
    _addressable(ask, {names[0]: shape, names[1]: w_shape, "padding": (m, *y_size, F)})
    return _geometry(m, x_size, C, window, F, y_size, stride, pads, dilation, groups)


@lru_cache(CACHED_GEOMETRIES)
def _transpose(  # type: ignore[no-untyped-def]
    x_shape, w_shape, stride, padding, output_padding, dilation, groups, data_format, names
) -> Geometry:
    shapes = dict(zip(names, (x_shape, w_shape), strict=True))
    ask = Request(
        data_format,
        **shapes,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
    )
    m, *x_size, C = shape = channels_last_shape(x_shape, data_format)
    *window, f_group, c_kernel = w_shape
    F = f_group * groups
    ask.image(names[0], shape)
    ask.at_least_one(names[1], w_shape)
    ask.at_least_one("stride", stride)
    ask.at_least_one("dilation", dilation)
    ask.divides(groups, "C", C)
    if c_kernel != C:
        ask.fail(names[1], f"must have the C = {C} channels of x on its last axis")
    for extra, s, d in zip(output_padding, stride, dilation, strict=True):
        if not 0 <= extra < max(s, d):
            ask.fail("output_padding", "must be at least 0 and below the stride or the dilation")
    if padding == "same" and any(output_padding):
        ask.fail("output_padding", 'must be 0 with padding="same", which fixes the size')
    y_size, pads = [], []
    for i, (n, k, s, d) in enumerate(zip(x_size, window, stride, dilation, strict=True)):
        full = (n - 1) * s + effective(k, d)
        if full > EXTENT_LIMIT:
            ask.fail("stride", f"makes spatial axis {i} of the result too large to address")
        lo, hi = transposed_pad(padding if isinstance(padding, str) else padding[i], k, s, d)
        y_size.append(full - lo - hi + output_padding[i])
        pads.append((lo, hi - output_padding[i]))
        if y_size[-1] < 1:
            ask.fail("padding", f"leaves {y_size[-1]} elements on spatial axis {i} of the result")
    _addressable(ask, {names[0]: shape, names[1]: w_shape, "stride": (m, *y_size, F)})
    return _geometry(m, y_size, F, window, C, x_size, stride, pads, dilation, groups)


@lru_cache(CACHED_GEOMETRIES)
def _windows(  # type: ignore[no-untyped-def]
    x_shape, window, stride, padding, dilation, ceil_mode, data_format, name, pooling
) -> Geometry:
    ask = Request(
        data_format,
        **{name: x_shape},
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )
    m, *x_size, C = shape = channels_last_shape(x_shape, data_format)
    ask.image(name, shape)
    ask.at_least_one("window", window)
    ask.at_least_one("stride", stride)
    ask.at_least_one("dilation", dilation)
    pads = resolved_pads(padding, x_size, window, stride, dilation)
    if pooling:
        for pair, k, d in zip(pads, window, dilation, strict=True):
            if 2 * max(pair) > effective(k, d):
                ask.fail("padding", f"must be at most half the effective window, {effective(k, d)}")
    y_size = _sizes(ask, "window", x_size, window, stride, dilation, pads, ceil_mode)
    taps = 1 if pooling else math.prod(window)
    _addressable(ask, {name: shape, "padding": (m, *y_size, C * taps)})
    groups = C if pooling else 1
    return _geometry(m, x_size, C, window, C, y_size, stride, pads, dilation, groups)


def _sizes(  # type: ignore[no-untyped-def]
    ask, argument, x_size, window, stride, dilation, pads, ceil_mode=False
) -> tuple[int, ...]:
    """The output extent of every axis, each at least 1."""
    y_size = []
    for i, (n, k, s, d, (lo, hi)) in enumerate(
        zip(x_size, window, stride, dilation, pads, strict=True)
    ):
        if n + lo + hi > EXTENT_LIMIT:
            ask.fail("padding", f"makes spatial axis {i} too large to address")
        y_size.append(output_size(n, k, s, d, lo, hi, ceil_mode))
        if y_size[-1] < 1:
            ask.fail(
                argument,
                f"has an effective window of {effective(k, d)} on spatial axis {i}, "
                f"larger than the padded input, {n + lo + hi}",
            )
    return tuple(y_size)


def _addressable(ask: Request, shapes: dict[str, tuple[int, ...]]) -> None:
    """Every array of the problem, by the argument that makes it large, fits the address space."""
    for argument, shape in shapes.items():
        if math.prod(shape) * 8 > sys.maxsize:
            ask.fail(argument, f"makes an array of shape {shape}, too large to address")


def _geometry(  # type: ignore[no-untyped-def]
    m, x_size, C, window, F, y_size, stride, pads, dilation, groups
) -> Geometry:
    return Geometry(
        m,
        tuple(x_size),
        C,
        tuple(window),
        F,
        tuple(y_size),
        tuple(1 if o == 1 else s for s, o in zip(stride, y_size, strict=True)),
        tuple(pads),
        tuple(1 if k == 1 else d for d, k in zip(dilation, window, strict=True)),
        groups,
    )
