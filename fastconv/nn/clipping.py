"""Gradients that are cut before the optimizer's step."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from fastconv.nn.checks import quiet, real_number
from fastconv.nn.optimizer import Optimizer
from fastconv.nn.parameter import Parameter
from fastconv.program.graph import Graph

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
    return _Clipped(optimizer, clip_norm, clip_value)


class _Clipped:
    """What `fit` steps with: the user's optimizer, behind the cutting."""

    def __init__(self, optimizer: Any, clip_norm: float | None, clip_value: float | None) -> None:
        self.optimizer = optimizer
        self._clip = partial(clip_gradients, clip_norm=clip_norm, clip_value=clip_value)

    @property
    def parameters(self) -> list[Parameter]:
        """Those of the optimizer."""
        found: list[Parameter] = self.optimizer.parameters
        return found

    @quiet
    def step(self) -> None:
        """Cut, then update."""
        self._clip(self.parameters)
        self.optimizer.step()

    def lower(self, graph: Graph) -> None:
        """The same as operations of a program: the cutting is called back."""
        graph.setting(self.optimizer, "step")
        grads = [graph.array(p.grad) for p in graph.setting(self.optimizer, "parameters")]
        graph.python("clip", lambda *_: self._clip(self.parameters), grads, grads)
        getattr(self.optimizer, "lower", partial(Optimizer.lower, self.optimizer))(graph)
