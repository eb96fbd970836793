"""What does not fit is refused, by name, and leaves all as it was."""

import copy

import numpy as np
import pytest
from networks import (
    SHAPE,
    Scale,
    Square,
    batch,
    compare_steps,
    differences,
    plain_step,
    same_bits,
    small,
    state,
    trained,
)

from fastconv import nn

X, Y = batch(4)
BAD_X = {
    "None": (None, TypeError),
    "a list": (X.tolist(), TypeError),
    "a number": (np.float32(1), TypeError),
    "no axes": (np.array(1, np.float32), ValueError),
    "float64": (X.astype(np.float64), TypeError),
    "integers": (X.astype(int), TypeError),
    "byte-swapped": (X.astype(">f4"), TypeError),
    "masked": (np.ma.array(X), TypeError),
    "one image": (X[0], ValueError),
    "smaller images": (X[:, :7], ValueError),
    "fewer channels": (X[..., :1], ValueError),
    "an axis too many": (X[..., None], ValueError),
    "no image": (X[:0], ValueError),
    "more than planned": (batch(5)[0], ValueError),
}
BAD_Y = {
    "None": (None, (ValueError, TypeError)),
    "too few": (Y[:3], ValueError),
    "too many": (np.zeros(5, int), ValueError),
    "an axis too many": (Y[:, None], ValueError),
    "floats": (Y.astype(float), TypeError),
    "words": (["a"] * 4, TypeError),
    "negative": (Y - 9, ValueError),
    "a class too many": (np.full(4, 3), ValueError),
}


@pytest.mark.parametrize("name", BAD_X)
@pytest.mark.parametrize("method", ["__call__", "profile"])
def test_bad_images(name, method):
    model, loss, optimizer = trained()
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step(X, Y)
    before = state(model, optimizer)
    bad, kind = BAD_X[name]
    y = Y if name != "more than planned" else np.zeros(5, int)
    with pytest.raises(kind, match=r"^x: "):
        getattr(step, method)(bad, y)
    assert not differences(state(model, optimizer), before)
    assert np.isfinite(step(X, Y)[0])


@pytest.mark.parametrize("name", BAD_Y)
@pytest.mark.parametrize("method", ["__call__", "profile", "train_step"])
def test_bad_labels(name, method):
    model, loss, optimizer = trained()
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step(X, Y)
    before = state(model, optimizer)
    bad, kind = BAD_Y[name]
    call = getattr(step, method, lambda x, y: nn.train_step(model, loss, optimizer, x, y))
    with pytest.raises(kind, match=r"^y: "):
        call(X, bad)
    assert not differences(state(model, optimizer), before)
    assert np.isfinite(step(X, Y)[0])


# Labels of the other losses, and whether they fit.
@pytest.mark.parametrize(
    ("make_loss", "y"),
    [
        (nn.BinaryCrossEntropy, np.full((4, 3), 2.0)),
        (nn.BinaryCrossEntropy, np.full((4, 3), np.nan)),
        (nn.BinaryCrossEntropy, np.zeros((3, 3))),
        (nn.MeanSquaredError, np.zeros((4, 2))),
        (nn.MeanSquaredError, np.zeros(4)),
        (nn.MeanSquaredError, np.zeros((4, 3), complex)),
    ],
)
def test_bad_numbers_as_labels(make_loss, y):
    model, _, optimizer = trained()
    step = nn.plan_step(model, make_loss(), optimizer, (4, *SHAPE))
    before = state(model, optimizer)
    with pytest.raises((ValueError, TypeError), match=r"^y: "):
        step(X, y)
    assert not differences(state(model, optimizer), before)


@pytest.mark.parametrize("plan", ["plan_step", "plan_inference"])
@pytest.mark.parametrize(
    ("x_shape", "kind"),
    [
        (8, TypeError), (None, TypeError), ("abcd", TypeError), ((4, 8, 8, 2.5), TypeError),
        ((4, 8, True, 2), TypeError), (np.array(4), TypeError), ((), ValueError),
        ((4,), ValueError), ((0, 8, 8, 2), ValueError), ((4, 8, 8, -2), ValueError),
    ],
)  # fmt: skip
def test_bad_shapes(plan, x_shape, kind):
    model, loss, optimizer = trained()
    of_step = lambda shape: nn.plan_step(model, loss, optimizer, shape)  # noqa: E731
    with pytest.raises(kind, match=r"^x_shape: "):
        getattr(model, plan, of_step)(x_shape)


@pytest.mark.parametrize("x_shape", [(4, 7, 8, 2), (4, 8, 8, 3), (4, 8, 8), (4, 8, 8, 2, 1)])
def test_shapes_that_do_not_fit_name_the_layer(x_shape):
    model, loss, optimizer = trained()
    with pytest.raises(ValueError, match="in layer"):
        nn.plan_step(model, loss, optimizer, x_shape)
    with pytest.raises(ValueError, match="in layer"):
        model.plan_inference(x_shape)
    with pytest.raises(ValueError, match="in layer"):
        nn.train_step(model, loss, optimizer, np.zeros(x_shape, np.float32), Y)
    with pytest.raises(ValueError, match="in layer"):
        model.predict(np.zeros(x_shape, np.float32))


class Wide(nn.Layer):
    """Changes the dtype."""

    def __init__(self, dtype):
        super().__init__()
        self.wanted = dtype

    def forward(self, x):
        self.dtype = x.dtype
        return x.astype(self.wanted)

    def backward(self, dy):
        return dy.astype(self.dtype)


# Layers that do not fit together: lowering must see what `forward` sees.
MISFITS = {
    "Dense behind images": ([nn.Dense(2, 3, rng=0)], (4, 8, 2)),
    "Dense of other inputs": ([nn.Flatten(), nn.Dense(100, 3, rng=0)], (4, 8, 8, 2)),
    "Dense of fewer inputs": ([nn.Flatten(), nn.Dense(64, 3, rng=0)], (4, 8, 8, 2)),
    "norm of other channels": ([nn.BatchNorm(3)], (4, 8, 8, 2)),
    "norm of more channels": ([nn.BatchNorm(1)], (4, 8, 8, 2)),
    "convolution of other channels": ([nn.Conv(3, 2, 3, rng=0)], (4, 8, 8, 2)),
    "window of other rank": ([nn.Conv(2, 2, (3,), rng=0)], (4, 8, 8, 2)),
    "too many axes": ([nn.Conv(2, 2, 1, rng=0), nn.GlobalAvgPool()], (4, 8, 2)),
    "pool of flat": ([nn.Flatten(), nn.MaxPool(2), nn.Dense(1, 1, rng=0)], (4, 8, 8, 2)),
    "means of flat": ([nn.Flatten(), nn.GlobalAvgPool(), nn.Dense(1, 1, rng=0)], (4, 8, 8, 2)),
    "other dtype": ([Wide(np.float64), nn.Conv(2, 2, 1, rng=0)], (4, 8, 8, 2)),
    "other dtype, dense": (
        [nn.Flatten(), Wide(np.float64), nn.Dense(128, 3, rng=0)], (4, 8, 8, 2)),
    "other dtype, norm": ([Wide(np.float64), nn.BatchNorm(2)], (4, 8, 8, 2)),
    "integers": ([Wide(np.int64), nn.ReLU(), nn.Conv(2, 2, 1, rng=0)], (4, 8, 8, 2)),
    "half": ([Wide(np.float16), nn.MaxPool(2), nn.Conv(2, 2, 1, rng=0)], (4, 8, 8, 2)),
    "residual": ([nn.Residual(nn.Conv(2, 2, 3, rng=0))], (4, 8, 8, 2)),
    "window too large": ([nn.Conv(2, 2, 9, rng=0)], (4, 8, 8, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_layers_that_do_not_fit(name):
    layers, shape = MISFITS[name]
    model = nn.Sequential(*layers)
    x = np.ones(shape, np.float32)
    with pytest.raises((ValueError, TypeError)) as plain:
        copy.deepcopy(model).forward(x)
    loss, optimizer = nn.MeanSquaredError(), nn.SGD(model.parameters())
    before = state(model, optimizer)
    kind, text = type(plain.value), str(plain.value)
    for call in (
        lambda: nn.train_step(model, loss, optimizer, x, x),
        lambda: model.predict(x),
    ):
        with pytest.raises(kind) as found:
            call()
        assert str(found.value) == text
    with pytest.raises(kind):
        nn.plan_step(model, loss, optimizer, shape)
    assert not differences(state(model, optimizer), before)


def test_a_replaced_layer_that_does_not_fit():
    model, loss, optimizer = trained()
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step(X, Y)
    kept, before = model.layers, state(model, optimizer)
    model.layers = (*kept[:-1], nn.Dense(40, 3, rng=0))
    with pytest.raises(ValueError, match=r"x: expected \(m, 40\).*in layer 13"):
        step(X, Y)
    model.layers = kept
    assert not differences(state(model, optimizer), before)
    assert np.isfinite(step(X, Y)[0])


class Broken(nn.Layer):
    """Gives what it should not, or raises."""

    def __init__(self, way):
        super().__init__()
        self.way, self.now = way, False

    def forward(self, x):
        if self.now and self.way == "forward raises":
            raise IndexError("mine")
        if self.now and self.way == "forward shape":
            return x[:1]
        return None if self.now and self.way == "forward None" else x

    def backward(self, dy):
        if self.now and self.way == "backward raises":
            raise IndexError("mine")
        if self.now and self.way == "backward dtype":
            return dy.astype(np.float64)
        return None if self.now and self.way == "backward None" else dy


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("forward raises", IndexError), ("forward shape", ValueError), ("forward None", TypeError),
        ("backward raises", IndexError), ("backward dtype", TypeError),
        ("backward None", TypeError),
    ],
)  # fmt: skip
def test_errors_of_a_layer_of_ones_own_say_where(way, kind):
    broken = Broken(way)
    model, loss, optimizer = trained(make_model=lambda: small(extra=(nn.Residual(broken),)))
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step(X, Y)
    values = [p.value.copy() for p in model.parameters()]
    broken.now = True
    found = []
    for call in (step, lambda x, y: plain_step(model, loss, optimizer, x, y)):
        if way not in ("forward raises", "backward raises") and found:
            break  # the layers around find other words for it
        with pytest.raises(kind) as raised:
            call(X, Y)
        found.append([str(raised.value), *getattr(raised.value, "__notes__", [])])
    assert found[0] == found[-1]
    assert "body (Broken)" in " ".join(found[0])
    for before, parameter in zip(values, model.parameters(), strict=True):
        assert same_bits(before, parameter.value)
    broken.now = False
    assert np.isfinite(step(X, Y)[0])


class NotZeros(nn.Layer):
    """Cannot be tried on zeros, so that nobody can know the shape of its result beforehand."""

    def forward(self, x):
        if not x.any():
            raise IndexError("zeros")
        return x

    def backward(self, dy):
        return dy


def test_a_layer_that_cannot_be_tried_runs_as_ever():
    def make():
        return small(extra=(NotZeros(),))

    ours, twin = trained(make_model=make), trained(make_model=make)
    compare_steps(lambda x, y: nn.train_step(*ours, x, y), *ours, twin, [batch(4), batch(3, 1)])
    assert same_bits(ours[0].predict(X), twin[0].infer(X))
    with pytest.raises((IndexError, ValueError), match="zeros"):
        nn.plan_step(*ours, X.shape)


class Gradient(nn.MeanSquaredError):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def backward(self):
        return self.change(super().backward())


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda dz: dz[:1], ValueError), (lambda dz: dz[:, :1], ValueError),
        (lambda dz: dz.astype(np.float64), TypeError), (lambda dz: None, ValueError),
    ],
)  # fmt: skip
def test_gradients_of_a_loss_of_ones_own_that_do_not_fit(change, kind):
    model, _, optimizer = trained()
    values = [p.value.copy() for p in model.parameters()]
    with pytest.raises(kind, match=r"^dz: "):
        nn.train_step(model, Gradient(change), optimizer, X, np.zeros((4, 3)))
    for before, parameter in zip(values, model.parameters(), strict=True):
        assert same_bits(before, parameter.value)


@pytest.mark.parametrize("extra", [(), (Square(), Scale(6, np.float32))])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_updates_nothing(bad, extra):
    def make():
        return small(extra=copy.deepcopy(extra))

    def adam(parameters):
        return nn.Adam(parameters)

    ours, twin = trained(adam, make), trained(adam, make)
    step = nn.plan_step(*ours, (4, *SHAPE))
    compare_steps(step, *ours, twin, [batch(4)])
    values = [p.value.copy() for p in ours[0].parameters()]
    x, y = batch(4, 1)
    x[2, 3, 3, 1] = bad
    compare_steps(step, *ours, twin, [(x, y)])
    assert not np.isfinite(step(x, y)[0])
    assert ours[2].steps == 1
    for before, parameter in zip(values, ours[0].parameters(), strict=True):
        assert same_bits(before, parameter.value)
