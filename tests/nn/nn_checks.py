"""Finite differences and repeatable forward passes for the tests of this folder."""

from contextlib import contextmanager

import numpy as np

EPS, ATOL, RTOL = 1e-6, 1e-5, 1e-3  # central differences in float64


def spread(shape, seed=0, step=0.05):
    """Distinct values, `step` apart, none near 0: no ties for max, no kink for ReLU."""
    size = int(np.prod(shape))
    values = (np.random.default_rng(seed).permutation(size) - size // 2 + 0.4) * step
    return values.reshape(shape)


@contextmanager
def same_state(model):
    """What a forward pass in training mode changes (dropout, running means) is put back after."""
    generators = [(g, g.bit_generator.state) for g in model.named_generators().values()]
    buffers = [(b, b.copy()) for b in model.named_buffers().values()]
    yield
    for generator, state in generators:
        generator.bit_generator.state = state
    for buffer, value in buffers:
        buffer[...] = value


def forward(model, x):
    """A forward pass that can be repeated with the same result."""
    with same_state(model):
        return model.forward(x)


def numeric_gradient(function, array, where=None):
    """Central differences of the scalar `function()` by elements of `array`, changed in place."""
    flat = array.reshape(-1)
    assert np.shares_memory(flat, array)
    where = np.arange(flat.size) if where is None else where
    gradient = np.zeros(len(where))
    for k, i in enumerate(where):
        kept = flat[i]
        flat[i] = kept + EPS
        high = function()
        flat[i] = kept - EPS
        low = function()
        flat[i] = kept
        gradient[k] = (high - low) / (2 * EPS)
    return gradient


def check_gradients(layer, x, *, samples=None):
    """dx and every parameter's gradient of sum(y * r), random r, against finite differences."""
    y = forward(layer, x)
    r = np.random.default_rng(7).normal(size=y.shape)
    dx = layer.backward(r)
    assert dx.shape == x.shape
    pairs = [("x", x, dx.copy())]
    pairs += [(p.name, p.value, p.grad.copy()) for p in layer.parameters()]
    pick = np.random.default_rng(8)

    def value():
        return float((forward(layer, x) * r).sum())

    for name, array, gradient in pairs:
        where = np.arange(array.size)
        if samples is not None and array.size > samples:
            where = pick.choice(array.size, samples, replace=False)
        expected = numeric_gradient(value, array, where)
        np.testing.assert_allclose(
            gradient.reshape(-1)[where], expected, rtol=RTOL, atol=ATOL, err_msg=name
        )
