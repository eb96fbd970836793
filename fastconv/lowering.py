"""Convolution as three matrix products on the im2col matrix, written to be read.

    forward          cols @ w             [P x K] @ [K x F] -> [P x F]
    kernel gradient  cols.T @ dy          [K x P] @ [P x F] -> [K x F]
    input gradient   col2im(dy @ w.T)     [P x F] @ [F x K] -> [P x K] -> x

The engine computes the same products without writing ``cols`` down; this is what it is checked
against where the naive loops are too slow.

``cols`` is never whole: the output is cut into boxes (images x output ranges) whose part of it
fits a fixed workspace, whatever the batch or the image. Groups are a leading axis of every
operand, so that each product is one batched ``numpy.matmul``.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from fastconv.geometry import Geometry
from fastconv.plans.columns import (
    Box,
    add_col2im,
    boxes,
    extents,
    gather_cols,
    grouped,
    region_size,
)

__all__ = ["Im2colPlan"]


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
        pixels, images = math.prod(extents(first)), extents(first)[0]
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
        shape = (g.G, *extents(box), *g.window, g.C // g.G)
        return space["cols"][: math.prod(shape)].reshape(shape)

    def _region(self, space: dict[str, np.ndarray], box: Box) -> np.ndarray:
        g = self.g
        shape = (g.G, extents(box)[0], *region_size(g, box), g.C // g.G)
        return space["region"][: math.prod(shape)].reshape(shape)

    def _y_box(self, space: dict[str, np.ndarray], box: Box) -> np.ndarray:
        g = self.g
        shape = (g.G, *extents(box), g.F // g.G)
        return space["y"][: math.prod(shape)].reshape(shape)


def _finish(y: np.ndarray, b: np.ndarray | None, relu: bool) -> None:
    """Bias and activation on ``y (G, ..., F/G)``, in place."""
    if b is not None:
        G, F = y.shape[0], y.shape[-1]
        y += b.astype(y.dtype, copy=False).reshape(G, *(1,) * (y.ndim - 2), F)
    if relu:
        np.maximum(y, 0, out=y)
