"""Packing: the kernel in the order in which the micro-kernel reads it."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import (
    add_one,
    copy_bytes,
    load_bits,
    store_bits,
    wait_for,
    word,
    words,
    zero_bytes,
)
from fastconv.engine.loops.gather import copy_short

__all__ = ["pack", "pack_rows"]


@inner
def pack(call, table):
    """Kernel to panels: for every run of taps, group and panel ``[K][NR]``, zeros for no column.

    The bias is padded in the same way, so that the micro-kernel reads NR elements of it, always.
    Threads share the panels, and go on when all are packed: none waits for one that never came.
    """
    panels, groups = word(table, s.PANELS), word(table, s.GROUPS)
    panel = add_one(call, s.NEXT_FIRST)
    while panel < panels * groups:
        _pack_panel(call, table, panel // panels, panel % panels, panel)
        add_one(call, s.DONE)
        panel = add_one(call, s.NEXT_FIRST)
    wait_for(call, s.DONE, panels * groups)


@inner
def _pack_panel(call, table, g, number, panel):
    """Panel `number` of group g, of all groups' panels number `panel`."""
    size, nr = word(table, s.BYTES), word(table, s.TILE_COLUMNS)
    column = number * nr
    cols = min(nr, word(table, s.COLUMNS) - column)
    start = word(call, s.KERNEL) + g * word(table, s.GROUP_STEP)
    start += column * word(table, s.COLUMN_STEP)
    for i in range(word(table, s.PACKS)):
        run = word(table, s.PACK_TABLES) + i * 8 * s.PACK_WORDS
        _pack_run(table, run, word(call, s.PACKED), panel, start, cols)
    to, at = word(call, s.PRIOR) + panel * nr * size, word(call, s.BIAS)
    zero_bytes(to, nr * size)
    if at != 0:
        copy_short(to, at + (g * word(table, s.COLUMNS) + column) * size, cols * size)


@inner
def _pack_run(table, run, packed, panel, start, cols):
    """One panel of a run; a tap that an earlier run holds is copied from there."""
    at, taps, listed = words(run, 0, 3)
    nbytes = word(table, s.TAP_BYTES)
    to = packed + at + panel * taps * nbytes
    for i in range(taps):
        tap, earlier, step = words(listed, 3 * i, 3)
        if step != 0:  # from the kernel, elements would come one by one
            copy_bytes(to, packed + earlier + panel * step, nbytes)
        elif word(table, s.EVERY) > 1:
            _pack_steps(table, to, start + tap * word(table, s.TAP_STEP), cols)
        else:
            pack_rows(table, to, start + tap * word(table, s.TAP_STEP), cols)
        to += nbytes


@inner
def _pack_steps(table, to, at, cols):
    """A tap for DOT and PAIR: ``[steps][NR][elements]``, zeros for no column or element."""
    reduce_step, column_step = words(table, s.REDUCE_STEP, 2)
    reduce, every = word(table, s.REDUCE), word(table, s.EVERY)
    line, size = word(table, s.LINE), word(table, s.BYTES)
    for r in range(0, reduce, every):
        zero_bytes(to, line)
        for col in range(cols):
            for j in range(min(every, reduce - r)):
                source = at + col * column_step + (r + j) * reduce_step
                copy_short(to + (col * every + j) * size, source, size)
        to += line


@inner
def pack_rows(table, to, at, cols):
    """A tap for all other tiles: ``[channels][NR]``, zeros for no column."""
    reduce_step, column_step = words(table, s.REDUCE_STEP, 2)
    reduce, line, size = word(table, s.REDUCE), word(table, s.LINE), word(table, s.BYTES)
    if column_step == size:
        for r in range(reduce):
            copy_short(to + r * line, at + r * reduce_step, cols * size)
    else:
        for r0 in range(0, reduce, 64):  # 64 lines of the panel stay in the cache
            for col in range(cols):
                source, target = at + col * column_step, to + col * size
                for r in range(r0, min(reduce, r0 + 64)):
                    if size == 4:
                        bits = load_bits(source + r * reduce_step, 32)
                        store_bits(target + r * line, 32, bits)
                    else:
                        bits = load_bits(source + r * reduce_step, 64)
                        store_bits(target + r * line, 64, bits)
    if cols * size < line:
        for r in range(reduce):
            zero_bytes(to + r * line + cols * size, line - cols * size)
