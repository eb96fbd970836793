"""Every function against the naive loops, exactly, on integers.

Operands are small integers, so that every sum is exact in every dtype and order of summation: the
fast result must equal that of the naive loops bit for bit. Averages divide, so what is averaged
or spread is a multiple of 216, which every number of window cells that occurs here divides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from fastconv import reference
from fastconv.problems import Problem
from fastconv.selfcheck.score import Score
from fastconv.selfcheck.trials import AVERAGE_STEP, Trial

__all__ = ["CHECKS", "DATA_FORMATS", "DTYPES", "check_ops", "difference", "error_of"]

DTYPES = ("float32", "float64", "float16")
DATA_FORMATS = ("channels_last", "channels_first")
Results = list[np.ndarray]
Run = Callable[[Any, Trial], Results]


def _conv(ops: Any, t: Trial) -> Results:
    return [t.back(ops.conv(t.x, t.w, t.b, **t.conv_options))]


def _conv_relu(ops: Any, t: Trial) -> Results:
    return [t.back(ops.conv(t.x, t.w, t.b, activation="relu", **t.conv_options))]


def _conv_input_grad(ops: Any, t: Trial) -> Results:
    return [t.back(ops.conv_input_grad(t.dy, t.w, t.x.shape, **t.conv_options))]


def _conv_kernel_grad(ops: Any, t: Trial) -> Results:
    return [ops.conv_kernel_grad(t.x, t.dy, t.w.shape, **t.conv_options)]


def _conv_backward(ops: Any, t: Trial) -> Results:
    dx, dw, db = ops.conv_backward(t.dy, t.x, t.w, **t.conv_options)
    return [t.back(dx), dw, db]


def _plan_conv(ops: Any, t: Trial) -> Results:
    """A plan that writes into arrays full of NaN, so that an unwritten element shows."""
    if not hasattr(ops, "plan_conv"):  # the naive loops have no plans
        return _conv(ops, t) + _conv_backward(ops, t)[:2]
    plan = ops.plan_conv(t.x.shape, t.w.shape, t.dtype, **t.conv_options)
    y, dx, dw = (np.full(a.shape, np.nan, t.dtype) for a in (t.dy, t.x, t.w))
    plan.forward(t.x, t.w, t.b, out=y)
    plan.input_grad(t.dy, t.w, out=dx)
    plan.kernel_grad(t.x, t.dy, out=dw)
    return [t.back(y), t.back(dx), dw]


def _conv_transpose(ops: Any, t: Trial) -> Results:
    """The transposed convolution from the problem's output back to its input."""
    b = np.arange(t.problem.channels).astype(t.dtype)
    return [t.back(ops.conv_transpose(t.dy, t.w, b, **t.transpose_options))]


def _conv_transpose_backward(ops: Any, t: Trial) -> Results:
    y = ops.conv_transpose(t.dy, t.w, **t.transpose_options)
    dx, dw, db = ops.conv_transpose_backward(t.like(y), t.dy, t.w, **t.transpose_options)
    return [t.back(dx), dw, db]


def _max_pool(ops: Any, t: Trial) -> Results:
    y, argmax = ops.max_pool(t.x, t.window, return_argmax=True, **t.pool_options)
    alone = ops.max_pool(t.x, t.window, **t.pool_options)
    return [t.back(y), t.back(argmax), t.back(alone)]


def _max_pool_backward(ops: Any, t: Trial) -> Results:
    y, argmax = ops.max_pool(t.x, t.window, return_argmax=True, **t.pool_options)
    dx = ops.max_pool_backward(t.like(y), argmax, t.x.shape, t.window, **t.pool_options)
    return [t.back(dx)]


def _avg_pool(ops: Any, t: Trial) -> Results:
    x = t.integers(t.problem.x_shape, AVERAGE_STEP)
    return [t.back(ops.avg_pool(x, t.window, **t.average_options))]


def _avg_pool_backward(ops: Any, t: Trial) -> Results:
    y = ops.avg_pool(t.x, t.window, **t.average_options)
    dy = t.like(y, AVERAGE_STEP)
    return [t.back(ops.avg_pool_backward(dy, t.x.shape, t.window, **t.average_options))]


def _im2col(ops: Any, t: Trial) -> Results:
    return [ops.im2col(t.x, t.problem.window, **t.window_options)]


def _col2im(ops: Any, t: Trial) -> Results:
    p = t.problem
    columns = int(np.prod(p.window)) * p.channels
    shape = (*p.y_shape[:-1], columns)  # channels last in both data formats
    cols = Trial(p, t.seed, t.dtype).integers(shape)
    return [t.back(ops.col2im(cols, t.x.shape, p.window, **t.window_options))]


CHECKS: dict[str, Run] = {
    "conv": _conv,
    "conv + ReLU": _conv_relu,
    "conv_input_grad": _conv_input_grad,
    "conv_kernel_grad": _conv_kernel_grad,
    "conv_backward": _conv_backward,
    "plan_conv": _plan_conv,
    "conv_transpose": _conv_transpose,
    "conv_transpose_backward": _conv_transpose_backward,
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "avg_pool": _avg_pool,
    "avg_pool_backward": _avg_pool_backward,
    "im2col": _im2col,
    "col2im": _col2im,
}


def check_ops(
    ops: Any,
    problems: Iterable[Problem],
    seed: int = 0,
    *,
    dtypes: Iterable[str] = DTYPES,
    on_problem: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Compare functions with the naive loops, in all dtypes and both data formats.

    Parameters
    ----------
    ops : module or namespace
        What is checked: has the functions of `fastconv` by their names.
    problems : iterable of Problem
        The geometries; pools, im2col and col2im use them too.
    seed : int
        Seed of the operands.
    dtypes : iterable of str
        Which dtypes to check.
    on_problem : callable
        Called after each problem, for progress.

    Returns
    -------
    list of Score
        One per function, in the order of `CHECKS`.

    Examples
    --------
    >>> from fastconv.problems import parse_problem
    >>> scores = check_ops(reference, [parse_problem("m1 h4w4c1 f1 k3")])
    >>> sum(score.failures for score in scores)
    0
    """
    scores = {name: Score(name) for name in CHECKS}
    chosen = tuple(dtypes)
    for number, problem in enumerate(problems):
        naive = Trial(problem, seed + number)
        trials = [Trial(problem, seed + number, dt, df) for dt in chosen for df in DATA_FORMATS]
        for name, run in CHECKS.items():
            expected = run(reference, naive)
            for trial in trials:
                scores[name].attempt(str(trial), partial(error_of, run, ops, trial, expected))
        on_problem()
    return list(scores.values())


def error_of(run: Run, ops: Any, trial: Trial, expected: Results) -> float:
    """How far what an entry of `CHECKS` gives is from what it should."""
    return difference(run(ops, trial), expected, np.dtype(trial.dtype))


def difference(found: Results, expected: Results, dtype: np.dtype) -> float:
    """Largest absolute difference of results; infinite where shape or dtype is wrong.

    Exact float64 results are rounded to `dtype` first; indices are compared as they are.

    Examples
    --------
    >>> difference([np.float32([1, 2])], [np.array([1.0, 4.0])], np.dtype("float32"))
    2.0
    """
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        wanted = b if b.dtype.kind == "i" else _rounded(b, dtype)
        if a.shape != wanted.shape or a.dtype != wanted.dtype:
            return float("inf")
        if not np.array_equal(a, wanted):
            gap = np.abs(a.astype(np.float64) - wanted.astype(np.float64)).max()
            worst = max(worst, float(gap)) if gap == gap else float("inf")
    return worst


def _rounded(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):  # float16 ends at 65504: infinite on both sides
        return array.astype(dtype)
