"""Control over tiles: the loop of the forward product and the input gradient.

    forward          cols @ w         rows: output pixels   reduction: taps x channels
    input gradient   the same, once for each phase of the stride, with flipped taps

The im2col matrix is never written down: with ``rows`` the pixels' offsets and ``taps`` the offsets
of (tap, channel), its element is at ``base + rows[pixel] + taps[k]``. Depthwise products differ in
the tile only.

A thread takes boxes of output pixels until none is left. It decides which results it computes and
never the order of a sum, so the results do not depend on threads or boxes.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import (
    add_one,
    call_entry,
    call_sweep,
    store_word,
    store_words,
    word,
    words,
)
from fastconv.engine.loops.boxes import (
    box_extent,
    box_of,
    lay_out,
    open_box,
    phase_extent,
    source_steps,
)
from fastconv.engine.loops.gather import scatter
from fastconv.engine.loops.pack import pack

__all__ = ["convolve"]


@inner
def convolve(call, thread):
    """Every box of a forward product or an input gradient: ``y = max(cols @ w + b, low)``.

    Parameters
    ----------
    call : int
        Address of the words of a call (`words.call_words`), the same for all threads: the views of
        the source ``(m, D, H, W, C)`` and of the target ``(m, OD, OH, OW, F)``, the address of the
        kernel ``(KD, KH, KW, C/G, F)``, and counters through which threads share the boxes.
    thread : int
        Number of this thread: which part of the scratch is its own.
    """
    table = word(call, s.TABLE)
    scratch = word(call, s.SCRATCH) + thread * word(table, s.SCRATCH_BYTES)
    pack(call, table)
    laid = (0, 0, 0, 0)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(table, s.ITEMS):
            return
        first = box_of(table, item)
        extent = box_extent(table, first, table + 8 * s.COUNT)
        base = open_box(call, table, scratch, first, extent, 0)
        for i in range(word(table, s.PHASES)):
            phase = word(table, s.PHASE_TABLE) + i * 8 * s.PHASE_WORDS
            begin, part = phase_extent(phase, first, extent)
            if part[1] > 0 and part[2] > 0 and part[3] > 0:
                again = part == laid and word(table, s.PHASES) == 1
                _phase(call, table, phase, scratch, base, first, begin, part, again)
                laid = part
        if word(call, s.FINISH) != 0:
            box = scratch + word(table, s.AT_TASK) + 8 * s.TASK_WORDS
            store_words(box, s.BOX_FIRST, first)
            store_words(box, s.BOX_EXTENT, extent)
            at, n, _, h, w = _results(table, scratch)
            store_words(box, s.BOX_RESULT, (at, n, h, w))
            call_entry(word(call, s.FINISH), word(call, s.FINISH_CALL), box)


@inner
def _results(table, scratch):
    """Where the results of a box lie that another entry finishes: address, and steps."""
    _, d, h, w = words(table, s.BOX, 4)
    line = word(table, s.COLUMNS) * word(table, s.GROUPS) * word(table, s.BYTES)
    return scratch + word(table, s.AT_RESULT), d * h * w * line, h * w * line, w * line, line


@inner
def _phase(call, table, phase, scratch, base, box, first, extent, again):
    """The pixels of one phase of a box, and where they go; `again`: laid out as the last box."""
    repeats = word(table, s.TILE_ROWS)
    rows, targets = scratch + word(table, s.AT_ROWS), scratch + word(table, s.AT_TARGETS)
    steps = source_steps(table)
    base += (first[1] - box[1]) * steps[1] + (first[2] - box[2]) * steps[2]
    base += (first[3] - box[3]) * steps[3]
    pixels = extent[0] * extent[1] * extent[2] * extent[3]
    if not again:
        lay_out(rows, extent, steps, repeats)
    view = call + 8 * s.TARGET
    at, sn, sd, sh, sw = words(view, 0, 5)
    if word(call, s.FINISH) != 0:
        at, sn, sd, sh, sw = _results(table, scratch)
        at -= box[0] * sn + box[1] * sd + box[2] * sh + box[3] * sw
    jump_d, jump_h, jump_w = words(table, s.OUT_STEP, 3)
    start_d, start_h, start_w = words(phase, s.PHASE_START, 3)
    at += first[0] * sn + (start_d + first[1] * jump_d) * sd
    at += (start_h + first[2] * jump_h) * sh + (start_w + first[3] * jump_w) * sw
    steps = (sn, sd * jump_d, sh * jump_h, sw * jump_w)
    task = scratch + word(table, s.AT_TASK)
    store_word(task, s.TASK_ROWS, pixels)
    store_word(task, s.TASK_LEFT + 1, rows)
    store_word(task, s.TASK_RESULT + 1, targets)
    spill = word(table, s.SPILL)
    wide = pixels - spill if spill != 0 and word(call, s.IN_LINE) != 0 else 0
    store_word(task, s.TASK_WIDE, wide)
    direct = word(call, s.DIRECT) != 0
    result, size = at, word(table, s.BYTES)
    channels = word(table, s.COLUMNS) * word(table, s.GROUPS)
    if not direct:
        result = scratch + word(table, s.AT_RESULT)
        line = channels * size
        w = extent[3] * line
        steps_of_scratch = (extent[1] * extent[2] * w, extent[2] * w, w, line)
    else:
        steps_of_scratch = steps
    if not (again and direct):
        lay_out(targets, extent, steps_of_scratch, repeats)
    _panels(call, table, phase, base, result, task)
    if not direct:
        lay_out(targets, extent, steps, 0)
        stored = word(phase, s.PHASE_COLUMNS) * word(table, s.GROUPS)
        scatter(view, at, targets, pixels, result, stored, channels * size, size)


@inner
def _panels(call, table, phase, base, c, task):
    """``[pixels x K] @ [K x columns]``, a panel of NR columns and a block of K at a time."""
    size, nr, line = word(table, s.BYTES), word(table, s.TILE_COLUMNS), word(table, s.LINE)
    taps = word(phase, s.PHASE_OFFSETS)
    panels, columns = word(table, s.PANELS), word(table, s.COLUMNS)
    stored = word(phase, s.PHASE_COLUMNS)
    blocks, cuts = words(phase, s.PHASE_BLOCKS, 2)
    first, panel_bytes = words(phase, s.PHASE_PACKED, 2)
    for panel in range(panels * word(table, s.GROUPS)):
        g, column = panel // panels, panel % panels * nr
        a = base + g * word(table, s.A_GROUP) + panel % panels * word(table, s.A_PANEL)
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
