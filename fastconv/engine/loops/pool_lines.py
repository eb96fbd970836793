"""Control loops of pooling images of one channel: the lanes are windows that lie side by side.

What `loops.pool` does with a vector of channels of a window, these do with one of windows of an
output row, where all cells of the row's windows are inside the input. Such rows are taken ROWS at a
time. Where VL does not divide their windows, a last vector of VL, VL/2 or VL/4 of them overlaps the
one before, and the last ROWS rows overlap those before. Few windows are taken one by one.
"""

from __future__ import annotations

import numpy as np

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.intrinsics import pool_errors, pool_kind, pool_reduce
from fastconv.engine.emit.memory import add_one, store_word, word, zero_bytes
from fastconv.engine.emit.pool import MEAN, PLACE, ROWS
from fastconv.engine.loops.pool import (
    SINGLE,
    axis_field,
    block_of,
    check_winners,
    clip,
    constants,
    divisor,
    exact_stretch,
    list_cells,
    open_row,
    stretch_end,
)

__all__ = ["errors_to_lines", "pool_lines"]


@inner
def rows_alike(table, oh, high, most):
    """Rows of an image from `oh` on, at most so many, whose windows keep the same cells."""
    if high[2] > 0 or high[3] < axis_field(table, s.H_AXIS, s.AXIS_WINDOW):
        return 1
    return min(most, word(table, s.POOL_ROWS_END) - oh)


@inner
def row_steps(table):
    """Windows of a row, and cells from a window to the one of the next row."""
    return (
        axis_field(table, s.W_AXIS, s.AXIS_OUT),
        axis_field(table, s.H_AXIS, s.AXIS_STEP) * axis_field(table, s.W_AXIS, s.AXIS_SIZE),
    )


@inner
def pool_lines(call, thread, tile):
    """`pool.pool_rows` of images of one channel; the arguments are its own."""
    table = word(call, s.TABLE)
    offsets = word(call, s.SCRATCH) + thread * word(table, s.POOL_SCRATCH)
    OW, below = row_steps(table)
    cells = word(table, s.POOL_CELLS)
    fixed = constants(call, table)
    listed, count = (0, 0, 0, 0, 0, 0), 0
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, s.POOL_ITEMS):
            return
        row, end = block_of(call, item)
        while row < end:
            n, od, oh, high, line = open_row(table, row)
            rows = rows_alike(table, oh, high, end - row)
            ow = 0
            while ow < OW:
                at_w, w0, w1 = clip(table, s.W_AXIS, ow, False)
                taps = (high[0], high[1], high[2], high[3], w0, w1)
                if taps != listed:
                    listed, count = taps, list_cells(table, offsets, taps)
                last = stretch_end(table, ow, w0, w1)
                size = divisor(table, od, oh, ow, count) if pool_kind(tile) == MEAN else 1
                window = (offsets, count, n * cells, line + at_w, size)
                _lines(fixed, window, row * OW + ow, (rows, last - ow, OW, below), tile)
                ow = last
            row += rows


@inner
def _lines(fixed, window, q, shape, tile):
    """`shape[0]` rows of `shape[1]` windows that hold the same cells; the first is `window`."""
    offsets, count, image, cell, size = window
    rows, pixels, OW, below = shape
    for first in range(0, rows, ROWS):
        j = max(0, min(first, rows - ROWS))
        at, left = (offsets, count, image, cell + j * below, size), min(ROWS, rows - j)
        met = np.int64(1)
        if count > 0 or pool_kind(tile) == MEAN:
            met = _some_lines(fixed, at, q + j * OW, (left, pixels, OW, below), tile)
        if met != 0 and pool_kind(tile) != MEAN:
            for i in range(left):
                one = (offsets, count, image, cell + (j + i) * below, size)
                exact_stretch(fixed, one, q + (j + i) * OW, pixels, tile)


@inner
def _some_lines(fixed, window, q, shape, tile):
    """At most ROWS rows of `_lines`; not 0 if a NaN was met.

    Of a single row, ROWS vectors are taken together.
    """
    offsets, count = window[0], window[1]
    left, pixels = shape[0], shape[1]
    listed, size, lanes = (offsets, offsets + 8 * fixed[7], count), window[4], len(tile[0])
    half, quarter = max(1, lanes // 2), max(1, lanes // 4)
    met, i = np.int64(0), 0
    while pixels >= lanes and pixels - i > lanes // 2:
        many = min(ROWS, (pixels - i) // lanes) if left == 1 else 0
        at = min(i, pixels - lanes * max(1, many))
        x, y, argmax, cell = _operands(fixed, window, q, shape, (at, many, lanes))
        met |= pool_reduce(tile, 0, listed, x, y, argmax, cell, size)
        i += lanes * max(1, many)
    while pixels >= half and pixels - i > lanes // 4:
        x, y, argmax, cell = _operands(fixed, window, q, shape, (min(i, pixels - half), 0, 0))
        met |= pool_reduce(tile, 1, listed, x, y, argmax, cell, size)
        i += half
    while pixels >= quarter and i < pixels:
        x, y, argmax, cell = _operands(fixed, window, q, shape, (min(i, pixels - quarter), 0, 0))
        met |= pool_reduce(tile, 2, listed, x, y, argmax, cell, size)
        i += quarter
    while i < pixels:
        x, y, argmax, cell = _operands(fixed, window, q, shape, (i, 0, 0))
        met |= pool_reduce(tile, SINGLE, listed, x, y, argmax, cell, size)
        i += 1
    return met


@inner
def _operands(fixed, window, q, shape, part):
    """x, y, argmax and cell of `pool_reduce`, from window ``part[0]`` of the rows on.

    Of ``part[1]`` vectors of ``part[2]`` windows one behind the other, if it is not 0.
    """
    x, y, argmax, _, element, _, step, _ = fixed
    left, _, OW, below = shape
    i, many, lanes = part
    if many > 0:
        left, OW, below = many, lanes, lanes * step
    cell = window[3] + i * step
    return (
        (x + (window[2] + cell) * element, below * element, left),
        (y + (q + i) * element, OW * element),
        (argmax + (q + i) * 8, OW * 8),
        (cell, below),
    )


@inner
def errors_to_lines(call, thread, tile):
    """`pool.errors_to_cells` (FILL and PLACE) of images of one channel, by pairs of cells."""
    table = word(call, s.TABLE)
    offsets = word(call, s.SCRATCH) + thread * word(table, s.POOL_SCRATCH)
    OW, below = row_steps(table)
    cells, rows = word(table, s.POOL_CELLS), word(table, s.POOL_ROWS)
    fixed = constants(call, table)
    x, argmax, element = fixed[0], fixed[2], fixed[4]
    zeros = word(table, s.POOL_COVERED) == 0
    if pool_kind(tile) == PLACE:
        check_winners(call, argmax, rows * OW, word(table, s.POOL_LEAST), cells)
    listed, count = (0, 0, 0, 0, 0, 0), 0
    missed = np.int64(0)
    while word(call, s.POOL_BAD) == 0:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, s.POOL_ITEMS):
            return
        begin, end = block_of(call, item)
        row, end = begin * rows, end * rows
        while row < end:
            n, od, oh, high, line = open_row(table, row)
            image = x + n * cells * element
            if zeros and row % rows == 0:
                zero_bytes(image, cells * element)
            alike = rows_alike(table, oh, high, end - row)
            ow = 0
            while ow < OW:
                at_w, w0, w1 = clip(table, s.W_AXIS, ow, False)
                taps = (high[0], high[1], high[2], high[3], w0, w1)
                if taps != listed:
                    listed, count = taps, list_cells(table, offsets, taps)
                last = stretch_end(table, ow, w0, w1)
                size = divisor(table, od, oh, ow, count) if pool_kind(tile) != PLACE else 1
                for j in range(alike):
                    window = (offsets, count, line + at_w + j * below, size)
                    q = (row + j) * OW + ow
                    missed |= _line_errors(fixed, window, q, last - ow, image, tile)
                ow = last
            row += alike
        if missed != 0:
            store_word(call, s.POOL_BAD, s.ELSEWHERE)


@inner
def _line_errors(fixed, window, q, pixels, image, tile):
    """The errors of a row's windows that hold the same cells; not 0 if one's winner is not one."""
    _, y, argmax, _, element, _, step, taps = fixed
    offsets, count, cell, size = window
    listed, lanes = (offsets, offsets + 8 * taps, count), len(tile[0])
    dx, dy, winner = image + cell * element, y + q * element, argmax + q * 8
    half, quarter = max(1, lanes // 2), max(1, lanes // 4)
    missed, next_ = np.int64(0), 0
    while pixels >= lanes and pixels - next_ > lanes // 2:
        i = min(next_, pixels - lanes)
        missed |= pool_errors(tile, 0, listed, dy + i * element, dx + i * step * element,
                              winner + i * 8, cell + i * step, size)  # fmt: skip
        next_ += lanes
    while pixels >= half and pixels - next_ > lanes // 4:
        i = min(next_, pixels - half)
        missed |= pool_errors(tile, 1, listed, dy + i * element, dx + i * step * element,
                              winner + i * 8, cell + i * step, size)  # fmt: skip
        next_ += half
    while pixels >= quarter and next_ < pixels:
        i = min(next_, pixels - quarter)
        missed |= pool_errors(tile, 2, listed, dy + i * element, dx + i * step * element,
                              winner + i * 8, cell + i * step, size)  # fmt: skip
        next_ += quarter
    for i in range(next_, pixels):
        missed |= pool_errors(tile, SINGLE, listed, dy + i * element, dx + i * step * element,
                              winner + i * 8, cell + i * step, size)  # fmt: skip
    return missed
