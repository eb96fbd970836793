"""Loops of batch normalisation: statistics of a batch, and its table.

They take one pass over memory. A block of rows is summed in float64 and, while it is in
the cache, so are the squares of what its elements are off its mean. Means and squares of two runs
of numbers make those of both (Chan, Golub and LeVeque 1979):

    d = mean_b - mean_a
    mean = mean_a + d * n_b / (n_a + n_b)
    square = square_a + square_b + d**2 * n_a * n_b / (n_a + n_b)

Nothing cancels where the mean is large. Blocks are merged in their order within an item, then the
items in theirs by the thread that finishes last: the bits depend on the shape alone.
"""

from __future__ import annotations

import math

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, load_element, word
from fastconv.engine.emit.vectors import fma, spread, widen
from fastconv.engine.loops.channels import column_sums, get, item_of, number, put, put_number, wide

__all__ = ["frozen_statistics", "put_in_table", "repeat_rows", "statistics"]


@inner
def statistics(call, thread, kind):
    """Mean and variance of a batch into the table; running statistics move towards them.

    A part is the means of an item's rows and the sums of squares, 2 * WIDTH doubles.
    """
    width, items = word(call, aw.CHANNELS_WIDTH), word(call, aw.CHANNELS_ITEMS)
    x, parts = word(call, aw.CHANNELS_A), word(call, aw.CHANNELS_PARTS)
    size = len(kind[2])
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        at, rows, _ = item_of(call, item)
        _item_statistics(call, x + at * size, rows, parts + 16 * item * width, kind)
        if add_one(call, s.DONE) == items - 1:
            _finish_statistics(call, kind)


@inner
def _item_statistics(call, x, rows, part, kind):
    """Means and squares of an item's rows, block by block."""
    width, block = word(call, aw.CHANNELS_WIDTH), word(call, aw.CHANNELS_BLOCK)
    lanes, size, step = kind[0], len(kind[2]), width * len(kind[2])
    for q in range(0, rows, block):
        count = min(block, rows - q)
        for f in range(0, width, len(lanes)):
            at, left = x + q * step + f * size, width - f
            mean = column_sums(at, step, count, left, kind) / spread(float(count), lanes)
            square = _column_squares(at, step, count, left, mean, kind)
            _merge(part + 8 * f, 8 * width, left, q, count, mean, square, kind)


@inner
def _column_squares(at, step, rows, left, mean, kind):
    """Sums of the squared distances of a vector of columns from their means."""
    a = spread(0.0, kind[0])
    b, c, d = a, a, a
    i = 0
    while i + 4 <= rows:
        e = widen(get(at, left, kind)) - mean
        f = widen(get(at + step, left, kind)) - mean
        g = widen(get(at + 2 * step, left, kind)) - mean
        h = widen(get(at + 3 * step, left, kind)) - mean
        a, b, c, d = fma(e, e, a), fma(f, f, b), fma(g, g, c), fma(h, h, d)
        at += 4 * step
        i += 4
    while i < rows:
        e = widen(get(at, left, kind)) - mean
        a = fma(e, e, a)
        at += step
        i += 1
    return (a + b) + (c + d)


@inner
def _merge(part, apart, left, n, m, mean, square, kind):
    """Merge means and squares of `m` numbers into a part's, `apart` bytes apart, of `n`."""
    doubles = wide(kind)
    if n > 0:
        old = get(part, left, doubles)
        off = mean - old
        mean = old + off * spread(m / (n + m), kind[0])
        square = get(part + apart, left, doubles) + square
        square = square + off * off * spread(n * (m / (n + m)), kind[0])
    put(part, left, mean, doubles)
    put(part + apart, left, square, doubles)


@inner
def _merge_line(part, other, apart, width, n, m, kind):
    """Merge `width` means and squares of `m` numbers each into those of `n` numbers."""
    doubles = wide(kind)
    for f in range(0, width, len(kind[0])):
        mean = get(other + 8 * f, width - f, doubles)
        square = get(other + apart + 8 * f, width - f, doubles)
        _merge(part + 8 * f, apart, width - f, n, m, mean, square, kind)


@inner
def _finish_statistics(call, kind):
    """Merge the items, the columns of one channel, and the rest; write the table."""
    parts, width, C = (
        word(call, aw.CHANNELS_PARTS),
        word(call, aw.CHANNELS_WIDTH),
        word(call, aw.CHANNELS_C),
    )
    items, lanes, apart, seen = word(call, aw.CHANNELS_ITEMS), kind[0], 8 * width, 0
    for item in range(items):
        _, rows, rest = item_of(call, item)
        if item > 0:
            _merge_line(parts, parts + 2 * apart * item, apart, width, seen, rows, kind)
        seen += rows
    rows = seen
    for j in range(C, width, C):
        _merge_line(parts, parts + 8 * j, apart, C, seen, rows, kind)
        seen += rows
    pixel = word(call, aw.CHANNELS_A) + rows * width * len(kind[2])
    for _ in range(0, rest, C):
        for f in range(0, C, len(lanes)):
            value = widen(get(pixel + f * len(kind[2]), C - f, kind))
            _merge(parts + 8 * f, apart, C - f, seen, 1, value, spread(0.0, lanes), kind)
        pixel += C * len(kind[2])
        seen += 1
    for c in range(C):
        mean = load_element(parts + 8 * c, 0.0)
        variance = load_element(parts + apart + 8 * c, 0.0) / seen
        _move(call, aw.CHANNELS_RUNNING_MEAN, c, mean, kind)
        unbiased = variance * (seen / max(seen - 1, 1))
        _move(call, aw.CHANNELS_RUNNING_VARIANCE, c, unbiased, kind)
        _set_channel(call, c, mean, variance, kind)
    repeat_rows(call, aw.TABLE_MEAN, aw.TABLE_FACTOR, kind)


@inner
def _move(call, running, c, seen, kind):
    """Move a running statistic towards what has been seen, in float64."""
    at = word(call, running) + c * len(kind[2])
    momentum = load_element(call + 8 * aw.CHANNELS_MOMENTUM, 0.0)
    put_number(at, momentum * number(at, kind) + (1.0 - momentum) * seen, kind)


@inner
def _set_channel(call, c, mean, variance, kind):
    """Write a channel's mean, inverse deviation, scale and shift to the table."""
    epsilon = load_element(call + 8 * aw.CHANNELS_EPSILON, 0.0)
    put_in_table(call, aw.TABLE_MEAN, c, mean, kind)
    put_in_table(call, aw.TABLE_INVERSE, c, 1.0 / math.sqrt(variance + epsilon), kind)
    at = c * len(kind[2])
    put_in_table(call, aw.TABLE_SCALE, c, number(word(call, aw.CHANNELS_SCALE) + at, kind), kind)
    put_in_table(call, aw.TABLE_SHIFT, c, number(word(call, aw.CHANNELS_SHIFT) + at, kind), kind)


@inner
def put_in_table(call, row, i, value, kind):
    """Write the i-th number of a row of the table."""
    at = row * word(call, aw.CHANNELS_WIDTH) + i
    put_number(word(call, aw.CHANNELS_TABLE) + at * len(kind[2]), value, kind)


@inner
def repeat_rows(call, row, end, kind):
    """Repeat the C numbers of rows of the table up to their ends."""
    C, width, size = word(call, aw.CHANNELS_C), word(call, aw.CHANNELS_WIDTH), len(kind[2])
    for r in range(row, end):
        at = word(call, aw.CHANNELS_TABLE) + r * width * size
        for i in range(C, width):
            put_in_table(call, r, i, number(at + (i - C) * size, kind), kind)


@inner
def frozen_statistics(call, thread, kind):
    """The table of the running statistics, which stay as they are."""
    if add_one(call, s.NEXT_ITEM) > 0:
        return
    for c in range(word(call, aw.CHANNELS_C)):
        at = c * len(kind[2])
        mean = number(word(call, aw.CHANNELS_RUNNING_MEAN) + at, kind)
        variance = number(word(call, aw.CHANNELS_RUNNING_VARIANCE) + at, kind)
        _set_channel(call, c, mean, variance, kind)
    repeat_rows(call, aw.TABLE_MEAN, aw.TABLE_FACTOR, kind)
