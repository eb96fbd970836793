"""Loop of the bias's gradient: sums of all pixels' errors, in float64."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, load_element, word
from fastconv.engine.emit.vectors import widen
from fastconv.engine.loops.channels import add_to, column_sums, get, item_of, put_number, wide

__all__ = ["bias_grad"]


@inner
def bias_grad(call, thread, kind):
    """``db[f]`` = sum of ``dy[..., f]``: by items, then over the items by who finishes last.

    With the address 0 in place of db's the items' sums are all.
    """
    dy, parts = word(call, s.CHANNELS_A), word(call, s.CHANNELS_PARTS)
    width, block, items = (
        word(call, s.CHANNELS_WIDTH),
        word(call, s.CHANNELS_BLOCK),
        word(call, s.CHANNELS_ITEMS),
    )
    lanes, size, doubles = kind[0], len(kind[2]), wide(kind)
    step = width * size
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        at, rows, rest = item_of(call, item)
        part = parts + 8 * item * width
        for q in range(0, max(1, rows), block):
            for f in range(0, width, len(lanes)):
                i, left = dy + (at + f) * size + q * step, width - f
                total = column_sums(i, step, min(block, rows - q), left, kind)
                add_to(part + 8 * f, left, total, q == 0, doubles)
        for f in range(0, rest, len(lanes)):
            value = widen(get(dy + (at + f) * size + rows * step, rest - f, kind))
            add_to(part + 8 * f, rest - f, value, False, doubles)
        if add_one(call, s.DONE) == items - 1 and word(call, s.CHANNELS_GRADS) != 0:
            _finish(call, kind)


@inner
def _finish(call, kind):
    """Add the items' sums, then those of the columns of one channel."""
    width, C = word(call, s.CHANNELS_WIDTH), word(call, s.CHANNELS_C)
    parts, doubles = word(call, s.CHANNELS_PARTS), wide(kind)
    for item in range(1, word(call, s.CHANNELS_ITEMS)):
        for f in range(0, width, len(kind[0])):
            value = get(parts + 8 * (item * width + f), width - f, doubles)
            add_to(parts + 8 * f, width - f, value, False, doubles)
    for c in range(C):
        total = 0.0
        for j in range(c, width, C):
            total += load_element(parts + 8 * j, 0.0)
        put_number(word(call, s.CHANNELS_GRADS) + c * len(kind[2]), total, kind)
