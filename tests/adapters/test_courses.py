"""Course code: the functions against loops written from the courses' definitions, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import integers

from fastconv.adapters import coursera, cs231n


def naive_conv(x, w, b, stride, pad):
    """Every output is the sum over its window: x (m, H, W, C), w (KH, KW, C, F)."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    m, H, W, _ = x.shape
    KH, KW, _, F = w.shape
    y = np.zeros((m, (H - KH) // stride + 1, (W - KW) // stride + 1, F))
    for n, i, j, f in np.ndindex(y.shape):
        window = x[n, i * stride : i * stride + KH, j * stride : j * stride + KW]
        y[n, i, j, f] = (window * w[:, :, :, f]).sum() + b[f]
    return y


def naive_conv_grads(dy, x, w, stride, pad):
    """Each error goes to the cells of its window, by the weights, and to the weights, by cells."""
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    dx, dw, db = np.zeros_like(padded), np.zeros_like(w), np.zeros(w.shape[3])
    for n, i, j, f in np.ndindex(dy.shape):
        rows = slice(i * stride, i * stride + w.shape[0])
        columns = slice(j * stride, j * stride + w.shape[1])
        dx[n, rows, columns] += w[:, :, :, f] * dy[n, i, j, f]
        dw[:, :, :, f] += padded[n, rows, columns] * dy[n, i, j, f]
        db[f] += dy[n, i, j, f]
    H, W = x.shape[1:3]
    return dx[:, pad : pad + H, pad : pad + W], dw, db


def naive_pool(x, window, stride, reduce):
    m, H, W, C = x.shape
    y = np.zeros((m, (H - window[0]) // stride + 1, (W - window[1]) // stride + 1, C))
    for n, i, j, c in np.ndindex(y.shape):
        rows = slice(i * stride, i * stride + window[0])
        y[n, i, j, c] = reduce(x[n, rows, j * stride : j * stride + window[1], c])
    return y


def naive_pool_grad(dy, x, window, stride, share_of):
    """`share_of(cells)` says what part of the error each cell of a window gets."""
    dx = np.zeros_like(x)
    for n, i, j, c in np.ndindex(dy.shape):
        rows = slice(i * stride, i * stride + window[0])
        columns = slice(j * stride, j * stride + window[1])
        dx[n, rows, columns, c] += share_of(x[n, rows, columns, c]) * dy[n, i, j, c]
    return dx


def everyone(cells):
    return cells == cells.max()


def evenly(cells):
    return everyone(cells) / everyone(cells).sum()


def the_first(cells):
    return np.arange(cells.size).reshape(cells.shape) == cells.argmax()


def everywhere(cells):
    return np.full(cells.shape, 1 / cells.size)


def first(images):
    return images.transpose(0, 3, 1, 2)


def last(images):
    return images.transpose(0, 2, 3, 1)


STEPS = [(1, 0), (2, 1), (3, 2), (1, 3)]


@pytest.mark.parametrize(("stride", "pad"), STEPS)
def test_coursera_convolution(stride, pad):
    A_prev, W, b = integers(1, 3, 7, 6, 2), integers(2, 3, 3, 2, 4), integers(3, 1, 1, 1, 4)
    hparameters = {"stride": stride, "pad": pad}
    Z, cache = coursera.conv_forward(A_prev, W, b, hparameters)
    np.testing.assert_array_equal(Z, naive_conv(A_prev, W, b.ravel(), stride, pad))
    assert cache == (A_prev, W, b, hparameters)
    dZ = integers(4, *Z.shape)
    dA_prev, dW, db = coursera.conv_backward(dZ, cache)
    dx, dw, sums = naive_conv_grads(dZ, A_prev, W, stride, pad)
    np.testing.assert_array_equal(dA_prev, dx)
    np.testing.assert_array_equal(dW, dw)
    np.testing.assert_array_equal(db, sums.reshape(1, 1, 1, 4))


# Values from -1 to 1 only: nearly every window of four cells or more has tied maxima.
@pytest.mark.parametrize(("f", "stride"), [(2, 2), (3, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("mode", ["max", "average"])
def test_coursera_pooling(mode, f, stride):
    A_prev = integers(5, 2, 8, 9, 3, high=1)
    A, cache = coursera.pool_forward(A_prev, {"f": f, "stride": stride}, mode)
    reduce, share_of = (np.max, everyone) if mode == "max" else (np.mean, everywhere)
    np.testing.assert_allclose(A, naive_pool(A_prev, (f, f), stride, reduce), rtol=0, atol=1e-15)
    dA = integers(6, *A.shape)
    dx = naive_pool_grad(dA, A_prev, (f, f), stride, share_of)
    np.testing.assert_allclose(coursera.pool_backward(dA, cache, mode), dx, rtol=0, atol=1e-14)


def test_coursera_max_is_the_default():
    A_prev = integers(7, 1, 4, 4, 1)
    A, cache = coursera.pool_forward(A_prev, {"f": 2, "stride": 2})
    np.testing.assert_array_equal(A, naive_pool(A_prev, (2, 2), 2, np.max))
    assert cache[0] is A_prev


def test_coursera_names_a_wrong_mode():
    with pytest.raises(ValueError, match="mode='mean' must be one of 'max', 'average'"):
        coursera.pool_forward(integers(0, 1, 4, 4, 1), {"f": 2, "stride": 2}, "mean")


@pytest.mark.parametrize(("stride", "pad"), STEPS)
def test_cs231n_convolution(stride, pad):
    x, w, b = integers(1, 3, 2, 7, 6), integers(2, 4, 2, 3, 3), integers(3, 4)
    out, cache = cs231n.conv_forward_fast(x, w, b, {"stride": stride, "pad": pad})
    kernel = w.transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(out, first(naive_conv(last(x), kernel, b, stride, pad)))
    dout = integers(4, *out.shape)
    dx, dw, db = cs231n.conv_backward_fast(dout, cache)
    expected = naive_conv_grads(last(dout), last(x), kernel, stride, pad)
    np.testing.assert_array_equal(dx, first(expected[0]))
    np.testing.assert_array_equal(dw, expected[1].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(db, expected[2])
    assert dw.flags.c_contiguous


@pytest.mark.parametrize(
    ("size", "window", "stride", "share_of"),
    [
        ((8, 6), (2, 2), 2, evenly),  # square windows that tile the image
        ((9, 6), (2, 2), 2, the_first),  # a row is left over
        ((8, 6), (3, 3), 1, the_first),
        ((8, 6), (2, 3), 2, the_first),
    ],
)
def test_cs231n_max_pooling(size, window, stride, share_of):
    x = integers(5, 2, 3, *size, high=1)
    pool_param = {"pool_height": window[0], "pool_width": window[1], "stride": stride}
    out, cache = cs231n.max_pool_forward_fast(x, pool_param)
    np.testing.assert_array_equal(out, first(naive_pool(last(x), window, stride, np.max)))
    dout = 12 * integers(6, *out.shape)  # exact when split among two, three or four
    dx = first(naive_pool_grad(last(dout), last(x), window, stride, share_of))
    np.testing.assert_array_equal(cs231n.max_pool_backward_fast(dout, cache), dx)


def test_coursera_helpers_are_those_of_the_notebook():
    X = integers(1, 2, 4, 5, 3)
    padded = coursera.zero_pad(X, 2)
    assert padded.shape == (2, 8, 9, 3)
    np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], X)
    assert padded.sum() == X.sum()
    W, b = integers(2, 3, 3, 3, 4), integers(3, 1, 1, 1, 4)
    Z = coursera.conv_forward(X, W, b, {"stride": 1, "pad": 2})[0]
    for n, i, j, c in np.ndindex(Z.shape):
        patch = padded[n, i : i + 3, j : j + 3]
        step = coursera.conv_single_step(patch, W[:, :, :, c], b[:, :, :, c])
        assert np.ndim(step) == 0
        assert step == Z[n, i, j, c]
    # The pool's gradient is made of the masks and of the shares.
    A, cache = coursera.pool_forward(X[:, :, :4], {"f": 2, "stride": 2})
    dA, masked, shared = integers(4, *A.shape), np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 3))
    for n, i, j, c in np.ndindex(A.shape):
        place = (n, slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2), c)
        masked[place] = coursera.create_mask_from_window(X[place]) * dA[n, i, j, c]
        shared[place] = coursera.distribute_value(dA[n, i, j, c], (2, 2))
        np.testing.assert_array_equal(
            coursera.compute_mask(X[place]), coursera.create_mask_from_window(X[place])
        )
    np.testing.assert_array_equal(coursera.pool_backward(dA, cache, "max"), masked)
    np.testing.assert_array_equal(coursera.pool_backward(dA, cache, "average"), shared)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coursera.zero_pad(np.ones((4, 4)), 1), r"X: expected \(m, n_H, n_W, n_C\)"),
        (lambda: coursera.zero_pad(np.ones((1, 4, 4, 1)), -1), "pad: must be at least 0, got -1"),
        (lambda: coursera.conv_single_step(np.ones((3, 3)), np.ones((1, 1)), 0), "W: expected"),
        (lambda: coursera.conv_single_step(np.ones(1), np.ones(1), [0, 1]), "b: one number"),
        (lambda: coursera.create_mask_from_window(np.ones((0, 2))), "x: a window with cells"),
        (lambda: coursera.distribute_value(1.0, (0, 2)), "shape: a window with cells"),
    ],
)  # fmt: skip
def test_coursera_helpers_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cs231n_naive_names():
    x, w, b = integers(1, 2, 3, 8, 7, high=1), integers(2, 4, 3, 3, 3), integers(3, 4)
    param = {"stride": 2, "pad": 1}
    out, cache = cs231n.conv_forward_naive(x, w, b, param)
    kernel = w.transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(out, first(naive_conv(last(x), kernel, b, 2, 1)))
    assert cache == (x, w, b, param)
    dout = integers(4, *out.shape)
    dx, dw, db = cs231n.conv_backward_naive(dout, cache)
    wanted = naive_conv_grads(last(dout), last(x), kernel, 2, 1)
    np.testing.assert_array_equal(dx, first(wanted[0]))
    np.testing.assert_array_equal(dw, wanted[1].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(db, wanted[2])
    pool = {"pool_height": 3, "pool_width": 2, "stride": 2}
    out, cache = cs231n.max_pool_forward_naive(x, pool)
    np.testing.assert_array_equal(out, first(naive_pool(last(x), (3, 2), 2, np.max)))
    assert cache == (x, pool)
    dout = integers(5, *out.shape)
    dx = first(naive_pool_grad(last(dout), last(x), (3, 2), 2, the_first))
    np.testing.assert_array_equal(cs231n.max_pool_backward_naive(dout, cache), dx)


def test_dtypes():
    """One floating-point dtype is kept; a mix, or integers, is computed in float64."""
    x, w, b = integers(1, 1, 2, 5, 5), integers(2, 3, 2, 3, 3), integers(3, 3)
    param = {"stride": 1, "pad": 0}
    exact = cs231n.conv_forward_fast(x, w, b, param)[0]
    for kinds, expected in (("fff", "f"), ("fdd", "d"), ("lll", "d"), ("Bdf", "d")):
        operands = [abs(a).astype(kind) for a, kind in zip((x, w, b), kinds, strict=True)]
        out, cache = cs231n.conv_forward_fast(*operands, param)
        assert out.dtype == expected
        assert cs231n.conv_backward_fast(out, cache)[1].dtype == expected
    np.testing.assert_array_equal(
        cs231n.conv_forward_fast(x.astype("f"), w.astype("f"), b.astype("f"), param)[0], exact
    )


def test_a_missing_parameter_is_named():
    with pytest.raises(KeyError, match="pad"):
        coursera.conv_forward(np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1)), [0.0], {"stride": 1})
