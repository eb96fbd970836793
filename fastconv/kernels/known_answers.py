"""Known problems that kernels from disk solve before they are trusted: integers, so exactly.

Two images of 2x3 cells; windows of 2x2, stride 1, which gives two windows an image. Channels are
more than a vector has lanes, and no multiple of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import typeof
from numba.core import types
from numba.np.numpy_support import as_dtype

__all__ = ["CASES", "works"]

M, C = 2, 19
# (N, k, s, d, lo, O, hi) of D, H and W; the cells of each window.
AXES = np.array([(1, 1, 1, 1, 0, 1, 0), (2, 2, 1, 1, 0, 1, 0), (3, 2, 1, 1, 0, 2, 0)])
CELLS = np.array([(0, 1, 3, 4), (1, 2, 4, 5)])


class Case(NamedTuple):
    """A call ``kernel(*args, 0, total)``, or ``kernel(parts, *args, total)`` of the parallel one.

    `answers` are what the first outputs among `args` (from `first` on) hold afterwards.
    """

    args: tuple[Any, ...]
    total: int
    first: int
    answers: tuple[np.ndarray, ...]


def _integers(dtype: np.dtype, *shape: int) -> np.ndarray:
    """Multiples of 4, so that a mean over four cells is exact; some are equal."""
    n = np.arange(np.prod(shape)).reshape(shape)
    return (n * 7 % 23 * 4 - 44).astype(dtype)


def _unwritten(dtype: Any, *shape: int) -> np.ndarray:
    return np.full(shape, -77, dtype)


def _windows(x: np.ndarray) -> np.ndarray:
    """``(M, windows, cells, C)``."""
    return x.reshape(M, 6, C)[:, CELLS]


def _sum_to_cells(dy: np.ndarray) -> np.ndarray:
    """Every error ``dy (M, windows, cells, C)`` added to its cell: ``(M*6, C)``."""
    dx = np.zeros((M, 6, C), dy.dtype)
    for o, u in np.ndindex(CELLS.shape):
        dx[:, CELLS[o, u]] += dy[:, o, u]
    return dx.reshape(-1, C)


def _winners(x: np.ndarray) -> np.ndarray:
    """The first largest cell of every window: ``(M, windows, C)``."""
    return CELLS[np.arange(2)[:, None], _windows(x).argmax(2)]


def _max_values(dtype: np.dtype) -> Case:
    x = _integers(dtype, M * 6, C)
    best = _windows(x).max(2).reshape(-1, C)
    return Case((x, _unwritten(dtype, M * 2, C), AXES), M, 1, (best,))


def _max_rows(dtype: np.dtype) -> Case:
    x = _integers(dtype, M * 6, C)
    answers = _windows(x).max(2).reshape(-1, C), _winners(x).reshape(-1, C)
    outputs = _unwritten(dtype, M * 2, C), _unwritten(np.int64, M * 2, C)
    return Case((x, *outputs, AXES), M, 1, answers)


def _max_scatter(dtype: np.dtype) -> Case:
    dy, winners = _integers(dtype, M * 2, C), _winners(_integers(dtype, M * 6, C))
    won = winners[:, :, None] == CELLS[:, :, None]
    answer = _sum_to_cells(dy.reshape(M, 2, 1, C) * won.astype(dtype))
    dx = _unwritten(dtype, M * 6, C)
    return Case((dy, winners.reshape(-1, C), dx, AXES), M, 2, (answer,))


def _avg_rows(dtype: np.dtype) -> Case:
    x = _integers(dtype, M * 6, C)
    answer = (_windows(x).sum(2) / 4).astype(dtype).reshape(-1, C)
    return Case((x, _unwritten(dtype, M * 2, C), AXES, False), M, 1, (answer,))


def _avg_backward(dtype: np.dtype) -> Case:
    dy = _integers(dtype, M * 2, C)
    spread = np.repeat(dy.reshape(M, 2, 1, C) / dtype.type(4), 4, 2)
    args = dy, _unwritten(dtype, M * 6, C), AXES, False
    return Case(args, M, 1, (_sum_to_cells(spread),))


def _col2im_rows(dtype: np.dtype) -> Case:
    cols = _integers(dtype, M, 1, 1, 2, 4, C)
    dx = np.zeros((M, 1, 2, 3, C), dtype)
    answer = _sum_to_cells(cols.reshape(M, 2, 4, C)).reshape(dx.shape)
    axes = np.ascontiguousarray(AXES[:, :6])
    return Case((cols, dx, axes), M * 2, 1, (answer,))


def _bias_sums(dtype: np.dtype) -> Case:
    dy = _integers(dtype, M, 6, C)
    return Case((dy, _unwritten(np.float64, M, C)), M, 1, (dy.sum(1, np.float64),))


def _relu_delta(dtype: np.dtype) -> Case:
    dy, y = _integers(dtype, M * 37), _integers(dtype, 37 * M)[::-1].copy()
    return Case((dy, y, _unwritten(dtype, M * 37)), M * 37, 2, (np.where(y > 0, dy, 0),))


CASES: dict[str, Callable[[np.dtype], Case]] = {
    "pool.max_values": _max_values,
    "pool.max_rows": _max_rows,
    "pool.max_scatter": _max_scatter,
    "pool.avg_rows": _avg_rows,
    "pool.avg_backward": _avg_backward,
    "col2im.col2im_rows": _col2im_rows,
    "deltas.bias_sums": _bias_sums,
    "deltas.relu_delta": _relu_delta,
}


def works(name: str, call: Callable[..., Any], signature: tuple[Any, ...]) -> bool:
    """Whether the compiled kernel behind `call` gives the known answer of `name`.

    A kernel whose signature is not that of the known problem is not called: nothing would check
    the types of its arguments.
    """
    if name.startswith("entries."):
        from fastconv.engine.known_answers import runs

        return runs(name.endswith("serial"), call, signature)
    serial = name.removesuffix("_parallel")
    arrays: Iterator[Any] = (kind for kind in signature if isinstance(kind, types.Array))
    case = CASES[serial](as_dtype(next(arrays).dtype))
    parallel = name != serial
    args = (2, *case.args, case.total) if parallel else (*case.args, 0, case.total)
    if tuple(typeof(arg) for arg in args) != tuple(signature):
        return False
    call(*args)
    outputs = case.args[case.first : case.first + len(case.answers)]
    return all(map(np.array_equal, outputs, case.answers))
