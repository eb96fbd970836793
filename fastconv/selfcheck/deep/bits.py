"""Every function on random geometries: the naive loops' bits in any layout, on any threads."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fastconv import reference
from fastconv.selfcheck.deep import Tick
from fastconv.selfcheck.deep.layouts import INPUT_LAYOUTS, arranged
from fastconv.selfcheck.functions import CHECKS, DATA_FORMATS, DTYPES, error_of
from fastconv.selfcheck.score import Score
from fastconv.selfcheck.trials import Trial, random_problem

__all__ = ["check_bits"]

THREADS = (1, 2, 3, 7)


def check_bits(ops: Any, seed: int, count: int, tick: Tick) -> list[Score]:
    """Compare with the naive loops; every problem in as many variants as there are layouts.

    Examples
    --------
    >>> check_bits(reference, 0, 1, lambda done, total: None)[0].failures
    0
    """
    import fastconv

    score = Score("layouts and threads")
    rng = np.random.default_rng(seed)
    for number in range(count):
        problem = random_problem(rng)
        naive = Trial(problem, seed + number)
        expected = {name: run(reference, naive) for name, run in CHECKS.items()}
        for variant, layout in enumerate(INPUT_LAYOUTS):
            turn = number + variant
            trial = _trial(problem, seed + number, turn, layout)
            threads = THREADS[turn % 4]
            with fastconv.num_threads(threads):
                for name, run in CHECKS.items():
                    case = f"{name}, {trial}, {layout}, {threads} threads"
                    score.attempt(case, partial(error_of, run, ops, trial, expected[name]))
        tick(number + 1, count)
    return [score]


def _trial(problem: Any, seed: int, turn: int, layout: str) -> Trial:
    """The problem in a dtype and data format that change with `turn`, its operands laid out."""
    trial = Trial(problem, seed, DTYPES[turn % 3], DATA_FORMATS[turn // 3 % 2])
    for name in ("x", "w", "b", "dy"):
        setattr(trial, name, arranged(getattr(trial, name), layout)[0])
    return trial
