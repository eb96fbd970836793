"""*Deep Learning from Scratch*: its two layers against loops written from their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import integers
from test_courses import (
    STEPS,
    first,
    last,
    naive_conv,
    naive_conv_grads,
    naive_pool,
    naive_pool_grad,
    the_first,
)

from fastconv.adapters.dlfs import Convolution, Pooling


@pytest.mark.parametrize(("stride", "pad"), STEPS)
def test_convolution(stride, pad):
    x, W, b = integers(1, 3, 2, 7, 6), integers(2, 4, 2, 3, 3), integers(3, 4)
    layer = Convolution(W, b, stride, pad)
    y = layer.forward(x)
    kernel = W.transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(y, first(naive_conv(last(x), kernel, b, stride, pad)))
    assert layer.x is x
    dout = integers(4, *y.shape)
    dx = layer.backward(dout)
    expected = naive_conv_grads(last(dout), last(x), kernel, stride, pad)
    np.testing.assert_array_equal(dx, first(expected[0]))
    np.testing.assert_array_equal(layer.dW, expected[1].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(layer.db, expected[2])


def test_what_an_optimizer_changes_in_place_is_used():
    W, b = integers(2, 4, 2, 3, 3), integers(3, 4)
    layer = Convolution(W, b)
    x = integers(1, 1, 2, 5, 5)
    before = layer.forward(x)
    W *= 2
    b *= 2
    np.testing.assert_array_equal(layer.forward(x), 2 * before)


# Values from -1 to 1 only: nearly every window has tied maxima.
@pytest.mark.parametrize(
    ("window", "stride", "pad"), [((2, 2), 2, 0), ((3, 2), 1, 0), ((3, 3), 2, 1)]
)
def test_pooling(window, stride, pad):
    x = integers(5, 2, 3, 8, 9, high=1)
    layer = Pooling(*window, stride=stride, pad=pad)
    padded = last(np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)]))
    y = layer.forward(x)
    np.testing.assert_array_equal(y, first(naive_pool(padded, window, stride, np.max)))
    dout = integers(6, *y.shape)
    dx = first(naive_pool_grad(last(dout), padded, window, stride, the_first))
    np.testing.assert_array_equal(layer.backward(dout), dx[:, :, pad : pad + 8, pad : pad + 9])


def test_zeros_around_an_image_count():
    y = Pooling(3, 3, stride=1, pad=1).forward(np.full((1, 1, 3, 3), -1.0))
    assert y[0, 0].tolist() == [[0, 0, 0], [0, -1, 0], [0, 0, 0]]


def test_float32_stays_and_a_mix_is_float64():
    x, W, b = integers(1, 1, 2, 5, 5), integers(2, 3, 2, 3, 3), integers(3, 3)
    for kinds, expected in (("fff", "f"), ("fdd", "d"), ("lll", "d")):
        a, w, c = (v.astype(kind) for v, kind in zip((x, W, b), kinds, strict=True))
        layer = Convolution(w, c)
        y = layer.forward(a)
        layer.backward(y)
        assert y.dtype == layer.dW.dtype == layer.db.dtype == expected


@pytest.mark.parametrize("layer", [Convolution(np.ones((1, 1, 2, 2)), np.ones(1)), Pooling(2, 2)])
def test_backward_before_forward(layer):
    with pytest.raises(ValueError, match="backward before forward"):
        layer.backward(np.ones((1, 1, 3, 3)))


def test_sizes_that_do_not_fit_change_nothing():
    layer = Convolution(np.ones((1, 1, 2, 2)), np.ones(1))
    x = np.ones((1, 1, 3, 3))
    layer.forward(x)
    with pytest.raises(ValueError, match="x"):
        layer.forward(np.ones((1, 2, 3, 3)))
    assert layer.x is x
