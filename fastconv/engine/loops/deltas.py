"""Loop of the activation's mask."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.intrinsics import mask_elements, plane_sums
from fastconv.engine.emit.memory import add_one, word, zero_bytes

__all__ = ["bias_plane_sums", "relu_delta"]

# Bytes of pixels that are summed together: they come from the first-level cache for each vector of
# channels but the first.
BLOCK = 16 * 1024
# Elements that are masked at once: several vectors of any host.
MASKED = 32


@inner
def relu_delta(call, thread, kind):
    """``dx = dy`` where the activation was positive, exactly 0 elsewhere, block by block.

    Parameters
    ----------
    call : int
        Address of the words of a call (`words.delta_words`), the same for all threads: the
        addresses of dy, y and dx, contiguous, of `total` elements.
    thread : int
        Number of this thread; nothing depends on it.
    kind : tuple
        As in `loops.channels`.
    """
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
        i, end = item * total // items * size, (item + 1) * total // items * size
        while i + MASKED * size <= end:
            mask_elements(dy + i, y + i, dx + i, MASKED, kind[1])
            i += MASKED * size
        while i < end:
            mask_elements(dy + i, y + i, dx + i, 1, kind[1])
            i += size


@inner
def bias_plane_sums(call, thread, kind):
    """`bias_sums` of ``dy (m, F, pixels)``, bit for bit: four channels at a time, of any images."""
    dy, sums = word(call, s.DELTA_DY), word(call, s.DELTA_RESULT)
    pixels, size = word(call, s.DELTA_PIXELS), word(call, s.DELTA_ELEMENT)
    total, items = word(call, s.DELTA_TOTAL), word(call, s.DELTA_ITEMS)
    block = max(4, BLOCK // (word(call, s.DELTA_F) * size))
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        p, end = item * total // items, (item + 1) * total // items
        zero_bytes(sums + p * 8, (end - p) * 8)
        while p < end:
            four = p + 4 <= end
            for q in range(0, pixels, block):
                at, count = dy + (p * pixels + q) * size, min(block, pixels - q)
                if four:
                    plane_sums(at, pixels * size, count, sums + 8 * p, 4, kind[1])
                else:
                    plane_sums(at, pixels * size, count, sums + 8 * p, 1, kind[1])
            p += 4 if four else 1
