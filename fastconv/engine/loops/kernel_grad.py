"""Control over tiles: the loop of the kernel gradient.

    kernel gradient  cols.T @ dy      rows: taps x channels   reduction: output pixels

The offsets of pixels and of (tap, channel) are those of `loops.conv`, with their parts exchanged.
"""

from __future__ import annotations

import numpy as np

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import (
    add_elements,
    add_one,
    call_sweep,
    store_word,
    store_words,
    word,
    words,
    zero_bytes,
)
from fastconv.engine.loops.boxes import (
    box_extent,
    box_of,
    lay_out,
    open_box,
    phase_extent,
    source_steps,
)
from fastconv.engine.loops.gather import copy_short, gather

__all__ = ["kernel_gradient"]


@inner
def kernel_gradient(call, thread):
    """``dw = cols.T @ dy``, part by part; the last thread to finish adds the parts in order.

    A part is a range of boxes, a range of columns and one of rows; their number depends on the
    shape alone.

    Parameters
    ----------
    call : int
        Address of the words of a call (`words.call_words`), the same for all threads: the views of
        x ``(m, D, H, W, C)``, as the source, and dy ``(m, OD, OH, OW, F)``, as the target, the
        address of the result ``(KD, KH, KW, C/G, F)``, contiguous, and that of the first part.
    thread : int
        Number of this thread: which part of the scratch is its own.
    """
    table = word(call, s.TABLE)
    scratch = word(call, s.SCRATCH) + thread * word(table, s.SCRATCH_BYTES)
    parts, items = word(table, s.PARTS), word(table, s.ITEMS)
    total = parts * word(table, s.COLUMN_GROUPS) * word(table, s.ROW_GROUPS)
    laid = (0, 0, 0, 0)
    while True:
        unit = add_one(call, s.NEXT_ITEM)
        if unit >= total:
            return
        part, block = unit % parts, unit // parts
        panel = block % word(table, s.COLUMN_GROUPS) * word(table, s.GROUP_PANELS)
        row = block // word(table, s.COLUMN_GROUPS) * word(table, s.GROUP_ROWS)
        into = word(call, s.PARTIAL) + part * word(table, s.PART_BYTES)
        begin = part * items // parts
        zeroed = word(table, s.ZERO_FIRST) != 0
        if zeroed:
            zero_bytes(into, word(table, s.PART_BYTES))
        for item in range(begin, (part + 1) * items // parts):
            more = zeroed or item > begin
            laid = _gradient_box(call, table, scratch, item, into, panel, row, more, laid)
        if parts > 1 and add_one(call, s.DONE) == total - 1:
            _add_parts(call, table)


@inner
def _gradient_box(call, table, scratch, item, into, panel0, row, more, laid):
    """What the pixels of one box add to a part; the extent of the pixels that are laid out."""
    first = box_of(table, item)
    extent = box_extent(table, first, table + 8 * s.COUNT)
    channel = row // word(table, s.GROUP_ROWS) * word(table, s.GATHERED)
    base = open_box(call, table, scratch, first, extent, channel)
    for i in range(word(table, s.PHASES)):
        phase = word(table, s.PHASE_TABLE) + i * 8 * s.PHASE_WORDS
        begin, part = phase_extent(phase, first, extent)
        if part[1] > 0 and part[2] > 0 and part[3] > 0:
            _, step_d, step_h, step_w = source_steps(table)
            a = base + (begin[1] - first[1]) * step_d + (begin[2] - first[2]) * step_h
            a += (begin[3] - first[3]) * step_w
            if part != laid or word(table, s.PHASES) > 1:
                rows = scratch + word(table, s.AT_ROWS)
                lay_out(rows, part, source_steps(table), 0)
            laid = part
            _gradient_phase(call, table, phase, scratch, a, begin, part, into, panel0, row, more)
    return laid


@inner
def _gradient_phase(call, table, phase, scratch, base, first, extent, into, panel0, row, more):
    """What the pixels of one phase of a box add to the rows of its taps."""
    rows = scratch + word(table, s.AT_ROWS)
    pixels = extent[0] * extent[1] * extent[2] * extent[3]
    dy, dy_step, dy_panel = _open_dy(call, table, scratch, first, extent, pixels, panel0)
    task = scratch + word(table, s.AT_TASK)
    store_word(task, s.TASK_ROWS, min(word(table, s.GROUP_ROWS), word(phase, s.PHASE_K) - row))
    store_word(task, s.TASK_LEFT + 1, word(phase, s.PHASE_OFFSETS) + 8 * row)
    store_word(task, s.TASK_RIGHT + 1, dy_step)
    store_word(task, s.TASK_WIDE, 0)
    store_word(task, s.TASK_RESULT + 1, word(phase, s.PHASE_ROWS) + 8 * row)
    store_words(task, s.TASK_ENDING, (word(call, s.PRIOR), np.int64(more), 0))
    size, nr = word(table, s.BYTES), word(table, s.TILE_COLUMNS)
    panels, columns = word(table, s.PANELS), word(table, s.COLUMNS)
    last_panel = min(panels, panel0 + word(table, s.GROUP_PANELS))
    longest = word(table, s.REDUCTION)
    step = (pixels + longest - 1) // longest
    step = (pixels + step - 1) // step
    for begin in range(0, pixels, step):
        store_word(task, s.TASK_K, min(step, pixels - begin))
        store_word(task, s.TASK_LEFT + 2, rows + 8 * begin)
        for g in range(word(table, s.GROUPS)):
            for panel in range(panel0, last_panel):
                a = base + g * word(table, s.A_GROUP) + panel * word(table, s.A_PANEL)
                store_word(task, s.TASK_LEFT, a)
                b = dy + begin * dy_step + (g * panels + panel - panel0) * dy_panel
                store_word(task, s.TASK_RIGHT, b)
                cols = nr if word(table, s.PARTS) > 1 else min(nr, columns - panel * nr)
                store_word(task, s.TASK_RESULT, into + g * word(table, s.PART_GROUP)
                           + panel * nr * size)  # fmt: skip
                store_word(task, s.TASK_RESULT + 2, cols)
                call_sweep(word(call, s.SWEEP), task)
        store_word(task, s.TASK_ENDING + 1, 1)


@inner
def _open_dy(call, table, scratch, first, extent, pixels, panel0):
    """Address of the box's dy from a panel on, its steps from pixel to pixel and panel to panel."""
    view = call + 8 * s.TARGET
    size, nr = word(table, s.BYTES), word(table, s.TILE_COLUMNS)
    columns, groups = word(table, s.COLUMNS), word(table, s.GROUPS)
    if word(table, s.DY_IN_PLACE) != 0:
        base, sn, sd, sh, sw = words(view, 0, 5)
        at = base + first[0] * sn + first[1] * sd + first[2] * sh + first[3] * sw
        step = groups * columns * size
        end = (
            at + (pixels - 1) * step + ((groups - 1) * columns + word(table, s.PANELS) * nr) * size
        )
        if end <= base + word(table, s.DY_BYTES):
            return at + panel0 * nr * size, step, nr * size
    dy = scratch + word(table, s.AT_DY)
    step = nr * size
    line = extent[3] * step
    steps = (extent[1] * extent[2] * line, extent[2] * line, line, step, pixels * step)
    skipped = panel0 * nr  # 0 where there are groups
    wanted = min(columns - skipped, word(table, s.GROUP_PANELS) * nr)
    channels = (groups, wanted, nr, skipped)
    none = np.int64(0)  # no box of dy leaves it
    gather(dy, steps, view, first, extent, words(table, s.COUNT, 3), (none, none, none), channels,
           size)  # fmt: skip
    return dy, step, pixels * step


@inner
def _add_parts(call, table):
    """``dw[k, f]``: the sum of the parts in their order."""
    size = word(table, s.BYTES)
    columns, groups = word(table, s.COLUMNS), word(table, s.GROUPS)
    nbytes = columns * size
    for k in range(word(table, s.K)):
        for g in range(groups):
            at = word(call, s.PARTIAL) + g * word(table, s.PART_GROUP)
            at += word(word(table, s.RESULT_ROWS), k)
            to = word(call, s.RESULT) + (k * groups + g) * nbytes
            copy_short(to, at, nbytes)
            for _ in range(1, word(table, s.PARTS)):
                at += word(table, s.PART_BYTES)
                if size == 4:
                    whole = nbytes // 32 * 32
                    for f in range(0, whole, 32):
                        add_elements(to + f, at + f, 8, np.float32(0))
                    for f in range(whole, nbytes, 4):
                        add_elements(to + f, at + f, 1, np.float32(0))
                else:
                    for f in range(0, nbytes, 8):
                        add_elements(to + f, at + f, 1, np.float64(0))
