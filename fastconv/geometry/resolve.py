"""From the caller's arguments to a Geometry: canonical forms, checks, a cache."""

from __future__ import annotations

import math
import sys
from typing import Any

from fastconv.geometry.cures import (
    axes_cure,
    channels_cure,
    kernel_order_cure,
    pool_axes_cure,
    transposed_order_cure,
)
from fastconv.geometry.geometry import Geometry
from fastconv.geometry.memo import remembered
from fastconv.geometry.request import Request, boolean, integer
from fastconv.geometry.sizes import effective, output_size, resolved_pads, transposed_pad
from fastconv.typing import Int, Padding

__all__ = ["conv_geometry", "pool_geometry", "transpose_geometry", "window_geometry"]

# Padded extents stay below this, so that sums of a few of them fit a 64-bit integer.
EXTENT_LIMIT = 2**61
# Bytes of a channel in the padded input, at most: rounded up to a tile of 64 columns.
WIDEST = 8 * 64
CACHED_GEOMETRIES = 1024


@remembered(CACHED_GEOMETRIES)
def conv_geometry(
    x_shape: Any,
    w_shape: Any,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    padding_mode: str = "constant",
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
    x_name, w_name = names
    given: Any = padding_mode
    plain = isinstance(given, str) and given == "constant"
    ask = Request(
        data_format,
        **{x_name: x_shape, w_name: w_shape},
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        **({} if plain else {"padding_mode": padding_mode}),
    )
    mode = "constant" if plain else ask.padding_mode()
    m, x_size, C, kernel = _operands(ask, x_name, w_name)
    *window, c_group, F = kernel
    s, d, form = ask.steps(len(x_size))
    G = integer("groups", groups)
    fits = all(k <= n for k, n in zip(kernel[2:], x_size, strict=True))
    turned = kernel_order_cure(w_name, kernel, C, G) if fits else ""
    ask.divides(G, "C", C)
    ask.divides(G, "F", F, turned)
    if c_group * G != C:
        cure = channels_cure(names, ask.shape(x_name), kernel, G, data_format)
        ask.fail(w_name, f"must have C/G = {C // G} channels on its last axis but one", cure)
    pads = resolved_pads(form, x_size, window, s, d)
    y_size = _sizes(ask, w_name, x_size, window, s, d, pads, cure=turned)
    _addressable(ask, {x_name: (m, *x_size, C), w_name: kernel, "padding": (m, *y_size, F)})
    _walkable(ask, "padding", x_size, pads, C)
    if not any(map(any, pads)):
        mode = "constant"
    return _geometry(m, x_size, C, window, F, y_size, s, pads, d, G, mode)


@remembered(CACHED_GEOMETRIES)
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
    x_name, w_name = names
    ask = Request(
        data_format,
        **{x_name: x_shape, w_name: w_shape},
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
    )
    m, x_size, C, kernel = _operands(ask, x_name, w_name, transposed=True)
    *window, f_group, c_kernel = kernel
    strides, dilations, form = ask.steps(len(x_size))
    G = integer("groups", groups)
    extras = ask.per_axis("output_padding", len(x_size))
    ask.divides(G, "C", C)
    if c_kernel != C:
        cure = transposed_order_cure(w_name, kernel, C)
        ask.fail(w_name, f"must have the C = {C} channels of {x_name} on its last axis", cure)
    if form == "same" and any(extras):
        ask.fail("output_padding", 'must be 0 with padding="same", which fixes the size')
    y_size, pads = [], []
    axes = zip(x_size, window, strides, dilations, extras, strict=True)
    for i, (n, k, s, d, extra) in enumerate(axes):
        if not 0 <= extra < max(s, d):
            ask.fail("output_padding", "must be at least 0 and below the stride or the dilation")
        full = (n - 1) * s + effective(k, d)
        if full > EXTENT_LIMIT:
            ask.fail("stride", f"makes spatial axis {i} of the result too large to address")
        lo, hi = transposed_pad(form if isinstance(form, str) else form[i], k, s, d)
        y_size.append(full - lo - hi + extra)
        pads.append((lo, hi - extra))
        if y_size[-1] < 1:
            ask.fail("padding", f"leaves {y_size[-1]} elements on spatial axis {i} of the result")
    F = f_group * G
    _addressable(ask, {x_name: (m, *x_size, C), w_name: kernel, "stride": (m, *y_size, F)})
    wide = "dilation" if max(dilations) > max(strides) else "stride"
    _walkable(ask, wide, y_size, pads, F)
    return _geometry(m, y_size, F, window, C, x_size, strides, pads, dilations, G)


@remembered(CACHED_GEOMETRIES)
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
        stride=window if stride is None else stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )
    m, x_size, C, k = _windows(ask, name)
    s, d, form = ask.steps(len(x_size))
    ceil = boolean("ceil_mode", ceil_mode)
    pads = resolved_pads(form, x_size, k, s, d)
    for pair, extent, step in zip(pads, k, d, strict=True):
        eff = effective(extent, step)
        if 2 * max(pair) > eff:
            ask.fail("padding", f"must be at most half the effective window, {eff}")
    if math.prod(k) * WIDEST > sys.maxsize:
        ask.fail("window", "has more cells than a 64-bit integer can count")
    y_size = _sizes(ask, "window", x_size, k, s, d, pads, ceil)
    _addressable(ask, {name: (m, *x_size, C), "padding": (m, *y_size, C)})
    return _geometry(m, x_size, C, k, C, y_size, s, pads, d, C)


@remembered(CACHED_GEOMETRIES)
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
    m, x_size, C, k = _windows(ask, name)
    s, d, form = ask.steps(len(x_size))
    pads = resolved_pads(form, x_size, k, s, d)
    y_size = _sizes(ask, "window", x_size, k, s, d, pads)
    _addressable(ask, {name: (m, *x_size, C), "padding": (m, *y_size, math.prod(k) * C)})
    _walkable(ask, "padding", x_size, pads, C)
    return _geometry(m, x_size, C, k, C, y_size, s, pads, d, 1)


def _operands(
    ask: Request, x_name: str, w_name: str, transposed: bool = False
) -> tuple[int, list[int], int, tuple[int, ...]]:
    """``(m, x_size, C, kernel)`` of the images and the kernel."""

    def cure(x: tuple[int, ...]) -> str:
        w, groups = ask.shape(w_name), integer("groups", ask.quantities["groups"])
        taken = (w[-1] if transposed else w[-2] * groups) if len(w) > 1 else 1
        return axes_cure((x_name, w_name), x, w, taken, ask.quantities["data_format"])

    m, *x_size, C = ask.image(x_name, cure)
    return m, x_size, C, ask.kernel(w_name, len(x_size), lambda _: cure(ask.shape(x_name)))


def _windows(ask: Request, name: str) -> tuple[int, list[int], int, tuple[int, ...]]:
    """``(m, x_size, C, window)`` of the images and the window."""

    def cure(x: tuple[int, ...]) -> str:
        return pool_axes_cure(name, x, ask.quantities["window"], ask.quantities["data_format"])

    m, *x_size, C = ask.image(name, cure)
    return m, x_size, C, ask.positive("window", len(x_size), cure(ask.shape(name)))


def _sizes(  # type: ignore[no-untyped-def]
    ask, argument, x_size, window, stride, dilation, pads, ceil_mode=False, cure=""
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
            by = f", by {s}, the stride, or more" if ceil_mode else ""
            ask.fail(
                argument,
                f"has an effective window of {effective(k, d)} on spatial axis {i}, "
                f"larger than the padded input, {n + lo + hi}{by}",
                cure,
            )
    return tuple(y_size)


def _addressable(ask: Request, shapes: dict[str, tuple[int, ...]]) -> None:
    """Every array of the problem, by the argument that makes it large, fits the address space."""
    for argument, shape in shapes.items():
        if math.prod(shape) * 8 > sys.maxsize:
            ask.fail(argument, f"makes an array of shape {shape}, too large to address")


def _walkable(ask: Request, argument: str, size: Any, pads: Any, channels: int) -> None:
    """Offsets into one padded image fit 64-bit integers."""
    padded = tuple(n + lo + hi for n, (lo, hi) in zip(size, pads, strict=True))
    if math.prod(padded) * channels * WIDEST > sys.maxsize:
        ask.fail(argument, f"makes a padded image of extents {padded}, too large to address")


def _geometry(  # type: ignore[no-untyped-def]
    m, x_size, C, window, F, y_size, stride, pads, dilation, G, padding_mode="constant"
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
        G,
        padding_mode,
    )
