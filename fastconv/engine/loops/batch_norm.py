"""Loops of batch normalisation: statistics of a batch, and passes over its elements.

The statistics take one pass over memory. A block of rows is summed in float64 and, while it is in
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
from typing import Any

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, load_element, word, words
from fastconv.engine.emit.vectors import choose, fma, spread, widen
from fastconv.engine.loops.channels import (
    add_to,
    column_sums,
    get,
    item_of,
    number,
    put,
    put_number,
    wide,
)

__all__ = ["backward", "backward_relu", "error_sums", "error_sums_relu", "forward",
           "forward_relu", "frozen_backward", "frozen_backward_relu", "frozen_statistics",
           "statistics"]  # fmt: skip

# ------------------------------------------------------------------------------- statistics


@inner
def statistics(call, thread, kind):
    """Mean and variance of a batch into the table; running statistics move towards them.

    A part is the means of an item's rows and the sums of squares, 2 * WIDTH doubles.
    """
    width, items = word(call, s.CHANNELS_WIDTH), word(call, s.CHANNELS_ITEMS)
    x, parts = word(call, s.CHANNELS_A), word(call, s.CHANNELS_PARTS)
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
    width, block = word(call, s.CHANNELS_WIDTH), word(call, s.CHANNELS_BLOCK)
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
        word(call, s.CHANNELS_PARTS),
        word(call, s.CHANNELS_WIDTH),
        word(call, s.CHANNELS_C),
    )
    items, lanes, apart, seen = word(call, s.CHANNELS_ITEMS), kind[0], 8 * width, 0
    for item in range(items):
        _, rows, rest = item_of(call, item)
        if item > 0:
            _merge_line(parts, parts + 2 * apart * item, apart, width, seen, rows, kind)
        seen += rows
    rows = seen
    for j in range(C, width, C):
        _merge_line(parts, parts + 8 * j, apart, C, seen, rows, kind)
        seen += rows
    pixel = word(call, s.CHANNELS_A) + rows * width * len(kind[2])
    for _ in range(0, rest, C):
        for f in range(0, C, len(lanes)):
            value = widen(get(pixel + f * len(kind[2]), C - f, kind))
            _merge(parts + 8 * f, apart, C - f, seen, 1, value, spread(0.0, lanes), kind)
        pixel += C * len(kind[2])
        seen += 1
    for c in range(C):
        mean = load_element(parts + 8 * c, 0.0)
        variance = load_element(parts + apart + 8 * c, 0.0) / seen
        _move(call, s.CHANNELS_RUNNING_MEAN, c, mean, kind)
        unbiased = variance * (seen / max(seen - 1, 1))
        _move(call, s.CHANNELS_RUNNING_VARIANCE, c, unbiased, kind)
        _set_channel(call, c, mean, variance, kind)
    _repeat(call, s.TABLE_MEAN, s.TABLE_FACTOR, kind)


@inner
def _move(call, running, c, seen, kind):
    """Move a running statistic towards what has been seen, in float64."""
    at = word(call, running) + c * len(kind[2])
    momentum = load_element(call + 8 * s.CHANNELS_MOMENTUM, 0.0)
    put_number(at, momentum * number(at, kind) + (1.0 - momentum) * seen, kind)


@inner
def _set_channel(call, c, mean, variance, kind):
    """Write a channel's mean, inverse deviation, scale and shift to the table."""
    epsilon = load_element(call + 8 * s.CHANNELS_EPSILON, 0.0)
    _set(call, s.TABLE_MEAN, c, mean, kind)
    _set(call, s.TABLE_INVERSE, c, 1.0 / math.sqrt(variance + epsilon), kind)
    at = c * len(kind[2])
    _set(call, s.TABLE_SCALE, c, number(word(call, s.CHANNELS_SCALE) + at, kind), kind)
    _set(call, s.TABLE_SHIFT, c, number(word(call, s.CHANNELS_SHIFT) + at, kind), kind)


@inner
def _set(call, row, i, value, kind):
    """Write the i-th number of a row of the table."""
    at = row * word(call, s.CHANNELS_WIDTH) + i
    put_number(word(call, s.CHANNELS_TABLE) + at * len(kind[2]), value, kind)


@inner
def _repeat(call, row, end, kind):
    """Repeat the C numbers of rows of the table up to their ends."""
    C, width, size = word(call, s.CHANNELS_C), word(call, s.CHANNELS_WIDTH), len(kind[2])
    for r in range(row, end):
        at = word(call, s.CHANNELS_TABLE) + r * width * size
        for i in range(C, width):
            _set(call, r, i, number(at + (i - C) * size, kind), kind)


@inner
def frozen_statistics(call, thread, kind):
    """The table of the running statistics, which stay as they are."""
    if add_one(call, s.NEXT_ITEM) > 0:
        return
    for c in range(word(call, s.CHANNELS_C)):
        at = c * len(kind[2])
        mean = number(word(call, s.CHANNELS_RUNNING_MEAN) + at, kind)
        variance = number(word(call, s.CHANNELS_RUNNING_VARIANCE) + at, kind)
        _set_channel(call, c, mean, variance, kind)
    _repeat(call, s.TABLE_MEAN, s.TABLE_FACTOR, kind)


# ------------------------------------------------------------------------------- elements


def each(function: Any) -> Any:
    """The loop ``result = function(a, b, numbers of the channel, 0)`` over all elements."""

    @inner
    def loop(call, thread, kind):
        a, b, result, table = words(call, s.CHANNELS_A, 4)
        width, block, items = (
            word(call, s.CHANNELS_WIDTH),
            word(call, s.CHANNELS_BLOCK),
            word(call, s.CHANNELS_ITEMS),
        )
        lanes, size, step = kind[0], len(kind[2]), width * len(kind[2])
        zero = spread(kind[1], lanes)
        while True:
            item = add_one(call, s.NEXT_ITEM)
            if item >= items:
                return
            at, rows, rest = item_of(call, item)
            for q in range(0, rows + (rest > 0), block):
                for f in range(0, width, len(lanes)):
                    numbers = _numbers(table, width, f, kind)
                    i = (at + f) * size + q * step
                    for _ in range(min(block, rows - q)):
                        first, second = get(a + i, width - f, kind), get(b + i, width - f, kind)
                        put(result + i, width - f, function(first, second, numbers, zero), kind)
                        i += step
                    if rows - q < block and f < rest:
                        first, second = get(a + i, rest - f, kind), get(b + i, rest - f, kind)
                        put(result + i, rest - f, function(first, second, numbers, zero), kind)

    return loop


@inner
def _numbers(table, width, f, kind):
    """The rows of the table, of a vector of columns from f on."""
    step, left, at = width * len(kind[2]), width - f, table + f * len(kind[2])
    return (
        get(at, left, kind),
        get(at + step, left, kind),
        get(at + 2 * step, left, kind),
        get(at + 3 * step, left, kind),
        get(at + 4 * step, left, kind),
        get(at + 5 * step, left, kind),
        get(at + 6 * step, left, kind),
    )


@inner
def _normal(x, numbers):
    return (x - numbers[0]) * numbers[1]


@inner
def _scaled(x, numbers):
    return _normal(x, numbers) * numbers[2] + numbers[3]


@inner
def _forward(x, _, numbers, zero):
    return _scaled(x, numbers)


@inner
def _forward_relu(x, _, numbers, zero):
    y = _scaled(x, numbers)
    return choose(y <= zero, zero, y)


@inner
def _masked(dy, x, numbers, zero):
    """The error before a ReLU: whether y was positive is computed from x again."""
    return choose(_scaled(x, numbers) > zero, dy, zero)


@inner
def _backward(dy, x, numbers, zero):
    return numbers[4] * ((dy - numbers[5]) - _normal(x, numbers) * numbers[6])


@inner
def _backward_relu(dy, x, numbers, zero):
    return _backward(_masked(dy, x, numbers, zero), x, numbers, zero)


@inner
def _frozen_backward(dy, _, numbers, zero):
    return dy * numbers[4]


@inner
def _frozen_backward_relu(dy, x, numbers, zero):
    return _masked(dy, x, numbers, zero) * numbers[4]


forward, forward_relu = each(_forward), each(_forward_relu)
backward, backward_relu = each(_backward), each(_backward_relu)
frozen_backward, frozen_backward_relu = each(_frozen_backward), each(_frozen_backward_relu)

# ------------------------------------------------------------------------------- sums of errors


def summing(error: Any) -> Any:
    """The loop that sums ``error(dy, x, numbers, 0)``, and it times the normal, over all pixels.

    A part is WIDTH sums of errors and WIDTH of products, in float64.
    """

    @inner
    def loop(call, thread, kind):
        dy, x, _, table, parts = words(call, s.CHANNELS_A, 5)
        width, block, items = (
            word(call, s.CHANNELS_WIDTH),
            word(call, s.CHANNELS_BLOCK),
            word(call, s.CHANNELS_ITEMS),
        )
        lanes, size, step = kind[0], len(kind[2]), width * len(kind[2])
        zero, nothing, doubles = spread(kind[1], lanes), spread(0.0, lanes), wide(kind)
        while True:
            item = add_one(call, s.NEXT_ITEM)
            if item >= items:
                return
            at, rows, rest = item_of(call, item)
            part = parts + 16 * item * width
            for q in range(0, max(1, rows + (rest > 0)), block):
                count = min(block, rows - q)
                for f in range(0, width, len(lanes)):
                    numbers, left = _numbers(table, width, f, kind), width - f
                    i = (at + f) * size + q * step
                    a, b, c, d = nothing, nothing, nothing, nothing
                    for _ in range(count // 2):
                        value, other = get(x + i, left, kind), get(x + i + step, left, kind)
                        e = error(get(dy + i, left, kind), value, numbers, zero)
                        g = error(get(dy + i + step, left, kind), other, numbers, zero)
                        a, b = a + widen(e), b + widen(g)
                        c = fma(widen(e), widen(_normal(value, numbers)), c)
                        d = fma(widen(g), widen(_normal(other, numbers)), d)
                        i += 2 * step
                    if count % 2 == 1:
                        value = get(x + i, left, kind)
                        e = error(get(dy + i, left, kind), value, numbers, zero)
                        a = a + widen(e)
                        c = fma(widen(e), widen(_normal(value, numbers)), c)
                        i += step
                    a, c = a + b, c + d
                    add_to(part + 8 * f, left, a, q == 0, doubles)
                    add_to(part + 8 * (width + f), left, c, q == 0, doubles)
                    if rows - q < block and f < rest:
                        value = get(x + i, rest - f, kind)
                        e = error(get(dy + i, rest - f, kind), value, numbers, zero)
                        c = widen(e) * widen(_normal(value, numbers))
                        add_to(part + 8 * f, rest - f, widen(e), False, doubles)
                        add_to(part + 8 * (width + f), rest - f, c, False, doubles)
            if add_one(call, s.DONE) == items - 1:
                _finish_sums(call, kind)

    return loop


@inner
def _error(dy, x, numbers, zero):
    return dy


error_sums, error_sums_relu = summing(_error), summing(_masked)


@inner
def _finish_sums(call, kind):
    """Add the items' sums, then those of one channel; write gradients, and rows of the table."""
    width, C, size = word(call, s.CHANNELS_WIDTH), word(call, s.CHANNELS_C), len(kind[2])
    parts, lanes, doubles = word(call, s.CHANNELS_PARTS), kind[0], wide(kind)
    pixels = 0
    for item in range(word(call, s.CHANNELS_ITEMS)):
        _, rows, rest = item_of(call, item)
        pixels += (rows * width + rest) // C
        for f in range(0, 2 * width if item > 0 else 0, len(lanes)):
            value = get(parts + 8 * (2 * item * width + f), 2 * width - f, doubles)
            add_to(parts + 8 * f, 2 * width - f, value, False, doubles)
    for c in range(C):
        errors, products = 0.0, 0.0
        for j in range(c, width, C):
            errors += load_element(parts + 8 * j, 0.0)
            products += load_element(parts + 8 * (width + j), 0.0)
        put_number(word(call, s.CHANNELS_SUM_GRADS) + c * size, errors, kind)
        put_number(word(call, s.CHANNELS_PRODUCT_GRADS) + c * size, products, kind)
        scale = number(word(call, s.CHANNELS_SCALE) + c * size, kind)
        at = word(call, s.CHANNELS_TABLE) + (s.TABLE_INVERSE * width + c) * size
        _set(call, s.TABLE_FACTOR, c, scale * number(at, kind), kind)
        _set(call, s.TABLE_MEAN_DY, c, errors / pixels, kind)
        _set(call, s.TABLE_MEAN_DY_NORMAL, c, products / pixels, kind)
    _repeat(call, s.TABLE_FACTOR, s.TABLE_ROWS, kind)
