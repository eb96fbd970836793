"""Boxes of pixels: which cells they read, and where these lie."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import store_word, word, words
from fastconv.engine.loops.gather import gather

__all__ = ["box_extent", "box_of", "lay_out", "open_box", "phase_extent", "source_steps"]


@inner
def box_of(table, item):
    """``(n, d, h, w)``: the first pixel of box `item`; w runs fastest."""
    _, blocks_d, blocks_h, blocks_w = words(table, s.BLOCKS, 4)
    n, d, h, w = words(table, s.BOX, 4)
    row = item // blocks_w
    layer = row // blocks_h
    return (layer // blocks_d * n, layer % blocks_d * d, row % blocks_h * h, item % blocks_w * w)


@inner
def box_extent(table, first, counts):
    """``(n, d, h, w)``: pixels of the box that starts at `first`; the axes end at `counts`."""
    n, d, h, w = words(table, s.BOX, 4)
    end_d, end_h, end_w = words(counts, 0, 3)
    return (
        min(n, word(table, s.M) - first[0]),
        min(d, end_d - first[1]),
        min(h, end_h - first[2]),
        min(w, end_w - first[3]),
    )


@inner
def phase_extent(phase, first, extent):
    """First pixel and extent of a phase's pixels in a box; an extent may be 0 or negative."""
    d, h, w = words(phase, s.PHASE_BEGIN, 3)
    end_d, end_h, end_w = words(phase, s.PHASE_END, 3)
    begin = (first[0], max(first[1], d), max(first[2], h), max(first[3], w))
    return begin, (
        extent[0],
        min(first[1] + extent[1], end_d) - begin[1],
        min(first[2] + extent[2], end_h) - begin[2],
        min(first[3] + extent[3], end_w) - begin[3],
    )


@inner
def lay_out(offsets, extent, steps, repeats):
    """Write the offsets of a box's pixels, then repeat the last; returns the pixels."""
    i = 0
    for n in range(extent[0]):
        for d in range(extent[1]):
            for h in range(extent[2]):
                at = n * steps[0] + d * steps[1] + h * steps[2]
                for w in range(extent[3]):
                    store_word(offsets, i + w, at + w * steps[3])
                i += extent[3]
    for r in range(repeats):
        store_word(offsets, i + r, word(offsets, i - 1))
    return i


@inner
def open_box(call, table, scratch, first, extent, channel):
    """Address of the box's source: where it lies, or gathered into scratch from a channel on."""
    view = call + 8 * s.SOURCE
    step_d, step_h, step_w = words(table, s.STEP, 3)
    low_d, low_h, low_w = words(table, s.LOW, 3)
    origin = (
        first[0],
        first[1] * step_d + low_d,
        first[2] * step_h + low_h,
        first[3] * step_w + low_w,
    )
    if word(table, s.IN_PLACE) != 0:
        # by the table's steps: those of axes of length 1 are arbitrary in the view
        n, d, h, w = words(table, s.PITCH, 4)
        return word(view, 0) + origin[0] * n + origin[1] * d + origin[2] * h + origin[3] * w
    reach_d, reach_h, reach_w = words(table, s.REACH, 3)
    region = (
        extent[0],
        (extent[1] - 1) * step_d + reach_d + 1,
        (extent[2] - 1) * step_h + reach_h + 1,
        (extent[3] - 1) * step_w + reach_w + 1,
    )
    to = scratch + word(table, s.AT_SOURCE)
    block = word(table, s.BLOCK)
    count = min(word(table, s.GATHERED), word(table, s.CHANNELS) - channel)
    gather(to, words(table, s.PITCH, 5), view, origin, region, words(table, s.SIZE, 3),
           words(table, s.COPIED, 3), (1, count, block, channel),
           word(table, s.BYTES))  # fmt: skip
    return to - channel // block * word(table, s.PITCH + 4)


@inner
def source_steps(table):
    """Bytes from one pixel of a box to the next, along n, d, h, w, in the left operand."""
    n, d, h, w = words(table, s.PITCH, 4)
    step_d, step_h, step_w = words(table, s.STEP, 3)
    return (n, d * step_d, h * step_h, w * step_w)
