"""Gradients that are cut before the optimizer's step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.nn.checks import real_number
from fastconv.nn.optimizer import BeforeStep
from fastconv.nn.parameter import Parameter

__all__ = ["clip_gradients", "clipped", "limit"]


def limit(name: str, value: Any) -> float | None:
    """A caller's limit of gradients, checked; None where there is none."""
    if value is None:
        return None
    number = real_number(name, value, minimum=0.0)
    if not number > 0:
        raise ValueError(f"{name}: must be above 0, got {value!r}")
    return number


def clip_gradients(
    parameters: list[Parameter], clip_norm: float | None = None, clip_value: float | None = None
) -> None:
    """Cut the gradients of parameters, in place.

    Parameters
    ----------
    parameters : list of Parameter
    clip_norm : float, optional
        If the root of the sum of all squares is larger, all gradients are scaled down to it.
    clip_value : float, optional
        Elements beyond it, up or down, become it; that is done first.

    Examples
    --------
    >>> p = Parameter(np.zeros(2), "w")
    >>> p.grad[...] = [3.0, 4.0]
    >>> clip_gradients([p], clip_norm=1.0)
    >>> p.grad.tolist()
    [0.6000000000000001, 0.8]
    """
    if clip_value is not None:
        for parameter in parameters:
            np.clip(parameter.grad, -clip_value, clip_value, out=parameter.grad)
    if clip_norm is not None:
        squares = (np.square(p.grad, dtype=np.float64).sum() for p in parameters)
        norm = math.sqrt(sum(map(float, squares)))
        if norm > clip_norm:
            for parameter in parameters:
                parameter.grad *= clip_norm / norm


def clipped(optimizer: Any, clip_norm: float | None, clip_value: float | None) -> Any:
    """An optimizer that cuts the gradients first, or, without a limit, the optimizer itself."""
    if clip_norm is None and clip_value is None:
        return optimizer

    def clip() -> None:
        clip_gradients(optimizer.parameters, clip_norm, clip_value)

    return BeforeStep(optimizer, "clip", clip)
