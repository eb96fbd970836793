"""Convolution as three matrix products on the im2col matrix, written to be read.

    forward          cols @ w             [P x K] @ [K x F] -> [P x F]
    kernel gradient  cols.T @ dy          [K x P] @ [P x F] -> [K x F]
    input gradient   col2im(dy @ w.T)     [P x F] @ [F x K] -> [P x K] -> x

The engine computes the same products without writing ``cols`` down; this is what it is checked
against where the naive loops are too slow, and what `im2col` and `col2im` are made of.

``cols`` is never whole: the output is cut into boxes (images x output ranges) whose part of it
fits a fixed workspace, whatever the batch or the image. Groups are a leading axis of every
operand, so that each product is one batched ``numpy.matmul``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from fastconv import threads
from fastconv.geometry import Geometry, effective

__all__ = ["Im2colPlan", "add_col2im", "gather_cols"]

# Bytes of one box's cols: a share of the second-level cache, and still long products.
COLS_NBYTES = 2 * 2**20
# Elements of cols that are worth another thread.
COL2IM_GRAIN = 200_000

Box = tuple[slice, ...]  # images, then outputs on each spatial axis


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
    with threads.building:
        from fastconv.kernels.col2im import col2im_rows, col2im_rows_parallel

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


class Im2colPlan:
    """The three products of one geometry on NumPy's BLAS.

    Parameters
    ----------
    g : Geometry
        The problem.
    dtype : numpy.dtype
        What sums are computed in: float32 or float64.

    Operands are channels-last views of any strides, byte order and floating dtype; results are
    native. Nothing is checked.
    """

    def __init__(self, g: Geometry, dtype: np.dtype) -> None:
        self.g = g
        self.dtype = dtype
        empty = (slice(0, 0),) * (1 + g.rank)
        first = next(boxes(g, dtype.itemsize), empty)  # no box is larger
        pixels, images = math.prod(_extents(first)), _extents(first)[0]
        region = math.prod(region_size(g, first)) if pixels else 0
        self._sizes = {
            "region": images * region * g.C,
            "cols": pixels * g.T * g.C,
            "y": pixels * g.F,
            "w": math.prod(g.w_shape),
            "product": math.prod(g.w_shape),
            "dx": images * math.prod(g.x_size) * g.C,
        }
        # Workspaces not in use. One a thread: a call takes one away and brings it back.
        self._spare: list[dict[str, np.ndarray]] = []

    @property
    def workspace_nbytes(self) -> int:
        """Bytes that one call holds besides its operands."""
        return sum(self._sizes.values()) * self.dtype.itemsize

    def _take(self) -> dict[str, np.ndarray]:
        try:
            return self._spare.pop()
        except IndexError:
            return {name: np.empty(size, self.dtype) for name, size in self._sizes.items()}

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, relu: bool, y: np.ndarray
    ) -> None:
        """``y = cols @ w + b``, box by box: ``[P x K] @ [K x F] -> [P x F]``, for each group."""
        g, space = self.g, self._take()
        x, y, w_gkf = grouped(x, g.G), grouped(y, g.G), self._kernel(w, space)
        for box in boxes(g, self.dtype.itemsize):
            cols = self._cols(space, box)
            gather_cols(x, g, box, self._region(space, box), cols)
            y_box = self._y_box(space, box)
            np.matmul(cols.reshape(g.G, -1, g.K), w_gkf, out=y_box.reshape(g.G, -1, g.F // g.G))
            _finish(y_box, b, relu)
            y[(slice(None), *box)] = y_box
        self._spare.append(space)

    def kernel_grad(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> None:
        """``dw = sum of cols.T @ dy`` over boxes: ``[K x P] @ [P x F] -> [K x F]``, per group."""
        g, space = self.g, self._take()
        x, dy = grouped(x, g.G), grouped(dy, g.G)
        total = space["w"].reshape(g.G, g.K, g.F // g.G)
        product = space["product"].reshape(total.shape)
        total[...] = 0
        for box in boxes(g, self.dtype.itemsize):
            cols = self._cols(space, box)
            gather_cols(x, g, box, self._region(space, box), cols)
            dy_box = self._y_box(space, box)
            dy_box[...] = dy[(slice(None), *box)]
            cols_gkp = cols.reshape(g.G, -1, g.K).swapaxes(1, 2)
            np.matmul(cols_gkp, dy_box.reshape(g.G, -1, g.F // g.G), out=product)
            total += product
        dw_gkf = grouped(dw, g.G)  # (G, KH, KW, C/G, F/G)
        dw_gkf[...] = total.reshape(dw_gkf.shape)
        self._spare.append(space)

    def input_grad(
        self, dy: np.ndarray, w: np.ndarray, b: np.ndarray | None, relu: bool, dx: np.ndarray
    ) -> None:
        """``dx = col2im(dy @ w.T)``: ``[P x F] @ [F x K] -> [P x K] -> x``, for each group.

        A transposed convolution adds its bias and activation.
        """
        g, space = self.g, self._take()
        dy, dx, w_gkf = grouped(dy, g.G), grouped(dx, g.G), self._kernel(w, space)
        all_boxes = boxes(g, self.dtype.itemsize)
        for images, group in itertools.groupby(all_boxes, key=lambda box: box[0]):
            n = images.stop - images.start
            shape = (g.G, n, *g.x_size, g.C // g.G)
            total = space["dx"][: math.prod(shape)].reshape(shape)
            total[...] = 0
            for box in group:
                dy_box, cols = self._y_box(space, box), self._cols(space, box)
                dy_box[...] = dy[(slice(None), *box)]
                dy_gpf = dy_box.reshape(g.G, -1, g.F // g.G)
                np.matmul(dy_gpf, w_gkf.swapaxes(1, 2), out=cols.reshape(g.G, -1, g.K))
                add_col2im(cols, g, box, total)
            _finish(total, b, relu)
            dx[:, images] = total
        self._spare.append(space)

    def _kernel(self, w: np.ndarray, space: dict[str, np.ndarray]) -> np.ndarray:
        """``w (KH, KW, C/G, F)`` as ``(G, K, F/G)``, contiguous."""
        g = self.g
        w_gkf = space["w"].reshape(g.G, g.K, g.F // g.G)
        split = grouped(w, g.G)
        w_gkf.reshape(split.shape)[...] = split
        return w_gkf

    def _cols(self, space: dict[str, np.ndarray], box: Box) -> np.ndarray:
        g = self.g
        shape = (g.G, *_extents(box), *g.window, g.C // g.G)
        return space["cols"][: math.prod(shape)].reshape(shape)

    def _region(self, space: dict[str, np.ndarray], box: Box) -> np.ndarray:
        g = self.g
        shape = (g.G, _extents(box)[0], *region_size(g, box), g.C // g.G)
        return space["region"][: math.prod(shape)].reshape(shape)

    def _y_box(self, space: dict[str, np.ndarray], box: Box) -> np.ndarray:
        g = self.g
        shape = (g.G, *_extents(box), g.F // g.G)
        return space["y"][: math.prod(shape)].reshape(shape)


def _finish(y: np.ndarray, b: np.ndarray | None, relu: bool) -> None:
    """Bias and activation on ``y (G, ..., F/G)``, in place."""
    if b is not None:
        G, F = y.shape[0], y.shape[-1]
        y += b.astype(y.dtype, copy=False).reshape(G, *(1,) * (y.ndim - 2), F)
    if relu:
        np.maximum(y, 0, out=y)


def _extents(box: Box) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in box)
