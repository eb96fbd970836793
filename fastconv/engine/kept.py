"""Calls that compiled code finds by what it asks for, and makes without Python."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv.engine import requests as r
from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.launch import run_serial
from fastconv.engine.tables.workspace import address_of

__all__ = ["KeptCall", "Shelf"]


class KeptCall(NamedTuple):
    """A call whose operands are other arrays each time.

    Attributes
    ----------
    call : Call
        In its words the addresses of operands are left out: 0, or what is to be added to them.
    operands : sequence of ndarray or None
        Like those of the calls: shapes and steps count. Results last; None is no address.
    places : sequence of (int, int)
        Words of the call that an address is added to, and whose: 0 is the scratch, 1 the first
        operand.
    scratch : int
        Bytes.
    shape : tuple of int
        Of the first result.
    result : int
        Number of the caller's own array for the first result, or 0 if it will be new.
    bad : int
        Word of the call that says afterwards what was wrong, or 0.
    zeros : (int, int)
        A result that is zeroed first, and its bytes; or zeros.
    repeat : (int, int, int, int)
        Elements of the bias, which is operand 3, how often each is wanted, bytes of one, and where
        in the scratch they go; or zeros.
    alive : object
        What must not be given back while the call may be made.
    """

    call: Call
    operands: Sequence[np.ndarray | None]
    places: Sequence[tuple[int, int]]
    scratch: int
    shape: tuple[int, ...]
    result: int = 0
    bad: int = 0
    zeros: tuple[int, int] = (0, 0)
    repeat: tuple[int, int, int, int] = (0, 0, 0, 0)
    alive: Any = None


class Shelf:
    """Kept calls by their keys; `loops.kept` reads and writes it.

    It has room for `requests.RECORDS` calls and never moves. A call that has not been made for a
    while gives its room to a new one.

    Parameters
    ----------
    entry : int
        Address of the compiled `loops.kept.serve`.
    blocked : ndarray of int64
        While its first element is not 0, no call is found.

    Notes
    -----
    `keep` may be called by one thread at a time.
    """

    def __init__(self, entry: int, blocked: np.ndarray) -> None:
        self._entry, self._blocked = entry, blocked
        self.words = np.zeros(r.SHELF_WORDS, np.int64)
        self.address = address_of(self.words)
        self._alive: dict[int, Any] = {}
        self.words[r.SHELF_ENTRY] = entry
        self.words[r.SHELF_BLOCKED] = address_of(blocked)
        self.words[r.SHELF_HOLDER : r.SHELF_RETAKE + 1] = _interpreter()

    def keep(self, key: Sequence[int], kept: KeptCall) -> bool:
        """Have a call found by a key from now on; False if there is no room, or for so much."""
        words = (0,) * s.TABLE + kept.call.words
        most = (len(key), r.KEY_ROOM), (len(words), r.CALL_ROOM), (len(kept.places), r.PLACES)
        if any(length > room for length, room in most) or len(kept.operands) >= r.OPERANDS:
            return False
        request = np.zeros(r.AT_RECORD + r.RECORD_WORDS, np.int64)
        request[r.REQUEST_SHELF] = self.address
        record = request[r.AT_RECORD :]
        for first, values in (
            (r.RECORD_USED, (1, len(key), kept.call.entry, len(words), len(kept.places))),
            (r.RECORD_SCRATCH, (kept.scratch, kept.result, kept.bad, *kept.zeros, *kept.repeat)),
            (r.RECORD_LONG, (kept.call.work >= kept.call.grain, *kept.shape)),
            (r.RECORD_EXTENTS + 2, [n for a in kept.operands for n in _extent(a)]),
            (r.RECORD_PLACES, [n for place in kept.places for n in place]),
            (r.RECORD_CALL, words),
            (r.RECORD_KEY, key),
        ):
            record[first : first + len(values)] = values
        run_serial(self._entry, address_of(request))
        number = int(request[r.FOUND])
        if number >= 0:  # nobody reads what was there before
            self._alive[number] = kept.alive
        return number != r.BUSY


def _extent(array: np.ndarray | None) -> tuple[int, int]:
    """Bytes of an array before its address, and from there to its end."""
    if array is None or not array.size:
        return 0, 0
    steps = [step * (n - 1) for step, n in zip(array.strides, array.shape, strict=True)]
    return -sum(n for n in steps if n < 0), sum(n for n in steps if n > 0) + array.itemsize


def _interpreter() -> tuple[int, int, int, int]:
    """Functions of CPython, in the order of the shelf's words; zeros where there are none.

    Which interpreter thread this one is, and which of them runs, are compared, as
    ``PyGILState_Check`` does: that function says yes to everything once there are subinterpreters.
    """
    names = (
        ("PyGILState_GetThisThreadState",),
        ("PyThreadState_GetUnchecked", "_PyThreadState_UncheckedGet"),
        ("PyEval_SaveThread",),
        ("PyEval_RestoreThread",),
    )
    if struct.calcsize("P") != 8:  # they are called with words
        return 0, 0, 0, 0
    found = []
    for alternatives in names:
        for name in alternatives:
            function = getattr(getattr(ctypes, "pythonapi", None), name, None)
            if function is not None:
                found.append(int(ctypes.cast(function, ctypes.c_void_p).value or 0))
                break
    return tuple(found) if len(found) == 4 and all(found) else (0, 0, 0, 0)  # type: ignore[return-value]
