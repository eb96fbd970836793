"""Convolutions: Conv, ConvTranspose, ConvInteger, QLinearConv, DeformConv, Col2Im."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.adapters.onnx.op import DATA_FORMAT, Op, Window, kernel_view, split
from fastconv.adapters.shared.numbers import as_float, exact
from fastconv.adapters.shared.transpose import conv_transpose
from fastconv.geometry.sizes import output_size

__all__ = ["Col2Im", "Conv", "ConvInteger", "ConvTranspose", "QLinearConv"]


def _convolve(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    group: int | None,
    kernel_shape: Any,
    attributes: dict[str, Any],
) -> np.ndarray:
    """``conv`` of `x` (m, C, H, W) with `w` (F, C/G, KH, KW)."""
    if kernel_shape is not None and tuple(kernel_shape) != w.shape[2:]:
        raise ValueError(f"kernel_shape: {list(kernel_shape)} is not that of W, {w.shape}")
    window = Window.of(x, w.shape[2:], **attributes)
    y: np.ndarray = fc.conv(
        x,
        kernel_view(w),
        b,
        stride=window.s,
        padding=window.pads,
        dilation=window.d,
        groups=group or 1,
        data_format=DATA_FORMAT,
    )
    return y


def _exact(
    x: np.ndarray, w: np.ndarray, group: int | None, kernel_shape: Any, attributes: dict[str, Any]
) -> np.ndarray:
    """`_convolve` of small integers, as int32."""
    terms = math.prod(w.shape[1:])
    return exact(lambda x, w: _convolve(x, w, None, group, kernel_shape, attributes), x, w, terms)


def _centred(x: np.ndarray, zero_point: np.ndarray | None, axis: int) -> np.ndarray:
    """`x` minus its zero point, a number or one per entry of `axis`, as int32."""
    centred = x.astype(np.int32)
    if zero_point is None:
        return centred
    return centred - _along(zero_point.astype(np.int32), axis, x.ndim)


def _along(values: Any, axis: int, ndim: int) -> Any:
    """A number as it is; a vector in the shape that meets `axis` of an array."""
    if np.size(values) == 1:
        return np.reshape(values, ())
    shape = [1] * ndim
    shape[axis] = -1
    return np.reshape(values, shape)


class Conv(Op):
    """Convolution."""

    def _run(  # type: ignore[no-untyped-def]
        self, X, W, B=None, group=None, kernel_shape=None, **attributes
    ) -> tuple[np.ndarray]:
        b = None if B is None else as_float(B)
        y = _convolve(as_float(X), as_float(W), b, group, kernel_shape, attributes)
        return (y.astype(X.dtype, copy=False),)


class ConvInteger(Op):
    """Convolution of 8-bit integers, summed in 32 bits; padding holds the zero point."""

    def _run(  # type: ignore[no-untyped-def]
        self,
        X,
        W,
        x_zero_point=None,
        w_zero_point=None,
        group=None,
        kernel_shape=None,
        **attributes,
    ) -> tuple[np.ndarray]:
        x, w = _centred(X, x_zero_point, 1), _centred(W, w_zero_point, 0)
        return (_exact(x, w, group, kernel_shape, attributes),)


class QLinearConv(Op):
    """Convolution of 8-bit integers that stand for ``scale * (integer - zero_point)``."""

    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        x_scale,
        x_zero_point,
        w,
        w_scale,
        w_zero_point,
        y_scale,
        y_zero_point,
        B=None,
        group=None,
        kernel_shape=None,
        **attributes,
    ) -> tuple[np.ndarray]:
        sums = _exact(
            _centred(x, x_zero_point, 1),
            _centred(w, w_zero_point, 0),
            group,
            kernel_shape,
            attributes,
        )
        if B is not None:
            sums += _along(B, 1, x.ndim)
        dtype = x.dtype if y_zero_point is None else y_zero_point.dtype
        y = sums * (x_scale * _along(w_scale, 1, x.ndim) / y_scale)
        if y_zero_point is not None:
            y = y + y_zero_point
        limits = np.iinfo(dtype)
        return (np.round(np.clip(y, limits.min, limits.max)).astype(dtype),)


class ConvTranspose(Op):
    """Transposed convolution: `W` (C, F/G, KH, KW) is the kernel that convolves back."""

    def _run(  # type: ignore[no-untyped-def]
        self,
        X,
        W,
        B=None,
        auto_pad=None,
        dilations=None,
        group=None,
        kernel_shape=None,
        output_padding=None,
        output_shape=None,
        pads=None,
        strides=None,
    ) -> tuple[np.ndarray]:
        if kernel_shape is not None and tuple(kernel_shape) != W.shape[2:]:
            raise ValueError(f"kernel_shape: {list(kernel_shape)} is not that of W, {W.shape}")
        window = Window.of(X, W.shape[2:], strides=strides, dilations=dilations, pads=pads)
        added = tuple(output_padding or (0,) * len(window.k))
        sizes = _transposed_sizes(X, window, auto_pad or "NOTSET", output_shape)
        full = [
            (n - 1) * s + reach
            for n, s, reach in zip(X.shape[2:], window.s, window.reach, strict=True)
        ]
        if sizes is None:
            pairs = ((0, 0),) * len(added) if auto_pad == "VALID" else window.pads
            cut = [(lo, hi - more) for (lo, hi), more in zip(pairs, added, strict=True)]
        else:
            cut = []
            for size, wanted, more in zip(full, sizes, added, strict=True):
                lo, _ = split(max(0, size + more - wanted), auto_pad or "NOTSET")
                cut.append((lo, size - lo - wanted))
        y = conv_transpose(
            as_float(X),
            kernel_view(as_float(W)),
            None if B is None else as_float(B),
            stride=window.s,
            cut=cut,
            dilation=window.d,
            groups=group or 1,
            data_format=DATA_FORMAT,
        )
        return (y.astype(X.dtype, copy=False),)


def _transposed_sizes(
    x: np.ndarray, window: Window, auto_pad: str, output_shape: Any
) -> tuple[int, ...] | None:
    """The output's extents where they are given or follow from `auto_pad`; None: from the pads."""
    rank = len(window.k)
    if output_shape:
        return tuple(int(n) for n in output_shape[-rank:])
    if auto_pad.startswith("SAME"):
        return tuple(n * s for n, s in zip(x.shape[2:], window.s, strict=True))
    return None


class Col2Im(Op):
    """Every column back to its window; overlapping cells add up."""

    def _run(  # type: ignore[no-untyped-def]
        self, data, image_shape, block_shape, dilations=None, pads=None, strides=None
    ) -> tuple[np.ndarray]:
        size = tuple(int(n) for n in image_shape)
        blocks = math.prod(int(k) for k in block_shape)
        m, rows, _ = data.shape
        if rows % blocks:
            raise ValueError(
                f"block_shape: {list(block_shape)} has {blocks} cells, which do not divide "
                f"the {rows} rows of data, {data.shape}"
            )
        x_shape = (m, rows // blocks, *size)
        window = Window.of(
            np.empty((0, 1, *size)),
            [int(k) for k in block_shape],
            dilations=dilations,
            pads=pads,
            strides=strides,
        )
        counts = [
            output_size(n, k, s, d, lo, hi)
            for n, k, s, d, (lo, hi) in zip(
                size, window.k, window.s, window.d, window.pads, strict=True
            )
        ]
        cols = as_float(data).reshape(m, x_shape[1], blocks, *counts)  # m, C, T, OH, OW
        cols = np.moveaxis(cols, (1, 2), (-1, -2))  # m, OH, OW, T, C
        y = fc.col2im(
            cols.reshape(m, *counts, -1),
            x_shape,
            window.k,
            stride=window.s,
            padding=window.pads,
            dilation=window.d,
            data_format=DATA_FORMAT,
        )
        return (y.astype(data.dtype, copy=False),)
