"""Arrays that lie flush against unreadable pages: nothing is read or written outside an array."""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fastconv.problems import Problem, parse_problem
from fastconv.selfcheck.deep import Tick
from fastconv.selfcheck.functions import CHECKS, difference, error_of
from fastconv.selfcheck.score import Score
from fastconv.selfcheck.trials import Trial

__all__ = ["Guarded", "check_guard", "guard_problems", "with_out"]

# Just below, at and above multiples of every vector width.
CHANNELS = (1, 2, 3, 13, 19, 20, 21, 23, 24, 25, 27, 28, 29, 31, 33, 65, 4, 8, 9, 16, 17, 32)
WIDTHS = range(1, 18)
NO_ACCESS = 0


class Guarded:
    """Makes arrays between two pages that no one may touch. They live as long as this object.

    Examples
    --------
    >>> guarded = Guarded(end=True)
    >>> guarded.copy(np.arange(3.0))
    array([0., 1., 2.])
    """

    def __init__(self, end: bool) -> None:
        self.end = end
        self._protect = ctypes.CDLL(None, use_errno=True).mprotect
        self._kept: list[mmap.mmap] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array full of NaN whose last byte, or else its first, is next to the page."""
        dtype = np.dtype(dtype)
        nbytes, page = math.prod(shape) * dtype.itemsize, mmap.PAGESIZE
        room = max(-(-nbytes // page), 1) * page
        memory = mmap.mmap(-1, room + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for address in (start, start + page + room):
            if self._protect(ctypes.c_void_p(address), page, NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")
        self._kept.append(memory)
        offset = page + (room - nbytes if self.end else 0)
        array = np.ndarray(shape, dtype, memory, offset)
        array[...] = np.nan if dtype.kind == "f" else -1
        return array

    def copy(self, array: np.ndarray) -> np.ndarray:
        """A copy of `array` next to the page."""
        made = self.empty(array.shape, array.dtype)
        made[...] = array
        return made


def guard_problems() -> list[Problem]:
    """All channel counts of CHANNELS with all output widths of WIDTHS; the rest changes along.

    Then small kernels on many pixels, whose gradient takes rows by twos.
    """
    problems = []
    for i, c in enumerate(CHANNELS):
        for width in WIDTHS:
            f = CHANNELS[(i + width) % len(CHANNELS)]
            words = (
                (f"w{width + 1}c{c} h2", f"f{f} k2x2 s1 p0"),
                (f"w{width}c{c} h3", f"f{f} k3x3 s1 p1"),
                (f"w{2 * width}c{c} h3", f"f{c} k3x3 s2 p1 g{c}"),
                (f"w{width}c{c} h2", f"f{f} k1x1 s1 p0"),
            )[(i + width) % 4]
            (first, h), rest = words[0].split(), words[1]
            problems.append(parse_problem(f"m2 {h}{first} {rest}"))
    few = itertools.product((1, 2, 3, 4, 5), (1, 3, 8))
    return problems + [parse_problem(f"m32 h9w9c{c} f{f} k3x3 s1 p0") for c, f in few]


def with_out(ops: Any, t: Trial) -> Iterator[tuple[str, Callable[..., Any], list[np.ndarray]]]:
    """For every function with `out`: its name, a call that takes one, and plain results."""
    y, argmax = ops.max_pool(t.x, t.window, return_argmax=True, **t.pool_options)
    shape, conv, pool, average = t.x.shape, t.conv_options, t.pool_options, t.average_options
    up = ops.conv_transpose(t.dy, t.w, **t.transpose_options)
    calls = {
        "conv": partial(ops.conv, t.x, t.w, t.b, **conv),
        "conv_input_grad": partial(ops.conv_input_grad, t.dy, t.w, shape, **conv),
        "conv_kernel_grad": partial(ops.conv_kernel_grad, t.x, t.dy, t.w.shape, **conv),
        "conv_backward": partial(ops.conv_backward, t.dy, t.x, t.w, **conv),
        "conv_transpose": partial(ops.conv_transpose, t.dy, t.w, **t.transpose_options),
        "conv_transpose_backward": partial(
            ops.conv_transpose_backward, up, t.dy, t.w, **t.transpose_options
        ),
        "max_pool": partial(ops.max_pool, t.x, t.window, **pool),
        "max_pool_backward": partial(ops.max_pool_backward, y, argmax, shape, t.window, **pool),
        "avg_pool": partial(ops.avg_pool, t.x, t.window, **average),
        "avg_pool_backward": partial(ops.avg_pool_backward, y, shape, t.window, **average),
        "relu_backward": partial(ops.relu_backward, t.x, t.x),
    }
    for name, call in calls.items():
        plain = call()
        yield name, call, list(plain) if isinstance(plain, tuple) else [plain]


def check_guard(ops: Any, seed: int, count: int, tick: Tick) -> list[Score]:
    """`count` problems, operands and results before and behind unreadable pages.

    Results are compared with those of plain arrays. An access outside an array is a signal that
    ends the process.
    """
    score = Score("guard pages")
    if sys.platform == "win32":  # no mprotect
        return [score]
    problems = guard_problems()
    order = np.random.default_rng(seed).permutation(len(problems))[:count]
    for number, i in enumerate(order):
        for end in (False, True):
            dtype = ("float32", "float64")[(number + end) % 2]
            trial = Trial(problems[i], seed + number, dtype)
            try:
                _check(ops, trial, Guarded(end), score)
            except Exception as fault:  # a result like any other: reported as a failure
                score.record_exception(str(trial), fault)
        tick(number + 1, len(order))
    return [score]


def _check(ops: Any, trial: Trial, guarded: Guarded, score: Score) -> None:
    dtype = np.dtype(trial.dtype)
    expected = {name: run(ops, trial) for name, run in CHECKS.items()}
    for name in ("x", "w", "b", "dy"):
        setattr(trial, name, guarded.copy(getattr(trial, name)))
    for name, run in CHECKS.items():
        score.record(f"{name}, {trial}", error_of(run, ops, trial, expected[name]))
    for name, call, plain in with_out(ops, trial):
        outs = [guarded.empty(a.shape, a.dtype) for a in plain]
        call(out=tuple(outs) if len(outs) > 1 else outs[0])
        score.record(f"{name} with out, {trial}", difference(outs, plain, dtype))
