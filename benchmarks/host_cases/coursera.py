"""Course code, Deep Learning Specialization: the notebook's way, a slice for every output."""

from __future__ import annotations

import numpy as np

from fastconv.adapters import coursera as fast

from . import Case


def slices_forward(A_prev, W, b, stride, pad):
    padded = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    f = W.shape[0]
    size = [(n - f) // stride + 1 for n in padded.shape[1:3]]
    Z = np.zeros((len(A_prev), *size, W.shape[3]))
    for i, h, w, c in np.ndindex(Z.shape):
        window = padded[i, h * stride : h * stride + f, w * stride : w * stride + f]
        Z[i, h, w, c] = np.sum(window * W[:, :, :, c]) + b[0, 0, 0, c]
    return Z


def slices_backward(dZ, A_prev, W, stride, pad):
    padded = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    dA, dW, db = np.zeros_like(padded), np.zeros_like(W), np.zeros((1, 1, 1, W.shape[3]))
    f = W.shape[0]
    for i, h, w, c in np.ndindex(dZ.shape):
        at = i, slice(h * stride, h * stride + f), slice(w * stride, w * stride + f)
        dA[at] += W[:, :, :, c] * dZ[i, h, w, c]
        dW[:, :, :, c] += padded[at] * dZ[i, h, w, c]
        db[:, :, :, c] += dZ[i, h, w, c]
    H, W_prev = A_prev.shape[1:3]
    return dA[:, pad : pad + H, pad : pad + W_prev], dW, db


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    A_prev, W = rng.normal(size=(10, 16, 16, 3)), rng.normal(size=(3, 3, 3, 8))
    b = rng.normal(size=(1, 1, 1, 8))

    def theirs():
        Z = slices_forward(A_prev, W, b, 2, 1)
        return Z, *slices_backward(Z, A_prev, W, 2, 1)

    def ours():
        Z, cache = fast.conv_forward(A_prev, W, b, {"stride": 2, "pad": 1})
        return Z, *fast.conv_backward(Z, cache)

    return [Case("m10 h16w16c3 f8 k3x3 s2 p1 float64", theirs, ours)]
