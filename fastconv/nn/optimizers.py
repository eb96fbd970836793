"""Optimizers: they change every parameter's `value` in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastconv.nn.base import Layer, Parameter
from fastconv.nn.checks import Array, assign, quiet, real_number, shown, unit_interval
from fastconv.nn.lowering import overrides
from fastconv.nn.lowering import parameter as values_of
from fastconv.program.graph import Graph
from fastconv.program.ops.optimizers import Update, adam_scalars, sgd_scalars


class Optimizer:
    """`step()` moves the parameters against their gradients.

    Attributes
    ----------
    parameters : list of Parameter
    lr : float
        Learning rate; callbacks may change it between steps. It is part of `state()`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; for `parameters` that are not a model's, or listed twice.
    """

    _update: Update | None = None

    def __init__(
        self, parameters: Iterable[Parameter], lr: float, slots: int, settings: dict[str, Any]
    ) -> None:
        if isinstance(parameters, Layer | Parameter | str) or not isinstance(parameters, Iterable):
            raise TypeError(
                f"parameters: model.parameters() is needed, got {type(parameters).__name__}"
            )
        self.parameters = list(parameters)
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"parameters: expected Parameter objects, got {shown(parameter)}")
        if not self.parameters:
            raise ValueError("parameters: at least one is needed")
        if len({id(parameter) for parameter in self.parameters}) != len(self.parameters):
            raise ValueError("parameters: one parameter is listed twice")
        self.lr = real_number("lr", lr, minimum=0.0)
        self.settings = {"type": type(self).__name__, "lr": self.lr, **settings}
        self.steps = 0
        self._slots: list[list[Array]] = [
            [np.zeros(parameter.shape, parameter.dtype) for parameter in self.parameters]
            for _ in range(slots)
        ]

    @quiet
    def step(self) -> None:
        """Update all parameters from their gradients."""
        raise NotImplementedError

    def lower(self, graph: Graph) -> None:
        """The step as an operation of a program: by default, called back."""
        values = [graph.array(parameter.value) for parameter in self.parameters]
        grads = [graph.array(parameter.grad) for parameter in self.parameters]
        graph.python("update", lambda *_: self.step(), grads, values)

    def _lower(self, graph: Graph, name: str, scalars: Callable[[], tuple[float, ...]]) -> None:
        """The compiled step "sgd" or "adam"; its numbers are written before each run."""
        update = self._compiled(name)
        if update.copies:
            Optimizer.lower(self, graph)
            return
        pairs = [values_of(graph, found) for found in graph.setting(self, "parameters")]
        values, grads = [value for value, _ in pairs], [grad for _, grad in pairs]

        def before() -> None:
            numbers = scalars()
            update.scalars[: len(numbers)] = numbers

        def after() -> None:
            self.steps += 1

        graph.before.append(before)
        graph.after.append(after)
        graph.call("update", lambda *_: update.calls, grads, values)

    def _compiled(self, name: str) -> Update:
        """The compiled step "sgd" or "adam" over all parameters; kept until an array is another."""
        arrays = [parameter.value for parameter in self.parameters]
        arrays += [parameter.grad for parameter in self.parameters]
        for slot in self._slots:
            arrays += slot
        if self._update is None or not self._update.serves(arrays):
            n = len(self.parameters)
            self._update = Update(name, arrays[:n], arrays[n : 2 * n], self._slots)
        return self._update

    def __getstate__(self) -> dict[str, Any]:
        # A compiled step holds addresses: a pickled or copied optimizer makes its own.
        return {name: value for name, value in self.__dict__.items() if name != "_update"}

    def zero_grad(self) -> None:
        """Set all gradients to zero. Not needed between steps: `backward` overwrites them."""
        for parameter in self.parameters:
            parameter.grad[...] = 0

    def state(self) -> dict[str, Array]:
        """Copies of everything a resumed run needs: running averages, step count, learning rate."""
        state = {"lr": np.array(self.lr), "steps": np.array(self.steps, np.int64)}
        for k, slot in enumerate(self._slots):
            state |= {f"slot{k}.{i}": array.copy() for i, array in enumerate(slot)}
        return state

    def load_state(self, state: dict[str, Array]) -> None:
        """Restore what `state` returned.

        Raises
        ------
        ValueError, TypeError
            If it belongs to other parameters or another kind of optimizer; nothing is changed then.
        """
        own = self.state()
        if set(state) != set(own):
            missing, other = sorted(set(own) - set(state)), sorted(set(state) - set(own))
            raise ValueError(
                f"state: expected the entries of this optimizer's parameters; "
                f"missing {shown(missing)}, unexpected {shown(other)}"
            )
        for name, array in own.items():
            assign(array, state[name], f"state[{name!r}]")  # into the copy: checks all first
        self.lr = float(state["lr"])
        self.steps = int(state["steps"])
        for k, slot in enumerate(self._slots):
            for i, array in enumerate(slot):
                array[...] = state[f"slot{k}.{i}"]

    def __repr__(self) -> str:
        pairs = ", ".join(f"{k}={v!r}" for k, v in self.settings.items() if k != "type")
        return f"{type(self).__name__}({pairs})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    With g = grad + weight_decay * value, the step is::

        velocity = momentum * velocity + g
        value   -= lr * velocity                     (plain)
        value   -= lr * (g + momentum * velocity)    (nesterov)

    as in Sutskever et al. 2013, in the form that keeps `lr` out of the velocity.

    Parameters
    ----------
    parameters : iterable of Parameter
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
    >>> p = Parameter(np.ones(3), "w")
    >>> p.grad[...] = 2.0
    >>> SGD([p], lr=0.1).step()
    >>> p.value.tolist()
    [0.8, 0.8, 0.8]
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
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
        self._compiled("sgd").run(self._scalars())
        self.steps += 1

    def lower(self, graph: Graph) -> None:
        """The step as an operation of a program."""
        if overrides(self, SGD, "step", "_scalars"):
            super().lower(graph)
        else:
            self._lower(graph, "sgd", self._scalars)

    def _scalars(self) -> tuple[float, ...]:
        """The numbers of the next step (see `program.ops.optimizers`)."""
        if self.momentum and not self._slots:
            raise ValueError(
                f"momentum: it was 0 when the optimizer was made, got {self.momentum!r}"
            )
        return sgd_scalars(float(self.lr), self.momentum, self.nesterov, self.weight_decay)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019).

    With the step count t::

        mean   = beta1 * mean   + (1 - beta1) * grad
        square = beta2 * square + (1 - beta2) * grad**2
        value -= lr * weight_decay * value
        value -= lr * (mean / (1 - beta1**t)) / (sqrt(square / (1 - beta2**t)) + epsilon)

    Parameters
    ----------
    parameters : iterable of Parameter
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
    >>> p = Parameter(np.ones(3), "w")
    >>> p.grad[...] = 2.0
    >>> Adam([p], lr=0.1).step()
    >>> p.value.round(3).tolist()
    [0.9, 0.9, 0.9]
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
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
        self._compiled("adam").run(self._scalars())
        self.steps += 1

    def lower(self, graph: Graph) -> None:
        """The step as an operation of a program."""
        if overrides(self, Adam, "step", "_scalars"):
            super().lower(graph)
        else:
            self._lower(graph, "adam", self._scalars)

    def _scalars(self) -> tuple[float, ...]:
        """The numbers of the next step (see `program.ops.optimizers`)."""
        lr, steps = float(self.lr), self.steps + 1
        return adam_scalars(lr, self.betas, self.epsilon, self.weight_decay, steps)
