"""The gradients of every function against differences of its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastconv.problems import parse_problem
from fastconv.selfcheck.score import Score
from fastconv.testing import untied

__all__ = ["check_gradients"]

STEP = 1e-6  # central differences in float64: truncation and rounding both stay below 1e-8
GRADIENT_LIMIT = 1e-6  # relative

GRADIENT_PROBLEMS = (
    "m2 h5w6c4 f6 k3x2 s2x1 p0:1x1:0 d1x2 g2 float64",
    "m2 w9c3 f4 k3 s2 psame float64",
    "m1 d3h4w4c2 f3 k2x3x2 s1 p1 float64",
)


def check_gradients(ops: Any, seed: int = 0) -> list[Score]:
    """Compare the gradients of each function with central differences, in float64.

    Parameters
    ----------
    ops : module or namespace
        What is checked: has the functions of `fastconv` by their names.
    seed : int
        Seed of the operands.

    Returns
    -------
    list of Score
        One per function; errors are relative.

    Examples
    --------
    >>> from fastconv import reference
    >>> [score.failures for score in check_gradients(reference)]
    [0, 0, 0, 0, 0]
    """
    names = ("conv", "conv_transpose", "max_pool", "avg_pool", "im2col")
    scores = {name: Score(f"gradient of {name}") for name in names}
    for number, text in enumerate(GRADIENT_PROBLEMS):
        rng = np.random.default_rng([seed, number])
        for name, forward, backward, operands in _functions(ops, text, rng):
            try:
                errors = directional_errors(forward, backward, operands, rng)
            except Exception as fault:  # a result like any other: reported as a failure
                scores[name].record_exception(text, fault)
                continue
            for argument, error in zip("xwb", errors, strict=False):
                scores[name].record(f"{text}, d{argument}", error, GRADIENT_LIMIT)
    return list(scores.values())


Arrays = Sequence[np.ndarray]
Forward = Callable[..., np.ndarray]
Backward = Callable[..., Arrays]


def _functions(
    ops: Any, text: str, rng: np.random.Generator
) -> Iterator[tuple[str, Forward, Backward, Arrays]]:
    """Each function with its backward ``(dy, *operands) -> gradients`` and random operands."""
    p = parse_problem(text)
    options = p.kwargs
    x = untied(p.x_shape, seed=int(rng.integers(2**31)))  # no ties for the maximum
    w, b = rng.normal(size=p.w_shape), rng.normal(size=p.filters)
    yield (
        "conv",
        partial(ops.conv, **options),
        lambda dy, x, w, b: ops.conv_backward(dy, x, w, **options),
        (x, w, b),
    )
    small, c = rng.normal(size=p.y_shape), rng.normal(size=p.channels)
    yield (
        "conv_transpose",
        partial(ops.conv_transpose, **options),
        lambda dy, x, w, b: ops.conv_transpose_backward(dy, x, w, **options),
        (small, w, c),
    )
    window = {"window": p.window, "stride": p.stride, "dilation": p.dilation, "padding": "same"}

    def max_pool_backward(dy: np.ndarray, x: np.ndarray) -> Arrays:
        _, argmax = ops.max_pool(x, return_argmax=True, **window)
        return (ops.max_pool_backward(dy, argmax, x.shape, **window),)

    def of_image(backward: Callable[..., np.ndarray]) -> Backward:
        return lambda dy, x: (backward(dy, x.shape, **window),)

    yield "max_pool", partial(ops.max_pool, **window), max_pool_backward, (x,)
    yield "avg_pool", partial(ops.avg_pool, **window), of_image(ops.avg_pool_backward), (x,)
    yield "im2col", partial(ops.im2col, **window), of_image(ops.col2im), (x,)


def directional_errors(
    forward: Forward, backward: Backward, operands: Arrays, rng: np.random.Generator
) -> list[float]:
    """Relative error of each gradient along one random direction.

    With a random `dy`, ``<dy, f(a + h v) - f(a - h v)> / 2h`` must equal ``<df, v>`` for each
    operand `a` with gradient `df`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a = np.ones(3)
    >>> directional_errors(np.square, lambda dy, a: [2 * a * dy], [a], rng)[0] < 1e-8
    True
    >>> directional_errors(np.square, lambda dy, a: [3 * a * dy], [a], rng)[0] > 0.1
    True
    """
    dy = rng.normal(size=forward(*operands).shape)
    errors = []
    for k, gradient in enumerate(backward(dy, *operands)):
        direction = rng.normal(size=operands[k].shape)
        sides = []
        for step in (STEP, -STEP):
            moved = [a + step * direction if i == k else a for i, a in enumerate(operands)]
            sides.append(forward(*moved))
        expected = float(np.vdot(dy, sides[0] - sides[1])) / (2 * STEP)
        found = float(np.vdot(gradient, direction))
        size = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
        errors.append(abs(found - expected) / max(size, abs(expected), 1e-300))
    return errors
