"""What a convolution takes over from the layers behind it.

ReLU and 2x2 maxima, and in inference batch normalisation or a residual's sum, are then done to its
results while these are in the cache. No bit changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fastconv.nn.checks import locate
from fastconv.nn.lowering import (
    Backward,
    Lowered,
    is_relu,
    lowered,
    marked,
    takes,
    wants_gradient,
)
from fastconv.program.finish import Normalisation
from fastconv.program.graph import Graph, Value

if TYPE_CHECKING:
    from fastconv.nn.base import Layer

__all__ = ["Behind", "Finish", "Rest", "lowered_chain", "taken_over"]


class Rest:
    """What a residual does with the result of its body.

    Attributes
    ----------
    added : Value
        The shortcut's result.
    relu : bool
        Whether ReLU follows.
    done : bool
        Whether the body has done it already.
    """

    def __init__(self, added: Value, relu: bool) -> None:
        self.added, self.relu, self.done = added, relu, False

    def fits(self, graph: Graph, y: Value) -> bool:
        """Whether it can be added to a value at once."""
        return graph.inference and (self.added.shape, self.added.dtype) == (y.shape, y.dtype)


class Finish(NamedTuple):
    """What follows a convolution at once; see `program.finish.finished_convolution`."""

    relu: bool
    norm: Normalisation | None = None
    relu_after: bool = False
    pool: bool = False
    added: Value | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing but ReLU does."""
        return self.norm is None and not self.pool and self.added is None


class Behind:
    """The layers behind a convolution.

    Attributes
    ----------
    taken : int
        How many of them are a part of its lowering.
    between : tuple of int, or None
        The shape of an image before the last of them, where it is another than behind it.
    """

    def __init__(self, layers: Sequence[Layer], rest: Rest | None = None) -> None:
        self.taken = 0
        self.between: tuple[int, ...] | None = None
        self._layers, self._rest = layers, rest

    def find(self, graph: Graph, y: Value, relu: bool, can: Callable[[bool], bool]) -> Finish:
        """Take over what can be.

        Parameters
        ----------
        graph : Graph
        y : Value
            A value like the convolution's own result.
        relu : bool
            Whether it has a ReLU itself.
        can : callable
            ``can(pool)``: whether anything, or maxima, may follow its product at once.
        """
        found = Finish(relu)
        if not can(False):
            if not relu and self._relu(graph):
                found = found._replace(relu=True)
            return found
        layer = self._next
        if graph.inference and layer is not None and marked(layer, graph, "normalises"):
            norm: Any = layer
            if (norm.channels, norm.dtype) == (y.shape[-1], y.dtype):
                found = found._replace(norm=norm.lowered_numbers(graph))
                self.taken += 1
        if found.norm is None and not relu:
            found = found._replace(relu=self._relu(graph))
        elif found.norm is not None:
            found = found._replace(relu_after=self._relu(graph))
        layer = self._next
        rest = self._rest
        if layer is not None and marked(layer, graph, "subsamples"):
            pool: Any = layer
            if pool.halves(graph) and can(True):
                self.taken, self.between = self.taken + 1, y.shape[1:]
                return found._replace(pool=True)
        elif layer is None and rest is not None and rest.fits(graph, y) and not found.relu_after:
            rest.done = True
            return found._replace(added=rest.added, relu_after=rest.relu)
        return found

    @property
    def _next(self) -> Layer | None:
        return self._layers[self.taken] if self.taken < len(self._layers) else None

    def _relu(self, graph: Graph) -> bool:
        """Take over a ReLU, if it comes next."""
        layer = self._next
        found = layer is not None and is_relu(layer, graph)
        self.taken += found
        return found


def taken_over(
    layer: Layer, layers: Sequence[Layer], graph: Graph, rest: Rest | None
) -> tuple[Behind, dict[str, Any]]:
    """What of the layers behind a layer, and of the rest behind them, is a part of its lowering.

    Returned are how many layers (known when it has been lowered), and the options of its `lower`.
    """
    behind, options = Behind(layers, rest), dict[str, Any]()
    if takes(layer, graph, "behind"):
        options = {"behind": behind}
    elif not layers and takes(layer, graph, "rest"):
        options = {"rest": rest}
    elif layers and takes(layer, graph, "relu") and is_relu(layers[0], graph):
        behind.taken, options = 1, {"relu": True}
    return behind, options


def lowered_chain(
    layers: Sequence[Layer], graph: Graph, x: Value, rest: Rest | None = None
) -> Lowered:
    """Both passes of layers one behind the other; and of the `rest`, if they can."""
    steps: list[tuple[tuple[str, str, Layer], Backward]] = []
    i = 0
    while i < len(layers):
        layer, name = layers[i], str(i)
        place = (f"{i} {type(layer).__name__}", name, layer)
        behind, options = taken_over(layer, layers[i + 1 :], graph, rest)
        try:
            with graph.inside(*place):
                x, back = lowered(layer, graph, x, **options)
        except Exception as error:
            locate(error, name, layer)
            raise
        steps.append((place, back))
        end = i + 1 + behind.taken
        if not graph.inference:
            for passed in layers[i:end]:
                passed.output_shape = behind.between or x.shape[1:]
            layers[end - 1].output_shape = x.shape[1:]
        i = end

    parts = [layer for (_, _, layer), _ in steps]

    def backward(dy: Value, need: bool) -> Value | None:
        for k, (place, back) in reversed(list(enumerate(steps))):
            wanted = k > 0 and wants_gradient(parts[:k], parts[k], graph)
            with graph.inside(*place):
                dx = back(dy, need or wanted)
            if dx is None:
                return None
            dy = dx
        return dy

    return x, backward
