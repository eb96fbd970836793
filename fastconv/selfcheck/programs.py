"""A part of ``fastconv check``: networks run as programs, against their layers' own passes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.selfcheck.models import models
from fastconv.selfcheck.score import Score

__all__ = ["check_programs"]

STEPS = 3
THREADS = (1, 2, 3)


def check_programs(seed: int = 0, plan: Callable[..., Any] | None = None) -> list[Score]:
    """Compare training steps and inference as programs with the plain layers, bit for bit.

    Parameters
    ----------
    seed : int
        Seed of images and labels.
    plan : callable, optional
        What is checked instead of `fastconv.nn.plan_step`.

    Returns
    -------
    list of Score
        One; its errors are absolute, and each must be 0.
    """
    import fastconv
    from fastconv import nn

    score = Score("programs")
    for name, (model, side) in _networks().items():
        for count in THREADS:
            with fastconv.num_threads(count):
                try:
                    _check(score, f"{name}, {count} threads", model, side, seed,
                           plan or nn.plan_step)  # fmt: skip
                except Exception as fault:  # a result like any other: reported as a failure
                    score.record_exception(name, fault)
    return [score]


def _networks() -> dict[str, tuple[Any, int]]:
    """Models by name, with the side of their images: the examples, and one of the other layers."""
    found = {
        name: (build(ops=None), 16 if name.startswith("two") else 8)
        for name, build in models().items()
    }
    return found | {"residual network": (_residual(), 8)}


def _residual() -> Any:
    """Layers that the examples do not have, in float32."""
    from fastconv import nn

    body = nn.Sequential(nn.Conv(16, 16, 3, padding=1, rng=1), nn.BatchNorm(16))
    return nn.Sequential(
        nn.Conv(1, 16, 3, padding=1, rng=0), nn.BatchNorm(16), nn.ReLU(), nn.Residual(body),
        nn.ReLU(), nn.Dropout(0.25, seed=0), nn.ConvTranspose(16, 8, 2, stride=2, rng=2), nn.Tanh(),
        nn.AvgPool(3, stride=2, padding=1), nn.GlobalAvgPool(), nn.Dense(8, 4, rng=3),
    )  # fmt: skip


def _check(
    score: Score, case: str, model: Any, side: int, seed: int, plan: Callable[..., Any]
) -> None:
    """Some steps of two copies of a model, one as a program, and what they predict then."""
    from fastconv import nn

    model, twin = copy.deepcopy(model), copy.deepcopy(model)
    dtype = model.parameters()[0].dtype
    rng = np.random.default_rng(seed)
    outputs = model.infer(np.zeros((1, side, side, 1), dtype)).shape[1]
    make = nn.BinaryCrossEntropy if outputs == 1 else nn.SoftmaxCrossEntropy
    loss, twin_loss = make(), make()
    optimizer, twin_optimizer = nn.Adam(model.parameters()), nn.Adam(twin.parameters())
    step = plan(model, loss, optimizer, (16, side, side, 1))
    for number in range(STEPS):
        x = rng.normal(size=(16 - number, side, side, 1)).astype(dtype)
        y = rng.integers(0, max(outputs, 2), len(x))
        value, z = step(x, y)
        right_z = twin.forward(x)
        right = twin_loss.forward(right_z, y)
        twin.backward_parameters(twin_loss.backward())
        twin_optimizer.step()
        score.record(f"{case}, step {number}: loss", _error(np.array(value), np.array(right)))
        score.record(f"{case}, step {number}: z", _error(z, right_z))
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            score.record(f"{case}, step {number}: gradient of {a.name}", _error(a.grad, b.grad))
            score.record(f"{case}, step {number}: {a.name}", _error(a.value, b.value))
    run = model.plan_inference(x.shape)
    score.record(f"{case}, inference", _error(run(x), twin.infer(x)))


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    """0 where all bits are equal, else the largest difference, and at least the least number.

    Examples
    --------
    >>> _error(np.array([1.0, 4.0]), np.array([1.0, 5.0]))
    1.0
    >>> _error(np.array([0.0]), np.array([-0.0])) > 0
    True
    """
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return math.inf
    if found.tobytes() == wanted.tobytes():
        return 0.0
    return max(float(np.abs(found - wanted).max()), 5e-324)
