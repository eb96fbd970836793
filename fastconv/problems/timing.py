"""The measurements of ``fastconv bench``."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from fastconv.plans.conv import plan_conv
from fastconv.problems.problem import Operands, Problem

__all__ = ["Result", "blas_threads", "measure"]

MIN_SECONDS = 1e-3  # shorter calls are measured several at a time: the clock ticks in 0.1 us
MAX_SECONDS = 10.0  # per problem, after which no new round begins
MIN_ROUNDS = 3
PEAK_SIZE = {"float32": 1024, "float64": 768}  # 14 ms at 150 and 12 ms at 75 GFLOP/s


@dataclass
class Result:
    """Times of one problem.

    Attributes
    ----------
    problem : Problem
    seconds : dict of str to float
        Median time of a call, for each product.
    rounds : int
        Measurements made of each.
    peak : float
        Best rate of numpy.matmul between them, in GFLOP/s.
    consistent : bool
        Whether <y, dy> = <x, dx> = <w, dw> holds exactly (always True for float16, where results
        are rounded).
    """

    problem: Problem
    seconds: dict[str, float]
    rounds: int
    peak: float
    consistent: bool

    @property
    def peak_dtype(self) -> str:
        """The dtype of the peak: float16 is computed in float32."""
        return "float64" if self.problem.dtype == "float64" else "float32"

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per product, as in the CSV file."""
        for product, seconds in self.seconds.items():
            rate = self.problem.flops / seconds / 1e9
            yield {
                "name": self.problem.name,
                "problem": str(self.problem).removeprefix(f"{self.problem.name}: "),
                "dtype": self.problem.dtype,
                "product": product,
                "milliseconds": 1e3 * seconds,
                "gflops": rate,
                "peak_gflops": self.peak,
                "share": rate / self.peak,
                "rounds": self.rounds,
            }


def measure(problem: Problem, repeat: int) -> Result:
    """Time forward, kernel gradient and input gradient, in turn with numpy.matmul.

    Parameters
    ----------
    problem : Problem
    repeat : int
        Rounds, each of which measures everything once.

    Examples
    --------
    >>> from fastconv.problems import parse_problem
    >>> result = measure(parse_problem("m1 h8w8c2 f3 k3"), repeat=3)
    >>> list(result.seconds), result.consistent
    (['forward', 'kernel grad', 'input grad'], True)
    """
    plan = plan_conv(problem.x_shape, problem.w_shape, problem.dtype, **problem.kwargs)
    operands = problem.operands()
    x, w, _, dy = operands
    y, dw, dx = np.empty_like(dy), np.empty_like(w), np.empty_like(x)
    products: dict[str, Callable[[], Any]] = {
        "forward": lambda: plan.forward(x, w, out=y),
        "kernel grad": lambda: plan.kernel_grad(x, dy, out=dw),
        "input grad": lambda: plan.input_grad(dy, w, out=dx),
    }
    calls = {name: _calls(run) for name, run in products.items()}  # compiles and warms up, too
    consistent = _consistent(operands, y, dw, dx)
    peak_run, peak_flops = _matmul("float64" if problem.dtype == "float64" else "float32")
    times: dict[str, list[float]] = {name: [] for name in products}
    peak, rounds, started = 0.0, 0, time.perf_counter()
    peak_run()
    while rounds < repeat:
        peak = max(peak, peak_flops / _seconds(peak_run, 1) / 1e9)
        for name, run in products.items():
            times[name].append(_seconds(run, calls[name]))
        rounds += 1
        if rounds >= MIN_ROUNDS and time.perf_counter() - started > MAX_SECONDS:
            break
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Result(problem, medians, rounds, peak, consistent)


def _seconds(run: Callable[[], Any], calls: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def _calls(run: Callable[[], Any]) -> int:
    """How many calls make a measurement of at least MIN_SECONDS."""
    run()
    return max(1, math.ceil(MIN_SECONDS / max(_seconds(run, 1), 1e-7)))


def _matmul(dtype: str) -> tuple[Callable[[], Any], int]:
    """A square matrix product without allocation, and its number of operations."""
    n = PEAK_SIZE[dtype]
    a, b, c = (np.ones((n, n), dtype) for _ in range(3))
    return lambda: np.matmul(a, b, out=c), 2 * n**3


def _consistent(operands: Operands, y: np.ndarray, dw: np.ndarray, dx: np.ndarray) -> bool:
    """Whether the products are adjoint to each other: exact, as all operands are integers."""
    if y.dtype == np.float16:
        return True
    forward = _inner(y, operands.dy)
    return forward == _inner(dx, operands.x) == _inner(dw, operands.w)


def _inner(a: np.ndarray, b: np.ndarray) -> float:
    """Inner product in float64, slice by slice to stay small."""
    return sum(float(np.vdot(u.astype("f8"), v.astype("f8"))) for u, v in zip(a, b, strict=True))


@contextmanager
def blas_threads(n: int) -> Iterator[bool]:
    """Let NumPy's BLAS use `n` threads inside the block; False if nothing here can say so."""
    try:
        threadpoolctl = import_module("threadpoolctl")
    except ImportError:
        yield False
        return
    with threadpoolctl.threadpool_limits(n, user_api="blas"):
        yield True
