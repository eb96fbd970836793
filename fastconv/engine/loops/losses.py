"""Loops of the losses: value, gradient and right predictions in one pass over the outputs.

A thread takes items until none is left: blocks of rows, or pieces of a long row. An item leaves
the sum of its losses, in float64, in a place of its own; the thread that ends the last one adds
them, in their order. So bits depend on the shape alone. A row's sum is one chain of float64 a lane.

A label is checked before anything is read by it or written for it.
"""

from __future__ import annotations

import math

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.emit.exponential import exp
from fastconv.engine.emit.memory import add_one, load_element, store_element, word
from fastconv.engine.emit.vectors import (
    choose,
    largest,
    load,
    load_first,
    narrow,
    spread,
    store,
    store_first,
    total,
    widen,
)
from fastconv.engine.loops.logarithm import log_of_1_plus

__all__ = ["binary_cross_entropy", "mean_squared_error", "softmax_cross_entropy"]

ONE_LANE = (0,)
RESULT_BYTES = 8 * aw.LOSS_RESULTS


# What the three share ------------------------------------------------------------------------


@inner
def ended(call, item, value, correct, bad):
    """Leave an item's results; the last to do so adds up those of all items."""
    items = word(call, aw.LOSS_ITEMS)
    _leave(word(call, aw.LOSS_PARTS) + item * RESULT_BYTES, value, correct, bad)
    if add_one(call, s.DONE) < items - 1:
        return
    parts, cuts = word(call, aw.LOSS_PARTS), word(call, aw.LOSS_CUTS)
    value, correct, bad = 0.0, 0.0, -1.0
    for first in range(0, items, cuts):
        right = 0.0
        for part in range(parts + first * RESULT_BYTES, parts + (first + cuts) * RESULT_BYTES,
                          RESULT_BYTES):  # fmt: skip
            value += load_element(part + 8 * aw.LOSS_VALUE, 0.0)
            right += load_element(part + 8 * aw.LOSS_CORRECT, 0.0)
            if bad < 0.0:
                bad = load_element(part + 8 * aw.LOSS_BAD, 0.0)
        # A row in pieces is right if all of them are.
        if cuts == 1:
            correct += right
        elif right == cuts:
            correct += 1.0
    value = value / word(call, aw.LOSS_COUNT) if bad < 0.0 else math.nan
    _leave(word(call, aw.LOSS_RESULT), value, correct, bad)


@inner
def _leave(to, value, correct, bad):
    store_element(to + 8 * aw.LOSS_VALUE, value)
    store_element(to + 8 * aw.LOSS_CORRECT, correct)
    store_element(to + 8 * aw.LOSS_BAD, bad)


@inner
def span(call, item):
    """First element of an item and their end, and the elements of one of its rows."""
    width, cuts = word(call, aw.LOSS_WIDTH), word(call, aw.LOSS_CUTS)
    if cuts == 1:
        block = word(call, aw.LOSS_BLOCK)
        rows = min(word(call, aw.LOSS_ROWS), (item + 1) * block) - item * block
        return item * block * width, (item * block + rows) * width, width
    row, piece = item // cuts, item % cuts
    first, end = piece * width // cuts, (piece + 1) * width // cuts
    return row * width + first, row * width + end, end - first


# Softmax cross-entropy -----------------------------------------------------------------------


@inner
def softmax_cross_entropy(call, thread, kind):
    """``loss = log(sum(exp(z - max))) - (z[label] - max)``; ``dz = (softmax(z) - onehot) / rows``.

    `kind` as in `loops.channels`.
    """
    classes, size = word(call, aw.LOSS_WIDTH), word(call, aw.LOSS_ELEMENT)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, aw.LOSS_ITEMS):
            return
        first, end, _ = span(call, item)
        value, correct, bad = 0.0, 0.0, -1.0
        for r in range(first // classes, end // classes):
            label = word(word(call, aw.LOSS_Y), r)
            if label < 0 or label >= classes:
                if bad < 0.0:
                    bad = float(r)
                continue
            z = word(call, aw.LOSS_Z) + r * classes * size
            dz = word(call, aw.LOSS_DZ) + r * classes * size
            loss, right = _softmax_row(z, dz, label, classes, size, word(call, aw.LOSS_COUNT), kind)
            value += loss
            correct += right
        ended(call, item, value, correct, bad)


@inner
def _softmax_row(z, dz, label, classes, size, count, kind):
    """The loss of a row, and 1.0 if its first largest element is that of its label."""
    lanes, like, _ = kind
    step, end = len(lanes) * size, classes * size
    whole = end - end % step
    left = (end - whole) // size
    low = narrow(spread(-math.inf, lanes), like)
    most = low
    for i in range(0, whole, step):
        v = load(z + i, lanes, like)
        most = choose(v > most, v, most)  # a NaN is never chosen
    if left > 0:
        v = load_first(z + whole, left, low)
        most = choose(v > most, v, most)
    top = largest(most)
    tops, sums = spread(top, lanes), spread(0.0, lanes)
    for i in range(0, whole, step):
        e = exp(load(z + i, lanes, like) - tops)
        store(dz + i, e)
        sums = sums + widen(e)
    if left > 0:
        e = exp(load_first(z + whole, left, low) - tops)  # 0 behind the row
        store_first(dz + whole, left, e)
        sums = sums + widen(e)
    exponentials = total(sums)
    divisor = exponentials * count
    # In float64, where softmax - 1 loses nothing.
    at_label = (load_element(dz + label * size, like) - exponentials) / divisor
    scale = narrow(spread(1.0 / divisor, lanes), like)
    for i in range(0, whole, step):
        store(dz + i, load(dz + i, lanes, like) * scale)
    if left > 0:
        store_first(dz + whole, left, load_first(dz + whole, left, low) * scale)
    store(dz + label * size, narrow(spread(at_label, ONE_LANE), like))
    of_label = load_element(z + label * size, like)
    if exponentials == exponentials:
        right = of_label == top and _place_of(z, label, size, top) == label
    else:
        right = _argmax(z, classes, size, like) == label
    return math.log(exponentials) - (of_label - top), 1.0 if right else 0.0


@inner
def _place_of(z, end, size, value):
    """The first of `end` elements that is `value`, or `end`."""
    for i in range(end):
        if load_element(z + i * size, value) == value:
            return i
    return end


@inner
def _argmax(z, count, size, like):
    """NumPy's: the first NaN, or the first largest element."""
    best = 0
    for i in range(count):
        v, most = load_element(z + i * size, like), load_element(z + best * size, like)
        if v != v:
            return i
        if v > most:
            best = i
    return best


# Binary cross-entropy ------------------------------------------------------------------------


@inner
def binary_cross_entropy(call, thread, kind):
    """``loss = max(z, 0) - z y + log(1 + exp(-|z|))``; ``dz = (sigmoid(z) - y) / elements``.

    `kind` as in `loops.channels`.
    """
    lanes, like, _ = kind
    size = word(call, aw.LOSS_ELEMENT)
    step = len(lanes) * size
    zero, one = narrow(spread(0.0, lanes), like), narrow(spread(1.0, lanes), like)
    far = narrow(spread(1000.0, lanes), like)
    count = narrow(spread(float(word(call, aw.LOSS_COUNT)), lanes), like)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, aw.LOSS_ITEMS):
            return
        first, end, width = span(call, item)
        z, y, dz = (
            word(call, aw.LOSS_Z) + first * size,
            word(call, aw.LOSS_Y) + first * size,
            word(call, aw.LOSS_DZ) + first * size,
        )
        total_bytes = (end - first) * size
        whole = total_bytes - total_bytes % step
        left = (total_bytes - whole) // size
        correct = _right_rows(z, y, total_bytes, width * size, size, kind)
        bad = _first_bad(y, total_bytes, first, size, kind)
        losses = spread(0.0, lanes)
        for i in range(0, whole, step):
            u, t = load(z + i, lanes, like), load(y + i, lanes, like)
            small = exp(_negative(u, zero))
            losses = losses + _binary_loss(u, t, small, lanes)
            store(dz + i, (_sigmoid(u, small, zero, one) - t) / count)
        if left > 0:  # far beyond, with the label 1, the loss is 0
            u, t = load_first(z + whole, left, far), load_first(y + whole, left, one)
            small = exp(_negative(u, zero))
            losses = losses + _binary_loss(u, t, small, lanes)
            store_first(dz + whole, left, (_sigmoid(u, small, zero, one) - t) / count)
        ended(call, item, total(losses), correct, bad)


@inner
def _negative(u, zero):
    """``-|u|``; NaN stays."""
    return choose(u > zero, zero - u, u)


@inner
def _sigmoid(u, small, zero, one):
    """``1 / (1 + exp(-u))`` by ``small = exp(-|u|)``."""
    return choose(u >= zero, one, small) / (one + small)


@inner
def _binary_loss(u, t, small, lanes):
    u, t = widen(u), widen(t)
    zero = spread(0.0, lanes)
    return choose(u > zero, u, zero) - u * t + log_of_1_plus(widen(small), lanes)


@inner
def _right_rows(z, y, total_bytes, row_bytes, size, kind):
    """How many rows have all outputs on their label's side of one half."""
    if row_bytes == size:  # rows of one: a vector has as many as lanes
        return float(total_bytes // size) - _wrong(z, y, total_bytes, size, kind)
    right = 0.0
    for row in range(0, total_bytes, row_bytes):
        right += 1.0 if _wrong(z + row, y + row, row_bytes, size, kind) == 0.0 else 0.0
    return right


@inner
def _wrong(z, y, total_bytes, size, kind):
    """How many outputs are not on their label's side of one half."""
    lanes, like, _ = kind
    zero, half = narrow(spread(0.0, lanes), like), narrow(spread(0.5, lanes), like)
    one = half + half
    wrong = spread(0.0, lanes)
    for i in range(0, total_bytes, len(lanes) * size):
        left = (total_bytes - i) // size
        u, t = load_first(z + i, left, zero), load_first(y + i, left, zero)
        wrong = wrong + widen(
            choose(choose(u > zero, one, zero) != choose(t > half, one, zero), one, zero)
        )
    return total(wrong)


@inner
def _first_bad(y, total_bytes, first, size, kind):
    """The first element, counted from `first` on, that is not a label in 0 .. 1; -1 if none."""
    lanes, like, _ = kind
    step = len(lanes) * size
    zero = narrow(spread(0.0, lanes), like)
    one = narrow(spread(1.0, lanes), like)
    fine = one
    for i in range(0, total_bytes, step):
        t = load_first(y + i, (total_bytes - i) // size, zero)
        fine = choose(t >= zero, fine, zero)
        fine = choose(t <= one, fine, zero)
    if total(fine) == len(lanes):
        return -1.0
    for i in range(total_bytes // size):
        t = load_element(y + i * size, like)
        if not 0.0 <= t <= 1.0:
            return float(first + i)
    return -1.0


# Mean squared error --------------------------------------------------------------------------


@inner
def mean_squared_error(call, thread, kind):
    """``loss = (z - y)**2``; ``dz = (z - y) * (2 / elements)``.

    `kind` as in `loops.channels`.
    """
    lanes, like, _ = kind
    size = word(call, aw.LOSS_ELEMENT)
    step = len(lanes) * size
    zero = narrow(spread(0.0, lanes), like)
    scale = narrow(spread(2.0 / word(call, aw.LOSS_COUNT), lanes), like)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, aw.LOSS_ITEMS):
            return
        first, end, _ = span(call, item)
        z, y, dz = (
            word(call, aw.LOSS_Z) + first * size,
            word(call, aw.LOSS_Y) + first * size,
            word(call, aw.LOSS_DZ) + first * size,
        )
        total_bytes = (end - first) * size
        whole = total_bytes - total_bytes % step
        left = (total_bytes - whole) // size
        losses = spread(0.0, lanes)
        for i in range(0, whole, step):
            error = load(z + i, lanes, like) - load(y + i, lanes, like)
            losses = losses + widen(error * error)
            store(dz + i, error * scale)
        if left > 0:
            error = load_first(z + whole, left, zero) - load_first(y + whole, left, zero)
            losses = losses + widen(error * error)
            store_first(dz + whole, left, error * scale)
        ended(call, item, total(losses), 0.0, -1.0)
