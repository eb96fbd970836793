"""Programs of the layers and losses that are in no other test: the bits of the plain passes."""

import numpy as np
import pytest
from networks import compare_steps, plain_step, same_bits

from fastconv import nn

SHAPE = (8, 8, 2)


def every_layer(dtype=np.float32):
    """A network of them all, for images (8, 8, 2); three classes."""
    conv = {"padding": 1, "dtype": dtype}
    side = nn.Sequential(nn.MaxPool(2), nn.GELU(), nn.Upsample(2, mode="bilinear"))
    inner = nn.Sequential(nn.Conv(2, 4, 3, rng=1, **conv), nn.SiLU())
    return nn.Sequential(
        nn.Pad(1, "reflect"),
        nn.LeakyReLU(0.2),
        nn.Concat(nn.Identity(), inner, side),
        nn.GroupNorm(2, 8, dtype=dtype),
        nn.SpatialDropout(0.25, seed=4),
        nn.SeparableConv(8, 8, 3, padding=1, rng=2, dtype=dtype),
        nn.LayerNorm(8, dtype=dtype),
        nn.ELU(),
        nn.AdaptiveMaxPool(4),
        nn.PixelShuffle(2),
        nn.InstanceNorm(2, dtype=dtype),
        nn.Softplus(),
        nn.Concat(nn.AdaptiveAvgPool((4, 3)), nn.AdaptiveMaxPool((4, 3))),
        nn.Hardswish(),
        nn.Upsample(2),
        nn.Concat(nn.GlobalMaxPool(), nn.GlobalAvgPool()),
        nn.Dense(8, 3, rng=3, dtype=dtype),
    )


def batches(dtype, count=3, m=5):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.normal(size=(m, *SHAPE)).astype(dtype), rng.integers(0, 3, m)


def trained(model, loss=None):
    loss = loss or nn.SoftmaxCrossEntropy()
    return model, loss, nn.Adam(model.parameters(), lr=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_of_every_layer(dtype):
    model, loss, optimizer = trained(every_layer(dtype))
    step = nn.plan_step(model, loss, optimizer, (5, *SHAPE))
    twin = trained(every_layer(dtype))
    compare_steps(step, model, loss, optimizer, twin, batches(dtype))
    x, _ = next(batches(dtype))
    planned = model.plan_inference(x.shape)(x)
    assert same_bits(planned, model.infer(x))
    assert same_bits(model.predict(x), planned)
    one_by_one = np.concatenate([model.predict(x[i : i + 1]) for i in range(len(x))])
    assert same_bits(one_by_one, planned)


def pixels(dtype=np.float32):
    return nn.Sequential(nn.Conv(2, 3, 3, padding=1, rng=0, dtype=dtype))


LOSSES = {
    "pixels": (pixels, nn.SoftmaxCrossEntropy, lambda rng: rng.integers(0, 3, (5, 8, 8))),
    "pixels, ignored": (
        pixels,
        lambda: nn.SoftmaxCrossEntropy(ignore_index=2, class_weight=[1, 3, 0]),
        lambda rng: rng.integers(0, 3, (5, 8, 8)),
    ),
    "smoothing": (
        every_layer,
        lambda: nn.SoftmaxCrossEntropy(label_smoothing=0.1),
        lambda rng: rng.integers(0, 3, 5),
    ),
    "soft": (every_layer, nn.SoftmaxCrossEntropy, lambda rng: np.eye(3)[rng.integers(0, 3, 5)]),
    "focal": (every_layer, nn.FocalLoss, lambda rng: rng.integers(0, 3, 5)),
    "huber": (every_layer, nn.Huber, lambda rng: rng.normal(size=(5, 3))),
    "binary": (
        every_layer,
        lambda: nn.BinaryCrossEntropy(pos_weight=2.0),
        lambda rng: rng.integers(0, 2, (5, 3)),
    ),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_of_every_loss(name, weighted):
    make, loss, labels = LOSSES[name]
    ours, twin = trained(make(), loss()), trained(make(), loss())
    step = nn.plan_step(*ours, (5, *SHAPE))
    rng = np.random.default_rng(1)
    for x, _ in batches(np.float32):
        y = labels(rng)
        weights = rng.random(5) if weighted else None
        if weights is None:
            compare_steps(step, *ours, twin, [(x, y)])
            continue
        value, z = step(x, y, weights)
        plain = Weighted(twin[1], weights)
        right, right_z = plain_step(twin[0], plain, twin[2], x, y)
        assert same_bits(value, right)
        assert same_bits(z, right_z)
        for a, b in zip(ours[0].parameters(), twin[0].parameters(), strict=True):
            assert same_bits(a.value, b.value)


class Weighted:
    """A loss that is always given the same weights."""

    def __init__(self, loss, weights):
        self.loss, self.weights = loss, weights
        self.backward = loss.backward

    def forward(self, z, y):
        return self.loss.forward(z, y, self.weights)


def test_one_plan_takes_hard_labels_soft_ones_and_weights():
    ours, twin = trained(pixels()), trained(pixels())
    step = nn.plan_step(*ours, (5, *SHAPE))
    rng = np.random.default_rng(2)
    for kind in ("hard", "soft", "weights", "hard", "soft"):
        x, _ = next(batches(np.float32, 1))
        y = rng.integers(0, 3, (5, 8, 8))
        y = np.eye(3)[y] if kind == "soft" else y
        weights = np.arange(5) if kind == "weights" else None
        value, _ = step(x, y, weights)
        right, _ = plain_step(twin[0], Weighted(twin[1], weights), twin[2], x, y)
        assert same_bits(value, right), kind


def test_a_loss_whose_arguments_change_is_lowered_anew():
    ours, twin = trained(pixels()), trained(pixels())
    step = nn.plan_step(*ours, (5, *SHAPE))
    rng = np.random.default_rng(3)
    for name, value in (("class_weight", (1, 2, 3)), ("ignore_index", 1), ("class_weight", None)):
        for loss in (ours[1], twin[1]):
            setattr(loss, name, value)
        x, _ = next(batches(np.float32, 1))
        compare_steps(step, *ours, twin, [(x, rng.integers(0, 3, (5, 8, 8)))])


@pytest.mark.parametrize(
    ("loss", "y", "weights", "message"),
    [
        (nn.SoftmaxCrossEntropy(), [0, 1, 2, 1, 0], [1, 1, 1, 1, -1], "sample_weight: "),
        (nn.SoftmaxCrossEntropy(), [0, 1, 2, 1, 0], [1], "sample_weight: expected 5"),
        (nn.SoftmaxCrossEntropy(class_weight=[1, 2]), [0, 1, 2, 1, 0], None, "class_weight: "),
        (nn.SoftmaxCrossEntropy(label_smoothing=0.1), [0, 1, 2, 1, 3], None, "y: labels must be"),
        (nn.SoftmaxCrossEntropy(), np.ones((5, 3)), None, "y: soft labels"),
        (nn.FocalLoss(), [0, 1, 2, 1, 3], None, "y: labels must be"),
        (nn.Huber(), [0, 1, 2, 1, 3], None, "y: expected the shape"),
    ],
)  # fmt: skip
def test_wrong_labels_and_weights_change_nothing(loss, y, weights, message):
    model = every_layer()
    model.layers[3].scale.value[...] = 2
    before = {k: p.value.copy() for k, p in model.named_parameters().items()}
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    x, _ = next(batches(np.float32))
    with pytest.raises(ValueError, match=message):
        nn.train_step(model, loss, optimizer, x, np.asarray(y), weights)
    for name, parameter in model.named_parameters().items():
        np.testing.assert_array_equal(parameter.value, before[name])


class Own(nn.Loss):
    def forward(self, z, y):
        self._dz = np.zeros_like(z)
        return 0.0


def test_a_loss_without_weights_says_so():
    model, x = pixels(), np.zeros((5, *SHAPE), np.float32)
    optimizer = nn.SGD(model.parameters())
    with pytest.raises(TypeError, match=r"sample_weight: Own\.forward takes none"):
        nn.train_step(model, Own(), optimizer, x, np.zeros(5), np.ones(5))
    nn.train_step(model, Own(), optimizer, x, np.zeros(5))
