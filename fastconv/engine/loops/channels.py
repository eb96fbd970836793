"""What loops over the channels of many pixels share: how memory is cut, and vectors at its ends.

Memory is rows of WIDTH elements. WIDTH is C, or where C is small a multiple of it, so that a row of
some pixels is whole vectors (see `engine.channels`); what follows the rows is a rest of fewer
elements. Cuts depend on the shape alone.

An item is a run of rows; the rest belongs to the last. Its rows are taken a block at a time, and
within a block a vector of columns after another: their numbers stay in registers, and the block in
the first-level cache.

The `kind` of a loop is a vector register of zeros, a zero, and as many zeros as it has bytes: its
type says for what the loop is compiled.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine.emit.memory import load_element, word
from fastconv.engine.emit.vectors import (
    load,
    load_first,
    narrow,
    spread,
    store,
    store_first,
    widen,
)

__all__ = ["add_to", "column_sums", "get", "item_of", "number", "put", "put_number", "wide"]

EIGHT = (0,) * 8


@inner
def item_of(call, item):
    """Where an item begins, in elements; its rows; elements of the rest behind them."""
    rows, items = word(call, aw.CHANNELS_ROWS), word(call, aw.CHANNELS_ITEMS)
    first, end = item * rows // items, (item + 1) * rows // items
    rest = word(call, aw.CHANNELS_REST) if item == items - 1 else 0
    return first * word(call, aw.CHANNELS_WIDTH), end - first, rest


@inner
def wide(kind):
    """The kind of as many doubles: lanes, an element, a tuple as long as it has bytes."""
    return kind[0], 0.0, EIGHT


@inner
def get(at, left, kind):
    """The vector at an address where `left` elements are left."""
    lanes, like, _ = kind
    if left >= len(lanes):
        return load(at, lanes, like)
    return load_first(at, left, spread(like, lanes))


@inner
def put(to, left, value, kind):
    """Write a vector to an address where `left` elements are left."""
    if left >= len(kind[0]):
        store(to, value)
    else:
        store_first(to, left, value)


@inner
def add_to(to, left, value, first, kind):
    """Add a vector to that at an address, or with `first` write it there."""
    if not first:
        value = get(to, left, kind) + value
    put(to, left, value, kind)


@inner
def number(at, kind):
    """The element at an address, as a double."""
    return float(load_element(at, kind[1]))


@inner
def put_number(to, value, kind):
    """Write a double to an address, rounded to an element."""
    store(to, narrow(spread(value, (0,)), kind[1]))


@inner
def column_sums(at, step, rows, left, kind):
    """Sums in float64 of a vector of columns: rows i, i + 4, ... are a chain of additions.

    So four hide each other's latency. Rows that are left go to the first.
    """
    a = spread(0.0, kind[0])
    b, c, d = a, a, a
    i = 0
    while i + 4 <= rows:
        a = a + widen(get(at, left, kind))
        b = b + widen(get(at + step, left, kind))
        c = c + widen(get(at + 2 * step, left, kind))
        d = d + widen(get(at + 3 * step, left, kind))
        at += 4 * step
        i += 4
    while i < rows:
        a = a + widen(get(at, left, kind))
        at += step
        i += 1
    return (a + b) + (c + d)
