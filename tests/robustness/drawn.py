"""Hypothesis strategies: calls of the public functions.

A call may be illegal in two ways: its geometry need not fit (the naive loops are the judge of
that), and `spoil` can change one argument into something that is always wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from strategies import geometry, layout

from fastconv import reference

FORMATS = st.sampled_from(["channels_last", "channels_first"])
DTYPES = st.sampled_from(["float32", "float32", "float64", "float16"])


@dataclass
class Call:
    """One call: ``function(*operands, *rest, **options)``; `images` names what has a format."""

    function: str
    operands: dict[str, np.ndarray]
    rest: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, ops: Any, **more: Any) -> Any:
        """Call the function of that name in `ops`; a name with a dot is a plan's method."""
        name, _, method = self.function.partition(".")
        if not method:
            return getattr(ops, name)(*self.operands.values(), *self.rest, **self.options, **more)
        x_shape, w_shape, dtype = self.rest
        plan = ops.plan_conv(x_shape, w_shape, dtype, **self.options)
        return getattr(plan, method)(*self.operands.values(), **more)


class WithPlans:
    """`fastconv.reference` with plans."""

    def __getattr__(self, name):
        return getattr(reference, name)

    @staticmethod
    def plan_conv(x_shape, w_shape, dtype, **options):
        return SimpleNamespace(
            forward=lambda *a: reference.conv(*a, **options),
            backward=lambda *a: reference.conv_backward(*a, **options),
            input_grad=lambda *a: reference.conv_input_grad(*a, x_shape, **options),
            kernel_grad=lambda *a: reference.conv_kernel_grad(*a, w_shape, **options),
        )


def y_shape_of(x_shape, w_shape, options):
    """Shape of conv's result, or None where the geometry does not fit."""
    o = {k: options[k] for k in ("stride", "padding", "dilation", "groups")}
    try:
        return reference._conv_grid(x_shape, w_shape, **o)[1]
    except ValueError:
        return None


@dataclass
class Values:
    """Arrays of small integers, one stream of them for each example."""

    seed: int
    dtype: str
    data_format: str

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)

    def __call__(self, shape, *, image=True, step=1):
        shape = layout(shape, self.data_format) if image else shape
        return (step * self.rng.integers(-4, 5, shape)).astype(self.dtype)


@st.composite
def calls(draw):
    """A call of a public function on small integers."""
    kind = draw(st.sampled_from(["conv", "conv", "transpose", "pool", "columns", "relu"]))
    data_format = draw(FORMATS)
    values = Values(draw(st.integers(0, 2**32 - 1)), draw(DTYPES), data_format)
    make = {
        "conv": _conv_call,
        "transpose": _transpose_call,
        "pool": _pool_call,
        "columns": _columns_call,
        "relu": _relu_call,
    }
    return draw(make[kind](values, data_format))


@st.composite
def _conv_call(draw, values, data_format):
    x_shape, w_shape, options = draw(geometry())
    y_shape = y_shape_of(x_shape, w_shape, options) or (x_shape[0], *x_shape[1:-1], w_shape[-1])
    options["data_format"] = data_format
    x, w, dy = values(x_shape), values(w_shape, image=False), values(y_shape)
    b = values(w_shape[-1:], image=False)
    name = draw(st.sampled_from(["conv", "input_grad", "kernel_grad", "backward"]))
    operands = {
        "conv": {"x": x, "w": w, "b": b},
        "input_grad": {"dy": dy, "w": w},
        "kernel_grad": {"x": x, "dy": dy},
        "backward": {"dy": dy, "x": x, "w": w},
    }[name]
    if draw(st.booleans()):  # the same by a plan
        method = "forward" if name == "conv" else name
        return Call(f"plan_conv.{method}", operands, (x.shape, w.shape, values.dtype), options)
    if name == "conv":
        options["activation"] = draw(st.sampled_from([None, "relu"]))
        return Call("conv", operands, (), options)
    rest = {"input_grad": (x.shape,), "kernel_grad": (w.shape,), "backward": ()}[name]
    return Call(f"conv_{name}", operands, rest, options)


@st.composite
def _transpose_call(draw, values, data_format):
    x_shape, (*window, f, channels), options = draw(geometry())
    G = options["groups"]
    x_shape = (*x_shape[:-1], channels)
    options["output_padding"] = draw(st.sampled_from([0, 0, 0, 1, 2]))
    w = values((*window, f, channels), image=False)
    try:
        o = {k: options[k] for k in ("stride", "padding", "dilation", "groups")}
        y_shape = reference._transposed_grid(x_shape, w.shape, extra=options["output_padding"], **o)
        y_shape = y_shape[1]
    except ValueError:
        y_shape = (*x_shape[:-1], f * G)
    options["data_format"] = data_format
    if draw(st.booleans()):
        b = values((f * G,), image=False)
        return Call("conv_transpose", {"x": values(x_shape), "w": w, "b": b}, (), options)
    operands = {"dy": values(y_shape), "x": values(x_shape), "w": w}
    return Call("conv_transpose_backward", operands, (), options)


@st.composite
def _pool_call(draw, values, data_format):
    x_shape, window, options = draw(geometry("pool"))
    step = 6 ** len(window) if values.dtype != "float16" else 1
    if draw(st.booleans()):
        window_argument = window
    else:
        window_argument, window = window[0], (window[0],) * len(window)
    options["data_format"] = data_format
    x = values(x_shape, step=step)
    name = draw(st.sampled_from(["max_pool", "max_pool_backward", "avg_pool", "avg_pool_backward"]))
    if name == "avg_pool":
        options["count_include_pad"] = draw(st.booleans())
    if name == "max_pool":
        options["return_argmax"] = draw(st.booleans())
        special = np.array([np.nan, np.inf, -np.inf, -0.0], x.dtype)
        if x.size and draw(st.booleans()):
            at = values.rng.random(x.shape) < 0.3
            x[at] = values.rng.choice(special, at.sum())
    if not name.endswith("backward"):
        return Call(name, {"x": x}, (window_argument,), options)
    try:
        y, argmax = reference.max_pool(x, window, return_argmax=True, **options)
    except ValueError:
        y, argmax = x, np.zeros(x.shape, np.int64)
    dy = (step * values.rng.integers(-4, 5, y.shape)).astype(x.dtype)
    if name == "avg_pool_backward":
        options["count_include_pad"] = draw(st.booleans())
        return Call(name, {"dy": dy}, (x.shape, window_argument), options)
    return Call(name, {"dy": dy, "argmax": argmax}, (x.shape, window_argument), options)


@st.composite
def _columns_call(draw, values, data_format):
    x_shape, window, options = draw(geometry("columns"))
    options["data_format"] = data_format
    x = values(x_shape)
    if draw(st.booleans()):
        return Call("im2col", {"x": x}, (window,), options)
    one = (*window, x_shape[-1], 1)
    y_shape = y_shape_of(x_shape, one, options | {"groups": 1}) or x_shape
    cols = values((*y_shape[:-1], math.prod(window) * x_shape[-1]), image=False)
    return Call("col2im", {"cols": cols}, (x.shape, window), options)


@st.composite
def _relu_call(draw, values, data_format):
    shape = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=5)))
    dy, y = (values(shape, image=False) for _ in range(2))
    return Call("relu_backward", {"dy": dy, "y": y})


def outside(view: np.ndarray, room: np.ndarray) -> bytes:
    """The bytes of `room` that do not belong to `view`; the others as zeros."""
    after = room.copy()
    start = view.__array_interface__["data"][0] - room.__array_interface__["data"][0]
    if view.size and room.size:
        np.ndarray(view.shape, view.dtype, after.data, start, view.strides)[...] = 0
    return after.tobytes()
