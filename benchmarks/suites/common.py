"""The problems that the suites time, from the tables that the tests use, and their check."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import fastconv as fc
from fastconv import reference
from fastconv.problems import Problem, find_table, read_problems

# asv puts this folder's parent on no path.
sys.path.insert(0, str(Path(__file__).parents[1]))
from comparison import networks  # noqa: F401
from comparison.answers import first_prediction  # noqa: F401
from comparison.networks import NetworkCase  # noqa: F401
from comparison.peers.fastconv import Fastconv  # noqa: F401

SMALL_IMAGES = ("lenet5_mnist", "mlperf_tiny_resnet8", "mnist_cifar_examples")


def small_image_problems() -> dict[str, Problem]:
    """Problems of the small-image tables by name, without those that take seconds."""
    rows = [row for table in SMALL_IMAGES for row in read_problems(find_table(table))]
    return {row.name: row for row in rows if row.flops < 2e9}


def require_equal(got: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Wrong answers are not worth timing."""
    if not np.array_equal(got, expected):
        raise AssertionError(f"{what}: wrong answer, largest error {abs(got - expected).max()}")


def inner(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner product in float64: exact on small integers."""
    return np.sum(a.astype(np.float64) * b)


def check_products(problem: Problem) -> None:
    """The first image against the naive loops, the gradients by the adjoint identity, exactly."""
    x, w, _, dy = problem.operands()
    y = fc.conv(x, w, **problem.kwargs)
    require_equal(y[:1], reference.conv(x[:1], w, **problem.kwargs), f"{problem}, forward")
    dx, dw, _ = fc.conv_backward(dy, x, w, **problem.kwargs)
    for a, da in ((x, dx), (w, dw)):
        require_equal(inner(a, da), inner(y, dy), f"{problem}, adjoint identity")
