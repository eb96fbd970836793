"""Course code, *Deep Learning from Scratch*: its way in NumPy, columns by slices, in float64."""

from __future__ import annotations

import numpy as np

from fastconv.adapters import dlfs as fast

from . import Case


def columns(x, window, stride, pad):
    """(N, C, H, W) -> (N*OH*OW, C*FH*FW): a slice of all images for each cell of the window."""
    N, C, H, W = x.shape
    OH, OW = ((n + 2 * pad - k) // stride + 1 for n, k in zip((H, W), window, strict=True))
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    cols = np.zeros((N, C, *window, OH, OW))
    for u, v in np.ndindex(*window):
        rows = slice(u, u + stride * (OH - 1) + 1, stride)
        cols[:, :, u, v] = padded[:, :, rows, v : v + stride * (OW - 1) + 1 : stride]
    return cols.transpose(0, 4, 5, 1, 2, 3).reshape(N * OH * OW, -1), (OH, OW)


def images(cols, shape, window, stride, pad, size):
    """The adjoint of `columns`."""
    N, C, H, W = shape
    OH, OW = size
    cols = cols.reshape(N, OH, OW, C, *window).transpose(0, 3, 4, 5, 1, 2)
    padded = np.zeros((N, C, H + 2 * pad, W + 2 * pad))
    for u, v in np.ndindex(*window):
        rows = slice(u, u + stride * (OH - 1) + 1, stride)
        padded[:, :, rows, v : v + stride * (OW - 1) + 1 : stride] += cols[:, :, u, v]
    return padded[:, :, pad : pad + H, pad : pad + W]


def convolution(x, W, b):
    """Forward and backward, of the result itself."""
    FN, _, *window = W.shape
    cols, size = columns(x, window, 1, 2)
    flat = cols @ W.reshape(FN, -1).T + b
    y = flat.reshape(len(x), *size, FN).transpose(0, 3, 1, 2)
    dW = (cols.T @ flat).T.reshape(W.shape)
    return y, images(flat @ W.reshape(FN, -1), x.shape, window, 1, 2, size), dW, flat.sum(axis=0)


def pooling(x):
    N, C = x.shape[:2]
    cols, size = columns(x, (2, 2), 2, 0)
    cols = cols.reshape(-1, 4)
    winners, largest = cols.argmax(axis=1), cols.max(axis=1)
    errors = np.zeros_like(cols)
    errors[np.arange(len(cols)), winners] = largest
    y = largest.reshape(N, *size, C).transpose(0, 3, 1, 2)
    return y, images(errors.reshape(N * size[0] * size[1], -1), x.shape, (2, 2), 2, 0, size)


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    x, maps = rng.normal(size=(100, 1, 28, 28)), rng.normal(size=(100, 30, 24, 24))
    W, b = rng.normal(size=(30, 1, 5, 5)), rng.normal(size=30)

    def conv():
        layer = fast.Convolution(W, b, pad=2)
        y = layer.forward(x)
        return y, layer.backward(y), layer.dW, layer.db

    def pool():
        layer = fast.Pooling(2, 2, stride=2)
        y = layer.forward(maps)
        return y, layer.backward(y)

    return [
        Case("Convolution, m100 h28w28c1 f30 k5x5 p2 float64", lambda: convolution(x, W, b), conv),
        Case("Pooling 2x2, m100 h24w24c30 float64", lambda: pooling(maps), pool),
    ]
