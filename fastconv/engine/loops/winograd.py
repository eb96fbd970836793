"""Minimal filtering of 3x3 windows at stride 1, block by block of tiles; see `tables.winograd`.

    1  the source cells of each tile become points       [points][tiles x channels]
    2  a product for each point, by the micro-kernel     [tiles x channels] @ [channels x NR]
    3  the sums of each tile become results              + bias, ReLU, store

A block's points and sums stay in the second-level cache. Every tile is computed for itself, in the
order that its shape gives, so the bits depend neither on threads nor on blocks. Where a result is
no finite number (an infinity or a NaN has spread, or a point has overflowed), its tile is computed
again, directly: it then has the infinities and NaN of the direct product.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import (
    add_one,
    call_sweep,
    store_word,
    store_words,
    wait_for,
    word,
    words,
    zero_bytes,
)
from fastconv.engine.emit.vectors import load, load_first, spread, store, total
from fastconv.engine.loops.gather import copy_short, gather, scatter
from fastconv.engine.loops.pack import pack_rows
from fastconv.engine.loops.points import results_of, source_points, window_points
from fastconv.engine.tables.winograd import RUN

__all__ = ["minimal"]


@inner
def minimal(call, thread, kind):
    """Every block of tiles of a forward product or an input gradient.

    Parameters
    ----------
    call : int
        Address of the words of a call (`words.call_words`), as of `loops.conv`.
    thread : int
    kind : tuple
        VL zeros, a zero of the dtype, and as many zeros as a tile has cells along an axis.
    """
    table = word(call, s.TABLE)
    scratch = word(call, s.SCRATCH) + thread * word(table, s.SCRATCH_BYTES)
    _pack(call, table, scratch, kind)
    block, images = word(table, s.MINIMAL_BLOCK), word(table, s.M)
    tiles = images * word(table, s.MINIMAL_TILES) * word(table, s.MINIMAL_TILES + 1)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(table, s.ITEMS):
            return
        first = item * block
        count = min(block, tiles - first)
        _sources(call, table, scratch, first, count, kind)
        for panel in range(word(table, s.PANELS)):
            _products(call, table, scratch, panel, count, len(kind[2]) * len(kind[2]))
            _results(call, table, scratch, panel, first, count, kind)


@inner
def _pack(call, table, scratch, kind):
    """The taps of every panel ``[tap][channel][NR]``, their points, and the bias."""
    panels = word(table, s.PANELS)
    panel = add_one(call, s.NEXT_FIRST)
    while panel < panels:
        _pack_panel(call, table, scratch + word(table, s.AT_VECTORS), panel, kind)
        add_one(call, s.DONE)
        panel = add_one(call, s.NEXT_FIRST)
    wait_for(call, s.DONE, panels)


@inner
def _pack_panel(call, table, vectors, panel, kind):
    lanes, zero, across = kind
    size, nr, line = word(table, s.BYTES), word(table, s.TILE_COLUMNS), word(table, s.LINE)
    column, channels = panel * nr, word(table, s.REDUCE)
    cols, tap_bytes = min(nr, word(table, s.COLUMNS) - column), channels * line
    packed = word(call, s.PACKED) + panel * word(table, s.MINIMAL_PANEL)
    tap_step = word(table, s.TAP_STEP)
    start = word(call, s.KERNEL) + column * word(table, s.COLUMN_STEP)
    if tap_step < 0:  # the flipped window begins with the last tap
        start -= 8 * tap_step
    for tap in range(9):
        pack_rows(table, packed + tap * tap_bytes, start + tap * tap_step, cols)
    to, bias = word(call, s.PRIOR) + panel * line, word(call, s.BIAS)
    zero_bytes(to, line)
    if bias != 0:
        copy_short(to, bias + column * size, cols * size)
    to, step = packed + 9 * tap_bytes, word(table, s.MINIMAL_WINDOW)
    for at in range(0, tap_bytes, len(lanes) * size):
        window_points(packed + at, tap_bytes, vectors, to + at, step, lanes, zero, across)


@inner
def _place(table, tile):
    """The image, tile row and tile column of a tile's number."""
    height, width = words(table, s.MINIMAL_TILES, 2)
    row = tile // width
    return row // height, row % height, tile % width


@inner
def _sources(call, table, scratch, first, count, kind):
    """The points of the cells of some tiles: as many in a row at a time as there are."""
    lanes, zero, across = kind
    tails = scratch + word(table, s.AT_SUMS)  # where the sums come later
    size, cell = word(table, s.BYTES), word(table, s.MINIMAL_CELL)
    width, between = word(table, s.MINIMAL_TILES + 1), word(table, s.MINIMAL_BETWEEN)
    addresses, points = scratch + word(table, s.AT_ADDRESSES), scratch + word(table, s.AT_POINTS)
    vectors = scratch + word(table, s.AT_VECTORS)
    channels, step = word(table, s.REDUCE), len(lanes) * size
    plain = word(call, s.SOURCE + 6) <= s.PLAIN_8 and word(call, s.SOURCE + 5) == size
    nothing = spread(zero, lanes)
    t = 0
    while t < count:
        n, row, column = _place(table, first + t)
        run = min(min(count - t, width - column), RUN)
        if not plain:
            _gather(call, table, scratch, n, row, column, run, len(across))
        for i in range(run):
            if plain:
                _cells(call, table, addresses, n, row, column + i, len(across))
            else:
                _gathered(table, scratch, addresses, run, i, len(across))
            to = points + (t + i) * cell
            whole = channels // len(lanes) * step
            for at in range(0, whole, step):
                source_points(addresses, at, vectors, to + at, between, lanes, zero, across)
            if whole < cell:  # beyond the last channel nothing may be read
                left = channels - whole // size
                for k in range(len(across) * len(across)):
                    found = load_first(word(addresses, k) + whole, left, nothing)
                    store(tails + k * step, found)
                    store_word(addresses, k, tails + k * step)
                source_points(addresses, 0, vectors, to + whole, between, lanes, zero, across)
        t += run


@inner
def _cells(call, table, addresses, n, row, column, across):
    """The addresses of a tile's cells where they lie; those outside are a cell of zeros."""
    base, step_n, _, step_h, step_w = words(call, s.SOURCE, 5)
    height, width = words(table, s.SIZE + 1, 2)
    h0 = word(table, s.LOW + 1) + row * (across - 2)
    w0 = word(table, s.LOW + 2) + column * (across - 2)
    base += n * step_n + h0 * step_h + w0 * step_w
    zeros = word(table, s.MINIMAL_ZEROS)
    for i in range(across):
        for j in range(across):
            inside = 0 <= h0 + i < height and 0 <= w0 + j < width
            at = base + i * step_h + j * step_w if inside else zeros
            store_word(addresses, i * across + j, at)


@inner
def _gather(call, table, scratch, n, row, column, run, across):
    """Copy the cells of some tiles in a row to scratch, whatever the source is."""
    cell, size, edge = word(table, s.MINIMAL_CELL), word(table, s.BYTES), across - 2
    wide = edge * run + 2
    origin = (n, 0, word(table, s.LOW + 1) + row * edge, word(table, s.LOW + 2) + column * edge)
    steps = (0, 0, wide * cell, cell, 0)
    gather(scratch + word(table, s.AT_RUN), steps, call + 8 * s.SOURCE, origin,
           (1, 1, across, wide), words(table, s.SIZE, 3), words(table, s.COPIED, 3),
           (1, word(table, s.REDUCE), cell // size, 0), size)  # fmt: skip


@inner
def _gathered(table, scratch, addresses, run, i, across):
    """The addresses of the cells of tile i of a gathered run."""
    cell, edge = word(table, s.MINIMAL_CELL), across - 2
    base = scratch + word(table, s.AT_RUN) + i * edge * cell
    for k in range(across * across):
        at = base + (k // across * (edge * run + 2) + k % across) * cell
        store_word(addresses, k, at)


@inner
def _products(call, table, scratch, panel, count, points):
    """``[tiles x channels] @ [channels x NR]`` for every point."""
    line, channels = word(table, s.LINE), word(table, s.REDUCE)
    task = scratch + word(table, s.AT_TASK)
    rows, results, reduction = words(table, s.MINIMAL_ROWS, 3)
    a, c = scratch + word(table, s.AT_POINTS), scratch + word(table, s.AT_SUMS)
    b = word(call, s.PACKED) + panel * word(table, s.MINIMAL_PANEL) + 9 * channels * line
    longest = word(table, s.REDUCTION)
    store_words(task, s.TASK_RIGHT, (b, line))
    store_words(task, s.TASK_RESULT, (c, results, word(table, s.TILE_COLUMNS)))
    store_word(task, s.TASK_WIDE, count)
    for point in range(points):
        left = a + point * word(table, s.MINIMAL_BETWEEN)
        store_word(task, s.TASK_RESULT, c + point * word(table, s.MINIMAL_SUMS))
        for k in range(0, channels, longest):
            store_words(task, s.TASK_ROWS, (count, min(longest, channels - k)))
            store_words(task, s.TASK_LEFT, (left, rows, reduction + 8 * k))
            store_word(task, s.TASK_RIGHT, b + point * word(table, s.MINIMAL_WINDOW) + k * line)
            store_words(task, s.TASK_ENDING, (word(table, s.MINIMAL_ZEROS), k, 0))
            call_sweep(word(call, s.SWEEP), task)


@inner
def _results(call, table, scratch, panel, first, count, kind):
    """The results of some tiles in a panel, stored where they belong."""
    lanes, zero, across = kind
    edge, nr, line = len(across) - 2, word(table, s.TILE_COLUMNS), word(table, s.LINE)
    size, sums = word(table, s.BYTES), scratch + word(table, s.AT_SUMS)
    apart, vectors = word(table, s.MINIMAL_SUMS), scratch + word(table, s.AT_VECTORS)
    held = scratch + word(table, s.AT_HELD)
    prior, relu = word(call, s.PRIOR) + panel * line, word(call, s.RELU)
    base, step_n, _, step_h, step_w = words(call, s.TARGET, 5)
    height, width = words(table, s.COUNT + 1, 2)
    full = word(call, s.DIRECT) != 0 and nr * (panel + 1) <= word(table, s.COLUMNS)
    for t in range(count):
        n, row, column = _place(table, first + t)
        inside = full and (row + 1) * edge <= height and (column + 1) * edge <= width
        to, to_h, to_w = held, edge * line, line
        if inside:
            to = base + n * step_n + row * edge * step_h + column * edge * step_w + panel * line
            to_h, to_w = step_h, step_w
        wrong = spread(zero, lanes)
        for at in range(0, line, len(lanes) * size):
            bias = load(prior + at, lanes, zero)
            wrong = wrong + results_of(sums + t * line + at, apart, vectors, (to + at, to_h, to_w),
                                       bias, relu, lanes, zero, across)  # fmt: skip
        again = total(wrong) != zero  # a NaN is not
        if again:
            _directly(call, table, scratch, panel, (n, row, column), len(across))
        if again or not inside:
            _put(call, table, scratch, panel, (n, row, column), edge)


@inner
def _directly(call, table, scratch, panel, place, across):
    """A tile as the direct product has it, in one sum over taps and channels."""
    n, row, column = place
    line, channels, edge = word(table, s.LINE), word(table, s.REDUCE), across - 2
    _gather(call, table, scratch, n, row, column, 1, across)
    task = scratch + word(table, s.AT_TASK)
    pixels, taps = words(table, s.MINIMAL_PIXELS, 2)
    packed = word(call, s.PACKED) + panel * word(table, s.MINIMAL_PANEL)
    store_words(task, s.TASK_ROWS, (edge * edge, 9 * channels))
    store_words(task, s.TASK_LEFT, (scratch + word(table, s.AT_RUN), pixels, taps))
    store_words(task, s.TASK_RIGHT, (packed, line))
    store_words(task, s.TASK_RESULT, (scratch + word(table, s.AT_HELD),
                                      word(table, s.MINIMAL_ROWS + 1),
                                      word(table, s.TILE_COLUMNS)))  # fmt: skip
    ending = (word(call, s.PRIOR) + panel * line, 0, word(call, s.RELU))
    store_words(task, s.TASK_ENDING, ending)
    store_word(task, s.TASK_WIDE, edge * edge)
    call_sweep(word(call, s.SWEEP), task)


@inner
def _put(call, table, scratch, panel, place, edge):
    """Write a tile's results from scratch to the target, as far as they are in it."""
    n, row, column = place
    size, nr, line = word(table, s.BYTES), word(table, s.TILE_COLUMNS), word(table, s.LINE)
    view, held = call + 8 * s.TARGET, scratch + word(table, s.AT_HELD)
    base, step_n, _, step_h, step_w, step_c = words(view, 0, 6)
    height, width = words(table, s.COUNT + 1, 2)
    cols = min(nr, word(table, s.COLUMNS) - panel * nr)
    high, wide = min(edge, height - row * edge), min(edge, width - column * edge)
    base += n * step_n + row * edge * step_h + column * edge * step_w + panel * nr * step_c
    offsets = scratch + word(table, s.AT_OFFSETS)
    for i in range(high):
        for j in range(wide):
            if word(call, s.DIRECT) != 0:
                to = base + i * step_h + j * step_w
                copy_short(to, held + (i * edge + j) * line, cols * size)
            else:
                store_word(offsets, j, i * step_h + j * step_w)
        if word(call, s.DIRECT) == 0:
            scatter(view, base, offsets, wide, held + i * edge * line, cols, line, size)
