"""Losses with weights, soft labels and labels of pixels; Huber and focal: formulas, gradients."""

import numpy as np
import pytest
from nn_checks import ATOL, RTOL, numeric_gradient

from fastconv import nn

# Weights, soft labels, pixels ------------------------------------------------------------------


def rows_by_hand(z, y, weights, classes=None, smoothing=0.0, ignored=None):
    """The loss of every label and its share of the mean, label by label: the formula as it stands.

    Labels are classes, or rows of shares.
    """
    total, divisor = 0.0, 0.0
    for i in np.ndindex(*z.shape[:-1]):
        weight = weights[i[0]]
        log_p = z[i] - z[i].max()
        log_p -= np.log(np.exp(log_p).sum())
        each = np.ones(len(log_p)) if classes is None else np.asarray(classes)
        hard = y.ndim < z.ndim
        if hard and y[i] == ignored:
            continue
        target = np.eye(len(log_p))[y[i]] if hard else y[i]
        target = (1 - smoothing) * target + smoothing / len(log_p)
        total += weight * -(each * target * log_p).sum()
        divisor += weight * (each[y[i]] if hard else 1.0)
    return total / divisor


def logits(*shape):
    return np.random.default_rng(3).normal(0, 2, shape)


def shares(*shape):
    found = np.random.default_rng(4).random(shape)
    return found / found.sum(axis=-1, keepdims=True)


CLASSES = [0.5, 2.0, 1.0, 0.0]
WEIGHTED = {
    "class weights": ({"class_weight": CLASSES}, (6, 4), "hard", None),
    "smoothing": ({"label_smoothing": 0.2}, (6, 4), "hard", None),
    "sample weights": ({}, (6, 4), "hard", [1, 0, 2, 0.5, 1, 3]),
    "ignored": ({"ignore_index": 1}, (6, 4), "hard", None),
    "ignored outside": ({"ignore_index": 255}, (6, 4), "ignored", None),
    "soft": ({}, (6, 4), "soft", None),
    "soft, all": ({"class_weight": CLASSES, "label_smoothing": 0.1}, (6, 4), "soft", [1] * 5 + [2]),
    "pixels": ({}, (2, 3, 5, 4), "hard", None),
    "pixels, all": (
        {"class_weight": CLASSES, "label_smoothing": 0.1, "ignore_index": 255},
        (2, 3, 5, 4),
        "ignored",
        [0.5, 2],
    ),
    "soft pixels": ({"label_smoothing": 0.1}, (2, 3, 4), "soft", [1, 4]),
}


def weighted_case(name):
    options, shape, kind, weights = WEIGHTED[name]
    y = np.random.default_rng(5).integers(0, shape[-1], shape[:-1])
    if kind == "soft":
        y = shares(*shape)
    elif kind == "ignored":
        y.reshape(-1)[::3] = 255
    return nn.SoftmaxCrossEntropy(**options), logits(*shape), y, weights


@pytest.mark.parametrize("name", WEIGHTED)
def test_softmax_with_weights_by_hand_and_by_finite_differences(name):
    loss, z, y, weights = weighted_case(name)
    value = loss.forward(z, y, weights)
    options = WEIGHTED[name][0]
    each = np.ones(len(z)) if weights is None else weights
    names = {"class_weight": "classes", "label_smoothing": "smoothing", "ignore_index": "ignored"}
    right = rows_by_hand(z, y, each, **{names[key]: value for key, value in options.items()})
    np.testing.assert_allclose(value, right, rtol=1e-12)
    dz = loss.backward().copy()
    expected = numeric_gradient(lambda: loss.forward(z, y, weights), z)
    np.testing.assert_allclose(dz.reshape(-1), expected, rtol=RTOL, atol=ATOL)
    assert loss.forward(z.astype(np.float32), y, weights) == pytest.approx(value, rel=1e-5)
    assert loss.backward().dtype == np.float32
    loss.check(z, y)


ELEMENTS = {
    "binary, positive": (lambda: nn.BinaryCrossEntropy(pos_weight=3.0), None),
    "binary, columns": (lambda: nn.BinaryCrossEntropy(pos_weight=[0.5, 1, 4]), [1, 2, 0, 1]),
    "binary, samples": (nn.BinaryCrossEntropy, [1, 2, 0, 1]),
    "squared, samples": (nn.MeanSquaredError, [1, 2, 0, 1]),
    "huber": (nn.Huber, None),
    "huber, samples": (lambda: nn.Huber(0.4), [1, 2, 0, 1]),
}


def element_by_hand(loss, z, y):
    if isinstance(loss, nn.BinaryCrossEntropy):
        p = 1 / (1 + np.exp(-z))
        positive = 1 if loss.pos_weight is None else np.asarray(loss.pos_weight)
        return -(positive * y * np.log(p) + (1 - y) * np.log(1 - p))
    error = np.abs(z - y)
    if isinstance(loss, nn.MeanSquaredError):
        return error**2
    return np.where(error < loss.delta, error**2 / 2, loss.delta * (error - loss.delta / 2))


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_with_weights_by_hand_and_by_finite_differences(name):
    make, weights = ELEMENTS[name]
    loss, z, y = make(), logits(4, 3), np.random.default_rng(6).random((4, 3))
    value = loss.forward(z, y, weights)
    each = np.ones(4) if weights is None else np.array(weights)
    right = (element_by_hand(loss, z, y) * each[:, None]).sum() / (3 * each.sum())
    np.testing.assert_allclose(value, right, rtol=1e-12)
    dz = loss.backward().copy()
    expected = numeric_gradient(lambda: loss.forward(z, y, weights), z)
    np.testing.assert_allclose(dz.reshape(-1), expected, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize(("shape", "weights"), [((5, 4), None), ((2, 3, 3), [1, 3]), ((5, 1), None),
                                                ((5,), [0, 1, 2, 1, 1])])  # fmt: skip
def test_focal_by_hand_and_by_finite_differences(gamma, shape, weights):
    loss, z = nn.FocalLoss(gamma), logits(*shape)
    rng = np.random.default_rng(6)
    if len(shape) == 1 or shape[1] == 1:
        y = rng.integers(0, 2, shape)
        p = 1 / (1 + np.exp(-z))
        p = np.where(y == 1, p, 1 - p).reshape(len(z), -1)
    else:
        y = rng.integers(0, shape[-1], shape[:-1])
        p = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
        p = np.take_along_axis(p, y[..., None], -1).reshape(len(z), -1)
    each = np.ones(len(z)) if weights is None else np.array(weights)
    losses = -((1 - p) ** gamma) * np.log(p)
    right = (losses * each[:, None]).sum() / (each.sum() * losses.shape[1])
    assert loss.forward(z, y, weights) == pytest.approx(right, rel=1e-12)
    dz = loss.backward().copy()
    expected = numeric_gradient(lambda: loss.forward(z, y, weights), z)
    np.testing.assert_allclose(dz.reshape(-1), expected, rtol=RTOL, atol=ATOL)
    if gamma == 0 and weights is None:
        plain = nn.BinaryCrossEntropy() if p.shape[1:] == (1,) and z.size == 5 else None
        plain = plain or nn.SoftmaxCrossEntropy()
        assert plain.forward(z, y) == pytest.approx(right, rel=1e-12)


def test_focal_of_certain_outputs_is_finite():
    for z, y in (
        (np.array([[800.0, 0.0], [-800.0, 0.0]]), [0, 0]),
        (np.array([800.0, -800]), [1, 1]),
    ):
        for gamma in (0.5, 2.0):
            loss = nn.FocalLoss(gamma)
            assert loss.forward(z, np.array(y)) == 400
            assert np.isfinite(loss.backward()).all()


def test_a_weight_of_two_is_an_image_twice():
    z, y = logits(3, 4), np.array([2, 0, 1])
    for loss, labels in (
        (nn.SoftmaxCrossEntropy(class_weight={1: 5}), y),
        (nn.BinaryCrossEntropy(), shares(3, 4)),
        (nn.Huber(), shares(3, 4)),
        (nn.FocalLoss(), y),
    ):
        twice = [0, 0, 1, 2]
        right = loss.forward(z[twice], labels[twice])
        assert loss.forward(z, labels, [2, 1, 1]) == pytest.approx(right, rel=1e-14)


def test_where_nothing_counts_there_is_no_loss_and_no_gradient():
    z = logits(2, 3)
    for loss, y, weights in (
        (nn.SoftmaxCrossEntropy(ignore_index=1), [1, 1], None),
        (nn.SoftmaxCrossEntropy(class_weight=[0, 1, 1]), [0, 0], None),
        (nn.SoftmaxCrossEntropy(), [0, 2], [0, 0]),
        (nn.MeanSquaredError(), z + 1, [0, 0]),
    ):
        assert loss.forward(z, np.array(y), weights) == 0
        assert not loss.backward().any()


def test_an_image_of_weight_0_may_hold_anything():
    z, y = logits(2, 3), np.array([0, 2])
    z[0] = np.nan
    for loss, labels in ((nn.SoftmaxCrossEntropy(), y), (nn.Huber(), np.zeros((2, 3)))):
        assert np.isfinite(loss.forward(z, labels, [0, 1]))
        assert not loss.backward()[0].any()
        assert np.isnan(loss.forward(z, labels, [1, 1]))


def test_pixels_are_right_by_share():
    z = np.zeros((2, 2, 2, 3))
    z[..., 1] = 1
    y = np.array([[[1, 1], [1, 0]], [[1, 2], [255, 255]]])
    assert nn.SoftmaxCrossEntropy().correct(z, np.where(y == 255, 0, y)) == 2 * 4 / 8
    assert nn.SoftmaxCrossEntropy(ignore_index=255).correct(z, y) == 2 * 4 / 6
    assert nn.SoftmaxCrossEntropy().correct(z[:, 0, 0], shares(2, 3)) in (0, 1, 2)
    np.testing.assert_allclose(nn.SoftmaxCrossEntropy().predict(z).sum(axis=-1), 1)


SOFTMAX = nn.SoftmaxCrossEntropy


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: SOFTMAX(class_weight=3), TypeError, "class_weight: a number for"),
        (lambda: SOFTMAX(class_weight=[1, -1]), ValueError, "class_weight: .* least 0"),
        (lambda: SOFTMAX(class_weight={"a": 1}), TypeError, "class_weight: classes"),
        (lambda: SOFTMAX(class_weight=[]), ValueError, "class_weight"),
        (lambda: SOFTMAX(label_smoothing=1.5), ValueError, "label_smoothing"),
        (lambda: SOFTMAX(ignore_index=0.5), TypeError, "ignore_index: an integer"),
        (lambda: nn.BinaryCrossEntropy(pos_weight=-1), ValueError, "pos_weight: .* at least 0"),
        (lambda: nn.BinaryCrossEntropy(pos_weight="a"), TypeError, "pos_weight: a number"),
        (lambda: nn.Huber(0), ValueError, "delta: must be above 0, got 0"),
        (lambda: nn.FocalLoss(-1), ValueError, "gamma: .* at least 0"),
    ],
)
def test_bad_arguments_of_losses(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


ROWS, PIXELS = (2, 3), (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("loss", "shape", "y", "weights", "kind", "message"),
    [
        (SOFTMAX(), ROWS, [0, 1], [1], ValueError, "sample_weight: .* 2 weights"),
        (SOFTMAX(), ROWS, [0, 1], [1, -1], ValueError, "sample_weight: .* at least 0"),
        (SOFTMAX(), ROWS, [0, 1], [1, np.nan], ValueError, "sample_weight: .* finite"),
        (SOFTMAX(), ROWS, [0, 1], ["a", "b"], TypeError, "sample_weight: numbers"),
        (SOFTMAX(class_weight=[1, 2]), ROWS, [0, 1], None, ValueError,
         "class_weight: expected 3 weights, one per class, got 2"),
        (SOFTMAX(class_weight={3: 2}), ROWS, [0, 1], None, ValueError, "class_weight: class 3 is"),
        (SOFTMAX(), ROWS, np.ones(ROWS), None, ValueError, "y: soft .* add up to 1, got 3"),
        (SOFTMAX(), (1, 2), [[2.0, -1.0]], None, ValueError, r"y: soft labels .* in 0 \.\. 1"),
        (SOFTMAX(ignore_index=0), (1, 2), [[0.5, 0.5]], None, ValueError, "ignore_index: soft"),
        (SOFTMAX(ignore_index=9), (2, 2), [9, 5], None, ValueError, r"y: .* in 0 \.\. 1, or 9"),
        (SOFTMAX(), PIXELS, np.zeros((2, 4), int), None, ValueError, r"expected \(2, 4, 4\) label"),
        (nn.BinaryCrossEntropy(pos_weight=[1, 2]), ROWS, np.zeros(ROWS), None, ValueError,
         "pos_weight: expected 3"),
        (nn.FocalLoss(), (2, 1), [0, 0.5], None, ValueError, "y: labels must be 0 or 1"),
    ],
)  # fmt: skip
def test_bad_labels_and_weights(loss, shape, y, weights, kind, message):
    with pytest.raises(kind, match=message):
        loss.forward(np.zeros(shape), np.asarray(y), weights)


def test_losses_say_what_they_were_made_with():
    assert repr(nn.SoftmaxCrossEntropy()) == "SoftmaxCrossEntropy()"
    shown = repr(nn.SoftmaxCrossEntropy(class_weight=[1, 2], ignore_index=9))
    assert shown == "SoftmaxCrossEntropy(class_weight=(1.0, 2.0), ignore_index=9)"
    assert repr(nn.Huber(0.5)) == "Huber(delta=0.5)"
