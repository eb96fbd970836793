"""How things are timed here: in turn, several calls at a time, beside the best matrix product."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

import numpy as np

from fastconv.plans.conv import plan_conv
from fastconv.problems.problem import Operands, Problem

__all__ = ["Peak", "Result", "blas_threads", "fastest", "in_turn", "measure"]

Run = Callable[[], Any]
Clock = Callable[[], float]
Name = TypeVar("Name", bound=Hashable)

# A measurement takes at least this long, and three times as long is spent on untimed calls before
# it: idle threads of OpenMP and ONNX Runtime spin for 4 to 7 ms after a call (longer where they get
# half a core) and take a core from whoever comes next, and the caches hold another's operands.
SLOT_SECONDS = 5e-3
UNTIMED_SLOTS = 3
# Calls that take longer than this need no such start.
LONG_SECONDS = 50e-3
MIN_ROUNDS = 3
MAX_CALLS = 100_000
# One whose measurement takes more than this many times as long as the longest of those that are
# compared sits out after MIN_ROUNDS; after one if a single call takes more than the time given.
SLOW = 4.0
PEAK_SIZES = (512, 768, 1024, 1536)
# Of one problem: it is alone with numpy.matmul, and nothing spins.
PROBLEM_SLOT = 1e-3
PROBLEM_SECONDS = 10.0
PROBLEM_PEAK = (1024,)


def in_turn(
    runs: Mapping[Name, Run],
    *,
    repeat: int,
    seconds: float,
    keep: Collection[Name] = (),
    slot: float = SLOT_SECONDS,
    clock: Clock = time.perf_counter,
) -> dict[Name, list[float]]:
    """Time several functions in turn: A B C A B C ...

    Parameters
    ----------
    runs : mapping of str to callable
        In the order in which they take turns. They have run once already.
    repeat : int
        At most so many rounds, each of which measures every function once.
    seconds : float
        No round begins later than this, after the first MIN_ROUNDS.
    keep : collection of str
        The functions that are compared: they take part in every round, however slow.
    slot : float
        Seconds that a measurement takes at least, where a call is shorter.
    clock : callable
        Seconds.

    Returns
    -------
    dict of str to list of float
        Seconds per call, one figure a round.
    """
    started = clock()
    calls, lengths = {}, {}
    for name, run in runs.items():
        calls[name], lengths[name] = _calls(run, slot, clock)
    compared = [lengths[name] * calls[name] for name in runs if name in keep]
    limit = SLOW * max(compared, default=math.inf)
    # A long call that told how long it takes was a measurement.
    times = {name: [lengths[name]] if lengths[name] >= LONG_SECONDS else [] for name in runs}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(repeat):
            if number >= MIN_ROUNDS and clock() - started > seconds:
                break
            for name, run in runs.items():
                slow = lengths[name] * calls[name] > limit and name not in keep
                rounds = 1 if lengths[name] > seconds else MIN_ROUNDS
                if len(times[name]) > number or (slow and number >= rounds):
                    continue
                if lengths[name] < LONG_SECONDS:
                    _per_call(run, UNTIMED_SLOTS * calls[name], clock)
                times[name].append(_per_call(run, calls[name], clock))
    finally:
        if collecting:
            gc.enable()
    return times


def fastest(runs: Mapping[Name, Run]) -> Name:
    """Name of the function that takes the least time, found in half a second or three rounds."""
    for run in runs.values():
        run()
    times = in_turn(runs, repeat=5, seconds=0.5)
    return min(times, key=lambda name: statistics.median(times[name]))


def _per_call(run: Run, calls: int, clock: Clock) -> float:
    """Seconds per call."""
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls


def _calls(run: Run, slot: float, clock: Clock) -> tuple[int, float]:
    """How many calls make a measurement of `slot` seconds, and how long one takes."""
    calls = 1
    while True:
        length = _per_call(run, calls, clock)
        wanted = min(MAX_CALLS, math.ceil(slot / max(length, 1e-9)))
        if wanted <= 2 * calls:  # the estimate was long enough to be trusted
            return max(1, wanted), length
        calls = wanted


class Peak:
    """Best rate of numpy.matmul in one dtype, at the number of threads that BLAS has now.

    Attributes
    ----------
    gflops : float
        The best so far, in GFLOP/s.
    size : int
        The size of square matrices at which it was reached.
    """

    def __init__(self, dtype: str, sizes: Collection[int] = PEAK_SIZES) -> None:
        self.gflops = 0.0
        self.size = 0
        self._dtype = dtype
        self._sizes = tuple(sizes)
        self.again()

    def again(self) -> None:
        """Measure once more: another row, another moment."""
        for size in self._sizes:
            a, b, c = (np.ones((size, size), self._dtype) for _ in range(3))
            for _ in range(3):  # the first maps memory and wakes threads
                start = time.perf_counter()
                np.matmul(a, b, out=c)
                rate = 2e-9 * size**3 / (time.perf_counter() - start)
                if rate > self.gflops:
                    self.gflops, self.size = rate, size


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
        Best rate of numpy.matmul before and after them, in GFLOP/s.
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
        return _peak_dtype(self.problem)

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
    """Time forward, kernel gradient and input gradient, in turn, between two runs of numpy.matmul.

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
    products: dict[str, Run] = {
        "forward": lambda: plan.forward(x, w, out=y),
        "kernel grad": lambda: plan.kernel_grad(x, dy, out=dw),
        "input grad": lambda: plan.input_grad(dy, w, out=dx),
    }
    for run in products.values():
        run()  # compiles and warms up, too
    consistent = _consistent(operands, y, dw, dx)
    peak = Peak(_peak_dtype(problem), PROBLEM_PEAK)
    times = in_turn(
        products, repeat=repeat, seconds=PROBLEM_SECONDS, keep=products, slot=PROBLEM_SLOT
    )
    peak.again()
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Result(problem, medians, len(times["forward"]), peak.gflops, consistent)


def _peak_dtype(problem: Problem) -> str:
    return "float64" if problem.dtype == "float64" else "float32"


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
