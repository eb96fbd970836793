"""A chain of layers with a shortcut around it."""

from __future__ import annotations

from typing import Any, ClassVar

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, layer_error, locate, quiet
from fastconv.nn.children import refuse_repeats
from fastconv.nn.fusing import Rest, taken_over
from fastconv.nn.lowering import Lowered, lowered
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import built, described, register
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import each, relu_backward
from fastconv.program.naive import elementwise as naive_elementwise
from fastconv.program.ops import elementwise

__all__ = ["Residual"]


@register(onnx=onnx.residual)
class Residual(Layer):
    """y = body(x) + shortcut(x): He et al. 2016.

    Parameters
    ----------
    body : Layer
        Usually a `Sequential`.
    shortcut : Layer, optional
        What brings `x` to the shape of the body's output; None passes `x` on as it is.

    Raises
    ------
    TypeError, ValueError
        If an argument is no layer, or one layer appears twice; in the forward pass, if both outputs
        differ in shape or dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.nn import Conv
    >>> block = Residual(Conv(4, 4, 3, padding=1, rng=0))
    >>> block.forward(np.zeros((2, 5, 5, 4), np.float32)).shape
    (2, 5, 5, 4)
    """

    layer_attributes: ClassVar[dict[str, str]] = {"body": "one", "shortcut": "optional"}

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        refuse_repeats(self)
        self._cache: tuple[tuple[int, ...], Any] | None = None
        for path, parameter in self.named_parameters().items():
            parameter.name = path

    def children(self) -> dict[str, Layer]:
        """Body and shortcut."""
        return {"body": self.body} | ({"shortcut": self.shortcut} if self.shortcut else {})

    def config(self) -> dict[str, Any]:
        """Type and arguments of the layers inside."""
        parts = {"body": self.body, "shortcut": self.shortcut}
        return {k: None if layer is None else described(layer) for k, layer in parts.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Rebuild the layers inside, with zero weights."""
        return cls(**{name: item and built(item) for name, item in config.items()})

    def lower(self, graph: Graph, x: Value, relu: bool = False) -> Lowered:
        """Both passes, as operations; `relu`: the next layer is one, and part of this."""
        body, shortcut = graph.setting(self, "body"), graph.setting(self, "shortcut")
        side, side_back = x, None
        if shortcut is not None:  # first, so that the body's last layer may add it
            with graph.inside("shortcut", "shortcut", shortcut):
                side, side_back = lowered(shortcut, graph, x)
        rest = Rest(side, relu)
        _, options = taken_over(body, (), graph, rest)
        with graph.inside("body", "body", body):
            y, back = lowered(body, graph, x, **options)
        if y.shape != side.shape or y.dtype != side.dtype:
            raise self._apart(y, side)
        if not rest.done:
            y = each(graph, "forward", "add_relu" if relu else "add", y, side)

        def backward(dy: Value, need: bool) -> Value | None:
            if relu:
                dy = relu_backward(graph, dy, y)
            side_dx: Value | None = dy
            if side_back is not None:
                with graph.inside("shortcut", "shortcut", shortcut):
                    side_dx = side_back(dy, need)
            with graph.inside("body", "body", body):
                dx = back(dy, need)
            if dx is None or side_dx is None:
                return None
            return each(graph, "backward", "add", dx, side_dx)

        return y, backward

    @quiet
    def forward(self, x: Array) -> Array:
        """Add the body's output and the shortcut's."""
        check_array("x", x, self)
        # first, as in `lower`: processes that share a batch meet in its layers in one order
        side = x if self.shortcut is None else self._way("shortcut", "forward", x)
        y = self._way("body", "forward", x)
        if y.shape != side.shape or y.dtype != side.dtype:
            raise self._apart(y, side)
        self._cache = (y.shape, y.dtype)
        return self._sum(y, side)

    def _apart(self, y: Any, side: Any) -> Exception:
        """The error of a body and a shortcut that do not fit; both have a shape and a dtype."""
        same = "shape" if y.shape != side.shape else "dtype"
        return layer_error(
            ValueError if same == "shape" else TypeError,
            self,
            f"body: its output {getattr(y, same)} and the shortcut's {getattr(side, same)} "
            f"must have one {same}",
        )

    def _way(self, name: str, method: str, array: Array) -> Array:
        layer: Layer = getattr(self, name)
        try:
            result: Array = getattr(layer, method)(array)
        except Exception as error:
            locate(error, name, layer)
            raise
        return result

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: the sum of what comes back through body and shortcut."""
        self._check_dy(dy, *self._saved(self._cache))
        side = dy if self.shortcut is None else self._way("shortcut", "backward", dy)
        return self._sum(self._way("body", "backward", dy), side)

    def _sum(self, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype:  # layers of one's own may change the dtype: NumPy's rules
            return a + b
        total: Array = self._pick(elementwise, naive_elementwise).add(a, b)
        return total
