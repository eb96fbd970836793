"""Networks of the known families: gradients by finite differences, and each learns real images."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from nn_checks import ATOL, RTOL, numeric_gradient, same_state

from fastconv import nn
from fastconv.examples.data import load_digits

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
families = import_module("families")
NETWORKS = families.NETWORKS
TRAINED = 1200  # images; the others are for the test


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    found = load_digits()
    return found.x_train.astype(np.float32), found.y_train


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_by_finite_differences(name):
    model = NETWORKS[name](rng=np.random.default_rng(0), dtype=np.float64)
    rng = np.random.default_rng(2)
    for parameter in model.parameters():  # biases of zero would hide a mistake
        parameter.value += rng.normal(0, 0.05, parameter.shape)
    x, y = families.data(name, m=3)
    loss = nn.SoftmaxCrossEntropy(label_smoothing=0.1)

    def value():
        with same_state(model):
            return loss.forward(model.forward(x), y)

    value()
    dx = model.backward(loss.backward())
    checked = [(x, dx.copy())] + [(p.value, p.grad.copy()) for p in model.parameters()]
    for array, gradient in checked:
        where = rng.choice(array.size, min(array.size, 3), replace=False)
        expected = numeric_gradient(value, array, where)
        np.testing.assert_allclose(gradient.reshape(-1)[where], expected, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "unet"])
def test_learns_digits(name, digits):
    x, y = digits
    model = NETWORKS[name](rng=np.random.default_rng(0))
    optimizer, loss = nn.Adam(model.parameters(), lr=0.01), nn.SoftmaxCrossEntropy()
    slower = nn.ExponentialDecay(0.01, 0.75)
    options = {"epochs": 8, "batch_size": 32, "callbacks": [slower]}
    nn.fit(model, loss, optimizer, x[:TRAINED], y[:TRAINED], **options)
    _, accuracy = nn.evaluate(model, loss, x[TRAINED:], y[TRAINED:])
    assert accuracy > 0.9


def test_unet_segments_digits_from_noise(digits):
    """The ink of digits under noise, in which a threshold finds less; a corner does not count."""
    x, _ = digits
    rng = np.random.default_rng(0)
    ink = (x[..., 0] > 0.5).astype(np.int64)
    noisy = (ink[..., None] + rng.normal(0, 0.3, x.shape)).astype(np.float32)
    ink[:, 0, 0] = 255
    model = NETWORKS["unet"](rng=np.random.default_rng(0))
    loss = nn.SoftmaxCrossEntropy(class_weight=[1, 1.2], ignore_index=255)
    optimizer = nn.Adam(model.parameters(), lr=0.01)
    nn.fit(model, loss, optimizer, noisy[:TRAINED], ink[:TRAINED], epochs=4, batch_size=32)
    right, counted = ink[TRAINED:] == 1, ink[TRAINED:] != 255

    def over_union(found):
        return (found & right & counted).sum() / ((found | right) & counted).sum()

    assert over_union(model.predict(noisy[TRAINED:]).argmax(axis=-1) == 1) > 0.9
    assert over_union(noisy[TRAINED:, ..., 0] > 0.5) < 0.88
    value, accuracy = nn.evaluate(model, loss, noisy[TRAINED:], ink[TRAINED:])
    assert accuracy > 0.9
    assert np.isfinite(value)
