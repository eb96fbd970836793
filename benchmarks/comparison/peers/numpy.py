"""NumPy: the explicit im2col matrix (sliding_window_view) and one matrix product a group."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from comparison.cases import Call, DeltaCase, PoolCase, UnsupportedError
from comparison.networks import AnyCase, NetworkCase
from fastconv.cli.bench_timing import blas_threads
from fastconv.geometry import Geometry, effective

MAX_BYTES = 2**30  # of the im2col matrix


class Numpy:
    """What people write without a library."""

    def threads(self, n: int) -> AbstractContextManager[Any]:
        """BLAS with n threads; the copies have one."""
        return blas_threads(n)

    def prepare(self, case: AnyCase) -> Call:
        """How NumPy computes the case."""
        if isinstance(case, NetworkCase):
            raise UnsupportedError("no networks")
        if isinstance(case, PoolCase):
            return _pool(case)
        if isinstance(case, DeltaCase):
            return _delta(case)
        g, (x, w, _, dy) = case.problem.geometry, case.operands
        size = g.P * g.K * g.G * x.itemsize
        if size > MAX_BYTES:
            raise UnsupportedError(f"its im2col matrix would take {size / 2**30:.1f} GiB")
        runs = {
            "forward": lambda: _forward(g, x, w),
            "kernel": lambda: _kernel_grad(g, x, dy),
            "input": lambda: _input_grad(g, dy, w),
        }
        return Call(runs[case.product], lambda result: result)


def _columns(g: Geometry, x: np.ndarray) -> np.ndarray:
    """The im2col matrix, one a group: (G, P, T C/G)."""
    axes = tuple(range(1, g.rank + 1))
    padded = np.pad(x, ((0, 0), *g.pads, (0, 0))) if np.any(g.pads) else x
    extents = [effective(k, d) for k, d in zip(g.window, g.dilation, strict=True)]
    windows = sliding_window_view(padded, extents, axis=axes)
    steps = [slice(0, (o - 1) * s + 1, s) for o, s in zip(g.y_size, g.stride, strict=True)]
    holes = [slice(None, None, d) for d in g.dilation]
    windows = windows[(slice(None), *steps, slice(None), *holes)]  # (m, O..., C, K...)
    split = windows.reshape(g.P, g.G, g.C // g.G, g.T)
    return np.ascontiguousarray(split.transpose(1, 0, 3, 2)).reshape(g.G, g.P, g.K)


def _kernels(g: Geometry, w: np.ndarray) -> np.ndarray:
    """The kernel, one matrix a group: (G, K, F/G)."""
    return w.reshape(g.K, g.G, g.F // g.G).transpose(1, 0, 2)


def _errors(g: Geometry, dy: np.ndarray) -> np.ndarray:
    """The output's gradient, one matrix a group: (G, P, F/G)."""
    return dy.reshape(g.P, g.G, g.F // g.G).transpose(1, 0, 2)


def _forward(g: Geometry, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    y = _columns(g, x) @ _kernels(g, w)
    return np.ascontiguousarray(y.transpose(1, 0, 2)).reshape(g.y_shape)


def _kernel_grad(g: Geometry, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    dw = _columns(g, x).transpose(0, 2, 1) @ _errors(g, dy)
    return np.ascontiguousarray(dw.transpose(1, 0, 2)).reshape(g.w_shape)


def _input_grad(g: Geometry, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Columns of errors, added to the pixels they came from (col2im)."""
    columns = _errors(g, dy) @ _kernels(g, w).transpose(0, 2, 1)  # (G, P, K)
    taps = columns.reshape(g.G, g.m, *g.y_size, g.T, g.C // g.G)
    sizes = [n + lo + hi for n, (lo, hi) in zip(g.x_size, g.pads, strict=True)]
    padded = np.zeros((g.m, *sizes, g.G, g.C // g.G), dy.dtype)
    for number, tap in enumerate(np.ndindex(g.window)):
        where = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, (_, _, s, d, _, o) in zip(tap, g.axes, strict=True)
        )
        padded[(slice(None), *where)] += np.moveaxis(taps[..., number, :], 0, -2)
    inside = tuple(slice(lo, lo + n) for n, (lo, _) in zip(g.x_size, g.pads, strict=True))
    return np.ascontiguousarray(padded[(slice(None), *inside)]).reshape(g.x_shape)


def _delta(case: DeltaCase) -> Call:
    dy, y, pixels = case.dy, case.y, case.pixels
    if case.product == "relu_backward":
        return Call(lambda: dy * (y > 0), lambda result: result)
    return Call(lambda: dy.sum(pixels), lambda result: result)


def _pool(case: PoolCase) -> Call:
    if case.product != "max_pool" and (case.product != "avg_pool" or case.padding):
        raise UnsupportedError("no short form in NumPy")
    x, k, s, p = case.x, case.window, case.stride, case.padding
    reduce = np.max if case.product == "max_pool" else np.mean

    def run() -> np.ndarray:
        padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), constant_values=-math.inf) if p else x
        windows = sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::s, ::s]
        return reduce(windows, axis=(-2, -1))

    return Call(run, lambda result: result)
