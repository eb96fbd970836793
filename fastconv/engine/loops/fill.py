"""Loop that fills an array with one row."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, words, zero_bytes
from fastconv.engine.emit.vectors import choose, spread
from fastconv.engine.loops.channels import get, put

__all__ = ["fill_rows"]


@inner
def fill_rows(call, thread, kind):
    """``y[p, f] = b[f]``, or ``max(b[f], 0)``, or 0 where there is no b; an item is some rows."""
    y, b, rows, F, relu, items = words(call, aw.FILL_RESULT, 6)
    lanes, like, element = kind
    size, zero = len(element), spread(like, lanes)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        first, end = item * rows // items, (item + 1) * rows // items
        at = y + first * F * size
        if b == 0:
            zero_bytes(at, (end - first) * F * size)
            continue
        for _ in range(first, end):
            for f in range(0, F, len(lanes)):
                value = get(b + f * size, F - f, kind)
                if relu != 0:
                    value = choose(value <= zero, zero, value)
                put(at + f * size, F - f, value, kind)
            at += F * size
