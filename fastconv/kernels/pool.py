"""Max and average pooling, forward and backward.

Arrays are ``(pixels, C)``: images and spatial axes in one, channels innermost. `axes` is an int64
array with a row ``(N, k, s, d, lo, O, hi)`` for each of D, H and W. A window is clipped to the
input once per output row and pixel, so the loops over its taps have no tests for padding, and
the innermost loop runs over channels.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from fastconv._jit import kernel

__all__ = [
    "avg_backward",
    "avg_backward_parallel",
    "avg_rows",
    "avg_rows_parallel",
    "max_rows",
    "max_rows_parallel",
    "max_scatter",
    "max_scatter_parallel",
    "max_values",
    "max_values_parallel",
]


@kernel
def taps(axes, a, o, high):
    """Position of tap 0 on axis `a` at output `o`; first and last tap inside ``[0, N + high)``."""
    k, s, d = axes[a, 1], axes[a, 2], axes[a, 3]
    at = o * s - axes[a, 4]
    end = axes[a, 0] + high
    if at >= 0 and at + (k - 1) * d < end:
        return at, 0, k
    first = 0 if at >= 0 else (-at + d - 1) // d
    last = min(k, (end - at + d - 1) // d)
    return at, min(first, k), max(last, 0)


@kernel
def list_cells(axes, od, oh, ow, cells):
    """Write the flat spatial index of every cell of a window inside the input; their number."""
    H, W = axes[1, 0], axes[2, 0]
    top_d, d0, d1 = taps(axes, 0, od, 0)
    top_h, h0, h1 = taps(axes, 1, oh, 0)
    top_w, w0, w1 = taps(axes, 2, ow, 0)
    count = 0
    for u in range(d0, d1):
        for v in range(h0, h1):
            line = ((top_d + u * axes[0, 3]) * H + top_h + v * axes[1, 3]) * W
            for t in range(w0, w1):
                cells[count] = line + top_w + t * axes[2, 3]
                count += 1
    return count


@kernel
def wins(new, best):
    """Whether `new` takes over: it is larger, or the first NaN."""
    return not (best >= new or best != best)


@kernel
def max_rows(x, y, argmax, axes, cells, start, stop):
    """Maximum and its flat spatial index, for output rows `start` to `stop`.

    `cells` has room for the cells of one window that lie inside the input.

    Ties go to the first cell in scan order, the first NaN wins, and a window without a cell in the
    input gives minus infinity and -1. Four cells are compared at a time, so that the running
    maximum stays in registers: 6 to 8 times faster than one at a time on four cells of 16 to 64
    channels. A last group repeats its last cell, which changes nothing.
    """
    C = x.shape[1]
    size = axes[0, 0] * axes[1, 0] * axes[2, 0]
    OD, OH, OW = axes[0, 5], axes[1, 5], axes[2, 5]
    for row in range(start, stop):
        n, od, oh = row // (OD * OH), row // OH % OD, row % OH
        for ow in range(OW):
            q = row * OW + ow
            count = list_cells(axes, od, oh, ow, cells)
            if count == 0:
                for c in range(C):
                    y[q, c] = -np.inf
                    argmax[q, c] = -1
            for g in range(0, count, 4):
                i0, i1 = cells[g], cells[min(g + 1, count - 1)]
                i2, i3 = cells[min(g + 2, count - 1)], cells[min(g + 3, count - 1)]
                p = n * size
                for c in range(C):
                    best = x[p + i0, c] if g == 0 else y[q, c]
                    where = i0 if g == 0 else argmax[q, c]
                    x0, x1, x2, x3 = x[p + i0, c], x[p + i1, c], x[p + i2, c], x[p + i3, c]
                    where = i0 if wins(x0, best) else where
                    best = x0 if wins(x0, best) else best
                    where = i1 if wins(x1, best) else where
                    best = x1 if wins(x1, best) else best
                    where = i2 if wins(x2, best) else where
                    best = x2 if wins(x2, best) else best
                    argmax[q, c] = i3 if wins(x3, best) else where
                    y[q, c] = x3 if wins(x3, best) else best


@kernel(parallel=True)
def max_rows_parallel(parts, x, y, argmax, axes, cells, rows):
    """`max_rows` over all rows, in `parts` parts, each with its own row of `cells`.

    Nothing is allocated here: a parallel loop makes a SystemError of a MemoryError, or loses it.
    """
    for part in prange(parts):
        first, last = part * rows // parts, (part + 1) * rows // parts
        max_rows(x, y, argmax, axes, cells[part], first, last)


@kernel
def max_values(x, y, axes, cells, start, stop):
    """`max_rows` without the index."""
    C = x.shape[1]
    size = axes[0, 0] * axes[1, 0] * axes[2, 0]
    OD, OH, OW = axes[0, 5], axes[1, 5], axes[2, 5]
    for row in range(start, stop):
        n, od, oh = row // (OD * OH), row // OH % OD, row % OH
        for ow in range(OW):
            q = row * OW + ow
            count = list_cells(axes, od, oh, ow, cells)
            if count == 0:
                for c in range(C):
                    y[q, c] = -np.inf
            for g in range(0, count, 4):
                p0 = n * size + cells[g]
                p1 = n * size + cells[min(g + 1, count - 1)]
                p2 = n * size + cells[min(g + 2, count - 1)]
                p3 = n * size + cells[min(g + 3, count - 1)]
                for c in range(C):
                    best = x[p0, c] if g == 0 else y[q, c]
                    x0, x1, x2, x3 = x[p0, c], x[p1, c], x[p2, c], x[p3, c]
                    best = x0 if wins(x0, best) else best
                    best = x1 if wins(x1, best) else best
                    best = x2 if wins(x2, best) else best
                    y[q, c] = x3 if wins(x3, best) else best


@kernel(parallel=True)
def max_values_parallel(parts, x, y, axes, cells, rows):
    """`max_values` over all rows, in `parts` parts, each with its own row of `cells`."""
    for part in prange(parts):
        max_values(x, y, axes, cells[part], part * rows // parts, (part + 1) * rows // parts)


@kernel
def max_scatter(dy, argmax, dx, axes, start, stop):
    """The error of each output goes to its winner, for images `start` to `stop`; dx starts at 0."""
    C = dy.shape[1]
    cells = axes[0, 0] * axes[1, 0] * axes[2, 0]
    outputs = axes[0, 5] * axes[1, 5] * axes[2, 5]
    for n in range(start, stop):
        for p in range(n * cells, (n + 1) * cells):
            for c in range(C):
                dx[p, c] = 0
        for q in range(n * outputs, (n + 1) * outputs):
            for c in range(C):
                cell = argmax[q, c]
                if cell >= 0:
                    dx[n * cells + cell, c] += dy[q, c]


@kernel(parallel=True)
def max_scatter_parallel(parts, dy, argmax, dx, axes, images):
    """`max_scatter` over all images, in `parts` parts: windows of one image may overlap."""
    for part in prange(parts):
        max_scatter(dy, argmax, dx, axes, part * images // parts, (part + 1) * images // parts)


@kernel
def avg_rows(x, y, axes, include_pad, start, stop):
    """Mean over each window, for output rows `start` to `stop`; only padding gives 0."""
    C = x.shape[1]
    D, H, W = axes[0, 0], axes[1, 0], axes[2, 0]
    OD, OH, OW = axes[0, 5], axes[1, 5], axes[2, 5]
    for row in range(start, stop):
        n, od, oh = row // (OD * OH), row // OH % OD, row % OH
        top_d, d0, d1 = taps(axes, 0, od, 0)
        top_h, h0, h1 = taps(axes, 1, oh, 0)
        for ow in range(OW):
            q = row * OW + ow
            top_w, w0, w1 = taps(axes, 2, ow, 0)
            for c in range(C):
                y[q, c] = 0
            for u in range(d0, d1):
                for v in range(h0, h1):
                    line = (n * D + top_d + u * axes[0, 3]) * H + top_h + v * axes[1, 3]
                    for t in range(w0, w1):
                        p = line * W + top_w + t * axes[2, 3]
                        for c in range(C):
                            y[q, c] += x[p, c]
            size = y.dtype.type(divisor(axes, include_pad, od, oh, ow))
            for c in range(C):
                y[q, c] /= size


@kernel
def divisor(axes, include_pad, od, oh, ow):
    """Cells of a window inside the input, or inside the padded input; at least 1.

    In floating point: a window with its padding may have more cells than an integer can count.
    """
    size = 1.0
    for a, o in enumerate((od, oh, ow)):
        if include_pad:
            size *= taps(axes, a, o, axes[a, 6])[2]
        else:
            _, first, last = taps(axes, a, o, 0)
            size *= max(last - first, 0)
    return max(size, 1.0)


@kernel(parallel=True)
def avg_rows_parallel(parts, x, y, axes, include_pad, rows):
    """`avg_rows` over all rows, in `parts` parts."""
    for part in prange(parts):
        avg_rows(x, y, axes, include_pad, part * rows // parts, (part + 1) * rows // parts)


@kernel
def avg_backward(dy, dx, axes, include_pad, start, stop):
    """The error of each output, spread evenly over its window, for images `start` to `stop`."""
    C = dy.shape[1]
    D, H, W = axes[0, 0], axes[1, 0], axes[2, 0]
    OD, OH, OW = axes[0, 5], axes[1, 5], axes[2, 5]
    cells = D * H * W
    for n in range(start, stop):
        for p in range(n * cells, (n + 1) * cells):
            for c in range(C):
                dx[p, c] = 0
        for row in range(n * OD * OH, (n + 1) * OD * OH):
            od, oh = row // OH % OD, row % OH
            top_d, d0, d1 = taps(axes, 0, od, 0)
            top_h, h0, h1 = taps(axes, 1, oh, 0)
            for ow in range(OW):
                q = row * OW + ow
                top_w, w0, w1 = taps(axes, 2, ow, 0)
                size = dy.dtype.type(divisor(axes, include_pad, od, oh, ow))
                for u in range(d0, d1):
                    for v in range(h0, h1):
                        line = (n * D + top_d + u * axes[0, 3]) * H + top_h + v * axes[1, 3]
                        for t in range(w0, w1):
                            p = line * W + top_w + t * axes[2, 3]
                            for c in range(C):
                                dx[p, c] += dy[q, c] / size


@kernel(parallel=True)
def avg_backward_parallel(parts, dy, dx, axes, include_pad, images):
    """`avg_backward` over all images, in `parts` parts."""
    for part in prange(parts):
        first, last = part * images // parts, (part + 1) * images // parts
        avg_backward(dy, dx, axes, include_pad, first, last)
