"""Batched deltas over arrays of any layout: the bias's gradient and the activation's mask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv.operands import computing_dtype, native_dtype, quiet
from fastconv.plans import compiled
from fastconv.plans.layout import in_place

__all__ = ["bias_grad", "like", "relu_delta"]

# Elements copied at a time where a copy is needed: the bias's, and the mask's, which are read again
# at once and should still lie in the second-level cache.
BLOCK = 2**18
MASK_BLOCK = 2**17
MASKED = frozenset(np.dtype(name) for name in ("float32", "float64", "float16"))


def bias_grad(dy: np.ndarray, db: np.ndarray) -> None:
    """``db[f]`` = sum of ``dy[..., f]`` over images and pixels; exactly 0 for an empty batch.

    Images are summed one by one in float64, then their sums in the images' order, so the bits
    depend on the shape alone: neither on threads nor on the layout.
    """
    dtype = computing_dtype(native_dtype(dy))
    if dy.size == 0:
        db[...] = 0
        return
    engine = compiled.engine()
    # the images' sums, and behind them what the call needs besides
    memory = np.empty(engine.channels.bias_sums_nbytes(dy.shape) // 8)
    entry = engine.loop("bias_grad", dtype)
    if in_place(dy, db) and db.dtype == dtype:
        engine.perform(engine.channels.bias_grad_call(entry, dy, memory.ctypes.data, db))
    else:
        _bias_grad_in_parts(dy, db, dtype, entry, memory)


@quiet
def _bias_grad_in_parts(
    dy: np.ndarray, db: np.ndarray, dtype: np.dtype, entry: int, memory: np.ndarray
) -> None:
    """Of errors in another layout, or for a result in another dtype."""
    m, F = dy.shape[0], dy.shape[-1]
    sums = memory[: m * F].reshape(m, F)
    planes = np.moveaxis(dy, -1, 1)
    engine = compiled.engine()
    if in_place(planes):
        engine.deltas.bias_plane_sums(engine.loop("bias_plane_sums", dtype), planes, sums)
    else:
        step = m if in_place(dy) else max(1, BLOCK * m // dy.size)
        # In parts: a part's call writes behind its own images' sums, which are not there yet.
        for n in range(0, m, step):
            part = dy[n : n + step]
            if not in_place(part):
                part = np.array(part, dtype, order="C")
            at = sums[n:].ctypes.data
            engine.perform(engine.channels.bias_grad_call(entry, part, at, None))
    db[...] = np.add.accumulate(sums)[-1]


def like(array: np.ndarray) -> np.ndarray:
    """A new array of the same shape, order of axes in memory and dtype, in native byte order."""
    return np.empty_like(array, native_dtype(array))


def relu_delta(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """``dx = dy`` where ``y > 0``, else exactly 0."""
    if _flat(dy) and _flat(y) and _flat(dx):
        _mask(dy, y, dx)
        return
    orders = [_order(a) for a in (dy, y, dx)]
    order = max(orders, key=orders.count)  # that of most, so that least is copied
    dy, y, dx = (a.transpose(order) for a in (dy, y, dx))
    if _flat(dy) and _flat(y) and _flat(dx):
        _mask(dy, y, dx)
        return
    _relu_delta_in_blocks(dy, y, dx)


@quiet
def _relu_delta_in_blocks(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """Of arrays whose layouts differ."""
    native = native_dtype(dy)
    for block in _blocks(dx.shape):
        errors, outputs, result = dy[block], np.ascontiguousarray(y[block], native), dx[block]
        made = result if _flat(result) else np.empty(result.shape, native)
        if not _flat(errors):
            made[...] = errors
            errors = made
        _mask(errors, outputs, made)
        if made is not result:
            result[...] = made


def _flat(array: np.ndarray) -> bool:
    """Whether the compiled mask may read or write it where it lies."""
    return array.flags.c_contiguous and array.dtype in MASKED


def _mask(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    if dy.dtype.itemsize == 2:
        dy, y, dx = (a.view(np.int16) for a in (dy, y, dx))
    engine = compiled.engine()
    engine.deltas.relu_delta(engine.loop("relu_delta", dy.dtype), dy, y, dx)


def _order(array: np.ndarray) -> tuple[int, ...]:
    """The axes from the largest step in memory to the smallest."""
    return tuple(sorted(range(array.ndim), key=lambda i: -abs(array.strides[i])))


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Indices of blocks of at most MASK_BLOCK elements, which together are an array."""
    axis, size = len(shape), 1
    while axis and size * shape[axis - 1] <= MASK_BLOCK:
        axis -= 1
        size *= shape[axis]
    if not axis:
        yield (Ellipsis,)
        return
    step = max(1, MASK_BLOCK // size)
    for before in np.ndindex(shape[: axis - 1]):
        for n in range(0, shape[axis - 1], step):
            yield (*before, slice(n, n + step), Ellipsis)
