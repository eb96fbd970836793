"""The training loop: reproducible, observable, and clear about what is wrong."""

import numpy as np
import pytest
from strategies import integers

from fastconv import nn


def data(m=40, dtype=np.float32):
    """Bright and dark images: learnable in a few steps."""
    rng = np.random.default_rng(0)
    y = np.arange(m) % 2
    x = rng.normal(0, 0.3, (m, 6, 6, 1)) + y[:, None, None, None]
    return x.astype(dtype), y


def network(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv(1, 3, 3, activation="relu", rng=rng, dtype=dtype),
        nn.BatchNorm(3, dtype=dtype),
        nn.MaxPool(2),
        nn.Flatten(),
        nn.Dropout(0.2, seed=seed),
        nn.Dense(12, 2, rng=rng, dtype=dtype),
    )


def train(model=None, *, lr=0.05, **options):
    model = model or network()
    x, y = data()
    optimizer = nn.SGD(model.parameters(), lr=lr, momentum=0.9)
    history = nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y, **options)
    return model, history


def weights(model):
    return np.concatenate([a.reshape(-1) for a in [p.value for p in model.parameters()]])


class Recorder:
    """Writes down every call of a callback's methods."""

    def __init__(self):
        self.calls = []

    def on_fit_begin(self, state):
        self.calls.append(("fit begin", state.epoch))

    def on_epoch_begin(self, state):
        self.calls.append(("epoch begin", state.epoch))

    def on_batch_end(self, state):
        self.calls.append(("batch", state.step, state.images_seen, *state.metrics))

    def on_epoch_end(self, state):
        self.calls.append(("epoch end", state.epoch, len(state.history)))

    def on_fit_end(self, state):
        self.calls.append(("fit end", state.epoch))


def test_it_learns_and_keeps_the_dtype():
    for dtype in (np.float32, np.float64):
        model = network(dtype=dtype)
        x, y = data(dtype=dtype)
        optimizer = nn.Adam(model.parameters(), lr=0.01)
        history = nn.fit(
            model, nn.SoftmaxCrossEntropy(), optimizer, x, y, epochs=12, validation=(x, y)
        )
        assert history["val_accuracy"][-1] == 1.0
        assert history["loss"][-1] < history["loss"][0]
        model.train()
        activations = model.activations(x)
        loss = nn.SoftmaxCrossEntropy()
        loss.forward(activations[-1], y)
        for array in [*activations, loss.backward(), *model.deltas(loss.backward())]:
            assert array.dtype == dtype
        for parameter in model.parameters():
            assert parameter.value.dtype == parameter.grad.dtype == dtype


def test_same_seed_same_bits():
    first, history = train(epochs=3, batch_size=8, seed=5)
    second, again = train(epochs=3, batch_size=8, seed=5)
    np.testing.assert_array_equal(weights(first), weights(second))
    assert history["loss"] == again["loss"]
    other, _ = train(epochs=3, batch_size=8, seed=6)
    assert (weights(first) != weights(other)).any()
    unshuffled = [train(epochs=1, batch_size=8, shuffle=False, seed=s)[0] for s in (1, 2)]
    np.testing.assert_array_equal(weights(unshuffled[0]), weights(unshuffled[1]))


def test_fit_is_its_steps():
    model, x_y = network(), data(21)
    by_hand = network()
    loss, x, y = nn.SoftmaxCrossEntropy(), *x_y
    optimizer = nn.SGD(model.parameters(), lr=0.05)
    history = nn.fit(model, loss, optimizer, x, y, epochs=1, batch_size=8, seed=9)
    optimizer = nn.SGD(by_hand.parameters(), lr=0.05)
    order = np.random.default_rng(9).permutation(21)
    total = right = 0
    for part in (order[:8], order[8:16], order[16:]):
        value, z = nn.train_step(by_hand, loss, optimizer, x[part], y[part])
        total += value * len(part)
        right += loss.correct(z, y[part])
    np.testing.assert_array_equal(weights(model), weights(by_hand))
    assert history["loss"] == [total / 21]
    assert history["accuracy"] == [right / 21]


def test_step_is_forward_loss_backward_update():
    model, (x, y) = network(), data(8)
    twin = network()
    loss = nn.SoftmaxCrossEntropy()
    before = weights(model)
    value, z = nn.train_step(model, loss, nn.SGD(model.parameters(), lr=0.5), x, y)
    np.testing.assert_array_equal(z, twin.forward(x))
    assert value == loss.forward(z, y)
    twin.backward(loss.backward())
    gradient = np.concatenate([p.grad.reshape(-1) for p in twin.parameters()])
    np.testing.assert_array_equal(weights(model), before - np.float32(0.5) * gradient)


class Onlooker:
    def on_fit_end(self, state):
        pass


def test_callbacks_and_history():
    recorder = Recorder()
    _, history = train(epochs=2, batch_size=16, callbacks=[recorder, Onlooker()])
    keys = ("loss", "accuracy")
    epochs = [
        [
            ("epoch begin", e),
            ("batch", 1, 16, *keys),
            ("batch", 2, 32, *keys),
            ("batch", 3, 40, *keys),
            ("epoch end", e, e),
        ]
        for e in (1, 2)
    ]
    assert recorder.calls == [("fit begin", 0), *epochs[0], *epochs[1], ("fit end", 2)]
    assert [row["epoch"] for row in history.epochs] == [1, 2]
    assert set(history.epochs[0]) == {
        "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds",
        "images_per_second",
    }  # fmt: skip
    assert history["val_loss"] == [None, None]
    row = history.epochs[1]
    assert row["images_per_second"] == pytest.approx(40 / row["seconds"])


def test_callback_can_stop_and_change_lr():
    class Stop:
        def on_epoch_end(self, state):
            state.stop = state.epoch == 2

    _, history = train(epochs=9, callbacks=[Stop(), nn.ExponentialDecay(0.1, 0.5)])
    assert history["lr"] == [0.1, 0.05]


def test_modes_return():
    model = network()
    model.layers[1].eval()
    train(model, epochs=1)
    assert [layer.training for layer in model.layers] == [True, False, True, True, True, True]


def test_augment_gets_batches_and_the_runs_generator():
    seen = []

    def noise(x, rng):
        seen.append(x.shape)
        return x + rng.normal(0, 0.1, x.shape).astype(x.dtype)

    first, _ = train(epochs=1, batch_size=16, augment=noise)
    assert seen == [(16, 6, 6, 1), (16, 6, 6, 1), (8, 6, 6, 1)]
    second, _ = train(epochs=1, batch_size=16, augment=noise)
    np.testing.assert_array_equal(weights(first), weights(second))
    assert (weights(first) != weights(train(epochs=1, batch_size=16)[0])).any()


def test_regression_has_no_accuracy():
    model = nn.Sequential(nn.Flatten(), nn.Dense(4, 1, rng=0, dtype=np.float64))
    x = integers(0, 30, 2, 2, 1, high=1)
    y = x.reshape(30, 4) @ np.array([1.0, -2.0, 0.5, 3.0]) + 1.0
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    options = {"epochs": 200, "validation": (x, y)}
    history = nn.fit(model, nn.MeanSquaredError(), optimizer, x, y, **options)
    assert history["accuracy"][-1] is None
    assert history["val_accuracy"][-1] is None
    assert history["val_loss"][-1] < 1e-6
    np.testing.assert_allclose(model.layers[1].w.value[:, 0], [1, -2, 0.5, 3], atol=1e-3)


class Values:
    """Puts chosen weights into the network at each epoch's end, so that the losses are known."""

    def __init__(self, model, scales):
        self.bias, self.scales = model.layers[-1].b, scales

    def on_epoch_begin(self, state):
        self.bias.assign(np.array([self.scales[state.epoch - 1], 0.0], np.float32))


def stopping_run(rule, scales):
    """A constant network; its bias for class 0 is set from outside, and all labels are 1."""
    model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    x, y = np.zeros((4, 2, 2, 1), np.float32), np.ones(4, np.int64)
    optimizer = nn.SGD(model.parameters(), lr=0.0)
    options = {"epochs": len(scales), "early_stopping": rule, "validation": (x, y)}
    options["callbacks"] = [Values(model, scales)]
    history = nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y, **options)
    return len(history), float(model.layers[-1].b.value[0]), history.best_epoch


def test_early_stopping():
    falling_then_rising = [5, 4, 3, 4, 2.5, 6, 7, 8, 1, 1]
    assert stopping_run(3, falling_then_rising) == (8, 2.5, 5)
    assert stopping_run(2, falling_then_rising) == (7, 2.5, 5)
    assert stopping_run(1, falling_then_rising) == (4, 3, 3)
    assert stopping_run(5, falling_then_rising) == (10, 1, 9)
    assert stopping_run(nn.EarlyStopping(2, restore_best=False), falling_then_rising)[1] == 7
    assert stopping_run(nn.EarlyStopping(2, min_delta=3), falling_then_rising) == (3, 5, 3)
    accuracy = nn.EarlyStopping(2, monitor="val_accuracy")
    assert stopping_run(accuracy, [1, 1, -1, 1, 1, 1])[:2] == (5, -1)
    assert stopping_run(None, falling_then_rising)[0] == 10


def test_nan_loss_names_epoch_and_step():
    x, y = data()
    model = network()
    x[3, 2, 2, 0] = np.nan
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    options = {"batch_size": 2, "shuffle": False}
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 1, step 2 of 20, with SGD"):
        nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y, **options)
    assert np.isfinite(weights(model)).all()
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) in epoch \d+, step \d+ of"):
        train(lr=1e30, epochs=50)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"epochs": -1}, ValueError, "epochs: must be at least 0, got -1"),
        ({"batch_size": 0}, ValueError, "batch_size: must be at least 1"),
        ({"batch_size": 2.5}, TypeError, "batch_size: an integer is needed"),
        ({"seed": "x"}, TypeError, "seed: an integer"),
        ({"validation": data()[0]}, ValueError, "validation: a pair"),
        ({"validation": (data()[0], [1])}, ValueError, "validation y: expected 40 labels"),
        ({"early_stopping": 0}, ValueError, "early_stopping: must be at least 1"),
        (
            {"early_stopping": nn.EarlyStopping(monitor="val_loss")},
            ValueError,
            "early_stopping: val_loss needs validation",
        ),
        ({"resume": True}, ValueError, "resume: needs the checkpoint"),
    ],
)
def test_bad_options(options, kind, message):
    with pytest.raises(kind, match=message):
        train(**options)


@pytest.mark.parametrize(
    ("x", "y", "kind", "message"),
    [
        ("list", [0], TypeError, "x: a NumPy array is needed, got str"),
        (np.zeros((2, 6, 6, 1), int), [0, 1], TypeError, "x: dtype must be float32 or float64"),
        (np.zeros((0, 6, 6, 1)), [], ValueError, "x: expected .* m of at least 1"),
        (np.zeros((2, 6, 6, 1), "f4"), [0], ValueError, r"y: expected 2 labels.*got \(1,\)"),
        (np.zeros((2, 6, 6, 1), "f4"), [0, 2], ValueError, r"y: labels must be in 0 \.\. 1"),
        (np.zeros((2, 6, 6, 3), "f4"), [0, 1], ValueError, r"x: expected \(m, H, W, 1\)"),
        (np.zeros((2, 6, 6, 1)), [0, 1], TypeError, r"x: expected dtype float32, got float64"),
    ],
)
def test_bad_data(x, y, kind, message):
    model = network()
    optimizer = nn.SGD(model.parameters())
    with pytest.raises(kind, match=message):
        nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y)


def test_optimizer_of_another_model():
    x, y = data()
    with pytest.raises(ValueError, match="optimizer: it holds parameters that are not the model's"):
        nn.fit(network(), nn.SoftmaxCrossEntropy(), nn.SGD(network().parameters()), x, y)


def test_bad_early_stopping():
    with pytest.raises(ValueError, match=r"monitor: .* 'speed'"):
        nn.EarlyStopping(monitor="speed")
    with pytest.raises(ValueError, match="factor: must be in"):
        nn.ExponentialDecay(0.1, 1.5)
