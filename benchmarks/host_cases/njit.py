"""``@njit``: a plain loop nest, and `fastconv.conv` in its place; alone, and for each image.

Then Python's call from ``objmode``, and the same call without: once a problem is known, compiled
code makes it itself.
"""

from __future__ import annotations

import numpy as np
from numba import njit, objmode, prange, types

import fastconv as fc

from . import Case
from ._lenet import second_layer


@njit(fastmath={"contract"})
def loops(x, w):
    m, H, W, C = x.shape
    KH, KW, _, F = w.shape
    y = np.zeros((m, H - KH + 1, W - KW + 1, F), x.dtype)
    for n in range(m):
        for i in range(H - KH + 1):
            for j in range(W - KW + 1):
                for u in range(KH):
                    for v in range(KW):
                        for c in range(C):
                            for f in range(F):  # innermost: contiguous, so it becomes vectors
                                y[n, i, j, f] += x[n, i + u, j + v, c] * w[u, v, c, f]
    return y


@njit
def call(x, w):
    return fc.conv(x, w)


@njit(parallel=True)
def loops_each(x, w):
    sums = np.zeros(len(x))
    for n in prange(len(x)):
        sums[n] = loops(x[n : n + 1], w).sum()
    return sums


@njit(parallel=True)
def call_each(x, w):
    sums = np.zeros(len(x))
    for n in prange(len(x)):
        sums[n] = fc.conv(x[n : n + 1], w).sum()
    return sums


IMAGES = types.Array(types.float32, 4, "C")


def in_python(x, w):
    with fc.num_threads(1):
        return fc.conv(x, w)


@njit
def through_python(x, w):
    with objmode(y=IMAGES):
        y = in_python(x, w)
    return y


@njit(parallel=True)
def through_python_each(x, w):
    sums = np.zeros(len(x))
    for n in prange(len(x)):
        sums[n] = through_python(x[n : n + 1], w).sum()
    return sums


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    small = tuple(
        a.astype("float32") for a in (rng.normal(size=(1, 8, 8, 3)), rng.normal(size=(3, 3, 3, 8)))
    )
    large = tuple(
        a.astype("float32")
        for a in (rng.normal(size=(16, 32, 32, 32)), rng.normal(size=(3, 3, 32, 32)))
    )
    layer = second_layer("float32")
    return [
        Case("m32 h12w12c6 f16 k5x5", lambda: loops(*layer), lambda: call(*layer)),
        Case("m1 h8w8c3 f8 k3x3", lambda: loops(*small), lambda: call(*small)),
        Case(
            "prange over 32 images, h12w12c6 f16 k5x5",
            lambda: loops_each(*layer),
            lambda: call_each(*layer),
        ),
        Case(
            "prange over 16 images, h32w32c32 f32 k3x3",
            lambda: loops_each(*large),
            lambda: call_each(*large),
        ),
        Case(
            "Python's call, m1 h8w8c3 f8 k3x3",
            lambda: through_python(*small),
            lambda: call(*small),
        ),
        Case(
            "Python's call, prange over 32 images, h12w12c6 f16 k5x5",
            lambda: through_python_each(*layer),
            lambda: call_each(*layer),
        ),
        Case(
            "Python's call, prange over 16 images, h32w32c32 f32 k3x3",
            lambda: through_python_each(*large),
            lambda: call_each(*large),
        ),
    ]
