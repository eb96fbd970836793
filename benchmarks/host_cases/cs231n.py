"""Course code, CS231n: the im2col of its fast layers in NumPy, and a convolution, ReLU, pool."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fastconv.adapters import cs231n as fast

from . import Case

CONV = {"stride": 1, "pad": 1}
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}


def im2col_forward(x, w, b):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, w.shape[2:], axis=(2, 3))  # (N, C, H, W, HH, WW)
    cols = np.ascontiguousarray(windows.transpose(1, 4, 5, 0, 2, 3)).reshape(w[0].size, -1)
    N, _, H, W = x.shape
    out = (w.reshape(len(w), -1) @ cols + b[:, None]).reshape(len(w), N, H, W)
    return np.ascontiguousarray(out.transpose(1, 0, 2, 3)), cols


def im2col_backward(dout, x, w, cols):
    errors = dout.transpose(1, 0, 2, 3).reshape(len(w), -1)
    dw = (errors @ cols.T).reshape(w.shape)
    N, C, H, W = x.shape
    dcols = (w.reshape(len(w), -1).T @ errors).reshape(C, 3, 3, N, H, W)
    dx = np.zeros((N, C, H + 2, W + 2))
    for u in range(3):
        for v in range(3):
            dx[:, :, u : u + H, v : v + W] += dcols[:, u, v].transpose(1, 0, 2, 3)
    return dx[:, :, 1:-1, 1:-1], dw, errors.sum(axis=1)


def tiles_forward(x):
    N, C, H, W = x.shape
    tiles = x.reshape(N, C, H // 2, 2, W // 2, 2)
    return tiles, tiles.max(axis=(3, 5), keepdims=True)


def tiles_backward(dout, tiles, largest):
    winners = tiles == largest
    dtiles = winners * dout[:, :, :, None, :, None] / winners.sum(axis=(3, 5), keepdims=True)
    N, C, H, _, W, _ = tiles.shape
    return dtiles.reshape(N, C, 2 * H, 2 * W)


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(50, 3, 32, 32)), rng.normal(size=(32, 3, 3, 3)), rng.normal(size=32)

    def theirs():
        a, cols = im2col_forward(x, w, b)
        return a, *im2col_backward(a, x, w, cols)

    def ours():
        a, cache = fast.conv_forward_fast(x, w, b, CONV)
        return a, *fast.conv_backward_fast(a, cache)

    def sandwich():
        a, cols = im2col_forward(x, w, b)
        tiles, largest = tiles_forward(np.maximum(a, 0))
        da = tiles_backward(largest[:, :, :, 0, :, 0], tiles, largest) * (a > 0)
        return im2col_backward(da, x, w, cols)

    def fast_sandwich():
        a, conv_cache = fast.conv_forward_fast(x, w, b, CONV)
        out, pool_cache = fast.max_pool_forward_fast(np.maximum(a, 0), POOL)
        return fast.conv_backward_fast(
            fast.max_pool_backward_fast(out, pool_cache) * (a > 0), conv_cache
        )

    return [
        Case("m50 h32w32c3 f32 k3x3 p1 float64", theirs, ours),
        Case("the same, ReLU, 2x2 maximum", sandwich, fast_sandwich),
    ]
