"""What optimizers share: parameters and their groups, the compiled step, state for checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from fastconv.nn.base import Layer, Parameter
from fastconv.nn.checks import Array, assign, quiet, real_number, shown
from fastconv.nn.lowering import parameter as values_of
from fastconv.program.graph import Graph
from fastconv.program.ops.optimizers import Update

__all__ = ["BeforeStep", "Group", "Optimizer", "Parameters"]

# What optimizers take: a model's parameters, or groups of them with settings of their own.
Parameters: TypeAlias = Iterable[Parameter | dict[str, Any]]
OF_GROUPS = ("lr", "weight_decay")


@dataclass(frozen=True, eq=False)
class Group:
    """Parameters that move with settings of their own.

    Attributes
    ----------
    parameters : tuple of Parameter
    settings : dict of str to float
        Those that are not the optimizer's: ``lr``, ``weight_decay``.
    """

    parameters: tuple[Parameter, ...]
    settings: dict[str, float] = field(default_factory=dict)


class Optimizer:
    """`step()` moves the parameters against their gradients.

    Attributes
    ----------
    parameters : list of Parameter
    groups : tuple of Group
        Those that it was made with; empty without.
    lr : float
        Learning rate; callbacks may change it between steps. It is part of `state()`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; for `parameters` that are not a model's, or listed twice.
    """

    _update: list[Update] | None = None
    groups: tuple[Group, ...] = ()

    def __init__(
        self, parameters: Parameters, lr: float, slots: int, settings: dict[str, Any]
    ) -> None:
        if isinstance(parameters, Layer | Parameter | str | dict) or not isinstance(
            parameters, Iterable
        ):
            raise TypeError(
                f"parameters: model.parameters() is needed, got {type(parameters).__name__}"
            )
        given: list[Any] = list(parameters)
        if any(isinstance(item, dict) for item in given):
            self.groups = tuple(_group(item, i) for i, item in enumerate(given))
            given = [parameter for group in self.groups for parameter in group.parameters]
        _check_parameters(given)
        self.parameters: list[Parameter] = given
        self.lr = real_number("lr", lr, minimum=0.0)
        self.settings = {"type": type(self).__name__, "lr": self.lr, **settings}
        if self.lr == 0 and any("lr" in group.settings for group in self.groups):
            raise ValueError("lr: must be above 0 where a group has an lr of its own")
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

    # The compiled step --------------------------------------------------------------------------

    def _scalars(self, settings: dict[str, float]) -> tuple[float, ...]:
        """The numbers of the next step for parameters with these settings of their own."""
        raise NotImplementedError

    def _rate(self, settings: dict[str, float]) -> float:
        """Learning rate of a group: its ratio to the optimizer's stays what it was."""
        if "lr" not in settings:
            return float(self.lr)
        rate: float = settings["lr"] * (float(self.lr) / self.settings["lr"])
        return rate

    def _parts(self) -> list[tuple[slice, dict[str, float]]]:
        """Which of the parameters move with which settings of their own."""
        if not self.groups:
            return [(slice(0, len(self.parameters)), {})]
        found, start = [], 0
        for group in self.groups:
            end = start + len(group.parameters)
            found.append((slice(start, end), group.settings))
            start = end
        return [part for part in found if part[0].start < part[0].stop]

    def _run(self, name: str) -> None:
        """Make the compiled step "sgd", "adam" or "rmsprop"."""
        updates = self._compiled(name)
        numbers = [self._scalars(settings) for _, settings in self._parts()]
        for update, scalars in zip(updates, numbers, strict=True):
            update.run(scalars)
        self.steps += 1

    def _lower(self, graph: Graph, name: str) -> None:
        """The compiled step as operations; its numbers are written before each run."""
        updates, parts = self._compiled(name), self._parts()
        if any(update.copies for update in updates):
            Optimizer.lower(self, graph)
            return
        graph.setting(self, "groups")
        pairs = [values_of(graph, found) for found in graph.setting(self, "parameters")]

        def before() -> None:
            for update, (_, settings) in zip(updates, parts, strict=True):
                numbers = self._scalars(settings)
                update.scalars[: len(numbers)] = numbers

        def after() -> None:
            self.steps += 1

        graph.before.append(before)
        graph.after.append(after)
        for update, (chosen, _) in zip(updates, parts, strict=True):
            values, grads = zip(*pairs[chosen], strict=True)
            graph.call("update", _calls_of(update), grads, values)

    def _compiled(self, name: str) -> list[Update]:
        """The compiled step of each part; kept until an array is another."""
        parts = self._parts()
        arrays = [self._arrays(chosen) for chosen, _ in parts]
        kept = self._update or []
        if len(kept) != len(parts) or not all(map(Update.serves, kept, arrays)):
            self._update = []
            for chosen, _ in parts:
                found = self.parameters[chosen]
                self._update.append(
                    Update(
                        name,
                        [parameter.value for parameter in found],
                        [parameter.grad for parameter in found],
                        [slot[chosen] for slot in self._slots],
                        first=chosen.start,
                    )
                )
            kept = self._update
        return kept

    def _arrays(self, chosen: slice) -> list[Array]:
        found = self.parameters[chosen]
        arrays = [parameter.value for parameter in found] + [parameter.grad for parameter in found]
        for slot in self._slots:
            arrays += slot[chosen]
        return arrays

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
        found = {k: v for k, v in self.settings.items() if k != "type"}
        if self.groups:
            found["groups"] = [len(group.parameters) for group in self.groups]
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in found.items())})"


def _group(given: Any, i: int) -> Group:
    """A group of parameters that a caller wrote as a dictionary."""
    if not isinstance(given, dict):
        raise TypeError(
            f"parameters[{i}]: a dictionary is needed, as the others are, got {shown(given)}"
        )
    settings = dict(given)
    if "parameters" not in settings:
        raise ValueError(
            f"parameters[{i}]: the key 'parameters' is needed, got {shown(list(given))}"
        )
    found = settings.pop("parameters")
    if isinstance(found, Layer | Parameter | str | dict) or not isinstance(found, Iterable):
        raise TypeError(
            f"parameters[{i}]['parameters']: a list of parameters is needed, got {shown(found)}"
        )
    for name, value in settings.items():
        if name not in OF_GROUPS:
            raise ValueError(
                f"parameters[{i}]: a group may have {' and '.join(OF_GROUPS)} of its own, "
                f"got {name!r}"
            )
        settings[name] = real_number(f"parameters[{i}][{name!r}]", value, minimum=0.0)
    return Group(tuple(found), settings)


def _check_parameters(found: Sequence[Any]) -> None:
    for parameter in found:
        if not isinstance(parameter, Parameter):
            raise TypeError(f"parameters: expected Parameter objects, got {shown(parameter)}")
    if not found:
        raise ValueError("parameters: at least one is needed")
    if len({id(parameter) for parameter in found}) != len(found):
        raise ValueError("parameters: one parameter is listed twice")


def _calls_of(update: Update) -> Callable[..., Sequence[Any]]:
    return lambda *_: update.calls


class BeforeStep:
    """An optimizer behind something that is done with the gradients before each of its steps.

    Parameters
    ----------
    optimizer : Optimizer
        The user's.
    name : str
        What that is called in a program, which calls it back.
    work : callable
        Changes the gradients in place.
    """

    def __init__(self, optimizer: Any, name: str, work: Callable[[], None]) -> None:
        self.optimizer, self._name, self._work = optimizer, name, work

    @property
    def parameters(self) -> list[Parameter]:
        """Those of the optimizer."""
        found: list[Parameter] = self.optimizer.parameters
        return found

    @quiet
    def step(self) -> None:
        """Do it, then update."""
        self._work()
        self.optimizer.step()

    def lower(self, graph: Graph) -> None:
        """The same as operations of a program."""
        graph.setting(self.optimizer, "step")
        grads = [graph.array(p.grad) for p in graph.setting(self.optimizer, "parameters")]
        graph.python(self._name, lambda *_: self._work(), grads, grads)
        getattr(self.optimizer, "lower", partial(Optimizer.lower, self.optimizer))(graph)
