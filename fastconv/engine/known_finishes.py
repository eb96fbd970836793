"""Known problems that the loops which follow a product solve before they are trusted, exactly."""

from __future__ import annotations

import ctypes

import numpy as np

from fastconv.engine.call import perform
from fastconv.engine.finished import pool_winners_call, winners_backward_call
from fastconv.engine.known_plans import integers
from fastconv.engine.tables.finish import finish_words

__all__ = ["finish_works", "pool_winners_works", "winners_backward_works", "winners_works"]

GUARD = -77


def _guarded(dtype: np.dtype, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """An array, and the array of one element more that it begins."""
    memory = np.full(int(np.prod(shape)) + 1, GUARD % 128, dtype)
    return memory[:-1].reshape(shape), memory


def _results(dtype: np.dtype, C: int, lanes: int) -> np.ndarray:
    """Two images of 4x4 results; what lies behind them may be read."""
    memory = np.zeros(2 * 4 * 4 * C + lanes, dtype)
    x = memory[: 32 * C].reshape(2, 4, 4, C)
    x[:] = integers(dtype, *x.shape)
    return x


def _perform(address: int, words: tuple[int, ...], x: np.ndarray) -> None:
    """Finish the one box that `x` is."""
    entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)
    call = np.array(words)
    box = np.array((0, 0, 0, 0, 2, 1, 4, 4, x.ctypes.data, *x.strides[:3]))
    entry(call.ctypes.data, box.ctypes.data)


def _windows(x: np.ndarray) -> np.ndarray:
    """Of (2, 4, 4, C), the four cells of each 2x2 last."""
    return np.moveaxis(x.reshape(2, 2, 2, 2, 2, -1), (2, 4), (4, 5)).reshape(2, 2, 2, -1, 4)


def finish_works(address: int, lanes: int, dtype: np.dtype) -> bool:
    """Whether boxes of results are finished: normalised, added to, without what is negative.

    Then of a vector and a half, and of two thirds of one, the largest of each 2x2.
    """
    wide = lanes + lanes // 2
    for C, pool in ((wide, False), (wide, True), (-(-2 * lanes // 3), True)):
        x = _results(dtype, C, lanes)
        other = None if pool else x[::-1].copy()
        table = np.zeros((7, C + lanes), dtype)
        table[:4, :C] = integers(dtype, C)[::-1], np.full(C, 2), np.full(C, 0.5), integers(dtype, C)
        y, memory = _guarded(dtype, *(2, 2, 2, C) if pool else x.shape)
        _perform(address, finish_words(y, table=table, added=other, relu=not pool, pool=pool), x)
        right = (x - table[0, :C]) + table[3, :C]
        right = _windows(right).max(-1) if pool else np.maximum(right + other, 0)
        if not np.array_equal(y, right) or memory[-1] != GUARD % 128:
            return False
    return True


def winners_works(address: int, lanes: int, dtype: np.dtype) -> bool:
    """Whether the largest of each 2x2 is found, and which of the four it is."""
    for C in (lanes + lanes // 2, -(-2 * lanes // 3)):
        x = _results(dtype, C, lanes)
        y, memory = _guarded(dtype, 2, 2, 2, C)
        winners, bytes_memory = _guarded(np.dtype(np.uint8), 2, 2, 2, C)
        _perform(address, finish_words(y, pool=True, winners=winners), x)
        windows = _windows(x)
        same = np.array_equal(y, windows.max(-1)) and np.array_equal(winners, windows.argmax(-1))
        if not same or {memory[-1], bytes_memory[-1]} != {GUARD % 128}:
            return False
    return True


def pool_winners_works(address: int, lanes: int, dtype: np.dtype) -> bool:
    """The same of an array with an odd row and column."""
    C = lanes + lanes // 2
    x = integers(dtype, 2, 5, 5, C)
    y, memory = _guarded(dtype, 2, 2, 2, C)
    winners, bytes_memory = _guarded(np.dtype(np.uint8), 2, 2, 2, C)
    perform(pool_winners_call(address, x, y, winners))
    windows = _windows(x[:, :4, :4])
    same = np.array_equal(y, windows.max(-1)) and np.array_equal(winners, windows.argmax(-1))
    return same and {memory[-1], bytes_memory[-1]} == {GUARD % 128}


def winners_backward_works(address: int, lanes: int, dtype: np.dtype) -> bool:
    """Whether errors go back to winners, where the maximum was positive."""
    C = lanes + lanes // 2
    y = integers(dtype, 2, 2, 2, C)
    dy, winners = y[::-1].copy(), np.arange(y.size).reshape(y.shape).astype(np.uint8) % 4
    for relu in (False, True):
        dx, memory = _guarded(dtype, 2, 5, 5, C)
        perform(winners_backward_call(address, dy, y, winners, dx, relu))
        right = np.zeros_like(dx)
        error = np.where(y > 0, dy, 0) if relu else dy
        for k in range(4):
            right[:, k // 2 : 4 : 2, k % 2 : 4 : 2] = np.where(winners == k, error, 0)
        if not np.array_equal(dx, right) or memory[-1] != GUARD % 128:
            return False
    return True
