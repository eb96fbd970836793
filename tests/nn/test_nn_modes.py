"""Frozen layers, dropout's seeds, batches of one value, floating-point flags."""

import numpy as np
import pytest

from fastconv import nn, reference

X = np.random.default_rng(0).normal(2.0, 1.0, (33, 6, 6, 1)).astype(np.float32)
Y = np.arange(33) % 2


def fit(model, *, x=X, y=Y, lr=0.05, epochs=1, loss=None, **options):
    optimizer = nn.SGD(model.parameters(), lr)
    return nn.fit(
        model, loss or nn.SoftmaxCrossEntropy(), optimizer, x, y, epochs=epochs, **options
    )


def states(model):
    return [str(g.bit_generator.state) for g in model.named_generators().values()]


def weights(model):
    arrays = [p.value for p in model.parameters()] + list(model.named_buffers().values())
    return [array.tobytes() for array in arrays]


# Frozen layers ----------------------------------------------------------------------------------


def normed():
    return nn.Sequential(
        nn.BatchNorm(1),
        nn.Residual(nn.Sequential(nn.BatchNorm(1), nn.ReLU())),
        nn.Flatten(),
        nn.Dropout(0.5, seed=0),
        nn.Dense(36, 2, rng=0),
        ops=reference,
    )


def test_frozen_layers_stay_frozen():
    model = normed()
    inner = model.layers[1].body.layers[0].eval()
    model.layers[3].eval()
    modes = [layer.training for _, layer in model.walk()]
    random = states(model)
    fit(model, epochs=2, validation=(X, Y))
    assert inner.running_mean == 0
    assert inner.running_variance == 1
    assert model.layers[0].running_mean > 0.1
    assert states(model) == random  # no mask was drawn
    assert inner.scale.value != 1  # the parameters of a frozen layer train
    assert [layer.training for _, layer in model.walk()] == modes


def test_a_frozen_norm_uses_its_statistics():
    """Forward and backward of a frozen layer, inside a training step, are those of evaluation."""
    model = nn.Sequential(nn.BatchNorm(1).eval(), nn.Flatten(), nn.Dense(36, 2, rng=0))
    model.layers[0].running_mean = np.array([2.0], np.float32)
    z = model.forward(X)
    np.testing.assert_array_equal(z, model.predict(X))
    fit(model)
    assert model.layers[0].running_mean == 2


def test_a_frozen_container_freezes_what_is_in_it():
    model = normed()
    model.layers[1].eval()
    fit(model)
    assert model.layers[1].body.layers[0].running_mean == 0


def test_a_model_in_evaluation_is_refused():
    model = normed().eval()
    before = weights(model)
    with pytest.raises(ValueError, match=r"^model: .*evaluation.*model\.train\(\)"):
        fit(model)
    assert weights(model) == before
    fit(model.train())


def test_models_from_files_and_after_prediction_train(tmp_path):
    model = normed()
    model.predict(X)
    fit(model)
    model.save(tmp_path / "model.npz")
    loaded = nn.Sequential.load(tmp_path / "model.npz")
    assert all(layer.training for _, layer in loaded.walk())
    mean = loaded.layers[0].running_mean.copy()
    fit(loaded)
    assert loaded.layers[0].running_mean != mean


def test_a_callback_that_leaves_the_model_in_evaluation():
    class Look:
        def on_epoch_end(self, state):
            state.model.eval()

    model, other = normed(), normed()
    for net, callbacks in ((model, [Look()]), (other, [])):
        net.layers[1].eval()
        fit(net, epochs=3, callbacks=callbacks)
    assert weights(model) == weights(other)
    assert model.training
    assert not model.layers[1].training


# Dropout ----------------------------------------------------------------------------------------


def dropped(*seeds):
    return nn.Sequential(
        nn.Flatten(), *(nn.Dropout(0.5, seed=seed) for seed in seeds), nn.Dense(36, 2, rng=0)
    )


def test_masks_are_independent_by_default():
    ones = np.ones((50, 40), np.float32)
    first, second = nn.Dropout(0.5), nn.Dropout(0.5)
    assert (first.forward(ones) != second.forward(ones)).any()
    # Two in a row keep a quarter, not a half.
    kept = np.count_nonzero(second.forward(first.forward(ones))) / ones.size
    assert abs(kept - 0.25) < 0.05
    assert nn.Dropout(0.5).config() == {"rate": 0.5, "seed": None}


def test_fit_seeds_the_unseeded_by_their_place():
    runs = []
    for seed in (5, 5, 6):
        model = dropped(None, None)
        fit(model, seed=seed, epochs=2, batch_size=11)
        runs.append((weights(model), states(model)))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]
    assert runs[0][1][0] != runs[0][1][1]


def test_masks_inside_fit_differ_from_layer_to_layer():
    class Seen(nn.Dropout):
        def forward(self, x):
            masks.append(super().forward(np.ones_like(x)) > 0)
            return x

    masks = []
    model = nn.Sequential(nn.Flatten(), Seen(0.5), nn.Sequential(Seen(0.5)), nn.Dense(36, 2))
    fit(model, batch_size=33, seed=0)
    first, second = masks[-2:]
    assert 0.3 < (first == second).mean() < 0.7


def test_an_own_seed_is_kept():
    model = dropped(3)
    fit(model, seed=1, batch_size=33)
    twin = nn.Dropout(0.5, seed=3)
    twin.forward(np.ones((33, 36), np.float32))
    assert states(model) == [str(twin._generators["rng"].bit_generator.state)]


def test_a_resume_goes_on_with_the_masks(tmp_path):
    whole = dropped(None, None)
    fit(whole, seed=2, epochs=4, batch_size=11)
    part = dropped(None, None)
    fit(part, seed=2, epochs=2, batch_size=11, checkpoint=tmp_path / "run.npz")
    resumed = dropped(None, None)
    options = {"checkpoint": tmp_path / "run.npz", "resume": True}
    fit(resumed, seed=2, epochs=4, batch_size=11, **options)
    assert weights(resumed) == weights(whole)
    assert states(resumed) == states(whole)


def test_a_refused_fit_leaves_the_generators():
    model = dropped(None)
    before = states(model)
    with pytest.raises(ValueError, match="y: labels"):
        fit(model, y=Y + 1)
    assert states(model) == before


# One value per channel --------------------------------------------------------------------------


def flat():
    return nn.Sequential(
        nn.Flatten(), nn.Dense(36, 4, rng=0), nn.BatchNorm(4), nn.Dense(4, 2, rng=0), ops=reference
    )


def pooled():
    return nn.Sequential(
        nn.Conv(1, 4, 3, rng=0),
        nn.GlobalAvgPool(),
        nn.Residual(nn.BatchNorm(4)),
        nn.Dense(4, 2, rng=0),
        ops=reference,
    )


@pytest.mark.parametrize("build", [flat, pooled])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("augment", [None, lambda x, rng: x])
def test_a_last_batch_of_one_value_is_refused_before_the_first_step(build, batch_size, augment):
    model = build()
    before = weights(model)
    with pytest.raises(
        ValueError, match=r"^batch_size: with \d+ .* in layer 2.*\(BatchNorm\)"
    ) as e:
        fit(model, batch_size=batch_size, augment=augment)
    assert len(str(e.value)) < 300
    assert weights(model) == before
    assert all(layer.training for _, layer in model.walk())


def test_batches_that_are_large_enough():
    fit(flat(), batch_size=11)
    fit(flat(), batch_size=31)
    fit(nn.Sequential(nn.BatchNorm(1), nn.Flatten(), nn.Dense(36, 2, rng=0)), batch_size=32)
    frozen = flat()
    frozen.layers[2].eval()
    fit(frozen, batch_size=32)


def test_one_value_in_a_direct_forward():
    layer = nn.BatchNorm(3)
    for shape in ((1, 3), (1, 1, 1, 3)):
        with pytest.raises(ValueError, match=r"x: more than one value per channel.*BatchNorm"):
            layer.forward(np.ones(shape, np.float32))
    assert not layer.running_mean.any()
    assert (layer.running_variance == 1).all()
    layer.forward(np.ones((1, 1, 2, 3), np.float32))
    layer.eval().forward(np.ones((1, 3), np.float32))


# Early stopping ---------------------------------------------------------------------------------


class Losses(nn.MeanSquaredError):
    """Reports chosen values in evaluation, one an epoch; training goes by the true loss."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, z, y):
        value = super().forward(z, y)
        return self.values[-1] if len(z) == 5 else value


class Next:
    def __init__(self, values):
        self.left, self.values = list(values), values

    def on_epoch_begin(self, state):
        state.loss.values.append(self.left.pop(0))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "epochs", "best"),
    [
        ([NAN, 3.0, 2.0, 4.0, 5.0, 6.0], 5, 3),
        ([NAN, NAN, 1.0], 2, None),
        ([INF, 3.0, 4.0, 5.0], 4, 2),
        ([3.0, NAN, 2.0, NAN, NAN, 1.0], 5, 3),
    ],
)
def test_nan_is_never_the_best(values, epochs, best):
    model = nn.Sequential(nn.Flatten(), nn.Dense(36, 1, rng=0))
    kept = []

    class Keep:
        def on_epoch_end(self, state):
            kept.append(weights(model))

    history = fit(
        model,
        y=Y * 1.0,
        loss=Losses([0.0]),
        lr=1e-4,
        epochs=len(values),
        validation=(X[:5], Y[:5] * 1.0),
        early_stopping=2,
        callbacks=[Next(values), Keep()],
    )
    assert len(history) == epochs
    assert history.best_epoch == best
    assert weights(model) == kept[-1 if best is None else best - 1]


def test_the_best_weights_are_back_after_a_floating_point_error():
    model = nn.Sequential(nn.Flatten(), nn.Dense(36, 2, rng=0))
    kept = {}

    class Break:
        def on_epoch_begin(self, state):
            if state.epoch == 4:
                model.layers[1].w.value *= np.inf

        def on_epoch_end(self, state):
            kept[state.epoch] = (state.metrics["val_loss"], weights(model))

    with pytest.raises(FloatingPointError, match=r"loss is .* in epoch 4") as caught:
        fit(model, epochs=9, validation=(X, Y), early_stopping=5, callbacks=[Break()])
    assert "best epoch" in caught.value.__notes__[0]
    assert weights(model) == min(kept.values())[1]
    assert np.isfinite(model.predict(X)).all()


def test_without_early_stopping_the_weights_stay():
    model = nn.Sequential(nn.Flatten(), nn.Dense(36, 2, rng=0))
    with pytest.raises(FloatingPointError, match="loss is"):
        fit(model, lr=1e38, epochs=9)


# Floating-point flags ---------------------------------------------------------------------------

TINY = np.float32(1e-30)


def test_training_is_quiet_whatever_seterr_says():
    model = nn.Sequential(
        nn.Conv(1, 2, 3, rng=0),
        nn.BatchNorm(2),
        nn.Tanh(),
        nn.AvgPool(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Dense(8, 2, rng=0),
        nn.Sigmoid(),
        nn.Dense(2, 2, rng=0),
    )
    with np.errstate(all="raise"):
        for x in (X * TINY, X * np.float32(1e18)):
            for optimizer in (
                nn.Adam(model.parameters(), 1e-30),
                nn.SGD(model.parameters(), 1e-30, momentum=0.9, weight_decay=1e-20),
            ):
                nn.fit(
                    model,
                    nn.SoftmaxCrossEntropy(),
                    optimizer,
                    x,
                    Y,
                    epochs=2,
                    validation=(x, Y),
                    augment=lambda x, rng: x * TINY * TINY if x[0, 0, 0, 0] < 1 else x,
                )


@pytest.mark.parametrize(
    "layer", [nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm(4), nn.Flatten(),
              nn.Residual(nn.Sigmoid()), nn.Dense(4, 2, rng=0)],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_layers_are_quiet(layer, scale):
    x = (np.random.default_rng(0).normal(size=(6, 4)) * scale).astype(np.float32)
    with np.errstate(all="raise"):
        y = layer.forward(x)
        layer.backward(np.full_like(y, 1.1e-38 if scale < 1 else 1.0))
        layer.infer(x)


def test_losses_and_optimizers_are_quiet():
    z = np.array([[1000.0, -1000.0], [3e38, -3e38]], np.float32)
    with np.errstate(all="raise"):
        for loss, y in (
            (nn.SoftmaxCrossEntropy(), np.array([0, 1])),
            (nn.BinaryCrossEntropy(), np.array([[0, 1], [1, 0]])),
            (nn.MeanSquaredError(), z * np.float32(0.5)),
        ):
            loss.forward(z, y)
            loss.backward()
            loss.predict(z)
            loss.correct(z, y)
        parameter = nn.Parameter(np.full(3, 1e-38, np.float32), "w")
        parameter.grad = np.full(3, 1e-30, np.float32)
        for optimizer in (nn.Adam([parameter]), nn.SGD([parameter], 1e-20, momentum=0.5)):
            optimizer.step()
