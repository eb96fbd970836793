"""im2col: every window of an array of any strides written out as a row.

A thread takes blocks of output rows until none is left. Of an output, taps that lie one behind the
other with their channels are copied as one run; where runs are short, or taps are apart or in the
padding, one tap after the other is, of all outputs of the row.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import (
    add_one,
    load_element,
    move_16_bytes,
    store_element,
    word,
    words,
    zero_bytes,
)
from fastconv.engine.emit.vectors import load, store
from fastconv.engine.loops.pool import axis, open_row

__all__ = ["columns"]

# Bytes of a run that are worth a loop over runs, and not over all outputs for each element.
RUN_BYTES = 16


@inner
def columns(call, thread, kind):
    """``cols (m, OD, OH, OW, KD, KH, KW, C)`` of ``x (m, D, H, W, C)``.

    Parameters
    ----------
    call : int
        Address of the words of a call, `COLUMNS_...`: a view of x, and the address of cols, which
        is contiguous. The table is that of a pooling; `total` counts the output rows of all images.
    thread : int
        Ignored.
    kind : tuple
        VL zeros, an element, and as many zeros as it has bytes. Elements are moved as they are.
    """
    table = word(call, s.TABLE)
    items = word(call, s.COLUMNS_ITEMS)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        total = word(call, s.COLUMNS_TOTAL)
        for row in range(item * total // items, (item + 1) * total // items):
            _row(call, table, row, kind)


@inner
def _row(call, table, row, kind):
    """An output row: zeros first, if some of its windows reach beyond the input."""
    x, sn, sd, sh, sw, sc = words(call, s.COLUMNS_X, 6)
    n, od, oh, taps, _ = open_row(table, row)
    _, KD, d_step, d_apart, d_lo, _, _ = axis(table, s.D_AXIS)
    _, KH, h_step, h_apart, h_lo, _, _ = axis(table, s.H_AXIS)
    W, KW, step, apart, lo, OW, _ = axis(table, s.W_AXIS)
    C, tap = words(table, s.POOL_C, 2)
    pixel = KD * KH * KW * tap
    to = word(call, s.COLUMNS_COLS) + row * OW * pixel
    whole = taps[1] - taps[0] == KD and taps[3] - taps[2] == KH
    if not whole or lo > 0 or (OW - 1) * step - lo + (KW - 1) * apart >= W:
        zero_bytes(to, OW * pixel)
    at = x + n * sn + (od * d_step - d_lo) * sd + (oh * h_step - h_lo) * sh
    begin, end = 0, 0  # outputs whose taps are all inside the line: they are copied as one run
    if (C == 1 or sc == len(kind[2])) and apart == 1 and sw == tap and KW * tap >= RUN_BYTES:
        begin, end = inside(table, 0)[0], inside(table, KW - 1)[1]
    for ow in range(begin, end):
        for u in range(taps[0], taps[1]):
            for v in range(taps[2], taps[3]):
                run = at + u * d_apart * sd + v * h_apart * sh + (ow * step - lo) * sw
                _copy(to + ow * pixel + (u * KH + v) * KW * tap, run, KW * tap, kind)
    if end - begin < OW:
        for u in range(taps[0], taps[1]):
            for v in range(taps[2], taps[3]):
                line = to + (u * KH + v) * KW * tap
                view = (at + u * d_apart * sd + v * h_apart * sh, sw, sc)
                _taps(table, line, pixel, view, (begin, end), kind)


@inner
def inside(table, t):
    """First and end of the outputs of a row whose tap `t` is inside the line."""
    W, _, step, apart, lo, OW, _ = axis(table, s.W_AXIS)
    before, behind = max(0, lo - t * apart), max(0, W + lo - t * apart)
    if step > 1:  # a division costs as much as ten taps
        before, behind = (before + step - 1) // step, (behind + step - 1) // step
    return min(OW, before), min(OW, behind)


@inner
def _taps(table, to, pixel, view, done, kind):
    """The taps of a line of the input, for all outputs but those that are `done`.

    Outputs are `pixel` bytes apart.
    """
    _, KW, step, apart, lo, _, _ = axis(table, s.W_AXIS)
    at, sw, sc = view
    C, tap = words(table, s.POOL_C, 2)
    begin, end = done
    for t in range(KW):
        first, last = inside(table, t)
        source = (at + (t * apart - lo) * sw, step * sw, sc)
        if begin < end:
            _tap(to + t * tap, pixel, source, (first, min(begin, last)), C, kind)
            first = max(first, end)
        _tap(to + t * tap, pixel, source, (first, last), C, kind)


@inner
def _tap(to, pixel, view, outputs, C, kind):
    """One tap, of outputs ``outputs[0]`` to ``outputs[1]``."""
    at, step, sc = view
    size = len(kind[2])
    to += outputs[0] * pixel
    at += outputs[0] * step
    if sc == size and C * size >= RUN_BYTES:
        for _ in range(outputs[0], outputs[1]):
            _copy(to, at, C * size, kind)
            to += pixel
            at += step
        return
    for c in range(C):
        target, source = to + c * size, at + c * sc
        for _ in range(outputs[0], outputs[1]):
            store_element(target, load_element(source, kind[1]))
            target += pixel
            source += step


@inner
def _copy(to, at, nbytes, kind):
    """Copy RUN_BYTES bytes or more; the first and the last vector overlap those between.

    Between, vectors are stored where none lies on two cache lines.
    """
    lanes, like, element = kind
    wide = len(lanes) * len(element)
    if nbytes >= wide:
        store(to, load(at, lanes, like))
        for i in range(wide - to % wide, nbytes - wide, wide):
            store(to + i, load(at + i, lanes, like))
        store(to + nbytes - wide, load(at + nbytes - wide, lanes, like))
    else:
        for i in range(0, nbytes, 16):
            j = min(i, nbytes - 16)
            move_16_bytes(to + j, at + j)
