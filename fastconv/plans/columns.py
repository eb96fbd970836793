"""im2col; and im2col and col2im of a box of outputs: what the explicit products are made of.

There ``cols`` is never whole: the output is cut into boxes (images x output ranges) whose part of
it fits a fixed workspace, whatever the batch or the image.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from fastconv import threads
from fastconv.geometry import Geometry, effective
from fastconv.plans.compiled import col2im_loops, engine
from fastconv.plans.layout import BLOCK

__all__ = ["Box", "add_col2im", "boxes", "extents", "fill_columns", "gather_cols", "grouped",
           "region_size"]  # fmt: skip

# Bytes of one box's cols: a share of the second-level cache, and still long products.
COLS_NBYTES = 2 * 2**20
# Elements of cols that are worth another thread.
COL2IM_GRAIN = 200_000

Box = tuple[slice, ...]  # images, then outputs on each spatial axis


def fill_columns(x: np.ndarray, g: Geometry, cols: np.ndarray) -> None:
    """im2col of the whole: ``x (m, H, W, C)``, of any strides, into ``cols (m, OH, OW, T*C)``."""
    if not cols.size:
        return
    if x.dtype != cols.dtype:  # the other byte order
        x = x.astype(cols.dtype)
    if x.itemsize == 2:
        x, cols = x.view(np.int16), cols.view(np.int16)
    compiled = engine()
    entry = compiled.loop("columns", x.dtype)
    if g.C == 1 or x.strides[-1] == x.itemsize:
        compiled.perform(compiled.columns.columns_call(entry, g, x, cols))
        return
    # Channels are apart: to read them so for every tap would take several times as long.
    step = max(1, BLOCK // math.prod(x.shape[1:]))
    for n in range(0, g.m, step):
        part = np.ascontiguousarray(x[n : n + step])
        of_part = dataclasses.replace(g, m=len(part))
        compiled.perform(compiled.columns.columns_call(entry, of_part, part, cols[n : n + step]))


def boxes(g: Geometry, itemsize: int) -> Iterator[Box]:
    """Boxes of outputs, in scan order, whose cols fit COLS_NBYTES (or hold one pixel)."""
    room = COLS_NBYTES // (itemsize * g.T * g.C)
    sizes = (g.m, *g.y_size)
    steps = []
    for n in reversed(sizes):  # whole inner axes first, then a cut, then one by one
        steps.append(max(1, min(n, room)))
        room //= n or 1
    cuts = [
        [slice(i, min(i + step, n)) for i in range(0, n, step)]
        for n, step in zip(sizes, reversed(steps), strict=True)
    ]
    return itertools.product(*cuts)


def grouped(array: np.ndarray, G: int) -> np.ndarray:
    """``(..., C)`` seen as ``(G, ..., C/G)``, without a copy."""
    split = array.reshape(*array.shape[:-1], G, array.shape[-1] // G)
    return np.moveaxis(split, -2, 0)


def region_size(g: Geometry, box: Box) -> tuple[int, ...]:
    """Extents of the padded input that the windows of `box` cover, per spatial axis."""
    return tuple(
        (o.stop - o.start - 1) * s + effective(k, d)
        for (_, k, s, d, _, _), o in zip(g.axes, box[1:], strict=True)
    )


def gather_cols(x: np.ndarray, g: Geometry, box: Box, region: np.ndarray, cols: np.ndarray) -> None:
    """im2col of one box: ``x (G, m, H, W, C/G)`` into ``cols (G, n, OH, OW, KH, KW, C/G)``.

    What the box's windows cover is copied into `region`, with zeros for padding; every window is
    then a strided view of it, and one copy writes them all out.
    """
    inside, seen = [], []
    for (n, _, s, _, lo, _), o, size in zip(g.axes, box[1:], region.shape[2:-1], strict=True):
        start = o.start * s - lo
        first, last = max(start, 0), min(start + size, n)
        seen.append(slice(first, max(first, last)))
        inside.append(slice(first - start, max(first, last) - start))
    if any(lo or hi > 0 for lo, hi in g.pads):
        region[...] = 0
    region[:, :, *inside] = x[:, box[0], *seen]
    groups, images, *steps, channel = region.strides
    by_output = [step * s for step, s in zip(steps, g.stride, strict=True)]
    by_tap = [step * d for step, d in zip(steps, g.dilation, strict=True)]
    strides = (groups, images, *by_output, *by_tap, channel)
    windows = np.lib.stride_tricks.as_strided(region, cols.shape, strides)
    if cols.shape[-1] == 1:  # lines of outputs are longer than lines of taps: 4 times as fast
        for tap in np.ndindex(g.window):
            cols[..., *tap, 0] = windows[..., *tap, 0]
    else:
        cols[...] = windows


def add_col2im(cols: np.ndarray, g: Geometry, box: Box, dx: np.ndarray) -> None:
    """col2im of one box, the adjoint of `gather_cols`: cols added to ``dx (G, n, H, W, C/G)``.

    ``cols (G, n, OH, OW, KH, KW, C/G)``; both are C-contiguous.
    """
    col2im_rows, col2im_rows_parallel = col2im_loops()
    G, n, c = cols.shape[0], cols.shape[1], cols.shape[-1]
    unit = (1,) * (3 - g.rank)
    outputs = [o.stop - o.start for o in box[1:]]
    # The box as a problem of its own: output 0 is the box's first.
    axes = np.array(g.axes3, np.int64)
    axes[-g.rank :, 4] -= [o.start * s for o, s in zip(box[1:], g.stride, strict=True)]
    axes[-g.rank :, 5] = outputs
    cols6 = cols.reshape(G * n, *unit, *outputs, g.T, c)
    dx5 = dx.reshape(G * n, *unit, *g.x_size, c)
    rows = math.prod(dx5.shape[:3])
    count = threads.parts(cols.size, COL2IM_GRAIN)
    if count == 1:
        col2im_rows(cols6, dx5, axes, 0, rows)
    else:
        threads.launch(col2im_rows_parallel, count, cols6, dx5, axes, rows)


def extents(box: Box) -> tuple[int, ...]:
    """Images and outputs along each axis of a box."""
    return tuple(s.stop - s.start for s in box)
