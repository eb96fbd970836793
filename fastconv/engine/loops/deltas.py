"""Loop of the activation's mask."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.intrinsics import (
    add_one,
    load_element,
    store_element,
    word,
)

__all__ = ["relu_delta"]


@inner
def relu_delta(call, thread, zero):
    """``dx = dy`` where the activation was positive, exactly 0 elsewhere, block by block."""
    dy, y, dx = word(call, s.DELTA_DY), word(call, s.DELTA_Y), word(call, s.DELTA_RESULT)
    total, items, size = (
        word(call, s.DELTA_TOTAL),
        word(call, s.DELTA_ITEMS),
        word(call, s.DELTA_ELEMENT),
    )
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        for i in range(item * total // items * size, (item + 1) * total // items * size, size):
            error = load_element(dy + i, zero)  # read in any case: a choice, not a branch
            store_element(dx + i, error if load_element(y + i, zero) > zero else zero)
