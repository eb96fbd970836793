"""Optimizers: they change every parameter's `value` in place.

All take ``model.parameters()`` or groups of parameters, dictionaries with a `weight_decay` or an
`lr` of their own; schedules move both rates by the same factor. No decay on biases and norms::

    kernels = [p for p in model.parameters() if p.value.ndim > 1]
    others = [p for p in model.parameters() if p.value.ndim <= 1]
    nn.AdamW([{"parameters": kernels}, {"parameters": others, "weight_decay": 0}], lr=1e-3)
"""

from __future__ import annotations

from typing import Any

from fastconv.nn.checks import quiet, real_number, unit_interval
from fastconv.nn.lowering import overrides
from fastconv.nn.optimizer import Optimizer, Parameters
from fastconv.program.graph import Graph
from fastconv.program.ops.optimizers import adam_scalars, rmsprop_scalars, sgd_scalars

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    With g = grad + weight_decay * value, the step is::

        velocity = momentum * velocity + g
        value   -= lr * velocity                     (plain)
        value   -= lr * (g + momentum * velocity)    (nesterov)

    as in Sutskever et al. 2013, in the form that keeps `lr` out of the velocity.

    Parameters
    ----------
    parameters : iterable of Parameter, or of dict
        Or groups: ``{"parameters": [...], "weight_decay": 0.0, "lr": ...}``.
    lr : float
        Learning rate.
    momentum : float in [0, 1)
    nesterov : bool
    weight_decay : float
        Added to the gradient as `weight_decay * value`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.nn import Parameter
    >>> p = Parameter(np.ones(3), "w")
    >>> p.grad[...] = 2.0
    >>> SGD([p], lr=0.1).step()
    >>> p.value.tolist()
    [0.8, 0.8, 0.8]
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.momentum = unit_interval("momentum", momentum)
        self.nesterov = bool(nesterov)
        self.weight_decay = real_number("weight_decay", weight_decay, minimum=0.0)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0")
        settings = {
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.weight_decay,
        }
        super().__init__(parameters, lr, 1 if self.momentum else 0, settings)

    @quiet
    def step(self) -> None:
        """Update all parameters from their gradients."""
        self._run("sgd")

    def lower(self, graph: Graph) -> None:
        """The step as an operation of a program."""
        if overrides(self, SGD, "step", "_scalars"):
            super().lower(graph)
        else:
            self._lower(graph, "sgd")

    def _scalars(self, settings: dict[str, float]) -> tuple[float, ...]:
        """The numbers of the next step (see `program.ops.optimizers`)."""
        if self.momentum and not self._slots:
            raise ValueError(
                f"momentum: it was 0 when the optimizer was made, got {self.momentum!r}"
            )
        decay = settings.get("weight_decay", self.weight_decay)
        return sgd_scalars(self._rate(settings), self.momentum, self.nesterov, decay)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019).

    With the step count t::

        mean   = beta1 * mean   + (1 - beta1) * grad
        square = beta2 * square + (1 - beta2) * grad**2
        value -= lr * weight_decay * value
        value -= lr * (mean / (1 - beta1**t)) / (sqrt(square / (1 - beta2**t)) + epsilon)

    Parameters
    ----------
    parameters : iterable of Parameter, or of dict
        Or groups: ``{"parameters": [...], "weight_decay": 0.0, "lr": ...}``.
    lr : float
        Learning rate.
    betas : (float, float)
        Shares of the old averages that a step keeps.
    epsilon : float
    weight_decay : float
        Share of each weight, times `lr`, that a step takes away.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.nn import Parameter
    >>> p = Parameter(np.ones(3), "w")
    >>> p.grad[...] = 2.0
    >>> Adam([p], lr=0.1).step()
    >>> p.value.round(3).tolist()
    [0.9, 0.9, 0.9]
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        given: Any = betas
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise ValueError(f"betas: two numbers are needed, got {betas!r}")
        self.betas = (unit_interval("betas", betas[0]), unit_interval("betas", betas[1]))
        self.epsilon = real_number("epsilon", epsilon, minimum=0.0)
        self.weight_decay = real_number("weight_decay", weight_decay, minimum=0.0)
        settings = {
            "betas": list(self.betas),
            "epsilon": self.epsilon,
            "weight_decay": self.weight_decay,
        }
        super().__init__(parameters, lr, 2, settings)

    @quiet
    def step(self) -> None:
        """Update all parameters from their gradients."""
        self._run("adam")

    def lower(self, graph: Graph) -> None:
        """The step as an operation of a program."""
        if overrides(self, Adam, "step", "_scalars"):
            super().lower(graph)
        else:
            self._lower(graph, "adam")

    def _scalars(self, settings: dict[str, float]) -> tuple[float, ...]:
        """The numbers of the next step (see `program.ops.optimizers`)."""
        lr, decay = self._rate(settings), settings.get("weight_decay", self.weight_decay)
        return adam_scalars(lr, self.betas, self.epsilon, decay, self.steps + 1)


class AdamW(Adam):
    """`Adam`, whose weight decay is decoupled already, with the decay that the name stands for.

    Parameters
    ----------
    parameters, lr, betas, epsilon
        As of :class:`Adam`.
    weight_decay : float
        Share of each weight, times `lr`, that a step takes away.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.nn import Parameter
    >>> w, b = Parameter(np.ones(3), "w"), Parameter(np.ones(3), "b")
    >>> AdamW([{"parameters": [w]}, {"parameters": [b], "weight_decay": 0}], lr=0.1).step()
    >>> w.value.tolist(), b.value.tolist()
    ([0.999, 0.999, 0.999], [1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, betas, epsilon, weight_decay)


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012), in PyTorch's form.

    With g = grad + weight_decay * value, the step is::

        square   = alpha * square + (1 - alpha) * g**2
        move     = g / (sqrt(square) + epsilon)
        velocity = momentum * velocity + move        (with momentum: move = velocity)
        value   -= lr * move

    Parameters
    ----------
    parameters : iterable of Parameter, or of dict
        Or groups: ``{"parameters": [...], "weight_decay": 0.0, "lr": ...}``.
    lr : float
        Learning rate.
    alpha : float in [0, 1)
        Share of the old average that a step keeps; Keras calls it rho.
    epsilon : float
    momentum : float in [0, 1)
    weight_decay : float
        Added to the gradient as `weight_decay * value`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.nn import Parameter
    >>> p = Parameter(np.ones(3), "w")
    >>> p.grad[...] = 2.0
    >>> RMSprop([p], lr=0.1, alpha=0.75).step()
    >>> p.value.round(3).tolist()  # 0.1 * 2 / sqrt(0.25 * 4)
    [0.8, 0.8, 0.8]
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 0.01,
        alpha: float = 0.99,
        epsilon: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.alpha = unit_interval("alpha", alpha)
        self.epsilon = real_number("epsilon", epsilon, minimum=0.0)
        self.momentum = unit_interval("momentum", momentum)
        self.weight_decay = real_number("weight_decay", weight_decay, minimum=0.0)
        settings = {
            "alpha": self.alpha,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
        }
        super().__init__(parameters, lr, 2 if self.momentum else 1, settings)

    @quiet
    def step(self) -> None:
        """Update all parameters from their gradients."""
        self._run("rmsprop")

    def lower(self, graph: Graph) -> None:
        """The step as an operation of a program."""
        if overrides(self, RMSprop, "step", "_scalars"):
            super().lower(graph)
        else:
            self._lower(graph, "rmsprop")

    def _scalars(self, settings: dict[str, float]) -> tuple[float, ...]:
        """The numbers of the next step (see `program.ops.optimizers`)."""
        if self.momentum and len(self._slots) < 2:
            raise ValueError(
                f"momentum: it was 0 when the optimizer was made, got {self.momentum!r}"
            )
        lr, decay = self._rate(settings), settings.get("weight_decay", self.weight_decay)
        return rmsprop_scalars(lr, self.alpha, self.epsilon, self.momentum, decay)
