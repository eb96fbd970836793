"""The public functions beside NumPy's expressions: every function runs, and answers are checked."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
slices = import_module("slices")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Small images, and one call a measurement."""
    monkeypatch.setattr(slices, "IMAGES", ((6, 7, 1), (5, 6, 3)))
    monkeypatch.setattr(slices, "SECONDS", 0.0)
    monkeypatch.setattr(slices, "ROUNDS", 1)


def test_every_function_is_timed_in_every_window(capsys):
    few = ["--batches", "2", "--threads", "1", "--dtypes", "float32", "--all"]
    assert slices.main(few) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, _, dense) in slices.FUNCTIONS.items():
        rows = [line for line in lines if f" {name} " in line and line.endswith(" us")]
        assert len(rows) == 2 * 2 * (1 if dense else 3), name
    assert sum("below 1" in line for line in lines) == len(slices.FUNCTIONS)


def test_a_wrong_answer_is_named_and_fails(capsys, monkeypatch):
    right = fc.avg_pool
    monkeypatch.setattr(fc, "avg_pool", lambda *args, **options: right(*args, **options) + 1)
    few = ["avg_pool", "--batches", "1", "--threads", "1", "--dtypes", "float64"]
    assert slices.main(few) == 1
    assert "WRONG  avg_pool " in capsys.readouterr().out


def test_a_ratio_is_the_other_time_by_ours(monkeypatch):
    ticks = iter(np.cumsum([0] + [1, 0, 3, 0] * 2).astype(float))
    monkeypatch.setattr(slices.time, "perf_counter", lambda: next(ticks))
    assert slices.ratio(lambda: None, lambda: None) == (1.0, 3.0)


def test_a_mistyped_function_is_refused(capsys):
    with pytest.raises(SystemExit):
        slices.main(["max_pol"])
    assert "max_pol: not one of max_pool" in capsys.readouterr().err
