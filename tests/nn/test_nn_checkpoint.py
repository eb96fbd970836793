"""Checkpoints: a resumed run is the uninterrupted run, bit for bit, whatever interrupted it."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_run import run

from fastconv import nn
from fastconv.nn import checkpoint as checkpoints


def final_state(result):
    """Everything that must not depend on an interruption."""
    model, optimizer, history = result
    arrays = {p.name: p.value for p in model.parameters()} | model.named_buffers()
    arrays |= optimizer.state()
    clock = ("seconds", "images_per_second")
    rows = [{k: v for k, v in row.items() if k not in clock} for row in history.epochs]
    generator = model.layers[4]._generators["rng"].bit_generator.state
    return {name: array.tobytes() for name, array in arrays.items()}, rows, generator


@pytest.fixture(scope="module")
def uninterrupted():
    return final_state(run())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


def test_checkpoints_change_nothing(path, uninterrupted):
    assert final_state(run(path)) == uninterrupted
    assert sorted(p.name for p in path.parent.iterdir()) == ["run.npz", "run.previous.npz"]
    assert nn.load_checkpoint(path).epoch == 4
    assert nn.load_checkpoint(nn.previous_path(path)).epoch == 3


@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_resume_bit_for_bit(path, uninterrupted, done):
    run(path, epochs=done)
    assert nn.load_checkpoint(path).epoch == done
    assert final_state(run(path, resume=True)) == uninterrupted


class Interrupt:
    """KeyboardInterrupt in one of a callback's methods."""

    def __init__(self, method, epoch):
        self.epoch = epoch
        setattr(self, method, self.interrupt)

    def interrupt(self, state):
        if state.epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("method", "epoch", "on_disk"),
    [
        ("on_fit_begin", 0, 0),
        ("on_epoch_begin", 1, 0),
        ("on_batch_end", 1, 0),
        ("on_batch_end", 3, 2),
        ("on_epoch_end", 1, 1),
        ("on_epoch_end", 4, 4),
        ("on_fit_end", 4, 4),
    ],
)
def test_keyboard_interrupt_leaves_the_last_finished_epoch(
    path, uninterrupted, method, epoch, on_disk
):
    with pytest.raises(KeyboardInterrupt):
        run(path, callbacks=[Interrupt(method, epoch)])
    assert nn.load_checkpoint(path).epoch == on_disk
    assert final_state(run(path, resume=True)) == uninterrupted


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("count", [4, 5])
def test_interrupt_while_a_checkpoint_is_written(path, uninterrupted, monkeypatch, call, count):
    import os

    original, calls = getattr(os, call), []

    def interrupting(*args):
        calls.append(args)
        if len(calls) == count:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupting)
        with pytest.raises(KeyboardInterrupt):
            run(path)
    assert final_state(run(path, resume=True)) == uninterrupted


# Calls per checkpoint: 2 fsync (file, folder), 2 renames (1 for the first), one ZipFile.open per
# array. The counts fall before, inside and after the second to last checkpoints.
KILLS = [
    ("fsync", 3),
    ("fsync", 4),
    ("replace", 2),
    ("replace", 3),
    ("write", 60),
    ("step", 5),
]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_killed_and_resumed(tmp_path, uninterrupted):
    script = Path(__file__).with_name("killed_run.py")
    running = []
    for call, count in KILLS:  # two at a time: most of the time is Python starting
        path = tmp_path / f"{call}{count}.npz"
        command = [sys.executable, str(script), str(path), call, str(count)]
        running.append((path, subprocess.Popen(command, cwd=Path(__file__).parents[2])))
        if len(running) % 2 == 0:
            for _, process in running[-2:]:
                assert process.wait(60) == -signal.SIGKILL
    for path, _ in running:
        assert nn.load_checkpoint(path).epoch < 4
        assert final_state(run(path, resume=True)) == uninterrupted, path.name


def test_killed_between_the_two_renames(path, uninterrupted):
    run(path, epochs=2)
    path.unlink()  # what SIGKILL leaves there: only the previous one has its name
    assert nn.load_checkpoint(path).epoch == 1
    assert final_state(run(path, resume=True)) == uninterrupted


def test_truncated_checkpoint_names_the_previous_one(path, uninterrupted):
    run(path, epochs=3)
    whole = path.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"run\.npz: expected .*before it is in .*previous"):
            run(path, resume=True)
    previous = nn.previous_path(path)
    assert nn.load_checkpoint(previous).epoch == 2
    assert final_state(run(previous, resume=True)) == uninterrupted


def test_no_checkpoint(path):
    with pytest.raises(FileNotFoundError, match=r"run\.npz: no such file"):
        run(path, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 6}, "batch_size was 4, is 6"),
        ({"lr": 0.02}, "optimizer was .*0.01.*, is .*0.02"),
        ({"shuffle": False}, "shuffle was True, is False"),
        ({"callbacks": [nn.ExponentialDecay(0.1, 0.5)]}, "callbacks was .*, is .*"),
        ({"early_stopping": None}, "early_stopping was .*, is"),
    ],
)
def test_resume_with_other_settings(path, options, message):
    run(path, epochs=1)
    with pytest.raises(ValueError, match=rf"resume: .*another run: {message}"):
        run(path, resume=True, **options)


def test_resume_with_other_data(path):
    model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    x, y = np.ones((4, 2, 2, 1), np.float32), np.arange(4) % 2
    options = {"epochs": 1, "checkpoint": path}
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.SGD(model.parameters())
    nn.fit(model, loss, optimizer, x, y, **options)
    x[2, 1, 1, 0] = 2
    with pytest.raises(ValueError, match="data was"):
        nn.fit(model, loss, optimizer, x, y, resume=True, **options)
    other = nn.Sequential(nn.Flatten(), nn.Dense(4, 3, init="zeros"))
    with pytest.raises(ValueError, match="model was"):
        nn.fit(other, loss, nn.SGD(other.parameters()), x, y, resume=True, **options)


def test_more_epochs_continue(path):
    assert final_state(run(path, epochs=2))[1] == final_state(run(epochs=2))[1]
    longer = run(path, epochs=6, resume=True)
    assert final_state(longer) == final_state(run(epochs=6))
    assert len(longer[2]) == 6
    again = run(path, epochs=3, resume=True)  # fewer than done: nothing left to do
    assert final_state(again) == final_state(longer)


def test_early_stopping_is_resumed(path):
    # The rate is so high that the loss rises: patience runs out, the best weights come back.
    options = {"epochs": 12, "early_stopping": nn.EarlyStopping(2, monitor="loss", min_delta=0.5)}
    whole = run(**options)
    assert len(whole[2]) < 12
    with pytest.raises(KeyboardInterrupt):
        run(path, callbacks=[Interrupt("on_batch_end", 2)], **options)
    assert final_state(run(path, resume=True, **options)) == final_state(whole)
    assert final_state(run(path, resume=True, **options)) == final_state(whole)


def damaged(path, change):
    found = checkpoints.load_checkpoint(path)
    change(found)
    checkpoints.save_checkpoint(path, found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.arrays.pop("parameters/0.w"), "'parameters/0.w' is missing"),
        (lambda c: c.arrays.pop("optimizer/lr"), "state: expected the entries"),
        (lambda c: c.random.pop("fit"), "random state 'fit' cannot be restored"),
        (lambda c: c.random["fit"].update(state=3), "random state 'fit' cannot be restored"),
        (lambda c: c.random.pop("layer/4.rng"), "random state 'layer/4.rng' cannot"),
        (lambda c: setattr(c, "epoch", "three"), "its epoch is no int"),
    ],
)
def test_wrong_contents(path, change, message):
    run(path, epochs=1)
    damaged(path, change)
    with pytest.raises(ValueError, match=message):
        run(path, resume=True)


def test_a_model_is_no_checkpoint(path):
    model, _, _ = run(epochs=0)
    model.save(path)
    with pytest.raises(ValueError, match="expected a training checkpoint of fastconv, but"):
        nn.load_checkpoint(path)
    run(path, epochs=1)
    with pytest.raises(ValueError, match="expected a model saved by fastconv, but"):
        nn.Sequential.load(path)
