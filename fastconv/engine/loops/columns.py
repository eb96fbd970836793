"""im2col: every window of an array of any strides written out as a row.

A thread takes blocks of output rows until none is left. In a row, taps are copied one after the
other, of all its outputs; taps that lie one behind the other, with their channels, as one run.
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
    line = KW * word(table, s.POOL_PIXEL)
    pixel = KD * KH * line
    to = word(call, s.COLUMNS_COLS) + row * OW * pixel
    whole = taps[1] - taps[0] == KD and taps[3] - taps[2] == KH
    if not whole or lo > 0 or (OW - 1) * step - lo + (KW - 1) * apart >= W:
        zero_bytes(to, OW * pixel)
    for u in range(taps[0], taps[1]):
        for v in range(taps[2], taps[3]):
            at = x + n * sn + (od * d_step - d_lo + u * d_apart) * sd
            at += (oh * h_step - h_lo + v * h_apart) * sh
            _line(table, to + (u * KH + v) * line, pixel, (at, sw, sc), kind)


@inner
def _line(table, to, pixel, view, kind):
    """The taps of a line of the input for all outputs of a row, which are `pixel` bytes apart."""
    W, KW, step, apart, lo, OW, _ = axis(table, s.W_AXIS)
    at, sw, sc = view
    size, C = len(kind[2]), word(table, s.POOL_C)
    tap = C * size
    in_run = (C == 1 or sc == size) and apart == 1 and sw == tap and KW * tap >= RUN_BYTES
    begin, end = 0, 0  # outputs whose taps are all inside, copied as one run
    if in_run:
        begin = min(OW, (max(0, lo) + step - 1) // step)
        end = max(begin, min(OW, (W - KW + lo) // step + 1)) if W + lo >= KW else begin
        for ow in range(begin, end):
            _copy(to + ow * pixel, at + (ow * step - lo) * sw, KW * tap, kind)
    for t in range(KW):
        before = max(0, lo - t * apart)
        first, behind = min(OW, (before + step - 1) // step), W - 1 + lo - t * apart
        last = max(first, min(OW, behind // step + 1)) if behind >= 0 else first
        source = at + (t * apart - lo) * sw
        if in_run:
            _tap(to + t * tap, pixel, (source, step * sw, sc), (first, min(begin, last)), C, kind)
            first = max(first, end)
        _tap(to + t * tap, pixel, (source, step * sw, sc), (first, last), C, kind)


@inner
def _tap(to, pixel, view, outputs, C, kind):
    """One tap, of outputs ``outputs[0]`` to ``outputs[1]``."""
    at, step, sc = view
    size = len(kind[2])
    if sc == size and C * size >= RUN_BYTES:
        for ow in range(outputs[0], outputs[1]):
            _copy(to + ow * pixel, at + ow * step, C * size, kind)
        return
    for c in range(C):
        for ow in range(outputs[0], outputs[1]):
            value = load_element(at + ow * step + c * sc, kind[1])
            store_element(to + ow * pixel + c * size, value)


@inner
def _copy(to, at, nbytes, kind):
    """Copy RUN_BYTES bytes or more; the last vector overlaps the one before."""
    lanes, like, element = kind
    wide = len(lanes) * len(element)
    if nbytes >= wide:
        for i in range(0, nbytes, wide):
            j = min(i, nbytes - wide)
            store(to + j, load(at + j, lanes, like))
    else:
        for i in range(0, nbytes, 16):
            j = min(i, nbytes - 16)
            move_16_bytes(to + j, at + j)
