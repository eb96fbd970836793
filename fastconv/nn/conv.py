"""Convolution and transposed convolution with learned kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.geometry.request import PADDING_MODES
from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_input, plain, positive_int, quiet
from fastconv.nn.fusing import Behind
from fastconv.nn.init import Init, initial_weights, parameter_dtype
from fastconv.nn.lowering import Lowered, like, parameter
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import register
from fastconv.plans.algorithm import chosen
from fastconv.program.finish import (
    can_finish,
    finished_convolution,
    maxima_backward,
    result_of,
    winners_of,
)
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import Convolution, bias_grad, relu_backward
from fastconv.typing import Activation, Algorithm, DTypeLike, Int, Padding, PaddingMode

AXES = {1: "m, W", 2: "m, H, W", 3: "m, D, H, W"}


class _ConvBase(Layer):
    """What both directions share: arguments, kernel, bias, the mask of a fused ReLU."""

    optional_parameters = ("b",)
    # That of the calls, or None: that of the `with` around them. A layer that was given none has no
    # such attribute of its own: it describes itself as in older versions.
    algorithm: Algorithm | None = None

    def __init__(
        self,
        channels: int,
        filters: int,
        window: Any,
        settings: dict[str, Any],
        build: dict[str, Any],
    ) -> None:
        super().__init__()
        self.channels = positive_int("channels", channels)
        self.filters = positive_int("filters", filters)
        window = (window, window) if not isinstance(window, (tuple, list)) else tuple(window)
        if len(window) not in AXES:
            raise ValueError(f"window: one to three axes are needed, got {window!r}")
        self.window = tuple(positive_int("window", n) for n in window)
        self.groups = positive_int("groups", build["groups"])
        for name, count in (("channels", self.channels), ("filters", self.filters)):
            if count % self.groups:
                raise ValueError(f"groups: {self.groups} does not divide {name} = {count}")
        self.activation = build["activation"]
        if self.activation not in (None, "relu"):
            raise ValueError(f"activation: must be None or 'relu', got {self.activation!r}")
        self.settings = {name: plain(value) for name, value in settings.items()}
        self.dtype = parameter_dtype(build["dtype"])

        taps = math.prod(self.window)
        fans = (taps * self.channels // self.groups, taps * self.filters // self.groups)
        w = initial_weights(self._kernel_shape(), fans, build["init"], build["rng"], self.dtype)
        self.w = self.add_parameter("w", w)
        self.b = None
        if build["bias"]:
            self.b = self.add_parameter("b", np.zeros(self.filters, self.dtype))
        self._cache: tuple[Array, Array] | None = None

    def _kernel_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        found = {
            "channels": self.channels,
            "filters": self.filters,
            "window": self.window,
            **self.settings,
            "groups": self.groups,
            "bias": self.b is not None,
            "activation": self.activation,
            "dtype": self.dtype.name,
        }
        # older versions know no such argument, and read what does not need it
        return found if self.algorithm is None else {**found, "algorithm": self.algorithm}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Rebuild the layer with zero weights."""
        return cls(**config, init="zeros")  # type: ignore[call-arg]

    def _lowered(self, graph: Graph, x: Value, relu: bool = False) -> Lowered:
        """Both passes, as operations; `relu`: the next layer is one, and part of this."""
        check_input(self, like(x), AXES[len(self.window)], self.channels, self.dtype)
        relu = relu or graph.setting(self, "activation") == "relu"
        conv = self._product(graph, x, relu)

        def backward(dy: Value, need: bool) -> Value | None:
            if relu:
                dy = relu_backward(graph, dy, conv.y)
            return self._lowered_gradients(graph, conv, dy, need)

        return conv.y, backward

    def _product(
        self, graph: Graph, x: Value, relu: bool, backward_only: bool = False
    ) -> Convolution:
        """The convolution, as operations."""
        w, b = self._operands(graph)
        transposed = isinstance(self, ConvTranspose)
        algorithm, settings = self._algorithm(graph), self._settings(graph)
        return Convolution(graph, x, w, b, relu, transposed, backward_only, algorithm, **settings)

    def _operands(self, graph: Graph) -> tuple[Value, Value | None]:
        """Kernel and bias."""
        b = None if self.b is None else parameter(graph, self.b)[0]
        return parameter(graph, self.w)[0], b

    def _lowered_gradients(
        self, graph: Graph, conv: Convolution, dy: Value, need: bool
    ) -> Value | None:
        """The gradients for the error of the convolution itself."""
        conv.kernel_grad(dy, parameter(graph, self.w)[1])
        if self.b is not None:
            bias_grad(graph, dy, parameter(graph, self.b)[1])
        return conv.input_grad(dy) if need else None

    def _settings(self, graph: Graph) -> dict[str, Any]:
        """What every product takes besides arrays and the algorithm."""
        return {**graph.setting(self, "settings"), "groups": graph.setting(self, "groups")}

    def _algorithm(self, graph: Graph) -> Algorithm:
        """The layer's own algorithm, or that of the ``with`` around the lowering."""
        return chosen(graph.setting(self, "algorithm"))

    def _keywords(self) -> dict[str, Any]:
        """Keyword arguments of the functions; `ops` of one's own need not know an algorithm."""
        named = {} if self.algorithm is None else {"algorithm": self.algorithm}
        return {**self.settings, "groups": self.groups, **named}

    def _run(self, function: Any, x: Array) -> Array:
        check_input(self, x, AXES[len(self.window)], self.channels, self.dtype)
        b = None if self.b is None else self.b.value
        y: Array = function(x, self.w.value, b, **self._keywords(), activation=self.activation)
        self._cache = (x, y)
        return y

    def _run_backward(self, function: Any, dy: Array, need: tuple[str, ...]) -> Any:
        x, y = self._saved(self._cache)
        self._check_dy(dy, y.shape, y.dtype)
        if self.activation == "relu":
            # max(z, 0) passes the error where it passed the value; y > 0 exactly where z > 0.
            dy = self.ops.relu_backward(dy, y)
        need = need if self.b is not None else tuple(name for name in need if name != "b")
        grads = function(dy, x, self.w.value, **self._keywords(), need=need)
        self.w.grad[...] = grads.dw
        if self.b is not None:
            self.b.grad[...] = grads.db
        return grads.dx


@register(onnx=onnx.conv, takes=onnx.images_of)
class Conv(_ConvBase):
    """Convolution: y = x * w + b, then optionally ReLU.

    Parameters
    ----------
    channels, filters : int
        Input channels C and output channels F.
    window : int or tuple of int
        Kernel size; an int means a square 2-D window, a tuple of 1, 2 or 3 sets the rank.
    stride, padding, dilation, groups
        As in `fastconv.conv`.
    padding_mode : {"constant", "reflect", "symmetric", "edge", "wrap"}
        What stands in the padding, as in `fastconv.conv`.
    bias : bool
        Whether to add `b` (F,).
    activation : None or "relu"
        ReLU fused into the convolution.
    algorithm : "exact", "fast" or None
        As in `fastconv.conv`; None is that of the ``with fastconv.algorithm(...)`` around a pass.
        A `padding_mode` other than "constant" is always exact.
    init : "he", "glorot" or "zeros"
        How `w` is drawn; He suits a ReLU after the layer, Glorot a sigmoid or tanh.
    rng : numpy.random.Generator, int or None
        Source of the initial weights; None takes the system's entropy.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    w : Parameter (KH, KW, C/G, F)
    b : Parameter (F,), or None

    Raises
    ------
    ValueError, TypeError
        Naming the argument, here or (stride, padding, dilation) at the first forward pass.

    Examples
    --------
    >>> Conv(1, 8, 3, padding="same", rng=0).w.shape
    (3, 3, 1, 8)
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        window: Int,
        *,
        stride: Int = 1,
        padding: Padding = 0,
        dilation: Int = 1,
        groups: int = 1,
        padding_mode: PaddingMode = "constant",
        bias: bool = True,
        activation: Activation | None = None,
        algorithm: Algorithm | None = None,
        init: Init = "he",
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        if padding_mode not in PADDING_MODES:
            names = ", ".join(map(repr, PADDING_MODES))
            raise ValueError(f"padding_mode: must be one of {names}, got {padding_mode!r}")
        if padding_mode != "constant":  # else files are those of before it was there
            settings["padding_mode"] = padding_mode
        build: dict[str, Any] = {"groups": groups, "bias": bias, "activation": activation}
        build |= {"init": init, "rng": rng, "dtype": dtype}
        super().__init__(channels, filters, window, settings, build)
        if algorithm is not None:
            self.algorithm = chosen(algorithm)

    def lower(
        self, graph: Graph, x: Value, relu: bool = False, behind: Behind | None = None
    ) -> Lowered:
        """Both passes, as operations.

        `relu`: the next layer is one, and part of this; `behind`: layers that may be, too.
        """
        if behind is None:
            return self._lowered(graph, x, relu)
        check_input(self, like(x), AXES[len(self.window)], self.channels, self.dtype)
        algorithm, settings = self._algorithm(graph), self._settings(graph)
        result = result_of(x, self.w.shape, **settings)
        relu = relu or graph.setting(self, "activation") == "relu"
        found = behind.find(
            graph,
            result,
            relu,
            lambda pool: can_finish(x, self.w.shape, pool, algorithm, **settings),
        )
        if found.plain:
            return self._lowered(graph, x, found.relu)
        w, b = self._operands(graph)
        winners = None if graph.inference else winners_of(graph, result.shape)
        y = finished_convolution(graph, x, w, b, **found._asdict(), winners=winners, **settings)
        if winners is None:
            return y, lambda dy, need: None
        conv, where = self._product(graph, x, found.relu, backward_only=True), winners

        def backward(dy: Value, need: bool) -> Value | None:
            label = "maxima and mask" if found.relu else "maxima"
            dy = maxima_backward(graph, dy, y, where, result.shape, found.relu, label)
            return self._lowered_gradients(graph, conv, dy, need)

        return y, backward

    def _kernel_shape(self) -> tuple[int, ...]:
        return (*self.window, self.channels // self.groups, self.filters)

    @quiet
    def forward(self, x: Array) -> Array:
        """Convolve `x` (m, H, W, C) into `y` (m, OH, OW, F)."""
        return self._run(self.ops.conv, x)

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`; write `w.grad` and `b.grad`. With ReLU, `dy` is masked with y > 0 first."""
        dx: Array = self._run_backward(self.ops.conv_backward, dy, ("x", "w", "b"))
        return dx

    @quiet
    def backward_parameters(self, dy: Array) -> None:
        """Write `w.grad` and `b.grad` and leave the input gradient out (a third of the work)."""
        self._run_backward(self.ops.conv_backward, dy, ("w", "b"))


@register(onnx=onnx.conv_transpose, takes=onnx.images_of)
class ConvTranspose(_ConvBase):
    """Transposed convolution, the input gradient of a convolution used as a layer.

    Parameters
    ----------
    channels, filters : int
        Input channels C and output channels F.
    window, stride, padding, dilation, groups, bias, activation, init, rng, dtype
        As in `Conv` and `fastconv.conv_transpose`.
    output_padding : int or tuple of int
        Added to the high side of the output.

    Attributes
    ----------
    w : Parameter (KH, KW, F/G, C)
        The kernel of the convolution whose input gradient this layer is.
    b : Parameter (F,), or None

    Raises
    ------
    ValueError, TypeError
        Naming the argument.

    Examples
    --------
    >>> ConvTranspose(8, 4, 2, stride=2, rng=0).w.shape
    (2, 2, 4, 8)
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        window: Int,
        *,
        stride: Int = 1,
        padding: Padding = 0,
        output_padding: Int = 0,
        dilation: Int = 1,
        groups: int = 1,
        bias: bool = True,
        activation: Activation | None = None,
        init: Init = "he",
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        settings["output_padding"] = output_padding
        build: dict[str, Any] = {"groups": groups, "bias": bias, "activation": activation}
        build |= {"init": init, "rng": rng, "dtype": dtype}
        super().__init__(channels, filters, window, settings, build)

    lower = _ConvBase._lowered

    def _kernel_shape(self) -> tuple[int, ...]:
        return (*self.window, self.filters // self.groups, self.channels)

    @quiet
    def forward(self, x: Array) -> Array:
        """Map `x` (m, H, W, C) to `y` (m, OH, OW, F), where OH is about H * stride."""
        return self._run(self.ops.conv_transpose, x)

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`; write `w.grad` and `b.grad`."""
        dx: Array = self._run_backward(self.ops.conv_transpose_backward, dy, ("x", "w", "b"))
        return dx

    @quiet
    def backward_parameters(self, dy: Array) -> None:
        """Write `w.grad` and `b.grad` only."""
        self._run_backward(self.ops.conv_transpose_backward, dy, ("w", "b"))
