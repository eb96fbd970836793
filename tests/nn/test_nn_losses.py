"""Losses and optimizers: values by hand, finite differences, stability, errors."""

import numpy as np
import pytest
from nn_checks import ATOL, RTOL, numeric_gradient

from fastconv import nn

LOSSES = {
    "binary": (nn.BinaryCrossEntropy, (6, 1), np.array([0, 1, 1, 0, 1, 0])),
    "binary soft": (nn.BinaryCrossEntropy, (2, 3), np.array([[0.1, 1, 0.5], [0, 0.25, 1]])),
    "softmax": (nn.SoftmaxCrossEntropy, (5, 4), np.array([3, 0, 1, 2, 3])),
    "squared": (nn.MeanSquaredError, (3, 2, 2), np.arange(12.0).reshape(3, 2, 2)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_by_finite_differences(name):
    make, shape, y = LOSSES[name]
    loss, z = make(), np.random.default_rng(0).normal(0, 2, shape)
    with pytest.raises(ValueError, match="backward was called before forward"):
        loss.backward()
    loss.forward(z, y)
    dz = loss.backward().copy()
    expected = numeric_gradient(lambda: loss.forward(z, y), z)
    np.testing.assert_allclose(dz.reshape(-1), expected, rtol=RTOL, atol=ATOL)
    single = make()
    single.forward(z.astype(np.float32), y)
    assert single.backward().dtype == np.float32
    np.testing.assert_allclose(single.backward(), dz, rtol=1e-5, atol=1e-6)


def test_values_by_hand():
    z, y = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]]), np.array([0, 2])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    loss = nn.SoftmaxCrossEntropy()
    assert loss.forward(z, y) == pytest.approx(-np.log([p[0, 0], p[1, 2]]).mean())
    np.testing.assert_allclose(loss.predict(z), p)
    assert loss.correct(z, y) == 1
    z, y = np.array([[1.5], [-0.5], [0.2]]), np.array([1, 1, 0])
    p = 1 / (1 + np.exp(-z[:, 0]))
    loss = nn.BinaryCrossEntropy()
    assert loss.forward(z, y) == pytest.approx(-np.log([p[0], p[1], 1 - p[2]]).mean())
    np.testing.assert_allclose(loss.predict(z)[:, 0], p)
    np.testing.assert_allclose(loss.backward()[:, 0], (p - y) / 3)
    assert loss.correct(z, y) == 1
    assert nn.MeanSquaredError().correct(z, y) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_stay_finite(dtype):
    z = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    loss = nn.SoftmaxCrossEntropy()
    assert loss.forward(z, np.array([0, 1])) == 0
    assert loss.forward(z, np.array([1, 0])) == 2e4
    np.testing.assert_array_equal(loss.backward(), [[0.5, -0.5], [-0.5, 0.5]])
    loss = nn.BinaryCrossEntropy()
    assert loss.forward(z[:, :1], np.array([1, 0])) == 0
    assert loss.forward(z[:, :1], np.array([0, 1])) == 1e4
    np.testing.assert_array_equal(loss.backward(), [[0.5], [-0.5]])
    assert np.isnan(nn.sigmoid(np.array([np.nan], dtype))).all()


@pytest.mark.parametrize(
    ("loss", "shape", "y", "kind", "message"),
    [
        ("Softmax", (2, 3), [0], ValueError, r"y: expected \(2,\) labels"),
        ("Softmax", (2, 3), [[0], [1]], ValueError, r"y: expected \(2,\) labels .* got \(2, 1\)"),
        ("Softmax", (2, 3), [0.0, 1.0], TypeError, "y: integer labels are needed, got float64"),
        ("Softmax", (2, 3), [0, 3], ValueError, r"y: labels must be in 0 \.\. 2, got 0 \.\. 3"),
        ("Softmax", (2, 3), [-1, 0], ValueError, r"y: labels must be in 0 \.\. 2, got -1 \.\. 0"),
        ("Softmax", (2,), [0, 1], ValueError, r"z: expected \(m, classes\)"),
        ("Softmax", (0, 3), [], ValueError, "z: at least one image"),
        ("Binary", (2, 1), [0, 1, 1], ValueError, r"y: expected the shape of z, \(2, 1\)"),
        ("Binary", (2, 1), [0, 2], ValueError, r"y: labels must be in 0 \.\. 1, got 0.* 2"),
        ("Binary", (2, 1), ["a", "b"], TypeError, "y: numbers are needed"),
    ],
)
def test_bad_labels(loss, shape, y, kind, message):
    with pytest.raises(kind, match=message):
        getattr(nn, loss + "CrossEntropy")().forward(np.zeros(shape, np.float32), y)


def test_bad_outputs():
    with pytest.raises(TypeError, match="z: a float32 or float64 array is needed, got int64"):
        nn.MeanSquaredError().forward(np.zeros((2, 1), int), [0, 1])


# Optimizers -----------------------------------------------------------------------------------


def trajectory(make, steps=3, dtype=np.float64):
    """Values of one parameter under gradients that differ from step to step."""
    p = nn.Parameter(np.array([1.0, -2.0], dtype), "w")
    optimizer, seen = make([p]), []
    for t in range(steps):
        p.grad[...] = np.array([0.5, -1.0]) * (t + 1)
        optimizer.step()
        seen.append(p.value.copy())
    return np.array(seen), p


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "weight_decay": 0.1},
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
    ],
)
def test_sgd_by_hand(options):
    got, _ = trajectory(lambda p: nn.SGD(p, lr=0.1, **options))
    value, velocity = np.array([1.0, -2.0]), np.zeros(2)
    momentum = options.get("momentum", 0)
    for t in range(3):
        g = np.array([0.5, -1.0]) * (t + 1) + options.get("weight_decay", 0) * value
        velocity = momentum * velocity + g
        value = value - 0.1 * (g + momentum * velocity if options.get("nesterov") else velocity)
        np.testing.assert_allclose(got[t], value, rtol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_by_hand(weight_decay):
    got, _ = trajectory(lambda p: nn.Adam(p, lr=0.1, betas=(0.8, 0.9), weight_decay=weight_decay))
    value, mean, square = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t in range(1, 4):
        g = np.array([0.5, -1.0]) * t
        mean = 0.8 * mean + 0.2 * g
        square = 0.9 * square + 0.1 * g**2
        value = value - 0.1 * weight_decay * value
        value = value - 0.1 * (mean / (1 - 0.8**t)) / (np.sqrt(square / (1 - 0.9**t)) + 1e-8)
        np.testing.assert_allclose(got[t - 1], value, rtol=1e-13)


MAKERS = {
    "sgd": lambda p: nn.SGD(p, lr=0.1),
    "momentum": lambda p: nn.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: nn.Adam(p, lr=0.1),
}


@pytest.mark.parametrize("name", MAKERS)
def test_state_continues_bit_for_bit(name):
    make = MAKERS[name]
    p = nn.Parameter(np.ones(3, np.float32), "w")
    optimizer = make([p])
    p.grad[...] = [1, 2, 3]
    optimizer.step()
    state, value = optimizer.state(), p.value.copy()
    optimizer.step()
    q = nn.Parameter(value, "w")
    other = make([q])
    other.load_state(state)
    q.grad[...] = [1, 2, 3]
    other.step()
    np.testing.assert_array_equal(q.value, p.value)
    assert q.value.dtype == np.float32


def test_state_of_another_optimizer():
    p = nn.Parameter(np.ones(3), "w")
    with pytest.raises(ValueError, match="state: expected the entries"):
        nn.Adam([p]).load_state(nn.SGD([p]).state())
    q = nn.Parameter(np.ones(4), "w")
    with pytest.raises(ValueError, match=r"state\['slot0.0'\]: expected shape \(3,\), got \(4,\)"):
        nn.Adam([p]).load_state(nn.Adam([q]).state())


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda p: nn.SGD([]), ValueError, "parameters: at least one"),
        (lambda p: nn.SGD([p, p]), ValueError, "parameters: one parameter is listed twice"),
        (lambda p: nn.SGD([p.value]), TypeError, "parameters: expected Parameter"),
        (lambda p: nn.SGD([p], lr=-1), ValueError, "lr: must be finite and at least 0, got -1"),
        (lambda p: nn.SGD([p], lr=np.nan), ValueError, "lr: must be finite"),
        (lambda p: nn.SGD([p], momentum=1.0), ValueError, "momentum: must be in"),
        (lambda p: nn.SGD([p], nesterov=True), ValueError, "nesterov: needs a momentum"),
        (lambda p: nn.Adam([p], betas=0.9), ValueError, "betas: two numbers"),
        (lambda p: nn.Adam([p], lr="fast"), TypeError, "lr: a number is needed, got 'fast'"),
    ],
)
def test_bad_arguments(make, kind, message):
    with pytest.raises(kind, match=message):
        make(nn.Parameter(np.ones(3), "w"))
