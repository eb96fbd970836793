"""Interleaved measurements, and the peak that they are a share of."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np

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
# A library whose measurement takes more than this many times as long as the longest of those that
# are compared sits out after MIN_ROUNDS; after one if a single call takes more than the time given.
SLOW = 4.0
PEAK_SIZES = (512, 768, 1024, 1536)


def measure(
    runs: Mapping[Name, Run],
    *,
    repeat: int,
    seconds: float,
    keep: Collection[Name] = (),
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
        calls[name], lengths[name] = _calls(run, clock)
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
    times = measure(runs, repeat=5, seconds=0.5)
    return min(times, key=lambda name: statistics.median(times[name]))


def _per_call(run: Run, calls: int, clock: Clock) -> float:
    """Seconds per call."""
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls


def _calls(run: Run, clock: Clock) -> tuple[int, float]:
    """How many calls make a measurement of SLOT_SECONDS, and how long one takes."""
    calls = 1
    while True:
        length = _per_call(run, calls, clock)
        wanted = min(MAX_CALLS, math.ceil(SLOT_SECONDS / max(length, 1e-9)))
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
            self._try(size)

    def _try(self, size: int) -> None:
        a, b, c = (np.ones((size, size), self._dtype) for _ in range(3))
        for _ in range(3):  # the first maps memory and wakes threads
            start = time.perf_counter()
            np.matmul(a, b, out=c)
            rate = 2e-9 * size**3 / (time.perf_counter() - start)
            if rate > self.gflops:
                self.gflops, self.size = rate, size
