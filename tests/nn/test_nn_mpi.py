"""Training under ``mpiexec -n N``, against one process."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastconv import nn

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpi4py and mpiexec: pip install mpi4py mpich",
)
pytestmark = needs_mpi

SCRIPT = Path(__file__).with_name("mpi_run.py")
CLOSE = 2e-6  # as in rank_threads.py


def mpiexec(size, *words, **variables):
    environment = {**os.environ, "FASTCONV_NUM_THREADS": "1", "COLUMNS": "100", **variables}
    return subprocess.run(
        [MPIEXEC, "-n", str(size), sys.executable, *map(str, words)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_give_the_weights_of_one_process(size):
    result = mpiexec(size, SCRIPT, "compare")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert list(rows) == ["plain", "uneven", "synchronised", "local"]
    for name, row in rows.items():
        assert row["bits"] == 1, name  # on all ranks, and in a second run
        if name != "local":
            assert row["weights"] <= CLOSE, name
            assert row["losses"] <= 1e-5, name
    assert rows["local"]["weights"] > 1e-3  # other statistics are another training


@pytest.mark.parametrize("size", [2, 3])
def test_sums_are_in_the_order_of_the_ranks(size):
    result = mpiexec(size, SCRIPT, "exchanges")
    assert (result.returncode, result.stdout) == (0, "right\n"), result.stderr


def test_a_killed_rank_ends_the_job_and_leaves_the_last_checkpoint(tmp_path):
    path = tmp_path / "run.npz"
    result = mpiexec(2, SCRIPT, "killed", path)
    assert result.returncode != 0
    assert "Killed" in result.stdout + result.stderr  # as the launcher says
    assert nn.load_checkpoint(path).epoch == 1


def test_a_job_that_was_killed_while_it_wrote_goes_on_with_the_same_bits(tmp_path):
    path = tmp_path / "run.npz"
    assert mpiexec(2, SCRIPT, "dies_writing", path).returncode != 0
    assert nn.load_checkpoint(path).epoch in (0, 1)
    result = mpiexec(2, SCRIPT, "goes_on", path)
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr


@pytest.mark.soak
def test_any_rank_may_be_killed_at_any_moment(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(30):
        path, size = tmp_path / f"{i}.npz", int(rng.integers(2, 4))
        command = [MPIEXEC, "-n", str(size), sys.executable, str(SCRIPT), "for_long", str(path)]
        environment = {**os.environ, "FASTCONV_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as job:
            while not path.exists():
                assert job.poll() is None
                time.sleep(0.01)
            time.sleep(rng.random())
            rank = int(rng.integers(size))
            os.kill(int(Path(f"{path}.{rank}").read_text()), signal.SIGKILL)
            assert job.wait(timeout=30) != 0
        nn.load_checkpoint(path)


def test_an_error_in_one_rank_ends_all_with_its_message(tmp_path):
    result = mpiexec(2, SCRIPT, "fails", tmp_path / "run.npz")
    assert result.returncode != 0
    assert "rank 1 of 2 ends all ranks:" in result.stderr
    assert "ValueError: no such gradient" in result.stderr
    assert nn.load_checkpoint(tmp_path / "run.npz").epoch == 0


def test_ranks_that_were_not_called_alike_end_without_abort():
    result = mpiexec(2, SCRIPT, "differs")
    assert result.returncode == 0, result.stderr
    first, second = sorted(result.stdout.splitlines())
    wrong = "ValueError: comm: rank 1 was not called as rank 0 was: batch_size was 8, is 9"
    assert (first, second) == (f"0: RankError: rank 1 of 2: {wrong}", f"1: {wrong}")


def test_the_command(tmp_path):
    """One report, of the numbers of one process; and one goes on with what two began."""
    words = ["-m", "fastconv", "train", "--model", "binary_cnn", "--epochs", "2"]
    out, alone = tmp_path / "two", tmp_path / "one"
    result = mpiexec(2, *words, "--distributed", "--out", out)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "2 ranks of 1 thread each"
    assert sum(line.startswith("test accuracy ") for line in lines) == 1
    assert sum(line.startswith("epoch ") for line in result.stderr.splitlines()) == 2
    again = mpiexec(2, *words, "--distributed", "--out", out)
    assert again.returncode == 2
    assert again.stderr.count("there is a run already") == 1

    from fastconv.cli import main

    assert main([*words[2:], "--out", str(alone)]) == 0
    found = [nn.Sequential.load(folder / "model.npz") for folder in (out, alone)]
    for a, b in zip(*(model.parameters() for model in found), strict=True):
        assert np.abs(a.value - b.value).max() <= 1e-5  # Adam's steps divide by small numbers
    words[-1] = "3"
    assert main([*words[2:], "--out", str(out), "--resume"]) == 0


def test_the_launcher_of_another_library_is_found_out(tmp_path):
    """Each process would be rank 0, and write the same files."""
    words = ["-m", "fastconv", "train", "--distributed", "--out", tmp_path / "run"]
    result = mpiexec(1, *words, OMPI_COMM_WORLD_SIZE="2")
    assert result.returncode == 1
    assert "2 processes were started, but mpi4py's MPI library sees one" in result.stderr
    assert not (tmp_path / "run").exists()
