"""Transposed convolution with the paddings that hosts have: more than is legal in fastconv."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import fastconv as fc
from fastconv.typing import DataFormat

__all__ = ["conv_transpose"]


def conv_transpose(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    stride: Sequence[int],
    cut: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int = 1,
    data_format: DataFormat,
) -> np.ndarray:
    """``fastconv.conv_transpose``, of whose full result `cut` is taken off.

    Parameters
    ----------
    x : array (m, H, W, C)
    w : array (KH, KW, F/G, C)
    b : array (F,), optional
    stride, dilation, groups, data_format
        As for :func:`fastconv.conv_transpose`.
    cut : sequence of (int, int)
        Cells to take off each end of an axis. A negative number at the high end adds so many cells
        that no window reaches: they hold the bias.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.conv_transpose`.
    """
    extra = [max(0, -hi) for _, hi in cut]
    padding = [(lo, max(0, hi)) for lo, hi in cut]
    part = fc.conv_transpose(
        x,
        w,
        b,
        stride=tuple(stride),
        padding=padding,
        dilation=tuple(dilation),
        groups=groups,
        data_format=data_format,
    )
    if not any(extra):
        return part
    first = 1 if data_format == "channels_last" else 2
    pads = [(0, 0)] * part.ndim
    pads[first : first + len(extra)] = [(0, n) for n in extra]
    y = np.pad(part, pads)
    if b is not None:
        shape = [1] * part.ndim
        shape[-1 if data_format == "channels_last" else 1] = -1
        for axis, n in enumerate(extra, first):
            beyond = [slice(None)] * part.ndim
            beyond[axis] = slice(part.shape[axis], part.shape[axis] + n)
            y[tuple(beyond)] = b.reshape(shape)
    return y
