"""How layers become operations of a program: what those share that lower themselves, and the rest.

A layer's ``lower(graph, x)`` adds what it does forward, and returns the value of its output and a
function that adds what it does backward: ``backward(dy, need) -> dx``, where None is returned
unless `need`. A layer that does not know of programs is called back from between their parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastconv.nn.checks import Array, check_array, layer_error, locate, shown
from fastconv.nn.copying import runner
from fastconv.program.graph import Graph, Value

if TYPE_CHECKING:
    from fastconv.nn.base import Layer
    from fastconv.nn.parameter import Parameter

__all__ = [
    "Backward",
    "Labels",
    "Lowered",
    "called_back",
    "check_images",
    "is_relu",
    "like",
    "lowered",
    "marked",
    "overrides",
    "parameter",
    "takes",
    "trains",
    "wants_gradient",
    "watch",
]

Backward: TypeAlias = Callable[[Value, bool], Value | None]
Lowered: TypeAlias = tuple[Value, Backward]

PASSES = ("forward", "backward", "backward_parameters", "_function", "_gradient")


def lowered(layer: Layer, graph: Graph, x: Value, **options: Any) -> Lowered:
    """Lower a layer by its own `lower`, or else as one that is called back."""
    watch(graph, layer)
    if _knows_programs(layer, graph):
        check_array("x", like(x), layer)
        found: Lowered = layer.lower(graph, x, **options)  # type: ignore[attr-defined]
        return found
    return called_back(layer, graph, x)


def watch(graph: Graph, layer: Layer) -> None:
    """Have the program made anew once the layer is given other passes."""
    for name in ("forward", "backward", "_ops"):
        graph.setting(layer, name)


def like(x: Value) -> Array:
    """An array of the value's shape and dtype that takes no memory: for the checks of `x`."""
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def check_images(model: Layer, shape: Sequence[int], dtype: Any, graph: Graph) -> None:
    """Raise what the layers say of images that do not fit, or of settings.

    Layers that know programs say it when they are lowered. Others are asked by an image of zeros;
    what that compiles is not what a program needs.
    """
    if not all(_knows_programs(layer, graph) for _, layer in model.walk()):
        runner(model)(np.zeros((1, *shape[1:]), dtype))


def _knows_programs(layer: Layer, graph: Graph) -> bool:
    """Whether the layer's `lower` says what its passes do.

    A subclass that overrides a pass, or an object that was given one of its own, has left an
    inherited `lower` behind; and naive loops are no part of a program.
    """
    kind, passes = type(layer), PASSES + (("infer",) if graph.inference else ())
    if getattr(kind, "lower", None) is None or any(name in layer.__dict__ for name in passes):
        return False
    if layer._ops is not None or not _in_place(layer):
        return False
    for owner in kind.__mro__:
        if any(name in vars(owner) for name in passes) and "lower" not in vars(owner):
            return False
        if "lower" in vars(owner):
            return vars(owner)["lower"] is not None
    return False


def _in_place(layer: Layer) -> bool:
    """Whether compiled loops can work on the layer's parameters where they lie.

    Who replaces an array by one of another layout or dtype gets what the plain passes make of it.
    """
    dtype = getattr(layer, "dtype", None)  # of all layers with parameters that know programs
    return all(
        array.flags.c_contiguous and array.dtype == dtype and array.shape == parameter.value.shape
        for parameter in layer._parameters.values()
        for array in (parameter.value, parameter.grad)
    )


def wants_gradient(before: Sequence[Layer], layer: Layer, graph: Graph) -> bool:
    """Whether a layer's ``dx`` is needed, where nobody wants that of the chain.

    It is if one of the layers before it trains, or is called back: its `backward` may do anything.
    So may that of a layer in `layer` that is called back.
    """
    parts = [part for first in before for _, part in first.walk()]
    return any(part._parameters for part in parts) or any(
        not _knows_programs(part, graph) for part in [*parts, *(part for _, part in layer.walk())]
    )


def trains(graph: Graph, layer: Layer) -> bool:
    """Whether the layer is in training mode in the program."""
    return not graph.inference and bool(graph.setting(layer, "training"))


def takes(layer: Layer, graph: Graph, name: str) -> bool:
    """Whether something behind the layer, as "relu", can be a part of its lowering."""
    if not _knows_programs(layer, graph):
        return False
    return name in signature(layer.lower).parameters  # type: ignore[attr-defined]


def is_relu(layer: Layer, graph: Graph) -> bool:
    """Whether the layer is ReLU and nothing else."""
    return marked(layer, graph, "rectifies")


def marked(layer: Layer, graph: Graph, name: str) -> bool:
    """Whether the layer says of itself what the attribute means, and has no passes but its own."""
    watch(graph, layer)
    return bool(getattr(layer, name, False)) and _knows_programs(layer, graph)


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
    weights : array (m,), or None
        And the weights of the images.
    """

    given: Any = None
    weights: Any = None

    def __init__(self) -> None:
        self._placed: list[tuple[Value, Callable[[Any], np.ndarray]]] = []

    def place(self, value: Value, converted: Callable[[Any], np.ndarray]) -> None:
        """Have `value` written before each run: what `converted` makes of the labels.

        `converted` raises an error for labels that do not fit.
        """
        value.kept = True
        self._placed.append((value, converted))

    def take(self, y: Any, array_of: Callable[[Value], np.ndarray], weights: Any = None) -> None:
        """Check and write the labels of the next run."""
        self.given, self.weights = y, weights
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
    y, places = graph.value(shape, dtype), graph.places
    held = graph.layer(layer)

    def forward(x: np.ndarray, out: np.ndarray) -> None:
        run = runner(held) if graph.inference else layer.forward
        with _located(places):
            _fill(out, run(x), layer, "forward")

    graph.python("forward", forward, (x,), (y,))

    def backward(dy: Value, need: bool) -> Value | None:
        dx = graph.value(x.shape, x.dtype) if need else None

        def work(dy: np.ndarray, x: np.ndarray, y: np.ndarray, *out: np.ndarray) -> None:
            with _located(places):
                if out:
                    _fill(out[0], layer.backward(dy), layer, "backward")
                else:
                    layer.backward_parameters(dy)

        graph.python("backward", work, (dy, x, y), () if dx is None else (dx,))
        return dx

    return y, backward


def _result(layer: Layer, x: Value) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of what the layer makes of `x`."""
    try:
        y = runner(layer)(np.zeros(x.shape, x.dtype))
    except (ValueError, TypeError):
        raise
    except Exception as error:
        cause = f"x: infer of images of zeros raised {type(error).__name__}: {error}"
        raise layer_error(ValueError, layer, cause) from error
    _check_result(y, layer, "infer")
    return y.shape, y.dtype


def _check_result(result: Any, layer: Layer, name: str) -> None:
    if not isinstance(result, np.ndarray):
        raise layer_error(TypeError, layer, f"{name} gave {shown(result)}, which is no array")


def _fill(out: np.ndarray, result: Any, layer: Layer, name: str) -> None:
    _check_result(result, layer, name)
    if result.shape != out.shape or result.dtype != out.dtype:
        cause = (
            f"{name} gave an array {result.shape} of {result.dtype} where {out.shape} of "
            f"{out.dtype} is needed"
        )
        raise layer_error(ValueError if result.shape != out.shape else TypeError, layer, cause)
    np.copyto(out, result)


@contextmanager
def _located(places: Sequence[tuple[str, Any]]) -> Iterator[None]:
    """Errors in the ``with`` block say in which layer they were raised, as the plain passes do."""
    try:
        yield
    except Exception as error:
        for name, layer in reversed(places):
            locate(error, name, layer)
        raise
