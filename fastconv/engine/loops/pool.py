"""Control loops of pooling, around the kernels of `emit.pool`.

A thread takes blocks of output rows, or of images where errors flow back, until none is left. In a
row, neighbouring pixels whose windows keep the same cells inside the input are a stretch; the
cells of its windows are listed once, as offsets from the window's first cell.

Channels are taken a vector of VL at a time. Where VL does not divide C, the last vector overlaps
the one before and computes some channels again: nothing is read or written outside a pixel. Sums
into dx must not be repeated, so there half a vector and single elements follow instead.
"""

from __future__ import annotations

import numpy as np

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.intrinsics import (
    pool_errors,
    pool_kind,
    pool_load,
    pool_reduce,
    pool_scatter,
    pool_store,
)
from fastconv.engine.emit.memory import (
    add_one,
    store_word,
    wait_for,
    word,
    words,
    zero_bytes,
)
from fastconv.engine.emit.pool import ARGMAX, MEAN, PLACE, ROWS, SPREAD

__all__ = ["SINGLE", "axis_field", "block_of", "check_winners", "clip", "constants", "divisor",
           "errors_to_cells", "exact_stretch", "list_cells", "open_row", "pool_rows",
           "scatter_errors", "stretch_end"]  # fmt: skip

# The shift that leaves one of any number of lanes.
SINGLE = 9


@inner
def block_of(call, item):
    """First and end of the rows, or images, of block `item`."""
    total, items = word(call, s.POOL_TOTAL), word(call, s.POOL_ITEMS)
    return item * total // items, (item + 1) * total // items


@inner
def axis(table, a):
    """``(N, k, s, d, lo, O, hi)`` of axis a."""
    return words(table, s.POOL_AXES + s.AXIS_WORDS * a, 7)


@inner
def axis_field(table, a, field):
    """One of them."""
    return word(table, s.POOL_AXES + s.AXIS_WORDS * a + field)


@inner
def clip(table, a, o, padded):
    """Position of output o's first tap; its first tap inside the input, and their end.

    With `padded` the high padding counts as inside.
    """
    n, k, step, apart, lo, _, hi = axis(table, a)
    at = o * step - lo
    before, inside = max(0, -at), n - at + (hi if padded else 0)
    if apart > 1:  # divisions cost as much as a small window
        before, inside = (before + apart - 1) // apart, (inside + apart - 1) // apart
    first = min(k, before)
    return at, first, max(first, min(k, inside))


@inner
def stretch_end(table, ow, first, last):
    """The end of the pixels, from `ow` on, whose windows keep the taps `first` to `last`."""
    if first > 0 or last < axis_field(table, s.W_AXIS, s.AXIS_WINDOW):
        return ow + 1
    return word(table, s.POOL_STRETCH_END)


@inner
def divisor(table, od, oh, ow, count):
    """Cells of a window inside the input, `count`, or inside the padded input; at least 1."""
    if word(table, s.POOL_PADDED) == 0:
        return max(1, count)
    _, _, d1 = clip(table, s.D_AXIS, od, True)
    _, _, h1 = clip(table, s.H_AXIS, oh, True)
    _, _, w1 = clip(table, s.W_AXIS, ow, True)
    return max(1, d1 * h1 * w1)


@inner
def list_cells(table, offsets, taps):
    """List the cells of the `taps` ``(d0, d1, h0, h1, w0, w1)`` from tap (0, 0, 0) on.

    Their offsets in bytes, and behind as many words, their flat indices. Returns their number.
    """
    apart_d, apart_h, apart_w = (
        axis_field(table, s.D_AXIS, s.AXIS_APART),
        axis_field(table, s.H_AXIS, s.AXIS_APART),
        axis_field(table, s.W_AXIS, s.AXIS_APART),
    )
    H, W = axis_field(table, s.H_AXIS, s.AXIS_SIZE), axis_field(table, s.W_AXIS, s.AXIS_SIZE)
    cells, pixel = offsets + 8 * word(table, s.POOL_TAPS), word(table, s.POOL_PIXEL)
    count = 0
    for u in range(taps[0], taps[1]):
        for v in range(taps[2], taps[3]):
            line = (u * apart_d * H + v * apart_h) * W
            for t in range(taps[4], taps[5]):
                store_word(cells, count, line + t * apart_w)
                store_word(offsets, count, (line + t * apart_w) * pixel)
                count += 1
    return count


@inner
def position(table, row):
    """Image, depth and height of an output row."""
    OD, OH = axis_field(table, s.D_AXIS, s.AXIS_OUT), axis_field(table, s.H_AXIS, s.AXIS_OUT)
    return row // (OD * OH), row // OH % OD, row % OH


@inner
def open_row(table, row):
    """Taps of an output row inside the input, and the flat index of its tap (0, 0, -w)."""
    H, W = axis_field(table, s.H_AXIS, s.AXIS_SIZE), axis_field(table, s.W_AXIS, s.AXIS_SIZE)
    n, od, oh = position(table, row)
    at_d, d0, d1 = clip(table, s.D_AXIS, od, False)
    at_h, h0, h1 = clip(table, s.H_AXIS, oh, False)
    return n, od, oh, (d0, d1, h0, h1), (at_d * H + at_h) * W


@inner
def constants(call, table):
    """``(x, y, argmax, C, pixel, element, step, taps)`` of a call: read once, kept in registers."""
    x, y, argmax = words(call, s.POOL_X, 3)
    C, pixel, element, taps = words(table, s.POOL_C, 4)
    return x, y, argmax, C, pixel, element, axis_field(table, s.W_AXIS, s.AXIS_STEP), taps


@inner
def pool_rows(call, thread, tile):
    """MAX, ARGMAX or MEAN of blocks of output rows.

    Parameters
    ----------
    call : int
        Address of the words of a call (`words.pool_words`), the same for all threads: the addresses
        of x ``(m, D, H, W, C)``, y ``(m, OD, OH, OW, C)`` and, for ARGMAX, of int64 winners like y.
        All are contiguous and of the tile's dtype. `total` counts the output rows of all images.
    thread : int
        Number of this thread: which part of the scratch is its own.
    tile : tuple
        Its type says what is computed, see `emit.intrinsics.pool_reduce`.
    """
    table = word(call, s.TABLE)
    offsets = word(call, s.SCRATCH) + thread * word(table, s.POOL_SCRATCH)
    OW, cells, far = (
        axis_field(table, s.W_AXIS, s.AXIS_OUT),
        word(table, s.POOL_CELLS),
        word(table, s.POOL_FAR),
    )
    fixed = constants(call, table)
    listed, count = (0, 0, 0, 0, 0, 0), 0
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, s.POOL_ITEMS):
            return
        begin, end = block_of(call, item)
        for row in range(begin, end):
            n, od, oh, high, line = open_row(table, row)
            ow = 0
            while ow < OW:
                at_w, w0, w1 = clip(table, s.W_AXIS, ow, False)
                taps = (high[0], high[1], high[2], high[3], w0, w1)
                if taps != listed:
                    listed, count = taps, list_cells(table, offsets, taps)
                last = stretch_end(table, ow, w0, w1)
                size = divisor(table, od, oh, ow, count) if pool_kind(tile) == MEAN else 1
                window = (offsets, count, n * cells, line + at_w, size)
                met = np.int64(1)
                if (count > 0 and far == 0) or pool_kind(tile) == MEAN:
                    met = _stretch(fixed, window, row * OW + ow, last - ow, tile)
                if met != 0 and pool_kind(tile) != MEAN:
                    exact_stretch(fixed, window, row * OW + ow, last - ow, tile)
                ow = last


@inner
def _stretch(fixed, window, q, pixels, tile):
    """Pixels q, q + 1, ... whose windows hold the same cells; the first window is `window`."""
    x, y, argmax, C, pixel, element, step, taps = fixed
    offsets, count, image, cell, size = window
    lanes = len(tile[0])
    met = np.int64(0)
    for first in range(0, pixels, ROWS):
        i = max(0, min(first, pixels - ROWS))
        at = x + (image + cell + i * step) * pixel
        to, winner = y + (q + i) * pixel, argmax + (q + i) * C * 8
        for chunk in range(0, C, lanes):
            c = min(chunk, C - lanes)
            met |= pool_reduce(
                tile, 0, (offsets, offsets + 8 * taps, count),
                (at + c * element, step * pixel, pixels - i), (to + c * element, pixel),
                (winner + c * 8, C * 8), (cell + i * step, step), size,
            )  # fmt: skip
    return met


@inner
def exact_stretch(fixed, window, q, pixels, tile):
    """Pixels of a row, maxima one at a time: the first NaN wins; -1 where a window has no cell."""
    x, y, argmax, C, pixel, element, step, taps = fixed
    offsets, count, image, cell, _ = window
    for i in range(pixels):
        at = x + (image + cell + i * step) * pixel
        for c in range(C):
            best, where = tile[2], np.int64(-1)
            for t in range(count):
                value = pool_load(tile, at + word(offsets, t) + c * element)
                if t == 0 or not (best >= value or best != best):
                    best, where = value, cell + i * step + word(offsets, taps + t)
            pool_store(tile, y + (q + i) * pixel + c * element, best)
            if pool_kind(tile) == ARGMAX:
                store_word(argmax, (q + i) * C + c, where)


@inner
def errors_to_cells(call, thread, tile):
    """The error of each output to its window's cells, for blocks of images.

    SPREAD: its share is added to every cell. FILL, where no two windows share a cell: its share is
    written there. PLACE, where they do not either: the error to the winner, zero to the others;
    nothing at all if a winner is no cell of the image.

    The arguments are those of `pool_rows`, with dx and dy in the places of x and y; `total` counts
    images. What is wrong with a winner is written to the word `POOL_BAD`.
    """
    table = word(call, s.TABLE)
    offsets = word(call, s.SCRATCH) + thread * word(table, s.POOL_SCRATCH)
    OW, cells, rows = (
        axis_field(table, s.W_AXIS, s.AXIS_OUT),
        word(table, s.POOL_CELLS),
        word(table, s.POOL_ROWS),
    )
    fixed = constants(call, table)
    x, argmax, C, pixel, step = fixed[0], fixed[2], fixed[3], fixed[4], fixed[6]
    zeros = pool_kind(tile) == SPREAD or word(table, s.POOL_COVERED) == 0
    if pool_kind(tile) == PLACE:
        check_winners(call, argmax, rows * OW * C, word(table, s.POOL_LEAST), cells)
    listed, count = (0, 0, 0, 0, 0, 0), 0
    missed = np.int64(0)
    while word(call, s.POOL_BAD) == 0:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, s.POOL_ITEMS):
            return
        begin, end = block_of(call, item)
        for row in range(begin * rows, end * rows):
            n, od, oh, high, line = open_row(table, row)
            image = x + n * cells * pixel
            if zeros and row % rows == 0:
                zero_bytes(image, cells * pixel)
            ow = 0
            while ow < OW:
                at_w, w0, w1 = clip(table, s.W_AXIS, ow, False)
                taps = (high[0], high[1], high[2], high[3], w0, w1)
                if taps != listed:
                    listed, count = taps, list_cells(table, offsets, taps)
                last = stretch_end(table, ow, w0, w1)
                size = divisor(table, od, oh, ow, count) if pool_kind(tile) != PLACE else 1
                for i in range(last - ow):
                    window = (offsets, count, line + at_w + i * step, size)
                    missed |= _errors(fixed, window, row * OW + ow + i, image, tile)
                ow = last
        if missed != 0:
            store_word(call, s.POOL_BAD, s.ELSEWHERE)


@inner
def _errors(fixed, window, q, image, tile):
    """The errors of all channels of pixel q; not 0 if a winner is not in the window."""
    _, y, argmax, C, pixel, element, _, taps = fixed
    offsets, count, cell, size = window
    listed = (offsets, offsets + 8 * taps, count)
    dx, dy, winner, lanes = image + cell * pixel, y + q * pixel, argmax + q * C * 8, len(tile[0])
    missed = np.int64(0)
    if pool_kind(tile) != SPREAD:
        for chunk in range(0, C, lanes):
            c = min(chunk, C - lanes)
            missed |= pool_errors(tile, 0, listed, dy + c * element, dx + c * element,
                                  winner + c * 8, cell, size)  # fmt: skip
        return missed
    c = 0
    while c + lanes <= C:
        pool_errors(tile, 0, listed, dy + c * element, dx + c * element, 0, 0, size)
        c += lanes
    if lanes > 1 and c + lanes // 2 <= C:
        pool_errors(tile, 1, listed, dy + c * element, dx + c * element, 0, 0, size)
        c += lanes // 2
    while c < C:
        pool_errors(tile, SINGLE, listed, dy + c * element, dx + c * element, 0, 0, size)
        c += 1
    return missed


@inner
def scatter_errors(call, thread, tile):
    """The error of each output to its winner, for blocks of images; nothing if one is no cell.

    One by one, where windows share cells: comparing a vector of winners with every cell of a window
    took 1.2 to 2.5 times as long. The arguments are those of `errors_to_cells`.
    """
    table = word(call, s.TABLE)
    x, y, argmax, C, pixel, _, _, _ = constants(call, table)
    cells = word(table, s.POOL_CELLS)
    outputs = word(table, s.POOL_ROWS) * axis_field(table, s.W_AXIS, s.AXIS_OUT)
    check_winners(call, argmax, outputs * C, word(table, s.POOL_LEAST), cells)
    while word(call, s.POOL_BAD) == 0:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, s.POOL_ITEMS):
            return
        begin, end = block_of(call, item)
        for n in range(begin, end):
            dx = x + n * cells * pixel
            zero_bytes(dx, cells * pixel)
            for q in range(n * outputs, (n + 1) * outputs):
                pool_scatter(tile, y + q * pixel, argmax + q * C * 8, C, dx, pixel)


@inner
def check_winners(call, argmax, image, least, cells):
    """Set POOL_BAD if an argmax is not `least` to `cells` - 1; returns when all are checked."""
    items = word(call, s.POOL_ITEMS)
    item = add_one(call, s.NEXT_FIRST)
    while item < items:
        begin, end = block_of(call, item)
        signs = np.int64(0)  # negative if one of the numbers below is
        for i in range(begin * image, end * image):
            cell = word(argmax, i)
            signs |= (cell - least) | (cells - 1 - cell)
        if signs < 0:
            store_word(call, s.POOL_BAD, s.OUTSIDE)
        add_one(call, s.DONE)
        item = add_one(call, s.NEXT_FIRST)
    wait_for(call, s.DONE, items)
