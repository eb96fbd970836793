"""Known problems that functions which Python calls solve before they are trusted, exactly."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import typeof
from numba.core import types
from numba.np.numpy_support import as_dtype

__all__ = ["col2im_parallel_works", "col2im_works", "run_serial_works", "run_works"]

Call = Callable[..., Any]
Signature = tuple[Any, ...]


def run_works(call: Call, signature: Signature) -> bool:
    """Whether `launch.run` calls an entry on every thread once."""
    if tuple(signature) != (types.int64,) * 3:
        return False
    seen, address, _entry = _recorder()
    call(3, address, 5)
    return sorted(seen) == [(5, 0), (5, 1), (5, 2)]


def run_serial_works(call: Call, signature: Signature) -> bool:
    """Whether `launch.run_serial` calls an entry once."""
    if tuple(signature) != (types.int64,) * 2:
        return False
    seen, address, _entry = _recorder()
    call(address, 5)
    return seen == [(5, 0)]


def _recorder() -> tuple[list[tuple[int, int]], int, Any]:
    """The calls of an entry, its address, and what keeps it alive."""
    seen: list[tuple[int, int]] = []
    entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(
        lambda at, thread: seen.append((at, thread))
    )
    return seen, int(ctypes.cast(entry, ctypes.c_void_p).value or 0), entry


def col2im_works(call: Call, signature: Signature) -> bool:
    """Whether `loops.col2im.col2im_rows` adds windows up."""
    cols, dx, axes = _col2im_problem(signature)
    return _adds_up(call, (cols, dx, axes, 0, 4), signature)


def col2im_parallel_works(call: Call, signature: Signature) -> bool:
    """Whether `loops.col2im.col2im_rows_parallel` does."""
    cols, dx, axes = _col2im_problem(signature)
    return _adds_up(call, (2, cols, dx, axes, 4), signature)


def _col2im_problem(signature: Signature) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images of 2x3 cells, windows of 2x2, stride 1, in the dtype of the signature."""
    arrays = (kind for kind in signature if isinstance(kind, types.Array))
    dtype = as_dtype(next(arrays).dtype)
    cols = (np.arange(2 * 2 * 4 * 19) * 7 % 23 - 11).astype(dtype).reshape(2, 1, 1, 2, 4, 19)
    # (N, k, s, d, lo, O) of D, H and W
    axes = np.array([(1, 1, 1, 1, 0, 1), (2, 2, 1, 1, 0, 1), (3, 2, 1, 1, 0, 2)])
    return cols, np.zeros((2, 1, 2, 3, 19), dtype), axes


def _adds_up(call: Call, args: tuple[Any, ...], signature: Signature) -> bool:
    if tuple(typeof(arg) for arg in args) != tuple(signature):
        return False
    call(*args)
    cols, dx = (arg for arg in args[:3] if isinstance(arg, np.ndarray) and arg.ndim > 2)
    answer = np.zeros_like(dx)
    for window, tap in np.ndindex(2, 4):
        answer[:, 0, tap // 2, window + tap % 2] += cols[:, 0, 0, window, tap]
    return np.array_equal(dx, answer)
