"""autograd: derivatives of both modes and second order, and a LeNet, against the naive loops."""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, value_and_grad
from autograd.test_util import check_grads
from strategies import integers

import fastconv as fc
from fastconv import reference
from fastconv.adapters import autograd as ad

RNG = np.random.default_rng(0)

PROBLEMS = [
    # x, w, options
    ((2, 7, 6, 2), (3, 2, 2, 3), {}),
    ((2, 6, 7, 2), (3, 3, 2, 2), {"stride": 2, "padding": ((1, 0), (2, 1))}),
    ((1, 8, 8, 4), (2, 2, 2, 6), {"groups": 2, "dilation": 2, "padding": "same"}),
    ((2, 2, 6, 5), (2, 2, 2, 3), {"data_format": "channels_first"}),
    ((2, 9, 2), (3, 2, 2), {"stride": 2}),
    ((1, 4, 3, 4, 1), (2, 2, 2, 1, 2), {"padding": 1}),
]
TRANSPOSED = [
    ((2, 4, 3, 2), (3, 2, 3, 2), {}),
    (
        (2, 3, 4, 2),
        (2, 3, 1, 2),
        {"stride": 2, "output_padding": (1, 0), "padding": ((1, 0), (0, 1))},
    ),
    ((1, 3, 3, 2), (3, 3, 2, 2), {"stride": 1, "dilation": 2, "output_padding": 1}),
    ((1, 4, 3, 3), (2, 2, 1, 4), {"data_format": "channels_first", "groups": 2}),
]
POOLS = [
    ((2, 6, 6, 3), 2, {}),
    ((2, 5, 7, 2), (3, 2), {"stride": (1, 2), "padding": (1, 1), "ceil_mode": True}),
    ((2, 3, 6, 5), 3, {"stride": 2, "data_format": "channels_first"}),
    ((2, 9, 2), 3, {"dilation": 2, "stride": 1}),
]


def spread(*shape):
    """Distinct values, far apart for finite differences: no ties."""
    return RNG.permutation(int(np.prod(shape))).reshape(shape) * 0.1


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), PROBLEMS)
def test_conv_equals_the_naive_loops(x_shape, w_shape, options):
    x, w, b = integers(RNG, *x_shape), integers(RNG, *w_shape), integers(RNG, w_shape[-1])
    y = reference.conv(x, w, b, **options)
    dy = integers(RNG, *y.shape)
    np.testing.assert_array_equal(ad.conv(x, w, b, **options), y)
    expected = reference.conv_backward(dy, x, w, **options)
    for argument, gradient in zip((0, 1, 2), expected, strict=True):
        found = grad(lambda *a: anp.sum(ad.conv(*a, **options) * dy), argument)(x, w, b)
        np.testing.assert_array_equal(found, gradient)


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), TRANSPOSED)
def test_conv_transpose_equals_the_naive_loops(x_shape, w_shape, options):
    x, w = integers(RNG, *x_shape), integers(RNG, *w_shape)
    b = integers(RNG, w_shape[-2] * options.get("groups", 1))
    y = reference.conv_transpose(x, w, b, **options)
    dy = integers(RNG, *y.shape)
    np.testing.assert_array_equal(ad.conv_transpose(x, w, b, **options), y)
    expected = reference.conv_transpose_backward(dy, x, w, **options)
    for argument, gradient in zip((0, 1, 2), expected, strict=True):
        found = grad(lambda *a: anp.sum(ad.conv_transpose(*a, **options) * dy), argument)(x, w, b)
        np.testing.assert_array_equal(found, gradient)


# autograd's own check: each mode, and each mode of each mode's result.
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), PROBLEMS)
def test_conv_second_derivatives(x_shape, w_shape, options):
    x, w, b = (RNG.normal(size=n) for n in (x_shape, w_shape, w_shape[-1:]))
    check_grads(lambda x, w: ad.conv(x, w, **options), (0, 1), modes=["fwd", "rev"])(x, w)
    biased = (0, 1, 2)
    check_grads(lambda *a: ad.conv(*a, **options), biased, modes=["fwd", "rev"])(x, w, b)


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), TRANSPOSED)
def test_conv_transpose_second_derivatives(x_shape, w_shape, options):
    x, w = RNG.normal(size=x_shape), RNG.normal(size=w_shape)
    check_grads(lambda *a: ad.conv_transpose(*a, **options), (0, 1), modes=["fwd", "rev"])(x, w)


@pytest.mark.parametrize(("x_shape", "window", "options"), POOLS)
@pytest.mark.parametrize("pool", ["max_pool", "avg_pool"])
def test_pooling(pool, x_shape, window, options):
    x = spread(*x_shape)
    function = getattr(ad, pool)
    expected = getattr(reference, pool)(x, window, **options)
    np.testing.assert_allclose(function(x, window, **options), expected, rtol=1e-15)
    # squared, so that the second derivative is not zero
    check_grads(lambda x: function(x, window, **options) ** 2, modes=["fwd", "rev"])(x)


def test_max_pool_gradient_goes_to_the_first_of_ties():
    x = np.zeros((1, 2, 4, 1))
    found = grad(lambda x: anp.sum(ad.max_pool(x, 2)))(x)
    np.testing.assert_array_equal(found[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0]])


def test_hessian_of_a_quadratic():
    """The loss sum(conv(x, w)**2)/2 has the Hessian A.T A in w: its product with v is A.T(A v)."""
    x, w, v = integers(RNG, 2, 6, 6, 2), integers(RNG, 3, 3, 2, 3), integers(RNG, 3, 3, 2, 3)

    def loss(w):
        return anp.sum(ad.conv(x, w) ** 2) / 2

    found = grad(lambda w: anp.sum(grad(loss)(w) * v))(w)
    np.testing.assert_array_equal(found, fc.conv_kernel_grad(x, fc.conv(x, v), w.shape))


def test_float32_stays_float32():
    """autograd's mean hands out a float64 gradient."""
    x, w = integers(RNG, 2, 8, 8, 1).astype("f"), integers(RNG, 3, 3, 1, 2).astype("f")

    def loss(w):
        return anp.mean(ad.avg_pool(ad.max_pool(ad.conv(x, w), 2), 3))

    assert grad(loss)(w).dtype == np.float32


def test_mixed_dtypes_are_refused():
    x, w = integers(RNG, 1, 4, 4, 1), integers(RNG, 3, 3, 1, 1).astype("f")
    for b in (None, integers(RNG, 1)):
        with pytest.raises(TypeError, match="w has dtype float32, but x has float64"):
            ad.conv(x, w, b)
        with pytest.raises(TypeError, match="w has dtype float32, but x has float64"):
            grad(lambda w, b=b: anp.sum(ad.conv(x, w, b)))(w)


def lenet(ops, parameters, images):
    c1, b1, c2, b2, w3, w4 = parameters
    z = ops.max_pool(anp.tanh(ops.conv(images, c1, b1)), 2)  # (m, 12, 12, 6)
    z = ops.max_pool(anp.tanh(ops.conv(z, c2, b2)), 2)  # (m, 4, 4, 16)
    z = anp.reshape(z, (z.shape[0], -1))
    return anp.dot(anp.tanh(anp.dot(z, w3)), w4)


def cross_entropy(ops, parameters, images, labels):
    z = lenet(ops, parameters, images)
    z = z - anp.log(anp.sum(anp.exp(z), axis=1, keepdims=True))
    return -anp.mean(z[np.arange(len(labels)), labels])


def lenet_parameters(rng):
    shapes = [(5, 5, 1, 6), (6,), (5, 5, 6, 16), (16,), (256, 32), (32, 10)]
    return [rng.normal(size=s) / np.sqrt(max(1, np.prod(s[:-1]))) for s in shapes]


def test_lenet_learns_and_its_gradients_are_those_of_the_naive_loops():
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(20, 28, 28, 1)), rng.integers(0, 10, 20)
    parameters = lenet_parameters(rng)
    step = value_and_grad(lambda p, n: cross_entropy(ad, p, images[:n], labels[:n]))

    value, gradients = step(parameters, 2)
    eps = 1e-6
    for i, gradient in enumerate(gradients):
        where = tuple(int(n) // 2 for n in gradient.shape)
        shifted = [[p.copy() for p in parameters] for _ in range(2)]
        shifted[0][i][where] += eps
        shifted[1][i][where] -= eps
        high, low = (cross_entropy(fc, p, images[:2], labels[:2]) for p in shifted)
        np.testing.assert_allclose(gradient[where], (high - low) / (2 * eps), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(value, cross_entropy(reference, parameters, images[:2], labels[:2]))

    losses = []
    for _ in range(30):
        value, gradients = step(parameters, 20)
        parameters = [p - 0.3 * g for p, g in zip(parameters, gradients, strict=True)]
        losses.append(value)
    assert losses[0] > 2
    assert losses[-1] < 0.3 * losses[0]
