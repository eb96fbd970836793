"""A call of a compiled entry, as data: it can be made now, or be a line of a program."""

from __future__ import annotations

import struct
from functools import cache
from typing import NamedTuple

from fastconv.engine.launch import start
from fastconv.engine.tables.workspace import workspace
from fastconv.threads import parts

__all__ = ["Call", "perform"]


class Call(NamedTuple):
    """An entry and its words.

    Attributes
    ----------
    entry : int
        Address of ``void entry(int64 call, int64 thread)``.
    words : tuple of int
        From the word `words.TABLE` on; the counters before it are zero when a call begins.
    items : int
        Into how many pieces the work is cut; more threads than that find none.
    work, grain : int
        Size of the work, and how much of it is worth a thread, in one unit.
    first : int
        What the counters ``words.NEXT_FIRST`` and ``words.DONE`` say when what must be done first
        has been done for good, such as packing a kernel; 0 where it is done at every call.
    once : bool
        Whether the whole call need not be made again until what it reads has changed.
    """

    entry: int
    words: tuple[int, ...]
    items: int
    work: int
    grain: int
    first: int = 0
    once: bool = False


@cache
def _form(count: int) -> struct.Struct:
    return struct.Struct(f"{count}q")


def perform(call: Call) -> list[int]:
    """Make the call, on as many threads as its work is worth; returns its words afterwards."""
    threads = max(1, min(parts(call.work, call.grain), call.items))
    space = workspace()
    address = space.write(_form(len(call.words) + 3), (0, 0, 0, *call.words))
    start(call.entry, address, threads)
    return space.words[: len(call.words) + 3].tolist()
