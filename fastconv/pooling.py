"""Pooling over arrays of any layout: blocks of contiguous images for the compiled loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv import threads
from fastconv.geometry import Geometry
from fastconv.operands import computing_dtype

__all__ = ["avg_pool", "avg_pool_backward", "max_pool", "max_pool_backward"]

# Elements of a contiguous copy of part of an operand, and what a part for another thread is worth.
BLOCK = 2**18
GRAIN = 50_000
CACHED_AXES = 256


def max_pool(g: Geometry, x: np.ndarray, y: np.ndarray, argmax: np.ndarray | None) -> None:
    """Maximum of every window, and the winner's flat spatial index if `argmax` is given."""
    from fastconv.kernels import pool

    if argmax is None:
        kernels = pool.max_values, pool.max_values_parallel
        _run(kernels, g, [x], [y], (), rows=_rows(g), room=_cells(g))
    else:
        kernels = pool.max_rows, pool.max_rows_parallel
        _run(kernels, g, [x], [y, argmax], (), rows=_rows(g), room=_cells(g))


def max_pool_backward(g: Geometry, dy: np.ndarray, argmax: np.ndarray, dx: np.ndarray) -> None:
    """Every error to its window's winner."""
    from fastconv.kernels import pool

    _run((pool.max_scatter, pool.max_scatter_parallel), g, [dy, argmax], [dx], ())


def avg_pool(g: Geometry, x: np.ndarray, y: np.ndarray, include_pad: bool) -> None:
    """Mean of every window."""
    from fastconv.kernels import pool

    _run((pool.avg_rows, pool.avg_rows_parallel), g, [x], [y], (include_pad,), rows=_rows(g))


def avg_pool_backward(g: Geometry, dy: np.ndarray, dx: np.ndarray, include_pad: bool) -> None:
    """Every error spread evenly over its window."""
    from fastconv.kernels import pool

    _run((pool.avg_backward, pool.avg_backward_parallel), g, [dy], [dx], (include_pad,))


@lru_cache(CACHED_AXES)
def _axes(g: Geometry) -> np.ndarray:
    """The kernels' description of `g`: a row ``(N, k, s, d, lo, O, hi)`` for D, H and W."""
    axes = np.array([(*a, 0) for a in g.axes3], np.int64)
    axes[-g.rank :, 6] = [hi for _, hi in g.pads]
    return axes


def _rows(g: Geometry) -> int:
    """Output rows of one image."""
    return math.prod(g.y_size[:-1])


def _cells(g: Geometry) -> int:
    """Most cells that a window has inside the input: its padding may be far larger."""
    return math.prod(min(k, (n - 1) // d + 1) for n, k, _, d, _, _ in g.axes)


def _run(
    kernels: tuple[Callable[..., Any], Callable[..., Any]],
    g: Geometry,
    inputs: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    options: tuple[Any, ...],
    rows: int = 1,
    room: int = 0,
) -> None:
    """Run a pair (serial, parallel) over blocks; a kernel counts `rows` per image.

    Each part of the work gets `room` int64 words to itself.
    """
    serial, parallel = kernels
    axes = _axes(g)
    for block in _blocks(g, [*inputs, *outputs]):
        ready = [_contiguous(a[block]) for a in inputs]
        made = [a[block] if usable(a[block]) else _scratch(a[block]) for a in outputs]
        flat = [a.reshape(-1, a.shape[-1]) for a in (*ready, *made)]
        total = made[0].shape[0] * rows
        count = min(threads.parts(max(a.size for a in flat), GRAIN), max(total, 1))
        words = [np.empty((count, room), np.int64)] if room else []
        if count == 1:
            serial(*flat, axes, *options, *(w[0] for w in words), 0, total)
        else:
            threads.launch(parallel, count, *flat, axes, *options, *words, total)
        for a, result in zip(outputs, made, strict=True):
            if not np.may_share_memory(a, result):
                a[block] = result


def _blocks(g: Geometry, arrays: Sequence[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Index of every block of images and channels: everything at once where no copy is needed."""
    if all(usable(a) for a in arrays):
        yield (slice(None),)
        return
    image = max(math.prod(a.shape[1:]) for a in arrays)
    images = max(1, BLOCK // image)
    channels = max(1, min(g.C, g.C * BLOCK // image))
    for n in range(0, g.m, images):
        for c in range(0, g.C, channels):
            yield slice(n, n + images), Ellipsis, slice(c, c + channels)


def usable(array: np.ndarray) -> bool:
    """Whether the kernels may read or write `array` where it lies."""
    flags = array.flags
    return (
        flags.c_contiguous
        and flags.aligned
        and flags.writeable
        and array.dtype.isnative
        and array.dtype != np.float16
    )


def _contiguous(array: np.ndarray) -> np.ndarray:
    """What the kernels can read. Numba would compile everything again for read-only arrays."""
    if usable(array):
        return array
    return np.array(array, computing_dtype(array.dtype.newbyteorder("=")), order="C", subok=False)


def _scratch(array: np.ndarray) -> np.ndarray:
    return np.empty(array.shape, computing_dtype(array.dtype))
