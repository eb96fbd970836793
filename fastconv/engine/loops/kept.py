"""Calls that are kept: found by what other people's compiled code asks for, and made.

A record is not read but while it is held. Who looks for one counts its readers up and then looks
whether its digest is still there; who writes one takes the digest away and then looks whether it
has readers. All threads agree on the order of these four, so one of the two sees the other: a
writer leaves a record that has readers, a reader one that is being written.
"""

from __future__ import annotations

import numpy as np

from fastconv.compiler.inner import inner
from fastconv.engine import requests as r
from fastconv.engine.emit.memory import (
    add_one,
    call_entry,
    call_function,
    copy_bytes,
    ordered_word,
    put_ordered_word,
    store_word,
    take_one,
    word,
    zero_bytes,
)

__all__ = ["serve"]


@inner
def serve(request, action, zero):
    """Do what is asked of a shelf: one thread at a time may `KEEP`, any number `FIND` and `RUN`.

    Parameters
    ----------
    request : int
        Address of the words of a request (`engine.requests`).
    action : int
        FIND: hold the record that answers the request, and say what it needs, if there is one.
        RUN: make its call, and let the record go. KEEP: write the record that lies in the request.
    """
    shelf = word(request, r.REQUEST_SHELF)
    if action == r.FIND:
        store_word(request, r.REQUEST_FOUND, 0)
        if word(word(shelf, r.SHELF_BLOCKED), 0) == 0:
            _find(request, shelf)
    elif action == r.RUN:
        record = word(request, r.REQUEST_FOUND)
        store_word(request, r.REQUEST_DONE, 0)
        if not _overlaps(request, record):
            _run(request, shelf, record)
        take_one(record, r.RECORD_READERS)
    else:
        store_word(request, r.FOUND, _keep(request + 8 * r.AT_RECORD, shelf))


@inner
def _digest(key, count):
    """A number other than 0 for the words of a key."""
    digest = np.int64(count)
    for i in range(count):
        digest = (digest ^ word(key, i)) * np.int64(0x2545F4914F6CDD1D)
        digest ^= (digest >> 29) & 0x7FFFFFFFF
    return digest | 1


@inner
def _set_of(shelf, digest):
    """The first record of the keys of a digest."""
    number = (digest >> 32) & (r.SETS - 1)
    return shelf + 8 * (r.SHELF_RECORDS + number * r.WAYS * r.RECORD_WORDS)


@inner
def _same(record, key, count):
    """Whether a record is that of a key."""
    if word(record, r.RECORD_KEY_WORDS) != count:
        return False
    different = np.int64(0)
    for i in range(count):
        different |= word(record, r.RECORD_KEY + i) ^ word(key, i)
    return different == 0


@inner
def _find(request, shelf):
    """Hold the record of the request's key, if there is one."""
    key, count = request + 8 * r.REQUEST_KEY, word(request, r.REQUEST_KEY_WORDS)
    digest = _digest(key, count)
    record = _set_of(shelf, digest)
    for _ in range(r.WAYS):
        if ordered_word(record, r.RECORD_DIGEST) == digest:
            add_one(record, r.RECORD_READERS)
            if ordered_word(record, r.RECORD_DIGEST) == digest and _same(record, key, count):
                if ordered_word(record, r.RECORD_USED) == 0:
                    put_ordered_word(record, r.RECORD_USED, 1)
                store_word(request, r.REQUEST_SCRATCH, word(record, r.RECORD_SCRATCH))
                for i in range(r.RECORD_EXTENTS - r.RECORD_SHAPE):
                    store_word(request, r.REQUEST_SHAPE + i, word(record, r.RECORD_SHAPE + i))
                store_word(request, r.REQUEST_FOUND, record)
                return
            take_one(record, r.RECORD_READERS)
        record += 8 * r.RECORD_WORDS


@inner
def _overlaps(request, record):
    """Whether the caller's result may share memory with an operand."""
    result = word(record, r.RECORD_RESULT)
    if result == 0:
        return False
    at = word(request, r.REQUEST_OPERANDS + result)
    begin = at - word(record, r.RECORD_EXTENTS + 2 * result)
    end = at + word(record, r.RECORD_EXTENTS + 2 * result + 1)
    for i in range(1, result):
        at = word(request, r.REQUEST_OPERANDS + i)
        before = at - word(record, r.RECORD_EXTENTS + 2 * i)
        behind = at + word(record, r.RECORD_EXTENTS + 2 * i + 1)
        if before < end and begin < behind:
            return True
    return False


@inner
def _run(request, shelf, record):
    """Make the call of a record on this thread, with the request's operands."""
    call = request + 8 * r.REQUEST_CALL
    copy_bytes(call, record + 8 * r.RECORD_CALL, 8 * word(record, r.RECORD_CALL_WORDS))
    for i in range(word(record, r.RECORD_PLACES_COUNT)):
        at = word(record, r.RECORD_PLACES + 2 * i)
        operand = word(record, r.RECORD_PLACES + 2 * i + 1)
        address = word(request, r.REQUEST_OPERANDS + operand)
        store_word(call, at, word(call, at) + address)
    running = _let_go(shelf) if word(record, r.RECORD_LONG) != 0 else np.int64(0)
    zeros = word(record, r.RECORD_ZEROS)
    if zeros != 0:
        result = word(request, r.REQUEST_OPERANDS + zeros)
        zero_bytes(result, word(record, r.RECORD_ZEROS + 1))
    if word(record, r.RECORD_REPEAT) != 0:
        _repeat(request, record)
    call_entry(word(record, r.RECORD_ENTRY), call, 0)
    if running != 0:
        call_function(word(shelf, r.SHELF_RETAKE), running)
    bad = word(record, r.RECORD_BAD)
    if bad == 0 or word(call, bad) == 0:
        store_word(request, r.REQUEST_DONE, 1)


@inner
def _repeat(request, record):
    """Every element of the bias, operand 3, as often as wanted one behind the other."""
    count, times = word(record, r.RECORD_REPEAT), word(record, r.RECORD_REPEAT + 1)
    size = word(record, r.RECORD_REPEAT + 2)
    to = word(request, r.REQUEST_OPERANDS) + word(record, r.RECORD_REPEAT + 3)
    at = word(request, r.REQUEST_OPERANDS + 3)
    for i in range(count * times):
        copy_bytes(to + i * size, at + i // times * size, size)


@inner
def _let_go(shelf):
    """Let other threads have the interpreter, if this one has it; what `SHELF_RETAKE` wants, or 0.

    A thread of a ``prange`` has none; nor has one that may not know: then nothing is let go.
    """
    if word(shelf, r.SHELF_RETAKE) == 0:
        return np.int64(0)
    own = call_function(word(shelf, r.SHELF_HOLDER), 0)
    if own == 0 or own != call_function(word(shelf, r.SHELF_PRESENT), 0):
        return np.int64(0)
    return call_function(word(shelf, r.SHELF_RELEASE), 0)


@inner
def _keep(given, shelf):
    """Write a record where nobody reads one: its number, or KNOWN, or BUSY if all are read."""
    key, count = given + 8 * r.RECORD_KEY, word(given, r.RECORD_KEY_WORDS)
    digest = _digest(key, count)
    first = _set_of(shelf, digest)
    for way in range(r.WAYS):
        record = first + 8 * way * r.RECORD_WORDS
        if ordered_word(record, r.RECORD_DIGEST) == digest and _same(record, key, count):
            return np.int64(r.KNOWN)
    for turn in range(3):  # those in no use; then, as all are looked at again, any; then the first
        for way in range(r.WAYS):
            record = first + 8 * way * r.RECORD_WORDS
            empty = ordered_word(record, r.RECORD_DIGEST) == 0
            if turn == 0 and not empty:
                continue
            if turn == 1 and ordered_word(record, r.RECORD_USED) != 0:
                put_ordered_word(record, r.RECORD_USED, 0)
                continue
            if _empties(record):
                rest = r.RECORD_READERS + 1
                copy_bytes(record + 8 * rest, given + 8 * rest, 8 * (r.RECORD_WORDS - rest))
                put_ordered_word(record, r.RECORD_DIGEST, digest)
                number = (record - shelf) // 8 - r.SHELF_RECORDS
                return np.int64(number // r.RECORD_WORDS)
    return np.int64(r.BUSY)


@inner
def _empties(record):
    """Take a record's digest away, unless somebody reads it."""
    digest = ordered_word(record, r.RECORD_DIGEST)
    put_ordered_word(record, r.RECORD_DIGEST, 0)
    if ordered_word(record, r.RECORD_READERS) == 0:
        return True
    put_ordered_word(record, r.RECORD_DIGEST, digest)
    return False
