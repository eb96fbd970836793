"""Packing: the kernel in the order in which the micro-kernel reads it."""

from __future__ import annotations

from fastconv.engine import slots as s
from fastconv.engine.gather import copy_run
from fastconv.engine.inner import inner
from fastconv.engine.primitives import add_one, load_bits, store_bits, word, words, zero_bytes

__all__ = ["pack"]


@inner
def pack(call, thread):
    """Kernel to panels: for every run of taps, group and panel ``[K][NR]``, zeros for no column.

    The bias is padded in the same way, so that the micro-kernel reads NR elements of it, always.
    """
    plan = word(call, s.PLAN)
    panels = word(plan, s.PANELS) * word(plan, s.GROUPS)
    size, nr = word(plan, s.BYTES), word(plan, s.TILE_COLUMNS)
    line = word(plan, s.LINE)
    while True:
        unit = add_one(call, s.NEXT_PACK)
        if unit >= panels * word(plan, s.PACKS):
            return
        run = word(plan, s.PACK_TABLES) + unit // panels * 8 * s.PACK_WORDS
        panel = unit % panels
        g, column = panel // word(plan, s.PANELS), panel % word(plan, s.PANELS) * nr
        cols = min(nr, word(plan, s.COLUMNS) - column)
        start = word(call, s.KERNEL) + g * word(plan, s.GROUP_STEP)
        start += column * word(plan, s.COLUMN_STEP)
        to = word(call, s.PACKED) + word(run, s.PACK_AT)
        to += panel * word(run, s.PACK_TAPS) * word(plan, s.TAP_BYTES)
        if word(plan, s.EVERY) > 1:
            _pack_steps(plan, run, to, start, cols, line, size)
        else:
            _pack_panel(plan, run, to, start, cols, line, size)
        if unit < panels:
            to, at = word(call, s.PRIOR) + panel * nr * size, word(call, s.BIAS)
            zero_bytes(to, nr * size)
            if at != 0:
                copy_run(to, at + (g * word(plan, s.COLUMNS) + column) * size, cols * size)


@inner
def _pack_steps(plan, run, to, start, cols, line, size):
    """For DOT and PAIR: ``[steps][NR][elements of a step]``, zeros for no column or element."""
    tap_step, reduce_step, column_step = words(plan, s.TAP_STEP, 3)
    reduce, every = word(plan, s.REDUCE), word(plan, s.EVERY)
    table = word(run, s.PACK_TABLE)
    for i in range(word(run, s.PACK_TAPS)):
        at = start + word(table, i) * tap_step
        for r in range(0, reduce, every):
            zero_bytes(to, line)
            for col in range(cols):
                for j in range(min(every, reduce - r)):
                    source = at + col * column_step + (r + j) * reduce_step
                    copy_run(to + (col * every + j) * size, source, size)
            to += line


@inner
def _pack_panel(plan, run, to, start, cols, line, size):
    """One panel; `start` is the address of its first column in w."""
    tap_step, reduce_step, column_step = words(plan, s.TAP_STEP, 3)
    reduce, table = word(plan, s.REDUCE), word(run, s.PACK_TABLE)
    for i in range(word(run, s.PACK_TAPS)):
        at = start + word(table, i) * tap_step
        if column_step == size:
            for r in range(reduce):
                copy_run(to + r * line, at + r * reduce_step, cols * size)
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
        to += reduce * line
