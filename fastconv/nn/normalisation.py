"""Batch normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import (
    Array,
    check_array,
    layer_error,
    positive_int,
    quiet,
    real_number,
    unit_interval,
)
from fastconv.nn.init import parameter_dtype
from fastconv.nn.lowering import Lowered, like, parameter, trains
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import register
from fastconv.program import layers
from fastconv.program.finish import Normalisation
from fastconv.program.graph import Graph, Value
from fastconv.program.naive import batch_norm as naive_batch_norm
from fastconv.program.ops import batch_norm, shared_batch_norm
from fastconv.program.ops.shared_batch_norm import Gather, SharedTable
from fastconv.typing import DTypeLike


class OneValueError(ValueError):
    """A normalisation in training has one value per channel: its variance is 0, whatever it is."""


@register(onnx=onnx.batch_norm, takes=onnx.channels_of, pixelwise=True)
class BatchNorm(Layer):
    """Normalise each channel over the batch and all pixels, then scale and shift.

    Ioffe and Szegedy 2015. Training uses the mean and variance of the batch and moves the running
    statistics towards them; evaluation uses the running statistics.

    Parameters
    ----------
    channels : int
        Length C of the last axis; the input may have any number of axes before it.
    momentum : float in [0, 1)
        Share of the old running statistics that a step keeps.
    epsilon : float
        Added to the variance.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    scale, shift : Parameter (C,)
        Start as ones and zeros.
    running_mean, running_variance : ndarray (C,)
        Start as zeros and ones. The variance is the unbiased estimate, as in the paper.

    Raises
    ------
    ValueError
        In training, if there is one value per channel (one image of one pixel): its deviation from
        its own mean says nothing. `fit` finds such a last batch before its first step.

    Examples
    --------
    >>> BatchNorm(4).forward(np.ones((2, 3, 3, 4), np.float32)).shape
    (2, 3, 3, 4)
    """

    # Where several processes share a batch, and normalise it as one: how they exchange numbers.
    _gather: Gather | None = None
    normalises = True  # so that a convolution before it may do its work (see `nn.fusing`)

    def __init__(
        self,
        channels: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.channels = positive_int("channels", channels)
        self.momentum = unit_interval("momentum", momentum)
        self.epsilon = real_number("epsilon", epsilon, minimum=0.0)
        self.dtype = parameter_dtype(dtype)
        self.scale = self.add_parameter("scale", np.ones(self.channels, self.dtype))
        self.shift = self.add_parameter("shift", np.zeros(self.channels, self.dtype))
        self.running_mean = self.add_buffer("running_mean", np.zeros(self.channels, self.dtype))
        self.running_variance = self.add_buffer(
            "running_variance", np.ones(self.channels, self.dtype)
        )
        self._cache: tuple[Array, Any, bool] | None = None
        self._gather = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {
            "channels": self.channels,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "dtype": self.dtype.name,
        }

    @quiet
    def forward(self, x: Array) -> Array:
        """Normalise `x` (..., C); an empty batch leaves the running statistics alone."""
        self._check(x)
        count = math.prod(x.shape[:-1])
        shared = self._gather if self.training else None
        if self.training and count == 1 and shared is None:
            raise self._one_value(x.shape)
        use_batch = self.training and (count > 0 or shared is not None)
        ops = self._pick(batch_norm, naive_batch_norm)
        arrays = (self.scale.value, self.shift.value, self.running_mean, self.running_variance)
        y: Array
        table: Any
        if shared is not None:
            y, x, table = shared_batch_norm.batch_norm(
                x, *arrays, self.momentum, self.epsilon, shared
            )
        elif use_batch:
            y, x, table = ops.batch_norm(x, *arrays, self.momentum, self.epsilon)
        else:
            y, x, table = ops.batch_norm_frozen(x, *arrays, self.epsilon)
        self._cache = (x, table, use_batch)
        return y

    def _check(self, x: Array) -> None:
        check_array("x", x, self)
        if x.ndim < 2 or x.shape[-1] != self.channels:
            cause = f"x: expected (m, ..., {self.channels}), got {x.shape}"
            raise layer_error(ValueError, self, cause)
        if x.dtype != self.dtype:
            raise layer_error(TypeError, self, f"x: expected dtype {self.dtype}, got {x.dtype}")

    def _one_value(self, shape: tuple[int, ...]) -> Exception:
        cause = f"x: more than one value per channel is needed in training, got {shape}"
        return layer_error(OneValueError, self, cause)

    def lower(self, graph: Graph, x: Value, relu: bool = False) -> Lowered:
        """Both passes, as operations; `relu`: the next layer is one, and part of this."""
        self._check(like(x))
        if trains(graph, self) and graph.setting(self, "_gather") is not None:
            return self._lower_shared(graph, x, relu)
        *channels, epsilon = self.lowered_numbers(graph)
        scale_grad, shift_grad = (parameter(graph, p)[1] for p in (self.scale, self.shift))
        training = trains(graph, self)
        if training and math.prod(x.shape[:-1]) == 1:
            raise self._one_value(x.shape)
        norm = layers.BatchNorm(
            graph, x, *channels, momentum=graph.setting(self, "momentum"), epsilon=epsilon,
            relu=relu, frozen=not training,
        )  # fmt: skip

        def backward(dy: Value, need: bool) -> Value | None:
            return norm.backward(dy, scale_grad, shift_grad, need)

        return norm.y, backward

    def _lower_shared(self, graph: Graph, x: Value, relu: bool) -> Lowered:
        """Both passes over a batch that several processes share: called back."""
        *channels, epsilon = self.lowered_numbers(graph)
        grads = [parameter(graph, p)[1] for p in (self.scale, self.shift)]
        momentum, gather = graph.setting(self, "momentum"), graph.setting(self, "_gather")
        y = graph.value(x.shape, x.dtype)
        found: dict[str, SharedTable] = {}

        def forward(
            x: Array, scale: Array, shift: Array, mean: Array, variance: Array, out: Array
        ) -> None:
            result, _, found["table"] = shared_batch_norm.batch_norm(
                x, scale, shift, mean, variance, momentum, epsilon, gather, relu
            )
            np.copyto(out, result)

        def backward(dy: Value, need: bool) -> Value | None:
            dx = graph.value(x.shape, x.dtype) if need else None

            def work(
                dy: Array, x: Array, scale: Array, scale_grad: Array, shift_grad: Array,
                *out: Array,
            ) -> None:  # fmt: skip
                result = shared_batch_norm.batch_norm_backward(
                    dy, x, found["table"], scale, scale_grad, shift_grad, gather, relu
                )
                for array in out:
                    np.copyto(array, result)

            writes = [*grads, *([] if dx is None else [dx])]
            graph.python("backward", work, (dy, x, channels[0]), writes)
            return dx

        graph.python("forward", forward, (x, *channels), (y,))
        return y, backward

    def lowered_numbers(self, graph: Graph) -> Normalisation:
        """The arrays of the channels, as values, and epsilon."""
        scale, shift = (parameter(graph, p)[0] for p in (self.scale, self.shift))
        mean, variance = (
            graph.array(graph.setting(self, name)) for name in ("running_mean", "running_variance")
        )
        return Normalisation(scale, shift, mean, variance, graph.setting(self, "epsilon"))

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`; write the gradients of scale and shift."""
        x, table, used_batch = self._saved(self._cache)
        self._check_dy(dy, x.shape, self.dtype)
        if isinstance(table, SharedTable) and self._gather is not None:
            grads = self.scale.grad, self.shift.grad
            return shared_batch_norm.batch_norm_backward(
                dy, x, table, self.scale.value, *grads, self._gather
            )
        ops = self._pick(batch_norm, naive_batch_norm)
        dx: Array = ops.batch_norm_backward(
            dy, x, table, self.scale.value, self.scale.grad, self.shift.grad, not used_batch
        )
        return dx
