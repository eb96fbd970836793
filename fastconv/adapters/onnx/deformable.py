"""DeformConv: a convolution whose taps are moved by fractions of a cell."""

from __future__ import annotations

import math

import numpy as np

import fastconv as fc
from fastconv.adapters.onnx.op import DATA_FORMAT, Op, Window
from fastconv.adapters.shared.numbers import as_float

__all__ = ["DeformConv"]


class DeformConv(Op):
    """Deformable convolution (Dai et al. 2017; the mask is Zhu et al. 2018), of 2-D images.

    Every tap reads between four cells; what it reads is a row of an im2col matrix, and the product
    with the kernel is a convolution of one tap.
    """

    def _run(  # type: ignore[no-untyped-def]
        self,
        X,
        W,
        offset,
        B=None,
        mask=None,
        group=None,
        kernel_shape=None,
        offset_group=None,
        **attributes,
    ) -> tuple[np.ndarray]:
        if X.ndim != 4:
            raise ValueError(f"X has shape {X.shape}: DeformConv is for images (m, C, H, W)")
        x = as_float(X)
        window = Window.of(X, kernel_shape or W.shape[2:], **attributes)
        m, OG, taps, size = len(x), offset_group or 1, math.prod(window.k), offset.shape[2:]
        moves = as_float(offset).reshape(m, OG, *window.k, 2, *size)
        at = [_positions(window, axis, size) + moves[:, :, :, :, axis] for axis in (0, 1)]
        cells = _between(x.reshape(m, OG, -1, *x.shape[2:]), *at)  # m, OG, C/OG, KH, KW, OH, OW
        if mask is not None:
            cells = cells * as_float(mask).reshape(m, OG, 1, *window.k, *size)
        # As channels (C, T) of a convolution of one tap.
        y = fc.conv(
            cells.reshape(m, x.shape[1] * taps, *size).astype(x.dtype, copy=False),
            as_float(W).reshape(1, 1, len(W), -1).swapaxes(2, 3),
            None if B is None else as_float(B),
            groups=group or 1,
            data_format=DATA_FORMAT,
        )
        return (y.astype(X.dtype, copy=False),)


def _positions(window: Window, axis: int, size: tuple[int, ...]) -> np.ndarray:
    """Where the taps lie that are not moved, on one axis: (KH, KW, OH, OW), of extent 1 else."""
    taps = np.arange(window.k[axis]) * window.d[axis]
    starts = np.arange(size[axis]) * window.s[axis] - window.pads[axis][0]
    shape = [1, 1, 1, 1]
    shape[axis], shape[2 + axis] = len(taps), len(starts)
    return (taps[:, None] + starts).reshape(shape)


def _between(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of `x` (m, OG, C/OG, H, W), which is zero around the image."""
    m, OG, c, H, W = x.shape
    flat = x.reshape(m, OG, c, H * W)
    top, left = np.floor(rows), np.floor(columns)
    total = np.zeros((m, OG, c, *rows.shape[2:]), np.result_type(x, np.float32))
    for dh in (0, 1):
        for dw in (0, 1):
            h, w = top + dh, left + dw
            weight = (1 - abs(rows - h)) * (1 - abs(columns - w))
            inside = (h >= 0) & (h < H) & (w >= 0) & (w < W)
            cell = np.where(inside, h * W + w, 0).astype(np.int64).reshape(m, OG, 1, -1)
            values = np.take_along_axis(flat, cell, axis=3).reshape(total.shape)
            total += np.where(inside, weight, 0)[:, :, None] * values
    return total
