"""Loops of the batched deltas: the activation's mask and the bias's sums."""

from __future__ import annotations

import numpy as np

from fastconv.engine import slots as s
from fastconv.engine.inner import inner
from fastconv.engine.primitives import add_one, load_element, store_element, word, zero_bytes

__all__ = ["bias_sums", "relu_delta"]


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


@inner
def bias_sums(call, thread, zero):
    """``sums[n, f]`` = sum over the pixels of ``dy[n, :, f]``, in float64, image by image."""
    dy, sums = word(call, s.DELTA_DY), word(call, s.DELTA_RESULT)
    pixels, F = word(call, s.DELTA_PIXELS), word(call, s.DELTA_F)
    size = word(call, s.DELTA_ELEMENT)
    while True:
        n = add_one(call, s.NEXT_ITEM)
        if n >= word(call, s.DELTA_TOTAL):
            return
        total = sums + n * F * 8
        zero_bytes(total, F * 8)
        for q in range(n * pixels, (n + 1) * pixels):
            at = dy + q * F * size
            for f in range(F):
                old = load_element(total + 8 * f, np.float64(0))
                store_element(total + 8 * f, old + load_element(at + f * size, zero))
