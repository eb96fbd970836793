"""Plans: everything that a convolution's shapes decide, decided once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np

from fastconv import _html
from fastconv.geometry import Geometry
from fastconv.geometry.memo import remembered
from fastconv.geometry.resolve import conv_geometry
from fastconv.operands import (
    bias_operand,
    channels_last,
    check_activation,
    computing_dtype,
    expect_shape,
    float_dtype,
    operand,
    quiet,
    result,
    user_shape,
)
from fastconv.plans.algorithm import chosen
from fastconv.plans.deltas import bias_grad
from fastconv.plans.fast import products_of
from fastconv.plans.fold import fold
from fastconv.plans.gradients import OPERANDS, ConvGrads, check_need, grad_results
from fastconv.typing import (
    Activation,
    Algorithm,
    Array,
    ArrayLike,
    DataFormat,
    DTypeLike,
    Int,
    Operand,
    Padding,
    PaddingMode,
    Shape,
)

__all__ = ["ConvPlan", "plan_conv", "planned"]

# Plans that the functions keep between calls.
CACHED_PLANS = 256


class ConvPlan:
    """One convolution, ready to run: made by :func:`plan_conv`.

    A plan holds what depends on the shapes alone. Once `out` is given, a call allocates nothing;
    but an input gradient where copies of cells stand in the padding makes the gradient of the
    padded input first.
    It may be used from several threads at once. Operands must have the plan's shapes and dtype: a
    TypeError or ValueError names the one that has not.

    Attributes
    ----------
    x_shape, w_shape, y_shape : tuple of int
        Shapes in the plan's data format.
    dtype : numpy.dtype
        Of all operands and results.
    flops : int
        Multiplications and additions of one product, ``2 * P * K * F``.
    algorithm : {"exact", "fast"}
        The one that it was made with, whatever surrounds its calls.
    """

    def __init__(
        self, g: Geometry, dtype: np.dtype, data_format: str, relu: bool, algorithm: Algorithm
    ) -> None:
        self.geometry = g
        self.algorithm = algorithm
        self.dtype = dtype
        self.data_format = data_format
        self.x_shape = user_shape(g.x_shape, data_format)
        self.w_shape = g.w_shape
        self.y_shape = user_shape(g.y_shape, data_format)
        self.flops = g.flops
        self._relu, self._mode = relu, g.padding_mode
        self._products = products_of(g, computing_dtype(dtype), algorithm)

    def __repr__(self) -> str:
        return (
            f"ConvPlan(x={self.x_shape}, w={self.w_shape}, y={self.y_shape}, "
            f"{self.dtype}, {self.data_format})"
        )

    def _repr_html_(self) -> str:
        g = self.geometry
        rows = [
            ("x, w, y", f"{self.x_shape}, {self.w_shape}, {self.y_shape}"),
            ("dtype, layout", f"{self.dtype}, {self.data_format}"),
            ("stride, padding, dilation", f"{g.stride}, {g.pads}, {g.dilation}"),
            ("groups, activation", f"{g.G}, {'relu' if self._relu else None}"),
            ("the product", f"[{g.P} x {g.K}] @ [{g.K} x {g.F // g.G}]"),
            ("multiplications and additions", f"{self.flops:,}"),
            ("workspace", f"{self.workspace_nbytes / 2**20:.2f} MiB"),
        ]
        return _html.table("ConvPlan", (), rows)

    @property
    def workspace_nbytes(self) -> int:
        """Bytes that a call needs besides operands and results."""
        if self._mode == "constant":
            return self._products.workspace_nbytes
        padded = math.prod(self.geometry.padded.x_shape) * self._products.dtype.itemsize
        return self._products.workspace_nbytes + padded

    def forward(
        self, x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *, out: Array | None = None
    ) -> Array:
        """``y (m, OH, OW, F) = conv(x, w) + b``, then the activation. See :func:`fastconv.conv`."""
        x, w = self._operand("x", x, self.x_shape), self._operand("w", w, self.w_shape)
        if b is not None:
            b = bias_operand(b, self.geometry.F, self.dtype, "the plan")
        y = result(out, self.y_shape, self.dtype, x=x, w=w, b=b)
        self._products.forward(self._last(x), w, b, self._relu, self._last(y))
        return y

    def input_grad(self, dy: ArrayLike, w: ArrayLike, *, out: Array | None = None) -> Array:
        """``dx (m, H, W, C)``. See :func:`fastconv.conv_input_grad`."""
        dy, w = self._operand("dy", dy, self.y_shape), self._operand("w", w, self.w_shape)
        dx = result(out, self.x_shape, self.dtype, dy=dy, w=w)
        self._input_grad(self._last(dy), w, self._last(dx))
        return dx

    @quiet
    def _input_grad(self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
        if self._mode == "constant":
            self._products.input_grad(dy, w, None, False, dx)
            return
        g = self.geometry
        padded = np.empty(g.padded.x_shape, self._products.dtype)
        self._products.input_grad(dy, w, None, False, padded)
        dx[...] = fold(padded, g.x_size, g.pads, self._mode)

    def kernel_grad(self, x: ArrayLike, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """``dw (KH, KW, C/G, F)``. See :func:`fastconv.conv_kernel_grad`."""
        x, dy = self._operand("x", x, self.x_shape), self._operand("dy", dy, self.y_shape)
        dw = result(out, self.w_shape, self.dtype, x=x, dy=dy)
        self._products.kernel_grad(self._last(x), self._last(dy), dw)
        return dw

    @overload
    def backward(
        self,
        dy: ArrayLike,
        x: ArrayLike,
        w: ArrayLike,
        *,
        out: Sequence[Array | None] | None = None,
    ) -> ConvGrads[Array]: ...

    @overload
    def backward(
        self,
        dy: ArrayLike,
        x: ArrayLike,
        w: ArrayLike,
        *,
        need: Operand | Iterable[Operand],
        out: Sequence[Array | None] | None = None,
    ) -> ConvGrads[Array | None]: ...

    def backward(
        self,
        dy: ArrayLike,
        x: ArrayLike,
        w: ArrayLike,
        *,
        need: Operand | Iterable[Operand] = OPERANDS,
        out: Sequence[Array | None] | None = None,
    ) -> ConvGrads[Array | None]:
        """All gradients, or those of `need`. See :func:`fastconv.conv_backward`.

        `out` holds up to three arrays (dx, dw, db) for the results.
        """
        wanted = check_need(need)
        x, w = self._operand("x", x, self.x_shape), self._operand("w", w, self.w_shape)
        dy = self._operand("dy", dy, self.y_shape)
        shapes = (self.x_shape, self.w_shape, (self.geometry.F,))
        dx, dw, db = grad_results(wanted, out, shapes, self.dtype, dy=dy, x=x, w=w)
        last_dy = self._last(dy)
        if dx is not None:
            self._input_grad(last_dy, w, self._last(dx))
        if dw is not None:
            self._products.kernel_grad(self._last(x), last_dy, dw)
        if db is not None:
            bias_grad(last_dy, db)
        return ConvGrads(dx, dw, db)

    def _operand(self, name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        if type(value) is np.ndarray and value.dtype is self.dtype and value.shape == shape:
            return value  # by far the most frequent
        array = operand(name, value)
        if array.dtype != self.dtype and array.dtype.newbyteorder("=") != self.dtype:
            raise TypeError(f"{name} has dtype {array.dtype}, but the plan is for {self.dtype}")
        if array.shape != shape:
            owner = (
                "the shape of the forward output" if name == "dy" else f"the plan's {name}_shape"
            )
            expect_shape(name, array, shape, owner)
        return array

    def _last(self, array: np.ndarray) -> np.ndarray:
        return channels_last(array, self.data_format)


@remembered(CACHED_PLANS)
def planned(
    x_shape: Any,
    w_shape: Any,
    dtype: np.dtype,
    names: str,
    *,
    data_format: Any,
    activation: Any = None,
    algorithm: Any = "exact",
    **options: Any,
) -> ConvPlan:
    """Kept plan for these arguments; `names` is what the caller calls the first two, "x w"."""
    x, w = names.split()
    g = conv_geometry(x_shape, w_shape, data_format=data_format, names=(x, w), **options)
    return ConvPlan(g, dtype, data_format, check_activation(activation), algorithm)


def plan_conv(
    x_shape: Shape,
    w_shape: Shape,
    dtype: DTypeLike = np.float32,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: DataFormat = "channels_last",
    activation: Activation | None = None,
    padding_mode: PaddingMode = "constant",
    algorithm: Algorithm | None = None,
) -> ConvPlan:
    """Prepare a convolution that will be run many times.

    Parameters
    ----------
    x_shape : sequence of int
        ``(m, H, W, C)``, in the order of `data_format`; 1-D and 3-D likewise.
    w_shape : sequence of int
        ``(KH, KW, C/G, F)``.
    dtype : dtype
        float32, float64 or float16.
    stride, padding, dilation, groups, data_format, activation, padding_mode, algorithm
        As for :func:`fastconv.conv`.

    Returns
    -------
    ConvPlan
        With ``forward``, ``input_grad``, ``kernel_grad`` and ``backward``.

    Raises
    ------
    TypeError, ValueError
        As for :func:`fastconv.conv`.

    Examples
    --------
    >>> plan = plan_conv((64, 28, 28, 1), (3, 3, 1, 32), activation="relu")
    >>> plan.y_shape, plan.flops
    ((64, 26, 26, 32), 24920064)
    >>> y = np.empty(plan.y_shape, plan.dtype)
    >>> x, w = np.ones(plan.x_shape, "float32"), np.ones(plan.w_shape, "float32")
    >>> plan.forward(x, w, out=y) is y
    True
    """
    return planned(
        x_shape,
        w_shape,
        float_dtype("dtype", dtype),
        "x_shape w_shape",
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        activation=activation,
        padding_mode=padding_mode,
        algorithm=chosen(algorithm),
    )
