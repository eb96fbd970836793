"""Random changes of images: each against a loop over single images, seeded, inside `fit`."""

import numpy as np
import pytest

from fastconv import nn
from fastconv.examples import (
    Compose,
    Cutout,
    Mixup,
    RandomAffine,
    RandomBrightness,
    RandomCrop,
    RandomFlip,
    RandomShift,
)
from fastconv.nn.describe import describe

X = np.random.default_rng(0).random((40, 9, 7, 2), np.float32)
Y = np.arange(40) % 3
ALL = [RandomCrop(2), RandomFlip(), RandomFlip(0.3, vertical=True), RandomShift(0.5), Cutout(3),
       RandomAffine(20, 0.2, 1.5), RandomBrightness(0.4),
       Compose(RandomFlip(), RandomCrop(1))]  # fmt: skip
each = pytest.mark.parametrize("augment", ALL, ids=repr)


def rng(seed=1):
    return np.random.default_rng(seed)


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_seeded_and_of_the_same_shape(augment, dtype):
    x = X.astype(dtype)
    kept = x.copy()
    x.flags.writeable = False
    y = augment(x, rng())
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(y, augment(x, rng()))
    assert (y != augment(x, rng(2))).any()
    assert (y != x).any(axis=(1, 2, 3)).sum() > 5
    assert augment(x[:0], rng()).shape == (0, 9, 7, 2)


@each
@pytest.mark.parametrize("x", [X[0], X.astype(int), X.tolist()], ids=["3-D", "int", "list"])
def test_what_is_no_batch_of_images(augment, x):
    with pytest.raises(TypeError, match=r"x: images \(m, H, W, C\) of floats are needed"):
        augment(x, rng())


def test_crop():
    wide = np.pad(X, [(0, 0), (2, 2), (2, 2), (0, 0)])
    y, seen = RandomCrop(2)(X, rng()), set()
    for image, padded in zip(y, wide, strict=True):
        found = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(padded[i : i + 9, j : j + 7], image)
        ]
        assert len(found) == 1
        seen.update(found)
    assert {i for i, _ in seen} == {j for _, j in seen} == set(range(5))
    np.testing.assert_array_equal(RandomCrop(0)(X, rng()), X)


@pytest.mark.parametrize("vertical", [True, False])
def test_flip(vertical):
    y = RandomFlip(0.4, vertical=vertical)(X, rng())
    mirrored = X[:, ::-1] if vertical else X[:, :, ::-1]
    flipped = (y == mirrored).all(axis=(1, 2, 3))
    assert 5 < flipped.sum() < 30
    np.testing.assert_array_equal(y[~flipped], X[~flipped])
    np.testing.assert_array_equal(RandomFlip(1, vertical=vertical)(X, rng()), mirrored)


def test_affine_is_scipys_affine_transform_image_by_image():
    from scipy.ndimage import affine_transform

    augment = RandomAffine(30, 0.3, 2)
    y = augment(X.astype(float), rng())
    angle, zoom, down, right = rng().uniform(-1, 1, (4, len(X)))
    middle = np.array([4.0, 3.0])
    for i in range(len(X)):
        a, z = np.deg2rad(angle[i] * 30), 1 + zoom[i] * 0.3
        inverse = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) / z
        offset = middle - inverse @ (middle + 2 * np.array([down[i], right[i]]))
        for c in range(2):
            one = affine_transform(
                X[i, ..., c].astype(float), inverse, offset, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(y[i, ..., c], one, atol=1e-12)


def test_affine_in_cases_that_are_known():
    np.testing.assert_array_equal(RandomAffine(0, 0, 0)(X, rng()), X)
    ramp = np.broadcast_to(np.arange(9.0)[:, None, None], (30, 9, 9, 1))
    shifted = RandomAffine(0, 0, 1.5)(ramp, rng())[:, 2:7, 2:7] - ramp[:, 2:7, 2:7]
    assert np.ptp(shifted, axis=(1, 2, 3)).max() < 1e-12
    assert np.abs(shifted).max() <= 1.5
    zoomed = RandomAffine(0, 0.4)(ramp - 4, rng())[:, 4:6, 4] - 0.0
    assert set(np.sign(zoomed[:, 1, 0])) == {1.0}
    slope = zoomed[:, 1, 0] - zoomed[:, 0, 0]
    assert 1 / 1.4 <= slope.min() < slope.max() <= 1 / 0.6


def test_cutout():
    y = Cutout(3)(X + 1, rng())
    holes = (y == 0).all(axis=3)
    np.testing.assert_array_equal((y == 0).any(axis=3), holes)
    sizes = set()
    for image, hole, old in zip(y, holes, X + 1, strict=True):
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert hole.sum() == len(rows) * len(columns)
        assert np.ptp(rows) == len(rows) - 1
        np.testing.assert_array_equal(image[~hole], old[~hole])
        sizes.add((len(rows), len(columns)))
    assert max(sizes) == (3, 3)
    assert min(map(min, sizes)) == 2  # cut off at the border


def test_brightness():
    factor = RandomBrightness(0.4)(X, rng()) / X
    assert np.ptp(factor, axis=(1, 2, 3)).max() < 1e-6
    assert 0.6 <= factor.min() < 0.7
    assert 1.3 < factor.max() <= 1.4 + 1e-6


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup(alpha):
    x, y = X.astype(float), Y
    mixed, soft = Mixup(alpha, classes=4)(x, rng(), y)
    draw = rng()
    share, other = draw.beta(alpha, alpha, 40), draw.permutation(40)
    for i in range(40):
        expected = share[i] * x[i] + (1 - share[i]) * x[other[i]]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-12)
        label = np.zeros(4)
        label[y[i]] += share[i]
        label[y[other[i]]] += 1 - share[i]
        np.testing.assert_allclose(soft[i], label, atol=1e-12)
    assert (soft.shape, soft.dtype) == ((40, 4), np.float64)
    again = Mixup(alpha)(x, rng(), np.eye(4)[y])  # labels that are soft already
    np.testing.assert_allclose(again[1], soft, atol=1e-12)
    assert Mixup(alpha, classes=4)(X, rng(), y)[1].dtype == np.float32


class SoftLoss(nn.Loss):
    """-sum y log softmax(z): the least that mixup needs."""

    def forward(self, z, y):
        assert y.shape == z.shape
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        self._dz = (p - y).astype(z.dtype) / z.dtype.type(len(z))
        return float(-(y * np.log(p)).sum() / len(z))


def train(augment, loss=None, epochs=2, **options):
    model = nn.Sequential(nn.Flatten(), nn.Dense(126, 3, rng=0))
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    options |= {"epochs": epochs, "batch_size": 16, "seed": 3, "augment": augment}
    history = nn.fit(model, loss or nn.SoftmaxCrossEntropy(), optimizer, X, Y, **options)
    return model, history


def test_mixup_inside_fit():
    """Against a loop that draws as `fit` does."""
    augment = Compose(RandomFlip(), Mixup(1.0, classes=3))
    found, _ = train(augment, SoftLoss())
    model = nn.Sequential(nn.Flatten(), nn.Dense(126, 3, rng=0))
    loss, optimizer, draw = SoftLoss(), nn.SGD(model.parameters(), lr=0.1), rng(3)
    for _ in range(2):
        order = draw.permutation(40)
        for start in range(0, 40, 16):
            chosen = order[start : start + 16]
            x, y = Mixup(1.0, classes=3)(RandomFlip()(X[chosen], draw), draw, Y[chosen])
            nn.train_step(model, loss, optimizer, x, y)
    np.testing.assert_array_equal(found.layers[1].w.value, model.layers[1].w.value)


@pytest.mark.parametrize("augment", [*ALL, Compose(Mixup(classes=3))], ids=repr)
def test_a_resume_has_the_bits_of_a_run_that_went_on(augment, tmp_path):
    options = {"checkpoint": tmp_path / "run.npz"}
    loss = SoftLoss() if getattr(augment, "mixes_labels", False) else None
    whole, _ = train(augment, loss, epochs=3)
    train(augment, loss, epochs=1, **options)
    resumed, _ = train(augment, loss, epochs=3, resume=True, **options)
    np.testing.assert_array_equal(whole.layers[1].w.value, resumed.layers[1].w.value)


CHANGED = [
    (RandomCrop(1), RandomCrop(2)), (RandomFlip(), RandomFlip(vertical=True)),
    (Cutout(2), Cutout(3)), (RandomAffine(5), RandomAffine(6)),
    (RandomAffine(scale=0.1), RandomAffine(scale=0.2)), (Mixup(classes=3), Mixup(1, classes=3)),
    (RandomBrightness(0.1), RandomBrightness(0.2)), (Compose(Cutout(2)), Compose(Cutout(3))),
    (Compose(Cutout(2), RandomFlip()), Compose(RandomFlip(), Cutout(2))),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), CHANGED, ids=repr)
def test_what_changed_is_seen_at_a_resume(before, after):
    assert describe(before) != describe(after)
    assert describe(before) == describe(type(before)(*before.steps) if isinstance(before, Compose)
                                        else type(before)(**vars(before)))  # fmt: skip


def test_compose():
    def negative(x, rng):
        return -x

    both = Compose([RandomFlip(), negative])
    np.testing.assert_array_equal(both(X, rng()), -RandomFlip()(X, rng()))
    assert not both.mixes_labels
    assert Compose(both, Mixup(classes=3)).mixes_labels
    for wrong in ((), (3,), ([],), (RandomFlip,)):
        with pytest.raises(TypeError, match=r"^steps: "):
            Compose(*wrong)


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: RandomCrop(-1), ValueError, "padding: must be at least 0"),
        (lambda: RandomCrop(1.5), TypeError, "padding: an integer"),
        (lambda: RandomFlip(1.1), ValueError, r"probability: must be in \[0, 1\]"),
        (lambda: Cutout(0), ValueError, "size: must be at least 1"),
        (lambda: RandomAffine(-1), ValueError, "rotation: must be finite and at least 0"),
        (lambda: RandomAffine(scale=1), ValueError, r"scale: must be in \[0, 1\)"),
        (lambda: RandomAffine(shift="a"), TypeError, "shift: a number"),
        (lambda: RandomBrightness(1), ValueError, r"amount: must be in \[0, 1\)"),
        (lambda: Mixup(0), ValueError, "alpha: must be above 0"),
        (lambda: Mixup(classes=0), ValueError, "classes: must be at least 1"),
        (lambda: Mixup()(X, rng(), Y), ValueError, "classes: with integer labels it is needed"),
        (lambda: Mixup(classes=2)(X, rng(), Y), ValueError, r"y: labels must be in 0 \.\. 1, got"),
        (lambda: Mixup(classes=3)(X, rng()), TypeError, "y: Mixup changes labels too"),
        (lambda: Mixup(classes=3)(X, rng(), Y[:3]), ValueError, "y: expected 40 labels"),
        (lambda: Mixup(classes=3)(X, rng(), Y * 1.0), TypeError, "y: integers"),
    ],
)
def test_wrong_arguments(make, kind, text):
    with pytest.raises(kind, match=f"^{text}"):
        make()
