"""Pooling over arrays of any layout: what the compiled loops can read in place, or block by block.

They take images whose channels lie one behind the other. A contiguous array in channels-first order
is such a thing too: m*C images of one channel. Anything else is copied, a block at a time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv import threads
from fastconv.geometry import Geometry
from fastconv.operands import computing_dtype, native_dtype

__all__ = ["avg_pool", "avg_pool_backward", "in_place", "max_pool", "max_pool_backward"]

# Elements of a contiguous copy of part of an operand.
BLOCK = 2**18
CACHED_PARTS = 256
IN_PLACE = frozenset(np.dtype(name) for name in ("float32", "float64", "int64"))


def max_pool(g: Geometry, x: np.ndarray, y: np.ndarray, argmax: np.ndarray | None) -> None:
    """Maximum of every window, and the winner's flat spatial index if `argmax` is given."""
    for plan, (x_part, y_part, winners) in _parts(g, [x], [y, argmax]):
        plan.reduce("max" if winners is None else "argmax", x_part, y_part, winners)


def max_pool_backward(g: Geometry, dy: np.ndarray, argmax: np.ndarray, dx: np.ndarray) -> bool:
    """Every error to its window's winner; False, and `dx` untouched, if one is no cell."""
    in_parts = argmax.size and not in_place(dy, argmax, dx)  # all are checked before the first
    if in_parts and not -1 <= argmax.min() <= argmax.max() < math.prod(g.x_size):
        return False
    return all(plan.scatter(*arrays) for plan, arrays in _parts(g, [dy, argmax], [dx]))


def avg_pool(g: Geometry, x: np.ndarray, y: np.ndarray, include_pad: bool) -> None:
    """Mean of every window."""
    for plan, arrays in _parts(g, [x], [y], include_pad):
        plan.reduce("mean", *arrays, None)


def avg_pool_backward(g: Geometry, dy: np.ndarray, dx: np.ndarray, include_pad: bool) -> None:
    """Every error spread evenly over its window."""
    for plan, arrays in _parts(g, [dy], [dx], include_pad):
        plan.spread(*arrays)


@lru_cache(1)
def _engine() -> Any:
    """The module of the calls, which the first one imports."""
    with threads.building:
        from fastconv.engine import pool

    return pool


@lru_cache(CACHED_PARTS)
def _part(g: Geometry, m: int, C: int) -> Geometry:
    """`g` with so many images and channels."""
    return dataclasses.replace(g, m=m, C=C, F=C, G=C)


def _parts(
    g: Geometry,
    inputs: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray | None],
    include_pad: bool = False,
) -> Iterator[tuple[Any, list[Any]]]:
    """A plan and its arrays for every part; what was computed into a copy is written back."""
    pool_plan = _engine().pool_plan
    if g.m == 0:
        return
    given = [a for a in (*inputs, *outputs) if a is not None]
    dtype = computing_dtype(native_dtype(inputs[0]))
    if in_place(*given):
        yield pool_plan(g, dtype, include_pad), [*inputs, *outputs]
        return
    planes = [np.moveaxis(a, -1, 1) for a in given]
    if in_place(*planes):
        yield pool_plan(_part(g, g.m * g.C, 1), dtype, include_pad), [*inputs, *outputs]
        return
    for block in _blocks(g, given):
        ready = [_contiguous(a[block]) for a in inputs]
        made = [None if a is None else np.empty(a[block].shape, _native(a)) for a in outputs]
        part = _part(g, ready[0].shape[0], ready[0].shape[-1])
        yield pool_plan(part, dtype, include_pad), [*ready, *made]
        for a, result in zip(outputs, made, strict=True):
            if a is not None:
                a[block] = result


def in_place(*arrays: np.ndarray) -> bool:
    """Whether the compiled loops may read and write all of them where they lie."""
    return all(a.dtype in IN_PLACE and a.flags.c_contiguous for a in arrays)


def _native(array: np.ndarray) -> np.dtype:
    return computing_dtype(array.dtype.newbyteorder("="))


def _blocks(g: Geometry, arrays: Sequence[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Index of every block of images and channels."""
    image = max(math.prod(a.shape[1:]) for a in arrays)
    images = max(1, BLOCK // image)
    channels = max(1, min(g.C, g.C * BLOCK // image))
    for n in range(0, g.m, images):
        for c in range(0, g.C, channels):
            yield slice(n, n + images), Ellipsis, slice(c, c + channels)


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.array(array, _native(array), order="C", subok=False)
