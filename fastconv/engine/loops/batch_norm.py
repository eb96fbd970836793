"""Loops of batch normalisation: passes over the elements, and the sums of their errors.

A call's table has a row for each number of a channel (``array_words.TABLE_MEAN``, ...), as wide as
a row of memory; `norm_statistics` writes its first rows, and the sums of errors the others.
"""

from __future__ import annotations

from typing import Any

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, load_element, word, words
from fastconv.engine.emit.vectors import choose, fma, spread, widen
from fastconv.engine.loops.channels import add_to, get, item_of, number, put, put_number, wide
from fastconv.engine.loops.norm_statistics import put_in_table, repeat_rows

__all__ = ["backward", "backward_relu", "error_sums", "error_sums_relu", "forward",
           "forward_relu", "frozen_backward", "frozen_backward_relu"]  # fmt: skip

# ------------------------------------------------------------------------------- elements


def each(function: Any) -> Any:
    """The loop ``result = function(a, b, numbers of the channel, 0)`` over all elements."""

    @inner
    def loop(call, thread, kind):
        a, b, result, table = words(call, aw.CHANNELS_A, 4)
        width, block, items = (
            word(call, aw.CHANNELS_WIDTH),
            word(call, aw.CHANNELS_BLOCK),
            word(call, aw.CHANNELS_ITEMS),
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
        dy, x, _, table, parts = words(call, aw.CHANNELS_A, 5)
        width, block, items = (
            word(call, aw.CHANNELS_WIDTH),
            word(call, aw.CHANNELS_BLOCK),
            word(call, aw.CHANNELS_ITEMS),
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
    width, C, size = word(call, aw.CHANNELS_WIDTH), word(call, aw.CHANNELS_C), len(kind[2])
    parts, lanes, doubles = word(call, aw.CHANNELS_PARTS), kind[0], wide(kind)
    pixels = 0
    for item in range(word(call, aw.CHANNELS_ITEMS)):
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
        put_number(word(call, aw.CHANNELS_SUM_GRADS) + c * size, errors, kind)
        put_number(word(call, aw.CHANNELS_PRODUCT_GRADS) + c * size, products, kind)
        scale = number(word(call, aw.CHANNELS_SCALE) + c * size, kind)
        at = word(call, aw.CHANNELS_TABLE) + (aw.TABLE_INVERSE * width + c) * size
        put_in_table(call, aw.TABLE_FACTOR, c, scale * number(at, kind), kind)
        put_in_table(call, aw.TABLE_MEAN_DY, c, errors / pixels, kind)
        put_in_table(call, aw.TABLE_MEAN_DY_NORMAL, c, products / pixels, kind)
    repeat_rows(call, aw.TABLE_FACTOR, aw.TABLE_ROWS, kind)
