"""Known problems that products, poolings and programs solve before they are trusted, exactly."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.emit.kinds import DOT, ELEMENTWISE, PAIR, TWIN
from fastconv.engine.minimal import MinimalConvolution
from fastconv.engine.pools import Pools
from fastconv.engine.products import Convolution, KernelGradient
from fastconv.engine.tables.conv import forward_choice
from fastconv.engine.tables.kernel_grad import kernel_choice
from fastconv.engine.tables.tiles import Tile, cpu_lanes
from fastconv.engine.tables.winograd import minimal_choice
from fastconv.geometry.resolve import conv_geometry, pool_geometry

__all__ = ["integers", "minimal_works", "pool_works", "product_works", "program_works",
           "sweep_works"]  # fmt: skip

# Two images of 2x3 cells; windows of 2x2, stride 1, which gives two windows an image, and the cells
# of each window.
X_SIZE, CELLS = (2, 2, 3), np.array([(0, 1, 3, 4), (1, 2, 4, 5)])


def integers(dtype: np.dtype, *shape: int) -> np.ndarray:
    """Small integers: no sum here is rounded."""
    return (np.arange(np.prod(shape)).reshape(shape) * 5 % 13 - 6).astype(dtype)


def sweep_works(address: int, tile: Tile) -> bool:
    """Whether a sweep multiplies: a row more than a tile (TWIN: two), see `emit.product`.

    First ``C = A @ B + bias`` of all columns, then of all but the last, then
    ``max(C + A @ B, 0)``.
    """
    at_once = tile.kind.at_once
    rows, k, nr, dtype = tile.rows + at_once, 3, tile.columns, tile.dtype
    width = {ELEMENTWISE: nr, DOT: tile.lanes, PAIR: 2, TWIN: 2}.get(tile.kind, 1)
    a, bias = integers(dtype, rows // at_once, k, width), integers(dtype, nr)
    b = integers(dtype, k, tile.line)
    if tile.kind in (DOT, PAIR):
        product = np.einsum("iql,qcl->ic", a, b.reshape(k, nr, width))
    elif tile.kind is TWIN:
        product = np.einsum("iql,qc->ilc", a, b).reshape(rows, nr)
    else:
        product = (a * b).sum(1)
    padded = np.arange(rows + tile.rows)
    padded = np.where(padded < rows, padded, rows - at_once + padded % at_once)
    row, c_row = padded // at_once * a[0].nbytes, padded * nr * dtype.itemsize
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
    if tile.kind is not DOT and nr > 1:
        c[:] = -77
        if not np.array_equal(sweep(nr - 1, 0, False)[:, :-1], (product + bias)[:, :-1]):
            return False
        if not (c[:, -1] == -77).all():
            return False
        c[:, -1] = (product + bias)[:, -1]
    return np.array_equal(sweep(nr, rows, True), np.maximum(2 * product + bias, 0))


def product_works(entry: int, name: str, tile: Tile, sweep_of: Callable[[Tile], int]) -> bool:
    """Whether a control loop, "convolve" or "kernel_gradient", gives a product.

    Lines of pixels, two taps, and a cell of padding. The geometry is one for which the engine takes
    `tile`, which is in memory already; any other would do as well.
    """
    width, F, dtype = tile.rows, tile.columns, tile.dtype
    m = 64 if tile.kind is TWIN else 1  # twins are taken where many pixels are summed in parts
    depthwise = tile.kind is ELEMENTWISE and F > 1
    C = F if depthwise else tile.lanes
    x, w = integers(dtype, m, width, C), integers(dtype, 2, 1 if depthwise else C, F)
    g = conv_geometry(x.shape, w.shape, padding=((0, 1),), groups=C if depthwise else 1)
    after = np.concatenate([x[:, 1:], np.zeros((m, 1, C), dtype)], axis=1)
    taps = np.stack([x, after])  # (2, m, width, C)
    if name == "kernel_gradient":
        dy, dw = integers(dtype, m, width, F), np.full(w.shape, np.nan, dtype)
        kernel = kernel_choice(g, dtype)
        KernelGradient(kernel, entry, sweep_of(kernel.tile)).run(x, dy, dw)
        right = np.einsum("tmpc,mpc->tc" if depthwise else "tmpc,mpf->tcf", taps, dy)
        return np.array_equal(dw, right.reshape(w.shape))
    b, y = integers(dtype, F), np.full((m, width, F), np.nan, dtype)
    choice = forward_choice(g, dtype)
    Convolution(choice, entry, sweep_of(choice.tile)).run(x, w, b, False, y)
    subscripts = "tmpc,tc->mpc" if depthwise else "tmpc,tcf->mpf"
    return np.array_equal(y, np.einsum(subscripts, taps, w[:, 0] if depthwise else w) + b)


def minimal_works(
    address: int, edge: int, dtype: np.dtype, sweep_of: Callable[[Tile], int]
) -> bool:
    """Whether minimal filtering gives a product: whole tiles and parts of some, and an infinity."""
    width, C, F = edge + 3, cpu_lanes(dtype) + 1, cpu_lanes(dtype)
    x, w = integers(dtype, 2, width, width, C), 24 * integers(dtype, 3, 3, C, F)
    b, y = integers(dtype, F), np.full((2, width - 2, width - 2, F), np.nan, dtype)
    x[1, 0, 0, 0] = np.inf
    choice = minimal_choice("forward", conv_geometry(x.shape, w.shape), dtype, edge)
    sweep = sweep_of(choice.tile)
    MinimalConvolution(choice, address, sweep).run(x, w, b, False, y)
    right = np.zeros(y.shape) + b
    with np.errstate(invalid="ignore"):
        for u, v in np.ndindex(3, 3):
            cells = x[:, u : u + width - 2, v : v + width - 2]
            right += cells.astype(float) @ w[u, v].astype(float)
    near = 64 * np.finfo(dtype).eps * np.abs(right[0]).max()
    return np.allclose(y, right, rtol=0, atol=near, equal_nan=True)


def pool_works(address: int, name: str, lanes: int, spacing: int, dtype: np.dtype) -> bool:
    """Whether an entry of pooling gives maxima, winners or means, or errors back to the cells.

    Channels are one less than two vectors: there is a rest, which a vector of half the lanes and
    single elements make. Where lanes are windows side by side, so many are the windows of a row.
    """
    apart = name in ("fill", "place")  # one window an image, and cells that are in none
    C, windows = 2 * lanes - 1, CELLS[:1] if apart else CELLS
    shape, step = (*X_SIZE, C), 1 + apart
    if spacing:
        width, C, step = (2 * lanes - 2) * spacing + 2, 1, spacing
        shape = (2, 2, width, C)
        windows = spacing * np.arange(2 * lanes - 1)[:, None] + [0, 1, width, width + 1]
    g = pool_geometry(shape, 2, stride=step)
    pools = Pools(g, dtype, False, lambda *_: address)
    inside = shape[1] * shape[2]
    x, dy = 4 * integers(dtype, 2, inside, C), 4 * integers(dtype, 2, len(windows), C)
    seen = x[:, windows]  # (images, windows, cells, C)
    winners = windows[np.arange(len(windows))[:, None], seen.argmax(2)]
    y, argmax, dx = np.full_like(dy, -77), np.full_like(winners, -77), np.full_like(x, -77)
    if name in ("scatter", "place"):
        wrong = winners.copy()
        wrong[:, -1, -1] = inside
        if pools.call(address, 2, dx, dy, wrong) != s.OUTSIDE or (dx != -77).any():
            return False  # it has not seen the wrong winner, or not before it began
    elsewhere = np.full_like(winners, 2)  # of the first window
    if name == "place" and pools.call(address, 2, dx, dy, elsewhere) != s.ELSEWHERE:
        return False
    if name in ("spread", "scatter", "fill", "place"):
        pools.call(address, 2, dx, dy, winners)
        share = np.repeat(dy[:, :, None] / dtype.type(4), 4, 2)
        if name in ("scatter", "place"):
            share = dy[:, :, None] * (winners[:, :, None] == windows[:, :, None])
        answer = np.zeros_like(x)
        for o, u in np.ndindex(windows.shape):
            answer[:, windows[o, u]] += share[:, o, u]
        return np.array_equal(dx, answer)
    pools.call(address, 2, x, y, argmax if name == "argmax" else None)
    answer = seen.sum(2) / dtype.type(4) if name == "mean" else seen.max(2)
    return np.array_equal(y, answer) and (name != "argmax" or np.array_equal(argmax, winners))


def program_works(address: int) -> bool:
    """Whether a walk makes its calls in order, and stops where a number is not finite."""
    seen: list[int] = []
    note = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(lambda at, _: seen.append(at))
    entry = ctypes.cast(note, ctypes.c_void_p).value or 0
    number = np.array(1.0)
    steps = np.zeros((3, aw.STEP_WORDS), np.int64)
    call = np.zeros(aw.PROGRAM_CALL_WORDS, np.int64)
    call[aw.STEPS], call[aw.STEP_COUNT] = steps.ctypes.data, len(steps)
    walk = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)
    for number[()] in (1.0, np.inf):
        steps[:] = [(0, 0, entry, i, 1, number.ctypes.data if i == 1 else 0) for i in range(3)]
        walk(call.ctypes.data, 0)
        walk(call.ctypes.data, 1)  # a thread that comes late finds nothing to do
    return seen == [0, 1, 2, 0, 1]
