"""Networks of the known families: gradients by finite differences, and each learns real images."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from nn_checks import ATOL, RTOL, numeric_gradient, same_state

from fastconv import nn, num_threads
from fastconv.examples.data import load_digits

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
families = import_module("families")
NETWORKS = families.NETWORKS


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    found = load_digits()
    x, x_test = (images.astype(np.float32) for images in (found.x_train, found.x_test))
    return x, found.y_train, x_test, found.y_test


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
    x, y, x_test, y_test = digits
    model = NETWORKS[name](rng=np.random.default_rng(0))
    optimizer, loss = nn.Adam(model.parameters(), lr=0.02), nn.SoftmaxCrossEntropy()
    slower = nn.ExponentialDecay(0.02, 0.8)
    with num_threads(1):
        nn.fit(model, loss, optimizer, x, y, epochs=4, batch_size=32, callbacks=[slower])
    _, accuracy = nn.evaluate(model, loss, x_test, y_test)
    assert accuracy > 0.92


def test_unet_segments_digits_from_noise(digits):
    """The ink of digits under noise, in which a threshold finds less; a corner does not count."""
    rng = np.random.default_rng(0)
    ink, ink_test = ((digits[i][..., 0] > 0.5).astype(np.int64) for i in (0, 2))
    noisy, noisy_test = (
        (a[..., None] + rng.normal(0, 0.3, (*a.shape, 1))).astype(np.float32)
        for a in (ink, ink_test)
    )
    ink[:, 0, 0] = ink_test[:, 0, 0] = 255
    model = NETWORKS["unet"](rng=np.random.default_rng(0))
    loss = nn.SoftmaxCrossEntropy(class_weight=[1, 1.2], ignore_index=255)
    optimizer = nn.Adam(model.parameters(), lr=0.01)
    with num_threads(1):
        nn.fit(model, loss, optimizer, noisy, ink, epochs=3, batch_size=32)
    right, counted = ink_test == 1, ink_test != 255

    def over_union(found):
        return (found & right & counted).sum() / ((found | right) & counted).sum()

    assert over_union(model.predict(noisy_test).argmax(axis=-1) == 1) > 0.9
    assert over_union(noisy_test[..., 0] > 0.5) < 0.88
    value, accuracy = nn.evaluate(model, loss, noisy_test, ink_test)
    assert accuracy > 0.9
    assert np.isfinite(value)


def test_class_weights_raise_the_recall_of_a_rare_class(digits):
    """Of the nines two in a hundred are left; a weight makes up for it."""
    x, y, x_test, y_test = digits
    rng = np.random.default_rng(0)
    nine, others = np.flatnonzero(y == 9)[:12], np.flatnonzero(y != 9)
    kept = rng.permutation(np.concatenate([nine, others[:600]]))
    recalls = []
    for weights in (None, {9: 10.0}):
        model = nn.Sequential(
            nn.Conv(1, 8, 3, activation="relu", rng=0), nn.MaxPool(2), nn.Flatten(),
            nn.Dense(72, 10, rng=1),
        )  # fmt: skip
        loss = nn.SoftmaxCrossEntropy(class_weight=weights)
        with num_threads(1):
            nn.fit(model, loss, nn.Adam(model.parameters(), lr=0.01), x[kept], y[kept], epochs=6)
        found = model.predict(x_test[y_test == 9]).argmax(axis=1)
        recalls.append((found == 9).mean())
    assert recalls[1] > recalls[0] + 0.1
