"""How layers become operations of a program: what those share that lower themselves, and the rest.

A layer's ``lower(graph, x)`` adds what it does forward, and returns the value of its output and a
function that adds what it does backward: ``backward(dy, need) -> dx``, where None is returned
unless `need`. A layer that does not know of programs is called back from between their parts.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastconv.program.graph import Graph, Value

if TYPE_CHECKING:
    from fastconv.nn.base import Layer
    from fastconv.nn.parameter import Parameter

__all__ = [
    "Backward",
    "Labels",
    "Lowered",
    "called_back",
    "is_relu",
    "lowered",
    "overrides",
    "parameter",
    "takes_relu",
    "trains",
]

Backward: TypeAlias = Callable[[Value, bool], Value | None]
Lowered: TypeAlias = tuple[Value, Backward]

PASSES = ("forward", "backward", "backward_parameters", "_function", "_gradient")


def lowered(layer: Layer, graph: Graph, x: Value, **options: Any) -> Lowered:
    """Lower a layer by its own `lower`, or else as one that is called back."""
    if _knows_programs(layer):
        found: Lowered = layer.lower(graph, x, **options)  # type: ignore[attr-defined]
        return found
    return called_back(layer, graph, x)


def _knows_programs(layer: Layer) -> bool:
    """Whether the layer's `lower` says what its two passes do.

    A subclass that overrides a pass, or an object that was given one of its own, has left an
    inherited `lower` behind.
    """
    kind = type(layer)
    if getattr(kind, "lower", None) is None or any(name in layer.__dict__ for name in PASSES):
        return False
    for owner in kind.__mro__:
        if "lower" in vars(owner):
            return vars(owner)["lower"] is not None
        if any(name in vars(owner) for name in PASSES):
            return False
    return False


def trains(graph: Graph, layer: Layer) -> bool:
    """Whether the layer is in training mode in the program."""
    return not graph.inference and bool(graph.setting(layer, "training"))


def takes_relu(layer: Layer) -> bool:
    """Whether a ReLU behind the layer can be a part of its lowering."""
    if not _knows_programs(layer):
        return False
    return "relu" in signature(layer.lower).parameters  # type: ignore[attr-defined]


def is_relu(layer: Layer) -> bool:
    """Whether the layer is ReLU and nothing else."""
    return bool(getattr(layer, "rectifies", False)) and _knows_programs(layer)


def overrides(thing: Any, kind: type, *names: str) -> bool:
    """Whether an object has methods other than those of `kind`, from its class or of its own."""
    return any(
        getattr(type(thing), name) is not getattr(kind, name) or name in vars(thing)
        for name in names
    )


class Labels:
    """The labels of a step, for the losses of a program.

    Attributes
    ----------
    given : object
        What the step was called with.
    """

    given: Any = None

    def __init__(self) -> None:
        self._placed: list[tuple[Value, Callable[[Any], np.ndarray]]] = []

    def place(self, value: Value, converted: Callable[[Any], np.ndarray]) -> None:
        """Have `value` written before each run: what `converted` makes of the labels.

        `converted` raises an error for labels that do not fit.
        """
        value.kept = True
        self._placed.append((value, converted))

    def take(self, y: Any, array_of: Callable[[Value], np.ndarray]) -> None:
        """Check and write the labels of the next run."""
        self.given = y
        made = [(value, converted(y)) for value, converted in self._placed]
        for value, array in made:
            np.copyto(array_of(value), array)


def parameter(graph: Graph, found: Parameter) -> tuple[Value, Value]:
    """The values of a parameter's `value` and `grad`, which stay the arrays that they are."""
    graph.setting(found, "value")
    graph.setting(found, "grad")
    return graph.array(found.value), graph.array(found.grad)


def called_back(layer: Layer, graph: Graph, x: Value) -> Lowered:
    """A layer of which programs know nothing: its own two passes, in the interpreter.

    What it keeps of `x` and gives as `y` stays as it is until its backward pass is over.
    """
    shape, dtype = _result(layer, x)
    y = graph.value(shape, dtype)

    def forward(x: np.ndarray, out: np.ndarray) -> None:
        _fill(out, layer.infer(x) if graph.inference else layer.forward(x), layer)

    graph.python("forward", forward, (x,), (y,))

    def backward(dy: Value, need: bool) -> Value | None:
        dx = graph.value(x.shape, x.dtype) if need else None

        def work(dy: np.ndarray, x: np.ndarray, y: np.ndarray, *out: np.ndarray) -> None:
            if out:
                _fill(out[0], layer.backward(dy), layer)
            else:
                layer.backward_parameters(dy)

        graph.python("backward", work, (dy, x, y), () if dx is None else (dx,))
        return dx

    return y, backward


def _result(layer: Layer, x: Value) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of what the layer makes of `x`."""
    y = layer.infer(np.zeros(x.shape, x.dtype))
    return y.shape, y.dtype


def _fill(out: np.ndarray, result: np.ndarray, layer: Layer) -> None:
    if result.shape != out.shape or result.dtype != out.dtype:
        raise ValueError(
            f"{type(layer).__name__}: it gave an array {result.shape} of {result.dtype} where it "
            f"gave {out.shape} of {out.dtype} when the step was planned"
        )
    np.copyto(out, result)
