"""Control over tiles: the loops of the three products, around the micro-kernel.

    forward          cols @ w         rows: output pixels   reduction: taps x channels
    input gradient   the same, once for each phase of the stride, with flipped taps
    kernel gradient  cols.T @ dy      rows: taps x channels   reduction: output pixels

The im2col matrix is never written down: with ``rows`` the pixels' offsets and ``taps`` the offsets
of (tap, channel), its element is at ``base + rows[pixel] + taps[k]``. The kernel gradient swaps
the two vectors. Depthwise products differ in the tile only.

A thread takes boxes of output pixels until none is left. It decides which results it computes and
never the order of a sum, so the results do not depend on threads or boxes.
"""

from __future__ import annotations

import numpy as np

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.intrinsics import (
    add_elements,
    add_one,
    call_sweep,
    product,
    store_word,
    store_words,
    word,
    words,
    zero_bytes,
)  # fmt: skip
from fastconv.engine.loops.gather import copy_run, gather, scatter
from fastconv.engine.loops.pack import pack
from fastconv.engine.tables.tiles import PAIR

__all__ = ["convolve", "kernel_gradient", "sweep"]


@inner
def sweep(task, tile):
    """Tiles along all rows of one panel; the only function that knows the tile."""
    rows, k = words(task, s.TASK_ROWS, 2)
    a, row, red = words(task, s.TASK_LEFT, 3)
    right = words(task, s.TASK_RIGHT, 2)
    c, c_row, cols = words(task, s.TASK_RESULT, 3)
    ending, wide = words(task, s.TASK_ENDING, 3), word(task, s.TASK_WIDE)
    nr = len(tile[3]) if len(tile[4]) == PAIR else len(tile[2]) * len(tile[3])
    i = 0
    while i + len(tile[0]) <= rows:
        stored = nr if i + len(tile[0]) <= wide else cols
        product(tile, 0, k, (a, row + 8 * i, red), right, (c, c_row + 8 * i, stored), ending)
        i += len(tile[0])
    while i < rows:
        product(tile, 1, k, (a, row + 8 * i, red), right, (c, c_row + 8 * i, cols), ending)
        i += len(tile[1])


@inner
def box_of(plan, item):
    """``(n, d, h, w)``: the first pixel of box `item`; w runs fastest."""
    _, blocks_d, blocks_h, blocks_w = words(plan, s.BLOCKS, 4)
    n, d, h, w = words(plan, s.BOX, 4)
    row = item // blocks_w
    layer = row // blocks_h
    return (layer // blocks_d * n, layer % blocks_d * d, row % blocks_h * h, item % blocks_w * w)


@inner
def box_extent(plan, first, counts):
    """``(n, d, h, w)``: pixels of the box that starts at `first`; the axes end at `counts`."""
    n, d, h, w = words(plan, s.BOX, 4)
    end_d, end_h, end_w = words(counts, 0, 3)
    return (
        min(n, word(plan, s.M) - first[0]),
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
def lay_out(table, extent, steps, repeats):
    """Write the offsets of a box's pixels, then repeat the last; returns the pixels."""
    i = 0
    for n in range(extent[0]):
        for d in range(extent[1]):
            for h in range(extent[2]):
                at = n * steps[0] + d * steps[1] + h * steps[2]
                for w in range(extent[3]):
                    store_word(table, i + w, at + w * steps[3])
                i += extent[3]
    for r in range(repeats):
        store_word(table, i + r, word(table, i - 1))
    return i


@inner
def open_box(call, plan, scratch, first, extent, channel):
    """Address of the box's source: where it lies, or gathered into scratch from a channel on."""
    view = call + 8 * s.SOURCE
    step_d, step_h, step_w = words(plan, s.STEP, 3)
    low_d, low_h, low_w = words(plan, s.LOW, 3)
    origin = (
        first[0],
        first[1] * step_d + low_d,
        first[2] * step_h + low_h,
        first[3] * step_w + low_w,
    )
    if word(plan, s.IN_PLACE) != 0:
        # by the plan's steps: those of axes of length 1 are arbitrary in the view
        n, d, h, w = words(plan, s.PITCH, 4)
        return word(view, 0) + origin[0] * n + origin[1] * d + origin[2] * h + origin[3] * w
    reach_d, reach_h, reach_w = words(plan, s.REACH, 3)
    region = (
        extent[0],
        (extent[1] - 1) * step_d + reach_d + 1,
        (extent[2] - 1) * step_h + reach_h + 1,
        (extent[3] - 1) * step_w + reach_w + 1,
    )
    to = scratch + word(plan, s.AT_SOURCE)
    block = word(plan, s.BLOCK)
    count = min(word(plan, s.GATHERED), word(plan, s.CHANNELS) - channel)
    gather(to, words(plan, s.PITCH, 5), view, origin, region, words(plan, s.SIZE, 3),
           (1, count, block, channel), word(plan, s.BYTES))  # fmt: skip
    return to - channel // block * word(plan, s.PITCH + 4)


@inner
def source_steps(plan):
    """Bytes from one pixel of a box to the next, along n, d, h, w, in the left operand."""
    n, d, h, w = words(plan, s.PITCH, 4)
    step_d, step_h, step_w = words(plan, s.STEP, 3)
    return (n, d * step_d, h * step_h, w * step_w)


# ----------------------------------------------------------------------- forward, input gradient


@inner
def convolve(call, thread):
    """Every box of a forward product or an input gradient: ``y = max(cols @ w + b, low)``."""
    plan = word(call, s.PLAN)
    scratch = word(call, s.SCRATCH) + thread * word(plan, s.SCRATCH_BYTES)
    pack(call, plan)
    laid = (0, 0, 0, 0)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(plan, s.ITEMS):
            return
        first = box_of(plan, item)
        extent = box_extent(plan, first, plan + 8 * s.COUNT)
        base = open_box(call, plan, scratch, first, extent, 0)
        for i in range(word(plan, s.PHASES)):
            phase = word(plan, s.PHASE_TABLE) + i * 8 * s.PHASE_WORDS
            begin, part = phase_extent(phase, first, extent)
            if part[1] > 0 and part[2] > 0 and part[3] > 0:
                again = part == laid and word(plan, s.PHASES) == 1
                _phase(call, plan, phase, scratch, base, first, begin, part, again)
                laid = part


@inner
def _phase(call, plan, phase, scratch, base, box, first, extent, again):
    """The pixels of one phase of a box, and where they go; `again`: laid out as the last box."""
    repeats = word(plan, s.TILE_ROWS)
    rows, targets = scratch + word(plan, s.AT_ROWS), scratch + word(plan, s.AT_TARGETS)
    steps = source_steps(plan)
    base += (first[1] - box[1]) * steps[1] + (first[2] - box[2]) * steps[2]
    base += (first[3] - box[3]) * steps[3]
    pixels = extent[0] * extent[1] * extent[2] * extent[3]
    if not again:
        lay_out(rows, extent, steps, repeats)
    view = call + 8 * s.TARGET
    at, sn, sd, sh, sw = words(view, 0, 5)
    jump_d, jump_h, jump_w = words(plan, s.OUT_STEP, 3)
    start_d, start_h, start_w = words(phase, s.PHASE_START, 3)
    at += first[0] * sn + (start_d + first[1] * jump_d) * sd
    at += (start_h + first[2] * jump_h) * sh + (start_w + first[3] * jump_w) * sw
    steps = (sn, sd * jump_d, sh * jump_h, sw * jump_w)
    task = scratch + word(plan, s.AT_TASK)
    store_word(task, s.TASK_ROWS, pixels)
    store_word(task, s.TASK_LEFT + 1, rows)
    store_word(task, s.TASK_RESULT + 1, targets)
    spill = word(plan, s.SPILL)
    wide = pixels - spill if spill != 0 and word(call, s.IN_LINE) != 0 else 0
    store_word(task, s.TASK_WIDE, wide)
    direct = word(call, s.DIRECT) != 0
    result, size = at, word(plan, s.BYTES)
    channels = word(plan, s.COLUMNS) * word(plan, s.GROUPS)
    if not direct:
        result = scratch + word(plan, s.AT_RESULT)
        line = channels * size
        w = extent[3] * line
        steps_of_scratch = (extent[1] * extent[2] * w, extent[2] * w, w, line)
    else:
        steps_of_scratch = steps
    if not (again and direct):
        lay_out(targets, extent, steps_of_scratch, repeats)
    _panels(call, plan, phase, base, result, task)
    if not direct:
        lay_out(targets, extent, steps, 0)
        stored = word(phase, s.PHASE_COLUMNS) * word(plan, s.GROUPS)
        scatter(view, at, targets, pixels, result, stored, channels * size, size)


@inner
def _panels(call, plan, phase, base, c, task):
    """``[pixels x K] @ [K x columns]``, a panel of NR columns and a block of K at a time."""
    size, nr, line = word(plan, s.BYTES), word(plan, s.TILE_COLUMNS), word(plan, s.LINE)
    taps = word(phase, s.PHASE_OFFSETS)
    panels, columns = word(plan, s.PANELS), word(plan, s.COLUMNS)
    stored = word(phase, s.PHASE_COLUMNS)
    blocks, cuts = words(phase, s.PHASE_BLOCKS, 2)
    first, panel_bytes = words(phase, s.PHASE_PACKED, 2)
    for panel in range(panels * word(plan, s.GROUPS)):
        g, column = panel // panels, panel % panels * nr
        a = base + g * word(plan, s.A_GROUP) + panel % panels * word(plan, s.A_PANEL)
        packed = word(call, s.PACKED) + first + panel * panel_bytes
        store_word(task, s.TASK_LEFT, a)
        store_word(task, s.TASK_RESULT, c + (g * columns + column) * size)
        store_word(task, s.TASK_RESULT + 2, min(nr, stored - column))
        store_word(task, s.TASK_ENDING, word(call, s.PRIOR) + panel * nr * size)
        for block in range(blocks):
            k0, k1 = words(cuts, block, 2)
            store_word(task, s.TASK_K, k1 - k0)
            store_word(task, s.TASK_LEFT + 2, taps + 8 * k0)
            store_words(task, s.TASK_RIGHT, (packed + k0 * line, line))
            relu = word(call, s.RELU) if block == blocks - 1 else 0
            store_words(task, s.TASK_ENDING + 1, (block, relu))
            call_sweep(word(call, s.SWEEP), task)


# ----------------------------------------------------------------------- kernel gradient


@inner
def kernel_gradient(call, thread):
    """``dw = cols.T @ dy``, part by part; the last thread to finish adds the parts in order.

    A part is a range of boxes, a range of columns and one of rows; their number depends on the
    shape alone.
    """
    plan = word(call, s.PLAN)
    scratch = word(call, s.SCRATCH) + thread * word(plan, s.SCRATCH_BYTES)
    parts, items = word(plan, s.PARTS), word(plan, s.ITEMS)
    total = parts * word(plan, s.COLUMN_GROUPS) * word(plan, s.ROW_GROUPS)
    laid = (0, 0, 0, 0)
    while True:
        unit = add_one(call, s.NEXT_ITEM)
        if unit >= total:
            return
        part, block = unit % parts, unit // parts
        panel = block % word(plan, s.COLUMN_GROUPS) * word(plan, s.GROUP_PANELS)
        row = block // word(plan, s.COLUMN_GROUPS) * word(plan, s.GROUP_ROWS)
        into = word(call, s.PARTIAL) + part * word(plan, s.PART_BYTES)
        begin = part * items // parts
        zeroed = word(plan, s.ZERO_FIRST) != 0
        if zeroed:
            zero_bytes(into, word(plan, s.PART_BYTES))
        for item in range(begin, (part + 1) * items // parts):
            more = zeroed or item > begin
            laid = _gradient_box(call, plan, scratch, item, into, panel, row, more, laid)
        if parts > 1 and add_one(call, s.DONE) == total - 1:
            _add_parts(call, plan)


@inner
def _gradient_box(call, plan, scratch, item, into, panel0, row, more, laid):
    """What the pixels of one box add to a part; the extent of the pixels that are laid out."""
    first = box_of(plan, item)
    extent = box_extent(plan, first, plan + 8 * s.COUNT)
    channel = row // word(plan, s.GROUP_ROWS) * word(plan, s.GATHERED)
    base = open_box(call, plan, scratch, first, extent, channel)
    for i in range(word(plan, s.PHASES)):
        phase = word(plan, s.PHASE_TABLE) + i * 8 * s.PHASE_WORDS
        begin, part = phase_extent(phase, first, extent)
        if part[1] > 0 and part[2] > 0 and part[3] > 0:
            _, step_d, step_h, step_w = source_steps(plan)
            a = base + (begin[1] - first[1]) * step_d + (begin[2] - first[2]) * step_h
            a += (begin[3] - first[3]) * step_w
            if part != laid or word(plan, s.PHASES) > 1:
                rows = scratch + word(plan, s.AT_ROWS)
                lay_out(rows, part, source_steps(plan), 0)
            laid = part
            _gradient_phase(call, plan, phase, scratch, a, begin, part, into, panel0, row, more)
    return laid


@inner
def _gradient_phase(call, plan, phase, scratch, base, first, extent, into, panel0, row, more):
    """What the pixels of one phase of a box add to the rows of its taps."""
    rows = scratch + word(plan, s.AT_ROWS)
    pixels = extent[0] * extent[1] * extent[2] * extent[3]
    dy, dy_step, dy_panel = _open_dy(call, plan, scratch, first, extent, pixels, panel0)
    task = scratch + word(plan, s.AT_TASK)
    store_word(task, s.TASK_ROWS, min(word(plan, s.GROUP_ROWS), word(phase, s.PHASE_K) - row))
    store_word(task, s.TASK_LEFT + 1, word(phase, s.PHASE_OFFSETS) + 8 * row)
    store_word(task, s.TASK_RIGHT + 1, dy_step)
    store_word(task, s.TASK_WIDE, 0)
    store_word(task, s.TASK_RESULT + 1, word(phase, s.PHASE_ROWS) + 8 * row)
    store_words(task, s.TASK_ENDING, (word(call, s.PRIOR), np.int64(more), 0))
    size, nr = word(plan, s.BYTES), word(plan, s.TILE_COLUMNS)
    panels, columns = word(plan, s.PANELS), word(plan, s.COLUMNS)
    last_panel = min(panels, panel0 + word(plan, s.GROUP_PANELS))
    longest = word(plan, s.REDUCTION)
    step = (pixels + longest - 1) // longest
    step = (pixels + step - 1) // step
    for begin in range(0, pixels, step):
        store_word(task, s.TASK_K, min(step, pixels - begin))
        store_word(task, s.TASK_LEFT + 2, rows + 8 * begin)
        for g in range(word(plan, s.GROUPS)):
            for panel in range(panel0, last_panel):
                a = base + g * word(plan, s.A_GROUP) + panel * word(plan, s.A_PANEL)
                store_word(task, s.TASK_LEFT, a)
                b = dy + begin * dy_step + (g * panels + panel - panel0) * dy_panel
                store_word(task, s.TASK_RIGHT, b)
                cols = nr if word(plan, s.PARTS) > 1 else min(nr, columns - panel * nr)
                store_word(task, s.TASK_RESULT, into + g * word(plan, s.PART_GROUP)
                           + panel * nr * size)  # fmt: skip
                store_word(task, s.TASK_RESULT + 2, cols)
                call_sweep(word(call, s.SWEEP), task)
        store_word(task, s.TASK_ENDING + 1, 1)


@inner
def _open_dy(call, plan, scratch, first, extent, pixels, panel0):
    """Address of the box's dy from a panel on, its steps from pixel to pixel and panel to panel."""
    view = call + 8 * s.TARGET
    size, nr = word(plan, s.BYTES), word(plan, s.TILE_COLUMNS)
    columns, groups = word(plan, s.COLUMNS), word(plan, s.GROUPS)
    if word(plan, s.DY_IN_PLACE) != 0:
        base, sn, sd, sh, sw = words(view, 0, 5)
        at = base + first[0] * sn + first[1] * sd + first[2] * sh + first[3] * sw
        step = groups * columns * size
        end = at + (pixels - 1) * step + ((groups - 1) * columns + word(plan, s.PANELS) * nr) * size
        if end <= base + word(plan, s.DY_BYTES):
            return at + panel0 * nr * size, step, nr * size
    dy = scratch + word(plan, s.AT_DY)
    step = nr * size
    line = extent[3] * step
    steps = (extent[1] * extent[2] * line, extent[2] * line, line, step, pixels * step)
    skipped = panel0 * nr  # 0 where there are groups
    wanted = min(columns - skipped, word(plan, s.GROUP_PANELS) * nr)
    channels = (groups, wanted, nr, skipped)
    gather(dy, steps, view, first, extent, words(plan, s.COUNT, 3), channels, size)
    return dy, step, pixels * step


@inner
def _add_parts(call, plan):
    """``dw[k, f]``: the sum of the parts in their order."""
    size = word(plan, s.BYTES)
    columns, groups = word(plan, s.COLUMNS), word(plan, s.GROUPS)
    nbytes = columns * size
    for k in range(word(plan, s.K)):
        for g in range(groups):
            at = word(call, s.PARTIAL) + g * word(plan, s.PART_GROUP)
            at += word(word(plan, s.RESULT_ROWS), k)
            to = word(call, s.RESULT) + (k * groups + g) * nbytes
            copy_run(to, at, nbytes)
            for _ in range(1, word(plan, s.PARTS)):
                at += word(plan, s.PART_BYTES)
                if size == 4:
                    whole = nbytes // 32 * 32
                    for f in range(0, whole, 32):
                        add_elements(to + f, at + f, 8, np.float32(0))
                    for f in range(whole, nbytes, 4):
                        add_elements(to + f, at + f, 1, np.float32(0))
                else:
                    for f in range(0, nbytes, 8):
                        add_elements(to + f, at + f, 1, np.float64(0))
