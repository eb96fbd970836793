"""Layers of networks that are no chains: branches side by side, and the way around."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, layer_error, locate, positive_int, quiet, shown
from fastconv.nn.children import refuse_repeats
from fastconv.nn.container import Sequential
from fastconv.nn.conv import Conv
from fastconv.nn.init import Init, generator
from fastconv.nn.lowering import Backward, Lowered, lowered
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import built, described, register
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import each
from fastconv.program.naive import elementwise as naive_elementwise
from fastconv.program.ops import elementwise
from fastconv.typing import Activation, DTypeLike, Int, Padding

__all__ = ["Concat", "Identity", "SeparableConv"]


@register(onnx=onnx.dropout, pixelwise=True)
class Identity(Layer):
    """y = x: a branch of `Concat` that passes the input on.

    Examples
    --------
    >>> Identity().forward(np.ones(2)).tolist()
    [1.0, 1.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self._cache: tuple[tuple[int, ...], Any] | None = None

    def config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """No operation."""
        return x, lambda dy, need: dy if need else None

    @quiet
    def forward(self, x: Array) -> Array:
        """Return `x` itself."""
        check_array("x", x, self)
        self._cache = (x.shape, x.dtype)
        return x

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dy` itself."""
        self._check_dy(dy, *self._saved(self._cache))
        return dy


@register(onnx=onnx.concat)
class Concat(Layer):
    """The channels of all branches, one behind the other, each of which gets the same input.

    So networks are built from layers: DenseNet's block is ``Concat(Identity(), body)``, U-Net's
    step ``Concat(Identity(), Sequential(MaxPool(2), ..., Upsample(2)))``, Inception's cell four
    branches.

    Parameters
    ----------
    *branches : Layer
        Their outputs differ in the last axis alone.

    Attributes
    ----------
    branches : tuple of Layer

    Raises
    ------
    TypeError, ValueError
        If there is no branch, an argument is no layer, or one layer appears twice; in the forward
        pass, if outputs differ in another axis or in dtype.

    Examples
    --------
    >>> block = Concat(Identity(), Conv(4, 2, 3, padding="same", rng=0))
    >>> block.forward(np.zeros((2, 5, 5, 4), np.float32)).shape
    (2, 5, 5, 6)
    """

    layer_attributes: ClassVar[dict[str, str]] = {"branches": "several"}

    def __init__(self, *branches: Layer) -> None:
        super().__init__()
        self.branches = branches
        refuse_repeats(self)
        self._cache: tuple[tuple[int, ...], Any, list[int]] | None = None
        for path, parameter in self.named_parameters().items():
            parameter.name = path

    def children(self) -> dict[str, Layer]:
        """The branches, by their index."""
        return {str(i): branch for i, branch in enumerate(self.branches)}

    def config(self) -> dict[str, Any]:
        """Types and arguments of the branches."""
        return {"branches": [described(branch) for branch in self.branches]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Rebuild the branches, with zero weights."""
        return cls(*map(built, config["branches"]))

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations; channels are joined and parted in the interpreter."""
        outputs: list[Value] = []
        backs: list[Backward] = []
        places = [(f"{i} {type(b).__name__}", str(i), b) for i, b in enumerate(self.branches)]
        graph.setting(self, "branches")
        for place in places:
            try:
                with graph.inside(*place):
                    y, back = lowered(place[2], graph, x)
            except Exception as error:
                locate(error, *place[1:])
                raise
            outputs.append(y)
            backs.append(back)
        cuts = self._cuts(outputs)
        shape = (*outputs[0].shape[:-1], cuts[-1])
        joined = graph.value(shape, outputs[0].dtype)
        graph.python("join", _join, outputs, (joined,))

        def backward(dy: Value, need: bool) -> Value | None:
            errors = [graph.value(y.shape, y.dtype) for y in outputs]
            graph.python("part", lambda dy, *parts: _part(dy, cuts, parts), (dy,), errors)
            dx: Value | None = None
            for place, back, error in zip(places, backs, errors, strict=True):
                with graph.inside(*place):
                    of_branch = back(error, need)
                if need and of_branch is not None:
                    dx = of_branch if dx is None else each(graph, "backward", "add", dx, of_branch)
            return dx

        return joined, backward

    def _cuts(self, outputs: list[Any]) -> list[int]:
        """Where each branch's channels end; outputs have a shape and a dtype."""
        first = outputs[0]
        for i, y in enumerate(outputs[1:], 1):
            if not y.shape or y.shape[:-1] != first.shape[:-1]:
                cause = f"branches: outputs {first.shape} of 0 and {y.shape} of {i} differ in more"
                raise layer_error(ValueError, self, f"{cause} than the last axis")
            if y.dtype != first.dtype:
                cause = f"branches: outputs of 0 and {i} are {first.dtype} and {y.dtype}"
                raise layer_error(TypeError, self, cause)
        ends: list[int] = np.cumsum([y.shape[-1] for y in outputs]).tolist()
        return ends

    @quiet
    def forward(self, x: Array) -> Array:
        """Join what the branches make of `x`."""
        check_array("x", x, self)
        outputs = [self._way(i, "forward", x) for i in range(len(self.branches))]
        for branch, y in zip(self.branches, outputs, strict=True):
            branch.output_shape = y.shape[1:]
        cuts = self._cuts(outputs)
        result: Array = np.concatenate(outputs, axis=-1)
        self._cache = (result.shape, result.dtype, cuts)
        return result

    def _way(self, i: int, method: str, array: Array) -> Array:
        branch = self.branches[i]
        try:
            result: Any = getattr(branch, method)(array)
            if not isinstance(result, np.ndarray):
                cause = f"{method} gave {shown(result)}, which is no array"
                raise layer_error(TypeError, branch, cause)
        except Exception as error:
            locate(error, str(i), branch)
            raise
        return result

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: the sum of what comes back through the branches."""
        shape, dtype, cuts = self._saved(self._cache)
        self._check_dy(dy, shape, dtype)
        errors = [np.empty((*shape[:-1], n), dtype) for n in np.diff(cuts, prepend=0)]
        _part(dy, cuts, errors)
        dx = self._way(0, "backward", errors[0])
        for i in range(1, len(errors)):
            of_branch = self._way(i, "backward", errors[i])
            dx = self._pick(elementwise, naive_elementwise).add(dx, of_branch)
        return dx


def _join(*arrays: Array) -> None:
    """The channels of all arrays but the last, into the last."""
    *parts, joined = arrays
    np.concatenate(parts, axis=-1, out=joined)


def _part(dy: Array, cuts: list[int], parts: Any) -> None:
    """Copy the channels of `dy` to the branches' errors."""
    for end, part in zip(cuts, parts, strict=True):
        np.copyto(part, dy[..., end - part.shape[-1] : end])


@register(onnx=onnx.sequential)
class SeparableConv(Sequential):
    """Depthwise separable convolution: a window for each channel, then a 1x1 convolution.

    Chollet 2017, Howard et al. 2017. Two `Conv` layers in a chain, of which the first has
    ``groups=channels`` and no bias, as in Keras's ``SeparableConv2D``.

    Parameters
    ----------
    channels, filters : int
        Input channels C and output channels F.
    window : int or tuple of int
        Of the first convolution, as of `Conv`.
    multiplier : int
        How many windows each channel has.
    stride, padding, dilation
        Of the first convolution.
    bias : bool
        Whether the second adds `b` (F,).
    activation : None or "relu"
        After the second.
    init, rng, dtype
        As of `Conv`.

    Attributes
    ----------
    layers : (Conv, Conv)

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> layer = SeparableConv(8, 16, 3, padding="same", rng=0)
    >>> [parameter.shape for parameter in layer.parameters()]
    [(3, 3, 1, 8), (1, 1, 8, 16), (16,)]
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        window: Int,
        *,
        multiplier: int = 1,
        stride: Int = 1,
        padding: Padding = 0,
        dilation: Int = 1,
        bias: bool = True,
        activation: Activation | None = None,
        init: Init = "he",
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.multiplier = positive_int("multiplier", multiplier)
        positive_int("channels", channels)
        source = rng if init == "zeros" else generator(rng)  # one for both
        wide = channels * self.multiplier
        depthwise = Conv(
            channels, wide, window, stride=stride, padding=padding, dilation=dilation,
            groups=channels, bias=False, init=init, rng=source, dtype=dtype,
        )  # fmt: skip
        one = (1,) * len(depthwise.window)
        pointwise = Conv(
            wide, filters, one, bias=bias, activation=activation, init=init, rng=source, dtype=dtype
        )
        super().__init__(depthwise, pointwise)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        first, second = (layer.config() for layer in self.layers)
        found = {name: first[name] for name in ("channels", "window", "stride", "padding")}
        found |= {"dilation": first["dilation"], "multiplier": self.multiplier}
        return found | {name: second[name] for name in ("filters", "bias", "activation", "dtype")}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Rebuild the layer with zero weights."""
        return cls(**config, init="zeros")
