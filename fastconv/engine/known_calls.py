"""Known problems that kernels from disk solve before they are trusted: integers, so exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import typeof
from numba.core import types
from numba.np.numpy_support import as_dtype

__all__ = ["works"]


def works(name: str, call: Callable[..., Any], signature: tuple[Any, ...]) -> bool:
    """Whether the compiled kernel behind `call` gives the known answer of `name`.

    A kernel whose signature is not that of the known problem is not called: nothing would check
    the types of its arguments.
    """
    if name.startswith("entries."):
        from fastconv.engine.known_answers import runs

        return runs(name.endswith("serial"), call, signature)
    return _col2im_works(name.endswith("parallel"), call, signature)


def _col2im_works(parallel: bool, call: Callable[..., Any], signature: tuple[Any, ...]) -> bool:
    """Whether windows are added up: two images of 2x3 cells, windows of 2x2, stride 1."""
    arrays = (kind for kind in signature if isinstance(kind, types.Array))
    dtype = as_dtype(next(arrays).dtype)
    cols = (np.arange(2 * 2 * 4 * 19) * 7 % 23 - 11).astype(dtype).reshape(2, 1, 1, 2, 4, 19)
    dx = np.zeros((2, 1, 2, 3, 19), dtype)
    # (N, k, s, d, lo, O) of D, H and W
    axes = np.array([(1, 1, 1, 1, 0, 1), (2, 2, 1, 1, 0, 1), (3, 2, 1, 1, 0, 2)])
    args = (2, cols, dx, axes, 4) if parallel else (cols, dx, axes, 0, 4)
    if tuple(typeof(arg) for arg in args) != tuple(signature):
        return False
    call(*args)
    answer = np.zeros_like(dx)
    for window, tap in np.ndindex(2, 4):
        answer[:, 0, tap // 2, window + tap % 2] += cols[:, 0, 0, window, tap]
    return np.array_equal(dx, answer)
