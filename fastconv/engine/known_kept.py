"""Known problems that the shelf of kept calls solves before it is trusted."""

from __future__ import annotations

import ctypes

import numpy as np

from fastconv.engine import requests as r
from fastconv.engine.call import Call
from fastconv.engine.kept import KeptCall, Shelf

__all__ = ["serve_works"]


def serve_works(address: int) -> bool:
    """Whether calls are found by their keys, alone, and made with the right addresses.

    Of three keys, of which two differ in one word; and a result that overlaps an operand.
    """
    serve = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)
    seen: list[tuple[int, ...]] = []
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
    entry = kind(lambda at, thread: seen.append((*(ctypes.c_int64 * 5).from_address(at), thread)))
    at = int(ctypes.cast(entry, ctypes.c_void_p).value or 0)
    blocked = np.zeros(1, np.int64)
    shelf = Shelf(address, blocked)
    operand, result = np.zeros(4), np.zeros(2)
    request = np.zeros(r.REQUEST_WORDS, np.int64)

    def ask(key: tuple[int, ...]) -> bool:
        request[:] = 0
        request[r.REQUEST_SHELF], request[r.REQUEST_KEY_WORDS] = shelf.address, len(key)
        request[r.REQUEST_KEY : r.REQUEST_KEY + len(key)] = key
        serve(request.ctypes.data, r.FIND)
        return bool(request[r.REQUEST_FOUND])

    def run(*addresses: int) -> bool:
        request[r.REQUEST_OPERANDS : r.REQUEST_OPERANDS + len(addresses)] = addresses
        serve(request.ctypes.data, r.RUN)
        return bool(request[r.REQUEST_DONE])

    keys = (1, 2, 3), (1, 2, 4), (1, 2)
    for i, key in enumerate(keys):
        if ask(key):
            return False
        call = Call(at, (10 + i, 7), 1, 0, 1)
        kept = KeptCall(call, (operand, result), ((3, 1), (4, 0)), 5, (6, i), result=2)
        if not shelf.keep(key, kept) or not shelf.keep(key, kept):  # known by then
            return False
    for i, key in enumerate(keys):
        right = ask(key) and request[r.REQUEST_SCRATCH] == 5
        right &= request[r.REQUEST_SHAPE : r.REQUEST_SHAPE + 2].tolist() == [6, i]
        if not right or not run(1000, 2000, 2032) or seen.pop() != (0, 0, 0, 2010 + i, 1007, 0):
            return False
    if not ask(keys[0]) or run(1000, 2000, 2024):
        return False
    blocked[0] = 1
    readers = shelf.words[r.SHELF_RECORDS + r.RECORD_READERS :: r.RECORD_WORDS]
    return not ask(keys[0]) and not seen and not readers.any()
