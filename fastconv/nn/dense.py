"""Fully connected layer, and the reshape before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, check_input, layer_error, positive_int, quiet
from fastconv.nn.init import Init, initial_weights, parameter_dtype
from fastconv.nn.lowering import Lowered, like, parameter
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import register
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import Convolution, bias_grad, relu_backward
from fastconv.typing import DTypeLike


@register(onnx=onnx.flatten, takes=onnx.nothing_of)
class Flatten(Layer):
    """(m, H, W, C) -> (m, H*W*C), in the order h, w, c.

    Examples
    --------
    >>> Flatten().forward(np.zeros((2, 3, 3, 4), np.float32)).shape
    (2, 36)
    """

    def __init__(self) -> None:
        super().__init__()
        self._cache: tuple[tuple[int, ...], Any] | None = None

    def config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """No operation: the same memory in another shape."""
        self._check_axes(x.shape)
        y = graph.view(x, (x.shape[0], math.prod(x.shape[1:])))

        def backward(dy: Value, need: bool) -> Value | None:
            return graph.view(dy, x.shape) if need else None

        return y, backward

    def _check_axes(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2:
            raise layer_error(ValueError, self, f"x: expected (m, ...), got {shape}")

    @quiet
    def forward(self, x: Array) -> Array:
        """Return `x` with all axes but the first joined."""
        check_array("x", x, self)
        self._check_axes(x.shape)
        self._cache = (x.shape, x.dtype)
        return x.reshape(x.shape[0], int(np.prod(x.shape[1:], dtype=np.int64)))

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dy` in the shape of the input."""
        x_shape, dtype = self._saved(self._cache)
        rows = (x_shape[0], int(np.prod(x_shape[1:], dtype=np.int64)))
        self._check_dy(dy, rows, dtype)
        return dy.reshape(x_shape)


@register(onnx=onnx.dense, takes=onnx.rows_of)
class Dense(Layer):
    """Fully connected layer: y = x w + b.

    It is the convolution of an image of one pixel with a window of one tap, and runs as such: the
    naive loops cover it too, and an image's output does not depend on its neighbours in the batch
    where `fastconv.conv` promises that.

    Parameters
    ----------
    inputs, outputs : int
        Length of one image's input and output.
    bias : bool
        Whether to add `b` (outputs,).
    init : "he", "glorot" or "zeros"
        How `w` is drawn.
    rng : numpy.random.Generator, int or None
        Source of the initial weights; None takes the system's entropy.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    w : Parameter (inputs, outputs)
    b : Parameter (outputs,), or None

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> Dense(9, 1, rng=0).w.shape
    (9, 1)
    """

    optional_parameters = ("b",)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        init: Init = "he",
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.inputs = positive_int("inputs", inputs)
        self.outputs = positive_int("outputs", outputs)
        self.dtype = parameter_dtype(dtype)
        shape = (self.inputs, self.outputs)
        self.w = self.add_parameter("w", initial_weights(shape, shape, init, rng, self.dtype))
        self.b = self.add_parameter("b", np.zeros(self.outputs, self.dtype)) if bias else None
        self._cache: Array | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "bias": self.b is not None,
            "dtype": self.dtype.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Rebuild the layer with zero weights."""
        return cls(**config, init="zeros")

    def lower(self, graph: Graph, x: Value, relu: bool = False) -> Lowered:
        """Both passes, as operations; `relu`: the next layer is one, and part of this."""
        check_input(self, like(x), "m", self.inputs, self.dtype)
        w, dw = parameter(graph, self.w)
        b, db = (None, None) if self.b is None else parameter(graph, self.b)
        m, inputs, outputs = x.shape[0], self.inputs, self.outputs
        kernel = graph.view(w, (1, inputs, outputs))
        conv = Convolution(graph, graph.view(x, (m, 1, inputs)), kernel, b, relu)
        y = graph.view(conv.y, (m, outputs))

        def backward(dy: Value, need: bool) -> Value | None:
            if relu:
                dy = relu_backward(graph, dy, y)
            dy = graph.view(dy, (m, 1, outputs))
            conv.kernel_grad(dy, graph.view(dw, kernel.shape))
            if db is not None:
                bias_grad(graph, dy, db)
            return graph.view(conv.input_grad(dy), (m, inputs)) if need else None

        return y, backward

    @quiet
    def forward(self, x: Array) -> Array:
        """Map `x` (m, inputs) to `y` (m, outputs)."""
        check_input(self, x, "m", self.inputs, self.dtype)
        b = None if self.b is None else self.b.value
        # [m x inputs] @ [inputs x outputs] -> [m x outputs]
        # as a convolution: x (m, 1, inputs), w (1, inputs, outputs)
        y: Array = self.ops.conv(x[:, None, :], self.w.value[None], b)
        self._cache = x
        return y.reshape(x.shape[0], self.outputs)

    def _run_backward(self, dy: Array, need: tuple[str, ...]) -> Any:
        x = self._saved(self._cache)
        self._check_dy(dy, (x.shape[0], self.outputs), x.dtype)
        need = need if self.b is not None else tuple(name for name in need if name != "b")
        grads = self.ops.conv_backward(dy[:, None, :], x[:, None, :], self.w.value[None], need=need)
        self.w.grad[...] = grads.dw[0]
        if self.b is not None:
            self.b.grad[...] = grads.db
        return grads.dx

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx` = dy w.T; write `w.grad` = x.T dy and `b.grad` = sum of dy over m."""
        dx: Array = self._run_backward(dy, ("x", "w", "b"))
        return dx.reshape(dx.shape[0], self.inputs)

    @quiet
    def backward_parameters(self, dy: Array) -> None:
        """Write `w.grad` and `b.grad` only."""
        self._run_backward(dy, ("w", "b"))
