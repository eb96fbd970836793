"""A training run that is killed, interrupted or out of disk space loses nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fastconv import nn
from fastconv.cli import main

NN_TESTS = Path(__file__).parents[1] / "nn"
sys.path.insert(0, str(NN_TESTS))
from killed_run import run  # noqa: E402
from test_nn_checkpoint import final_state  # noqa: E402

POSIX = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and RLIMIT_FSIZE are POSIX")
# Calls of each kind in one run: 5 checkpoints of 2 fsync, 2 renames and as many members as it has
# arrays; 4 epochs of 3 steps.
CALLS = {"fsync": 10, "replace": 9, "write": 150, "step": 12}


@pytest.fixture(scope="module")
def uninterrupted():
    return final_state(run())


def killed(path, call, count):
    command = [sys.executable, str(NN_TESTS / "killed_run.py"), str(path), call, str(count)]
    return subprocess.Popen(command, cwd=NN_TESTS.parents[1], stderr=subprocess.PIPE)


@POSIX
@pytest.mark.soak
def test_thirty_kills_at_random_points(tmp_path, uninterrupted):
    """SIGKILL at a random call of a random kind; the resumed run is the uninterrupted one."""
    draw, waiting, survived = random.Random(0), [], 0
    for number in range(30):
        call = draw.choice(list(CALLS))
        count = draw.randint(1, CALLS[call])
        path = tmp_path / f"{number}.npz"
        waiting.append((path, call, count, killed(path, call, count)))
        if len(waiting) == 2:
            survived += sum(resumed(*one, uninterrupted) for one in waiting)
            waiting = []
    print(f"\n{survived} kills survived")
    assert survived == 30


def resumed(path, call, count, process, uninterrupted):
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, (call, count, errors)
    anything = path.exists() or nn.previous_path(path).exists()
    assert anything or count == 1 or call == "write", f"{call} {count}: no checkpoint at all"
    assert final_state(run(path, resume=anything)) == uninterrupted, f"{call} {count}"
    return True


class Interrupting:
    """Raises KeyboardInterrupt at the n-th call of a Python function of fastconv.nn."""

    def __init__(self, n):
        self.left = n

    def __call__(self, frame, event, argument):
        if event == "call" and "/fastconv/nn/" in frame.f_code.co_filename.replace(os.sep, "/"):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def interrupted(path, n):
    """Whether a run was interrupted at its n-th call."""
    sys.setprofile(Interrupting(n))
    try:
        run(path)
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def calls_of_a_run(path):
    counter = Interrupting(0)
    sys.setprofile(counter)
    try:
        run(path)
    finally:
        sys.setprofile(None)
    return -counter.left


@pytest.mark.parametrize("points", [4, pytest.param(30, marks=pytest.mark.soak)])
def test_ctrl_c_at_random_points(tmp_path, uninterrupted, points):
    calls = calls_of_a_run(tmp_path / "whole.npz")
    assert calls > 1000
    draw = random.Random(points)
    for number in range(points):
        path, n = tmp_path / f"{number}.npz", draw.randint(1, calls - 1)
        assert interrupted(path, n)
        anything = path.exists() or nn.previous_path(path).exists()
        assert final_state(run(path, resume=anything)) == uninterrupted, f"call {n} of {calls}"


# ------------------------------------------------------------------------------- full disk

FULL = """
import resource, signal, sys
sys.path.insert(0, {here!r})
from killed_run import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

class Full:
    def on_epoch_end(self, state):
        if state.epoch == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))

try:
    run({path!r}, callbacks=[Full()])
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@POSIX
@pytest.mark.parametrize(
    "limit", [0, 1, 4096, pytest.param(range(0, 14000, 500), marks=pytest.mark.soak)], ids=str
)
def test_a_full_disk_loses_no_checkpoint(tmp_path, uninterrupted, limit):
    """From the third epoch on no file may grow beyond the limit: a write fails halfway."""
    for number, size in enumerate([limit] if isinstance(limit, int) else limit):
        path = tmp_path / str(number) / "run.npz"
        path.parent.mkdir()
        code = FULL.format(here=str(NN_TESTS), limit=size, path=str(path))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.startswith("OSError 27"), (done.stdout, done.stderr)  # EFBIG
        assert nn.load_checkpoint(path).epoch == 2
        assert nn.load_checkpoint(nn.previous_path(path)).epoch == 1
        names = sorted(p.name for p in path.parent.iterdir())
        assert names == ["run.npz", "run.previous.npz"]  # the half-written file is gone
        assert final_state(run(path, resume=True)) == uninterrupted


class FullFile:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)


@pytest.mark.parametrize("room", [0, 1, 100, 5000])
def test_no_space_left_on_device(tmp_path, uninterrupted, monkeypatch, room):
    from fastconv.nn import files

    path = tmp_path / "run.npz"
    run(path, epochs=2)
    with monkeypatch.context() as patch:
        opener = types.SimpleNamespace(open=lambda *a: FullFile(open(*a), room))  # noqa: SIM115
        patch.setattr(files, "open", opener.open, raising=False)
        with pytest.raises(OSError, match="No space left"):
            run(path, resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.npz", "run.previous.npz"]
    assert nn.load_checkpoint(path).epoch == 2
    assert final_state(run(path, resume=True)) == uninterrupted


@POSIX
def test_the_command_says_in_one_line_that_the_disk_is_full(tmp_path):
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, x=rng.random((40, 8, 8)).astype("f4"), y=np.arange(40) % 2)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from fastconv.cli import main; import fastconv; fastconv.warmup(); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY)); "
        f"sys.exit(main(['train', '--model', 'binary_cnn', '--data', {str(data)!r}, "
        f"'--epochs', '2', '--out', {str(tmp_path / 'run')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "error: " in last
    assert "File too large" in last
    assert "checkpoint.npz" in last


def test_every_truncation_of_a_checkpoint_names_the_one_before(tmp_path, uninterrupted):
    path = tmp_path / "run.npz"
    run(path, epochs=3)
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 50):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"run\.npz: expected .*previous"):
            nn.load_checkpoint(path)
        assert nn.load_checkpoint(nn.previous_path(path)).epoch == 2
    assert main(["train", "--data", str(path), "--out", str(tmp_path / "out")]) == 2
