"""What `fit` takes besides data: weights, progress, held-out images, the best model, logs."""

import csv
import io

import numpy as np
import pandas
import pytest
from scipy.ndimage import zoom

from fastconv import nn, reference
from fastconv.examples import load_digits
from fastconv.examples.augment import Mixup
from fastconv.nn.best import held_out

X = np.random.default_rng(0).normal(size=(20, 4, 4, 1)).astype(np.float32)
Y = (X.mean(axis=(1, 2, 3)) > 0).astype(int)
LOSS = nn.SoftmaxCrossEntropy()


def network(seed=1):
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv(1, 3, 3, activation="relu", rng=rng), nn.Flatten(), nn.Dense(12, 2, rng=rng)
    )


def train(*, x=X, y=Y, loss=LOSS, model=None, **options):
    model = network() if model is None else model
    optimizer = nn.Adam(model.parameters(), lr=0.01)
    given = {"epochs": 3, "batch_size": 8} | options
    return model, nn.fit(model, loss, optimizer, x, y, **given)


def equal(a, b):
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(np.array_equal(p.value, q.value) for p, q in pairs)


# Weights ----------------------------------------------------------------------------------------


def test_a_weight_is_what_the_loss_makes_of_it():
    """One batch: a weight of 2 is an image that is there twice, one of 0 an image that is not."""
    weights = np.ones(20)
    weights[3], weights[5] = 2, 0
    kept = [i for i in range(20) if i != 5]
    ours, rows = train(epochs=1, batch_size=20, shuffle=False, sample_weight=weights)
    chosen = [*kept, 3]
    twin, others = train(x=X[chosen], y=Y[chosen], epochs=1, batch_size=20, shuffle=False)
    for p, q in zip(ours.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-4, atol=1e-7)
    assert rows["loss"][0] == pytest.approx(others["loss"][0], rel=1e-6)


@pytest.mark.parametrize("form", [{1: 3.0}, [1.0, 3.0], np.array([1.0, 3.0])])
def test_class_weights_are_sample_weights_by_the_label(form):
    ours, rows = train(class_weight=form)
    twin, others = train(sample_weight=np.where(Y == 1, 3.0, 1.0))
    assert equal(ours, twin)
    assert rows["loss"] == others["loss"]
    assert not equal(ours, train()[0])
    both, _ = train(class_weight=form, sample_weight=np.arange(20.0))
    assert equal(both, train(sample_weight=np.arange(20.0) * np.where(Y == 1, 3.0, 1.0))[0])


@pytest.mark.parametrize("loss", [nn.MeanSquaredError(), nn.SoftmaxCrossEntropy()])
def test_images_with_several_numbers_as_labels_have_one_weight(loss):
    """Targets of a regression, and soft labels."""
    y, weights = np.eye(2, dtype=np.float32)[Y], np.arange(20.0)
    ours, rows = train(
        y=y, loss=loss, epochs=1, batch_size=20, shuffle=False, sample_weight=weights
    )
    twin = network()
    value, _ = nn.train_step(twin, loss, nn.Adam(twin.parameters(), 0.01), X, y, weights)
    assert rows["loss"] == [value]
    assert equal(ours, twin)


def test_ones_change_nothing_but_roundings():
    """Weighted losses have roundings of their own."""
    ours, twin = train(sample_weight=np.ones(20))[0], train()[0]
    for p, q in zip(ours.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.value, q.value, rtol=1e-3, atol=1e-4)


def test_class_weights_raise_the_minority_s_recall():
    """Real digits: 8 eights against 240 others."""
    data = load_digits()
    eights, others = np.flatnonzero(data.y_train == 8)[:8], np.flatnonzero(data.y_train != 8)[:240]
    chosen = np.concatenate([eights, others])
    x, y = data.x_train[chosen], (data.y_train[chosen] == 8).astype(int)
    test = data.y_test == 8
    recalls = []
    for weights in (None, {1: 100.0}):
        rng = np.random.default_rng(0)
        model = nn.Sequential(
            nn.Conv(1, 8, 3, activation="relu", rng=rng), nn.MaxPool(2), nn.Flatten(),
            nn.Dense(72, 2, rng=rng),
        )  # fmt: skip
        nn.fit(
            model, LOSS, nn.Adam(model.parameters(), 3e-3), x, y, epochs=20, class_weight=weights
        )
        recalls.append((model.predict(data.x_test[test]).argmax(axis=1) == 1).mean())
    assert recalls[0] < 0.2 < 0.6 < recalls[1]


def test_batches_may_have_class_weights_and_no_sample_weights():
    batches = [(X[:10], Y[:10]), (X[10:], Y[10:])]
    ours, _ = train(x=batches, y=None, class_weight={0: 2.0})
    twin, _ = train(shuffle=False, batch_size=10, class_weight={0: 2.0})
    assert equal(ours, twin)
    with pytest.raises(ValueError, match="sample_weight: images that come in batches"):
        train(x=batches, y=None, sample_weight=np.ones(20))


class Own(nn.Loss):
    def forward(self, z, y):
        self._dz = z - 1
        return float(np.square(z - 1).mean())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"sample_weight": np.ones(19)}, ValueError, "sample_weight: expected 20 weights"),
        ({"sample_weight": -np.ones(20)}, ValueError, "sample_weight: weights must be finite and"),
        ({"class_weight": {1: -1}}, ValueError, "class_weight: must be finite and at least 0"),
        ({"class_weight": {"a": 1}}, TypeError, "class_weight: classes are integers"),
        ({"class_weight": [1.0]}, ValueError, "class_weight: expected one for each class, got 1"),
        ({"loss": Own(), "class_weight": {1: 2}}, TypeError,
         "class_weight: Own.forward takes no weights"),
        ({"loss": Own(), "sample_weight": np.ones(20)}, TypeError,
         "sample_weight: Own.forward takes no weights"),
        ({"augment": Mixup(), "class_weight": {1: 2}}, ValueError,
         "class_weight: labels that augment mixes are of no one class"),
        ({"validation_fraction": 0.01}, ValueError,
         "validation_fraction: 0.01 of 20 images leaves"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction: must be between 0 and 1"),
        ({"validation_fraction": 0.5, "validation": (X, Y)}, ValueError,
         "validation_fraction: validation is given, too"),
        ({"x": [(X, Y)], "y": None, "validation_fraction": 0.5}, ValueError,
         "validation_fraction: images that come in batches cannot be held out"),
        ({"verbose": 3}, ValueError, "verbose: must be 0, 1 or 2, got 3"),
        ({"verbose": "yes"}, TypeError, "verbose: True, False, 0, 1 or 2 is needed"),
        ({"best_checkpoint": 3}, TypeError, "best_checkpoint: a path is needed"),
        ({"best_checkpoint": "no such folder/a.npz"}, FileNotFoundError,
         "best_checkpoint: there is no folder"),
        ({"best_checkpoint": "."}, ValueError, "best_checkpoint: . is a folder"),
    ],
)  # fmt: skip
def test_errors_come_before_the_first_step(options, error, says):
    model = network()
    with pytest.raises(error, match=f"^{says}"):
        train(model=model, **options)
    assert equal(model, network())


# Held-out images --------------------------------------------------------------------------------


def test_a_share_is_held_out_by_the_seed():
    model, history = train(validation_fraction=0.25, seed=3)
    assert all(value is not None for value in history["val_loss"])
    again, rows = train(validation_fraction=0.25, seed=3)
    assert equal(model, again)
    assert history["val_loss"] == rows["val_loss"]
    assert history["val_loss"] != train(validation_fraction=0.25, seed=4)[1]["val_loss"]


def test_held_out_images_take_no_part_in_the_training():
    class Look:
        def on_epoch_begin(self, state):
            assert (state.images, state.steps_per_epoch) == (15, 2)

    x = X.copy()
    x[held_out(0.25, 20, seed=5)[1]] = np.nan
    _, history = train(x=x, validation_fraction=0.25, seed=5, callbacks=[Look()])
    assert np.isfinite(history["loss"]).all()
    assert np.isnan(np.array(history["val_loss"], float)).all()


def test_data_that_are_read_as_needed_are_held_out_too(tmp_path):
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    weights = np.arange(1.0, 21.0)
    ours, rows = train(x=x, validation_fraction=0.2, sample_weight=weights)
    twin, others = train(validation_fraction=0.2, sample_weight=weights)
    assert equal(ours, twin)
    assert rows["val_loss"] == others["val_loss"]


# The best model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("validated", [True, False])
def test_the_best_epoch_s_model_is_on_the_disk(validated, tmp_path):
    path, seen = tmp_path / "best.npz", []

    class Weights:
        def on_epoch_end(self, state):
            seen.append([p.value.copy() for p in state.model.parameters()])

    rates = nn.StepDecay(0.3, 1, 0.9)  # so high that the loss goes up and down
    options = {"validation": (X[::-1].copy(), Y)} if validated else {}
    _, history = train(epochs=6, callbacks=[Weights(), rates], best_checkpoint=path, **options)
    best = nn.Sequential.load(path)
    expected = seen[history.best_epoch - 1]
    for p, value in zip(best.parameters(), expected, strict=True):
        np.testing.assert_array_equal(p.value, value)


def test_the_best_model_goes_by_the_monitor_and_over_a_resume(tmp_path):
    path, run = tmp_path / "best.npz", tmp_path / "run.npz"
    rule = nn.EarlyStopping(9, "accuracy", restore_best=False)
    options = {"early_stopping": rule, "best_checkpoint": path, "checkpoint": run}
    _, first = train(epochs=4, **options)
    before = path.stat().st_mtime_ns
    _, history = train(epochs=6, resume=True, **options)
    better = max(history["accuracy"][4:]) > max(first["accuracy"])
    assert (path.stat().st_mtime_ns != before) == better


def test_a_model_that_cannot_be_saved_is_found_before_the_first_step(tmp_path):
    class Mine(nn.ReLU):
        pass

    model = nn.Sequential(Mine(), nn.Flatten(), nn.Dense(16, 2))
    with pytest.raises(TypeError, match=r"^best_checkpoint: layer 0: .*Mine.* can be saved"):
        train(model=model, best_checkpoint=tmp_path / "a.npz")


# What one sees ----------------------------------------------------------------------------------


def test_it_is_silent_unless_asked(capsys):
    train()
    train(verbose=False)
    train(verbose=0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [True, 1, 2, np.True_])
def test_a_line_an_epoch_where_there_is_no_terminal(verbose, capsys):
    train(verbose=verbose, validation_fraction=0.25)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("val loss" in line and "images/s" in line for line in lines)


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    train(verbose=1)
    assert "epoch 3/3" in capsys.readouterr().err
    train(verbose=2)
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_pandas_takes_the_history():
    _, history = train()
    frame = pandas.DataFrame(history)
    assert list(frame.columns) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr",
                                   "seconds", "images_per_second"]  # fmt: skip
    assert frame["loss"].tolist() == history["loss"]


def test_the_csv_log_has_the_whole_run_after_a_resume(tmp_path):
    path, run = tmp_path / "log.csv", tmp_path / "run.npz"
    train(epochs=2, callbacks=[nn.CSVLog(path)], checkpoint=run)
    _, history = train(epochs=4, callbacks=[nn.CSVLog(path)], checkpoint=run, resume=True)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [float(row["loss"]) for row in rows] == history["loss"]
    assert {row["val_loss"] for row in rows} == {""}
    assert pandas.read_csv(path)["epoch"].tolist() == [1, 2, 3, 4]
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        train(callbacks=[nn.CSVLog(tmp_path / "folder" / "no.csv")])


def test_tensorboard_events_have_the_history(tmp_path):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c  # noqa: F401 (its format)

    _, history = train(callbacks=[nn.TensorBoard(tmp_path)], validation_fraction=0.25)
    found = {}
    for part in ("training", "validation"):
        (file,) = (tmp_path / part).iterdir()
        data, at = file.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            for value in event.summary.value:
                found.setdefault((part, value.tag), []).append((event.step, value.simple_value))
            at += size + 16
    expected = list(zip((1, 2, 3), np.float32(history["val_loss"]), strict=True))
    assert found["validation", "loss"] == expected
    assert {tag for part, tag in found if part == "training"} == {
        "loss", "accuracy", "lr", "seconds", "images_per_second"
    }  # fmt: skip


# Looking ----------------------------------------------------------------------------------------


def looked_at():
    rng = np.random.default_rng(0)
    return nn.Sequential(
        nn.Conv(2, 4, 3, padding="same", stride=2, rng=rng, dtype=np.float64),
        nn.BatchNorm(4, dtype=np.float64),
        nn.Tanh(),
        nn.GlobalAvgPool(),
        nn.Dense(4, 3, rng=rng, dtype=np.float64),
        ops=reference,
    )


def test_saliency_is_the_gradient_of_the_class_s_output():
    model, x = looked_at(), np.random.default_rng(1).normal(size=(2, 4, 6, 2))
    before = [p.grad.copy() for p in model.parameters()]
    found = nn.saliency(model, x, [2, 0])
    assert found.shape == (2, 4, 6)
    step = 1e-6
    for i, label in enumerate([2, 0]):
        moved = np.zeros((4, 6, 2))
        for index in np.ndindex(4, 6, 2):
            change = np.zeros_like(x)
            change[i][index] = step
            ahead, behind = model.predict(x + change), model.predict(x - change)
            moved[index] = (ahead - behind)[i, label] / (2 * step)
        np.testing.assert_allclose(found[i], np.abs(moved).max(axis=-1), rtol=1e-5, atol=1e-9)
    chosen = model.predict(x).argmax(axis=1)
    np.testing.assert_array_equal(nn.saliency(model, x), nn.saliency(model, x, chosen))
    for p, grad in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.grad, grad)
    assert model.training


def test_a_class_activation_map_is_the_weighted_feature_map():
    """Behind a global mean the weights of the channels are those of the dense layer."""
    model, x = looked_at(), np.random.default_rng(2).normal(size=(1, 8, 8, 2))
    with nn.evaluating(model):
        features = model.activations(x)[2]
    expected = np.maximum(features @ model.layers[-1].w.value[:, 1], 0)[0]
    found = nn.class_activation_map(model, x, 1)[0]
    assert found.shape == (8, 8)
    assert found.max() == 1
    assert found.min() >= 0
    larger = zoom(expected, 2, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(found, larger / larger.max(), rtol=1e-10, atol=1e-12)
    small = nn.class_activation_map(model, x, 1, layer=0)
    assert small.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m, x: nn.saliency(m.layers[0], x), TypeError, "model: an nn.Sequential is needed"),
        (lambda m, x: nn.saliency(m, x[0, 0]), ValueError, r"x: images \(m, H, W, C\) are needed"),
        (lambda m, x: nn.saliency(m, x, 3), ValueError, r"classes: must be in 0 .. 2, got 3"),
        (lambda m, x: nn.saliency(m, x, 0.5), TypeError, "classes: integers are needed"),
        (lambda m, x: nn.class_activation_map(m, x, layer=4), ValueError,
         "layer: must be one with"),
    ],
)  # fmt: skip
def test_errors_of_the_maps(call, error, says):
    with pytest.raises(error, match=f"^{says}"):
        call(looked_at(), np.zeros((1, 4, 4, 2)))


def test_the_summary_counts_work_memory_and_what_is_seen():
    model = nn.Sequential(
        nn.Conv(3, 8, 3, stride=2, padding=1, rng=0),
        nn.Residual(nn.Sequential(nn.Conv(8, 8, 3, padding=1, rng=0), nn.ReLU())),
        nn.MaxPool(2),
        nn.ConvTranspose(8, 4, 2, stride=2, rng=0),
        nn.Flatten(),
        nn.Dense(64, 10, rng=0),
        name="net",
        ops=reference,
    )
    rows = [line.split("  ") for line in model.summary((8, 8, 3)).splitlines()]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows[0] == ["layer", "output", "parameters", "multiply-adds", "bytes", "sees"]
    assert rows[2] == ["0 Conv", "(4, 4, 8)", "224", str(16 * 9 * 3 * 8), str(128 * 4), "3x3"]
    assert rows[3] == ["1 Residual", "(4, 4, 8)", "584", str(16 * 9 * 64), "512", "7x7"]
    assert rows[4] == ["2 MaxPool", "(2, 2, 8)", "0", "0", "128", "9x9"]
    assert rows[5] == ["3 ConvTranspose", "(4, 4, 4)", "132", str(4 * 4 * 32), "256", "11x11"]
    assert rows[7] == ["5 Dense", "(10,)", "650", "640", "40", "all"]
    assert rows[-1][0] == "net"
    assert rows[-1][2] == str(16 * 9 * 24 + 16 * 9 * 64 + 512 + 640)
    html = model.summary((8, 8, 3))._repr_html_()
    assert html.startswith("<div><b>Sequential net: 6 layers, 1,590 parameters</b>\n<table")
    assert html.count("<tr>") == 8
    assert "<script>" not in nn.Sequential(nn.ReLU(), name="<script>").summary()._repr_html_()
