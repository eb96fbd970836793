"""JAX: the naive loops under jit, JAX's own convolution under grad and vmap, and a LeNet."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fastconv import reference
from fastconv.adapters import jax as fj

PROBLEMS = [
    ((2, 7, 6, 2), (3, 2, 2, 3), {}),
    ((2, 6, 7, 2), (3, 3, 2, 2), {"stride": 2, "padding": [(1, 0), (2, 1)]}),
    ((1, 8, 8, 4), (2, 2, 2, 6), {"groups": 2, "dilation": 2, "padding": "same"}),
    ((2, 2, 6, 5), (2, 2, 2, 3), {"data_format": "channels_first"}),
    ((2, 9, 2), (3, 2, 2), {"stride": np.array([2])}),
    ((1, 4, 3, 4, 1), (2, 2, 2, 1, 2), {"padding": 1}),
]
TRANSPOSED = [
    ((2, 4, 3, 2), (3, 2, 3, 2), {}),
    ((2, 3, 4, 2), (2, 3, 1, 2), {"stride": 2, "output_padding": (1, 0), "padding": 1}),
    ((1, 4, 3, 3), (2, 2, 1, 4), {"data_format": "channels_first", "groups": 2}),
]
POOLS = [
    ((2, 6, 6, 3), 2, {}),
    ((2, 5, 7, 2), (3, 2), {"stride": (1, 2), "padding": (1, 1), "ceil_mode": True}),
    ((2, 3, 6, 5), 3, {"stride": 2, "data_format": "channels_first"}),
    ((2, 9, 2), 3, {"dilation": 2, "stride": 1}),
]


def integers(seed, *shape):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def same(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("how", [jax.jit, lambda f: f])
@pytest.mark.parametrize(
    ("name", "problem"),
    [("conv", p) for p in PROBLEMS] + [("conv_transpose", p) for p in TRANSPOSED],
)
def test_products_equal_the_naive_loops(how, name, problem):
    x_shape, w_shape, options = problem
    F = w_shape[-1] if name == "conv" else w_shape[-2] * options.get("groups", 1)
    x, w, b = integers(0, *x_shape), integers(1, *w_shape), integers(2, F)
    function = partial(getattr(fj, name), **options)
    y = getattr(reference, name)(x, w, b, **options)
    same(how(function)(x, w, b), y)
    same(how(function)(x, w), getattr(reference, name)(x, w, **options))
    dy = integers(3, *y.shape)
    found = how(jax.grad(lambda *a: (function(*a) * dy).sum(), (0, 1, 2)))(x, w, b)
    expected = getattr(reference, f"{name}_backward")(dy, x, w, **options)
    for a, e in zip(found, expected, strict=True):
        same(a, e)


@pytest.mark.parametrize("how", [jax.jit, lambda f: f])
@pytest.mark.parametrize(("x_shape", "window", "options"), POOLS)
def test_pooling_equals_the_naive_loops(how, x_shape, window, options):
    x = integers(0, *x_shape)  # with ties
    y, argmax = reference.max_pool(x, window, return_argmax=True, **options)
    dy = 12 * integers(1, *y.shape)
    same(how(lambda x: fj.max_pool(x, window, **options))(x), y)
    found = how(jax.grad(lambda x: (fj.max_pool(x, window, **options) * dy).sum()))(x)
    same(found, reference.max_pool_backward(dy, argmax, x_shape, window, **options))
    mean = how(lambda x: fj.avg_pool(x, window, **options))(x)
    np.testing.assert_allclose(mean, reference.avg_pool(x, window, **options), rtol=1e-6)
    found = how(jax.grad(lambda x: (fj.avg_pool(x, window, **options) * dy).sum()))(x)
    expected = reference.avg_pool_backward(dy, x_shape, window, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def own_conv(x, w, stride=1):
    return lax.conv_general_dilated(
        x, w, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


MAPPED = [(0, None), (None, 0), (0, 0), (1, 3)]


@pytest.mark.parametrize("axes", MAPPED)
@pytest.mark.parametrize("stride", [1, 2])
def test_vmap(axes, stride):
    """Of the product, of its gradients (one for each example), and inside of a gradient."""
    shapes = [(2, 7, 6, 3), (3, 2, 3, 2)]
    grown = [
        shape if axis is None else (*shape[:axis], 4, *shape[axis:])
        for shape, axis in zip(shapes, axes, strict=True)
    ]
    x, w = (integers(seed, *shape) for seed, shape in enumerate(grown))

    def squares(conv):
        return lambda x, w: (conv(x, w, stride=stride) ** 2).sum()

    def results(conv, x, w):
        each = jax.vmap(partial(conv, stride=stride), axes)
        gradients = jax.vmap(jax.grad(squares(conv), (0, 1)), axes)
        inside = jax.grad(lambda x, w: (each(x, w) ** 2).sum(), (0, 1))
        return [each(x, w), *gradients(x, w), *inside(x, w)]

    expected = results(own_conv, x, w)
    for how in (jax.jit, lambda f: f):
        for a, e in zip(how(partial(results, fj.conv))(x, w), expected, strict=True):
            np.testing.assert_array_equal(a, e)


def test_vmap_twice():
    x, w = integers(0, 3, 2, 2, 6, 6, 2), integers(1, 2, 3, 3, 2, 2)
    twice = jax.vmap(jax.vmap(fj.conv, (0, None)), (0, None))(x, w[0])
    np.testing.assert_array_equal(twice, jax.vmap(jax.vmap(lambda x: own_conv(x, w[0])))(x))
    inner = jax.vmap(jax.vmap(fj.conv, (0, 0)), (0, None))(x, w)
    np.testing.assert_array_equal(inner, jax.vmap(jax.vmap(own_conv, (0, 0)), (0, None))(x, w))


def test_vmap_of_bias_and_pools():
    x, w, b = integers(0, 3, 2, 6, 6, 1), integers(1, 3, 3, 1, 2), integers(2, 5, 2)
    found = jax.vmap(fj.conv, (None, None, 0))(x[0], w, b)
    same(found, np.stack([reference.conv(x[0], w, each) for each in b]))
    for name in ("max_pool", "avg_pool"):
        pool = partial(getattr(fj, name), window=2)
        same(jax.vmap(pool)(x), np.stack([getattr(reference, name)(a, 2) for a in x]))
        gradient = jax.grad(lambda x, pool=pool: (pool(x) ** 2).sum())
        np.testing.assert_array_equal(
            jax.vmap(gradient)(x), np.stack([gradient(each) for each in x])
        )


def test_second_derivatives():
    """The Hessian of a network's loss in the kernel, times a vector, against JAX's own layers."""
    x, w, v = integers(0, 2, 8, 8, 2), integers(1, 3, 3, 2, 3), integers(2, 3, 3, 2, 3)

    def own_pool(z, window):
        return lax.reduce_window(z, -jnp.inf, lax.max, (1, *window, 1), (1, *window, 1), "VALID")

    def own_mean(z, window):
        total = lax.reduce_window(z, 0.0, lax.add, (1, *window, 1), (1, *window, 1), "VALID")
        return total / (window[0] * window[1])

    def product(conv, pool, mean):
        def loss(x, w):
            z = pool(jnp.tanh(conv(x, w) / 40), (2, 2))
            return (mean(z, (3, 3)) ** 3).sum()

        def along(x, w):
            return (jax.grad(loss, 1)(x, w) * v).sum()

        return jax.jit(jax.grad(along, (0, 1)))(x, w)

    found = product(fj.conv, fj.max_pool, fj.avg_pool)
    for a, e in zip(found, product(own_conv, own_pool, own_mean), strict=True):
        assert abs(e).max() > 0
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6 * float(abs(e).max()) + 1e-9)


def test_second_derivatives_of_a_transposed_convolution():
    """The loss sum(y**2)/2 is quadratic in w: its Hessian times v is the gradient at v."""
    x, w, v = integers(0, 2, 4, 4, 2), integers(1, 3, 3, 3, 2), integers(2, 3, 3, 3, 2)

    def gradient(w):
        return jax.grad(lambda w: (fj.conv_transpose(x, w, stride=2) ** 2).sum() / 2)(w)

    found = jax.grad(lambda w: (gradient(w) * v).sum())(w)
    np.testing.assert_array_equal(found, gradient(v))


def test_double_precision():
    x, w = integers(0, 1, 6, 6, 1).astype(float), integers(1, 3, 3, 1, 2).astype(float)
    with jax.enable_x64(True):
        found = jax.jit(lambda x, w: fj.max_pool(fj.conv(x, w), 2))(x, w)
        same(found, reference.max_pool(reference.conv(x, w), 2))
        assert jax.grad(lambda w: fj.conv(x, w).sum())(jnp.asarray(w)).dtype == np.float64


def test_errors_come_while_tracing():
    x, w = jnp.zeros((2, 4, 4, 1)), jnp.zeros((5, 5, 1, 1))
    with pytest.raises(ValueError, match=r"w: \(5, 5, 1, 1\) has an [\s\S]*x = \(2, 4, 4, 1\)"):
        jax.jit(fj.conv)(x, w)
    with pytest.raises(ValueError, match="window: 5 has an effective window of 5"):
        jax.jit(lambda x: fj.max_pool(x, 5))(x)
    with pytest.raises(TypeError, match="w has dtype float32, but x has bfloat16: convert one"):
        fj.conv(x.astype(jnp.bfloat16), w)
    with pytest.raises(TypeError, match="b has dtype bfloat16, but x has float32: convert one"):
        fj.conv(x, jnp.zeros((3, 3, 1, 1)), jnp.zeros(1, jnp.bfloat16))
    with pytest.raises(TypeError, match="x has dtype int32; use float32"):
        fj.max_pool(x.astype(jnp.int32), 2)


@pytest.mark.parametrize("how", [jax.jit, lambda f: f])
@pytest.mark.parametrize(
    ("name", "problem"),
    [("conv", p) for p in PROBLEMS] + [("conv_transpose", p) for p in TRANSPOSED],
)
def test_bfloat16_products_are_those_of_float32_rounded_once(how, name, problem):
    x_shape, w_shape, options = problem
    F = w_shape[-1] if name == "conv" else w_shape[-2] * options.get("groups", 1)
    shapes = (x_shape, w_shape, (F,))
    rng = np.random.default_rng(0)
    narrow = [jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in shapes]
    wide = [a.astype(np.float32) for a in narrow]
    function = partial(getattr(fj, name), **options)

    def loss(*operands):
        return function(*operands).sum()

    for count in (2, 3):
        found = how(function)(*narrow[:count])
        same(found, np.asarray(function(*wide[:count]).astype(jnp.bfloat16)))
        of = tuple(range(count))
        gradients = how(jax.grad(loss, of))(*narrow[:count])
        for a, e in zip(gradients, jax.grad(loss, of)(*wide[:count]), strict=True):
            same(a, np.asarray(e.astype(jnp.bfloat16)))


@pytest.mark.parametrize("how", [jax.jit, lambda f: f])
def test_bfloat16_pools_vmap_and_second_derivatives(how):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 2, 6, 6, 2)), jnp.bfloat16)
    w = jnp.asarray(rng.normal(size=(3, 3, 3, 2, 2)), jnp.bfloat16)
    for pool in (partial(fj.max_pool, window=2), partial(fj.avg_pool, window=2)):
        each = how(jax.vmap(pool))(x)
        same(each, np.asarray(jax.vmap(pool)(x.astype("f")).astype(jnp.bfloat16)))
        gradient = how(jax.vmap(jax.grad(lambda x, pool=pool: pool(x).sum())))(x)
        expected = jax.vmap(jax.grad(lambda x, pool=pool: pool(x).sum()))(x.astype("f"))
        same(gradient, np.asarray(expected.astype(jnp.bfloat16)))
    for axes in ((0, None), (None, 0), (0, 0)):
        operands = [a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True)]
        found = how(jax.vmap(fj.conv, axes))(*operands)
        wide = jax.vmap(fj.conv, axes)(*(a.astype("f") for a in operands))
        same(found, np.asarray(wide.astype(jnp.bfloat16)))

    def along(w):
        return jax.grad(lambda w: (fj.max_pool(fj.conv(x[0], w), 2) ** 2).sum())(w).sum()

    second = how(jax.grad(along))(w[0])
    assert second.dtype == jnp.bfloat16
    assert float(abs(second.astype("f")).max()) > 0


def test_empty_batch():
    x, w = jnp.zeros((0, 4, 4, 1)), jnp.ones((3, 3, 1, 2))
    gradient = jax.jit(jax.grad(lambda w: fj.max_pool(fj.conv(x, w), 2).sum()))(w)
    same(gradient, np.zeros((3, 3, 1, 2), np.float32))


def lenet(conv, pool, parameters, images):
    c1, c2, w3, w4 = parameters
    z = pool(jnp.tanh(conv(images, c1)))
    z = pool(jnp.tanh(conv(z, c2)))
    return jnp.tanh(z.reshape(len(z), -1) @ w3) @ w4


def cross_entropy(conv, pool, parameters, images, labels):
    z = jax.nn.log_softmax(lenet(conv, pool, parameters, images))
    return -z[jnp.arange(len(labels)), labels].mean()


def test_lenet_learns_and_its_gradients_are_those_of_jaxs_own_layers():
    rng = np.random.default_rng(1)
    images = rng.normal(size=(20, 28, 28, 1)).astype(np.float32)
    labels = rng.integers(0, 10, 20)
    shapes = [(5, 5, 1, 6), (5, 5, 6, 16), (256, 32), (32, 10)]
    parameters = [
        (rng.normal(size=s) / np.sqrt(np.prod(s[:-1]))).astype(np.float32) for s in shapes
    ]

    def own_pool(z):
        return lax.reduce_window(z, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    own = jax.jit(jax.grad(partial(cross_entropy, own_conv, own_pool)))
    step = jax.jit(
        jax.value_and_grad(partial(cross_entropy, fj.conv, partial(fj.max_pool, window=2)))
    )
    _, gradients = step(parameters, images, labels)
    for a, e in zip(gradients, own(parameters, images, labels), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * float(abs(e).max()))
    losses = []
    for _ in range(60):
        value, gradients = step(parameters, images, labels)
        parameters = [p - 0.3 * g for p, g in zip(parameters, gradients, strict=True)]
        losses.append(float(value))
    assert losses[0] > 2
    assert losses[-1] < 0.3 * losses[0]
