"""Known problems that the engine's kernels from disk solve before they are trusted, exactly."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types

from fastconv.engine import slots as s
from fastconv.engine.tiles import DOT, ELEMENTWISE, Tile

__all__ = ["product_works", "runs", "sweep_works"]


def _integers(dtype: np.dtype, *shape: int) -> np.ndarray:
    """Small integers: no sum here is rounded."""
    return (np.arange(np.prod(shape)).reshape(shape) * 5 % 13 - 6).astype(dtype)


def sweep_works(address: int, tile: Tile) -> bool:
    """Whether a sweep multiplies: one row more than a tile, as `emit` has the contract.

    First ``C = A @ B + bias`` of all columns, then of all but the last, then
    ``max(C + A @ B, 0)``.
    """
    rows, k, nr, dtype = tile.rows + 1, 3, tile.columns, tile.dtype
    width = {ELEMENTWISE: nr, DOT: tile.lanes}.get(tile.kind, 1)
    a, bias = _integers(dtype, rows, k, width), _integers(dtype, nr)
    b = _integers(dtype, k, tile.line)
    if tile.kind == DOT:
        product = np.einsum("iql,qcl->ic", a, b.reshape(k, nr, width))
    else:
        product = (a * b).sum(1)
    padded = np.minimum(np.arange(rows + tile.rows), rows - 1)
    row, c_row = padded * a[0].nbytes, padded * nr * dtype.itemsize
    red = np.arange(k) * width * dtype.itemsize
    c = np.full((rows, nr), np.nan, dtype)
    task = np.zeros(s.TASK_WORDS, np.int64)
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)

    def sweep(columns: int, wide: int, accumulate: bool) -> np.ndarray:
        task[:] = (
            rows, k, a.ctypes.data, row.ctypes.data, red.ctypes.data, b.ctypes.data,
            b.strides[0], c.ctypes.data, c_row.ctypes.data, columns, bias.ctypes.data,
            accumulate, accumulate, wide,
        )  # fmt: skip
        call(task.ctypes.data)
        return c

    if not np.array_equal(sweep(nr, rows, False), product + bias):
        return False
    if tile.kind != DOT and nr > 1:
        c[:] = -77
        if not np.array_equal(sweep(nr - 1, 0, False)[:, :-1], (product + bias)[:, :-1]):
            return False
        if not (c[:, -1] == -77).all():
            return False
        c[:, -1] = (product + bias)[:, -1]
    return np.array_equal(sweep(nr, rows, True), np.maximum(2 * product + bias, 0))


def product_works(name: str, tile: Tile) -> bool:
    """Whether a control loop ("convolve" with "pack", or "kernel_gradient") gives a product.

    One line of images, two taps, and a cell of padding. The geometry is one for which the engine
    takes `tile`, which is in memory already; any other would do as well.
    """
    from fastconv.engine.convolution import Convolution
    from fastconv.engine.gradient import KernelGradient
    from fastconv.resolve import conv_geometry

    width, F, dtype = tile.rows, tile.columns, tile.dtype
    depthwise = tile.kind == ELEMENTWISE and F > 1
    C = F if depthwise else tile.lanes
    x, w = _integers(dtype, 1, width, C), _integers(dtype, 2, 1 if depthwise else C, F)
    g = conv_geometry(x.shape, w.shape, padding=((0, 1),), groups=C if depthwise else 1)
    taps = np.stack([x[0], np.concatenate([x[0, 1:], np.zeros((1, C), dtype)])])  # (2, width, C)
    if name == "kernel_gradient":
        dy, dw = _integers(dtype, 1, width, F), np.full(w.shape, np.nan, dtype)
        KernelGradient(g, dtype).run(x, dy, dw)
        right = np.einsum("tpc,pc->tc" if depthwise else "tpc,pf->tcf", taps, dy[0])
        return np.array_equal(dw, right.reshape(w.shape))
    b, y = _integers(dtype, F), np.full((1, width, F), np.nan, dtype)
    Convolution(g, dtype).run(x, w, b, False, y)
    subscripts = "tpc,tc->pc" if depthwise else "tpc,tcf->pf"
    return np.array_equal(y[0], np.einsum(subscripts, taps, w[:, 0] if depthwise else w) + b)


def runs(serial: bool, call: Callable[..., Any], signature: tuple[Any, ...]) -> bool:
    """Whether `entries.run` or `run_serial` packs, then computes, on every thread once."""
    if tuple(signature) != (types.int64,) * (3 if serial else 5):
        return False
    seen: list[tuple[str, int, int]] = []
    entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
    pack, compute = (
        entry(lambda at, thread, what=what: seen.append((what, at, thread)))
        for what in ("pack", "compute")
    )
    addresses = [ctypes.cast(f, ctypes.c_void_p).value for f in (pack, compute)]
    if serial:
        call(*addresses, 5)
        return seen == [("pack", 5, 0), ("compute", 5, 0)]
    call(3, 2, *addresses, 5)
    packed, computed = sorted(seen[:2]), sorted(seen[2:])
    return packed == [("pack", 5, n) for n in range(2)] and computed == [
        ("compute", 5, n) for n in range(3)
    ]
