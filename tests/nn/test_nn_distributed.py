"""Training on several ranks, which are threads here: the mathematics, and who does what."""

import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from rank_threads import (
    LAYERS,
    IterAgain,
    arrays,
    assert_alike,
    assert_close,
    images,
    network,
    on_ranks,
    train,
)

from fastconv import nn, reference
from fastconv.nn.draws import uniform
from fastconv.program.ops import shared_batch_norm


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("ops", [None, reference])
def test_small_integers_give_the_bits_of_one_process(size, ops):
    """Sums of halves, quarters and so on are exact, in whatever order they are added."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (16, 4, 4, 1)).astype(np.float32)
    y = rng.integers(-2, 3, (16, 2)).astype(np.float32)

    def model():
        layers = [nn.Conv(1, 2, 3, rng=0), nn.ReLU(), nn.Flatten(), nn.Dense(8, 2, rng=0)]
        made = nn.Sequential(*layers, ops=ops)
        draw = np.random.default_rng(1)
        for parameter in made.parameters():
            parameter.value[...] = draw.integers(-1, 2, parameter.shape)
        return made

    def run(comm=None):
        given = {"model": model, "loss": nn.MeanSquaredError(), "epochs": 1, "batch_size": 16}
        steps = lambda model: nn.SGD(model.parameters(), 1 / 64)  # noqa: E731
        return train(comm, data=(x, y), optimizer=steps, **given)

    one, found = run(), on_ranks(size, run)
    assert_alike(found)
    for name, array in arrays(one[0]).items():
        assert_array_equal(array, arrays(found[0][0])[name], err_msg=name)
    assert found[0][2]["loss"] == one[2]["loss"]
    assert np.abs(one[0].layers[0].w.value * 64 % 1).max() > 0  # it has moved, and not by integers


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize(("size", "batch_size"), [(2, 8), (3, 25), (4, 13)])
def test_ranks_give_the_weights_of_one_process(size, batch_size, layers):
    """Of 26 images 25 leave a batch of one for all ranks, and others nothing."""
    given = {"layers": LAYERS[layers], "batch_size": batch_size, "sync_batch_norm": True}
    one = train(**given)
    found = on_ranks(size, lambda comm: train(comm, **given))
    assert_close(found, one)
    again = on_ranks(size, lambda comm: train(comm, **given))
    for name, array in arrays(found[0][0]).items():
        assert_array_equal(array, arrays(again[0][0])[name], err_msg=f"again {name}")


def test_naive_loops_share_as_well():
    given = {"layers": LAYERS["normalised"], "ops": reference, "sync_batch_norm": True, "epochs": 1}
    assert_close(on_ranks(2, lambda comm: train(comm, **given)), train(**given))


@pytest.mark.parametrize("case", ["loss", "ignored", "class", "sample", "soft", "own"])
def test_what_counts_differs_between_ranks(case):
    """The mean of all is no mean of the ranks' means where images count more or less."""
    x, y = images()
    rng = np.random.default_rng(2)
    given = {"layers": LAYERS["plain"]}
    if case == "loss":
        given["loss"] = nn.SoftmaxCrossEntropy(class_weight=[0.1, 1, 5])
    elif case == "ignored":
        given["loss"], y = nn.SoftmaxCrossEntropy(ignore_index=9), np.where(y == 1, 9, y)
    elif case == "class":
        given["class_weight"] = {0: 0.1, 2: 5}
    elif case == "sample":
        given["sample_weight"] = rng.integers(0, 2, len(y)) * rng.random(len(y))
    elif case == "soft":
        y = rng.dirichlet([1, 1, 1], len(y)).astype(np.float32)
    else:
        given["loss"] = OwnLoss()
    one = train(data=(x, y), **given)
    assert_close(on_ranks(3, lambda comm: train(comm, data=(x, y), **given)), one)


class OwnLoss(nn.MeanSquaredError):
    """By its methods alone, and without accuracy."""

    def forward(self, z, y, sample_weight=None):
        return super().forward(z, np.eye(3, dtype=np.float32)[y], sample_weight)

    def check(self, z, y, name="y"):
        pass


def test_each_rank_normalises_its_own_images_unless_told():
    x, y = images(8)
    given = {"layers": LAYERS["normalised"], "data": (x, y), "epochs": 1, "shuffle": False}
    found = on_ranks(2, lambda comm: train(comm, **given))
    assert_alike(found)
    outputs = network().layers[0].forward(x)  # before the only step
    halves = [outputs[:4].reshape(-1, 4), outputs[4:].reshape(-1, 4)]
    norm = found[0][0].layers[1]
    mean = np.mean([half.mean(axis=0) for half in halves], axis=0)
    variance = np.mean([half.var(axis=0, ddof=1) for half in halves], axis=0)
    np.testing.assert_allclose(norm.running_mean, 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.running_variance, 0.9 + 0.1 * variance, rtol=1e-5)


def test_statistics_of_parts_are_those_of_the_whole():
    """Exact on integers, and a part may be empty."""
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (8, 2, 2, 3)).astype(np.float32)
    parts = [x[:5], x[5:5], x[5:]]
    told = [shared_batch_norm._moments(part, np.ones(3), np.zeros(3))[1] for part in parts]
    mean, square, pixels = shared_batch_norm._merged(np.array(told))
    assert pixels == 32
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1, 2), dtype=np.float64), atol=1e-15)
    whole = ((x.astype(np.float64) - mean) ** 2).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(square, whole, rtol=1e-15)


def test_rows_of_the_table_are_those_of_the_engine():
    from fastconv.engine import array_words

    assert array_words.TABLE_MEAN == shared_batch_norm.MEAN
    assert array_words.TABLE_MEAN_DY == shared_batch_norm.MEAN_DY


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.SFC64])
def test_a_part_of_drawn_numbers_is_that_of_the_whole(dtype, bits):
    for each in (1, 3, 4):
        whole, some = (np.random.Generator(bits(5)) for _ in range(2))
        for generator in (whole, some):
            generator.random(each, dtype=np.float32)
        for _ in range(3):
            drawn = uniform(whole, (7, each), dtype)
            assert_array_equal(uniform(some, (2, each), dtype, part=(3, 7)), drawn[3:5])
        assert whole.random() == some.random()


# What only rank 0 does --------------------------------------------------------------------------


class Watcher:
    """Looks on, and sets the rate: on rank 0 alone."""

    def __init__(self):
        self.threads = set()

    def on_epoch_begin(self, state):
        self.threads.add(threading.get_ident())
        state.optimizer.lr = 0.01

    def on_batch_end(self, state):
        state.stop = state.epoch == 2


class Noise(nn.Layer):
    """A layer of one's own with a generator."""

    def __init__(self):
        super().__init__()
        self.add_generator("source", None)
        self.drawn = []

    def forward(self, x):
        if self.training:
            self.drawn.append(float(self._generators["source"].random()))
        return x

    def backward(self, dy):
        return dy


def test_rank_0_alone_looks_on_writes_and_decides(tmp_path, capsys):
    watcher = Watcher()

    def run(comm):
        path = tmp_path / str(comm.rank)
        path.mkdir()
        logs = [watcher, nn.CSVLog(path / "log.csv")] if comm.rank == 0 else [Watcher()]
        return train(
            comm, epochs=4, callbacks=logs, checkpoint=path / "run.npz", verbose=2,
            best_checkpoint=path / "best.npz",
        )  # fmt: skip

    found = on_ranks(2, run)
    assert_alike(found)
    assert found[1][2]["lr"] == [0.01, 0.01]  # stopped by rank 0 after the second epoch
    assert len(watcher.threads) == 1
    names = {path.name for path in (tmp_path / "0").iterdir()}
    assert names == {"run.npz", "run.previous.npz", "best.npz", "log.csv"}
    assert list((tmp_path / "1").iterdir()) == []
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("sync", [False, True])
def test_resumes_on_another_number_of_ranks(tmp_path, sync):
    """From 2 to 1 to 4; on as many, bit for bit."""
    path, whole = tmp_path / "run.npz", tmp_path / "whole.npz"
    given = {
        "layers": lambda: (nn.BatchNorm(4) if sync else Noise(), nn.Dropout(0.2)),
        "sync_batch_norm": sync,
        "augment": lambda x, rng: x + rng.normal(size=x.shape).astype(x.dtype) / 8,
        "early_stopping": nn.EarlyStopping(9),
    }  # fmt: skip

    def run(epochs, path, resume, comm=None):
        callbacks = [nn.ExponentialDecay(0.1, 0.5), nn.ParameterAverage(0.5)]
        options = {"checkpoint": path, "resume": resume, "callbacks": callbacks}
        return train(comm, epochs=epochs, **options, **given)

    on_ranks(2, lambda comm: run(2, whole, False, comm))
    uninterrupted = on_ranks(2, lambda comm: run(3, tmp_path / "other.npz", False, comm))
    assert_alike(uninterrupted)
    resumed = on_ranks(2, lambda comm: run(3, whole if comm.rank == 0 else "nowhere", True, comm))
    for name, array in arrays(uninterrupted[0][0]).items():
        assert_array_equal(array, arrays(resumed[0][0])[name], err_msg=name)
    on_ranks(2, lambda comm: run(1, path, False, comm))
    run(2, path, True)
    found = on_ranks(4, lambda comm: run(3, path, True, comm))
    assert_close(found, run(3, tmp_path / "one.npz", False))


def test_a_resume_with_other_statistics_is_refused(tmp_path):
    """One process, which has all images, goes on with either."""
    path = tmp_path / "run.npz"
    given = {"layers": LAYERS["normalised"], "checkpoint": path}

    def run(comm, sync, epochs, resume=True):
        options = {"sync_batch_norm": sync, "epochs": epochs, "resume": resume}
        return train(comm, **options, **given)

    assert_alike(on_ranks(2, lambda comm: run(comm, True, 1, resume=False)))
    first, second = on_ranks(2, lambda comm: run(comm, False, 2))
    assert isinstance(first, ValueError)
    assert "belongs to another run: sync_batch_norm was True, is False" in str(first)
    assert "sync_batch_norm was True, is False" in str(second)
    assert nn.load_checkpoint(path).epoch == 1
    run(None, False, 2)
    assert_alike(on_ranks(2, lambda comm: run(comm, False, 3)))


def test_layers_with_generators_draw_their_own():
    found = on_ranks(2, lambda comm: train(comm, layers=lambda: (Noise(),)))
    assert_alike(found)
    first, second = (model.layers[1].drawn for model, _, _ in found)
    assert len(set(first)) == len(first) == 8
    assert not set(first) & set(second)


def test_batches_of_ones_own_and_data_that_are_read_as_needed(tmp_path):
    x, y = images()
    stored = np.memmap(tmp_path / "x", np.uint8, "w+", shape=x.shape)
    stored[...] = (x * 40 + 128).clip(0, 255)
    batches = [(stored[i : i + 5], y[i : i + 5]) for i in range(0, 26, 5)]
    given = {"scale": 1 / 255, "validation": (stored[:3], y[:3])}
    one = train(data=(stored, y), **given)
    assert_close(on_ranks(4, lambda comm: train(comm, data=(stored, y), **given)), one)
    given["validation"] = IterAgain(batches)
    one = train(data=(batches, None), **given)
    assert_close(on_ranks(4, lambda comm: train(comm, data=(batches, None), **given)), one)
