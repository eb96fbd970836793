"""What the host benchmarks time: with fastconv a host gets the answers that it has alone."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
# Tolerances: float32 everywhere but in autograd and the courses. scikit-image's cases are checked
# by the benchmark itself, which alone needs it.
HOSTS = {
    "autograd": 1e-12,
    "coursera": 1e-12,
    "cs231n": 1e-12,
    "dlfs": 1e-12,
    "jax": 1e-4,
    "mygrad": 1e-4,
    "njit": 1e-4,
    "scipy": 1e-5,
}


def cases(host, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module(f"host_cases.{host}").cases()


def leaves(result):
    if isinstance(result, list | tuple):
        return [leaf for part in result for leaf in leaves(part)]
    return [np.asarray(result)]


@pytest.mark.parametrize("host", HOSTS)
def test_answers_are_equal(host, monkeypatch):
    for case in cases(host, monkeypatch):
        ours, theirs = leaves(case.ours()), leaves(case.theirs())
        assert len(ours) == len(theirs) > 0
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape, case.name
            np.testing.assert_allclose(
                a, b, rtol=0, atol=HOSTS[host] * max(1.0, float(abs(b).max())), err_msg=case.name
            )


def test_the_network_is_as_accurate_as_the_benchmark_says(monkeypatch):
    """MLPClassifier, which takes longer, reaches 0.971."""
    for case in cases("sklearn", monkeypatch):
        assert case.ours() > 0.96
