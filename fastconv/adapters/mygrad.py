"""MyGrad's `conv_nd` and `max_pool` with fastconv inside, and two more in their style.

Same signatures and rules: ``x (N, C, X0, ...)``, filters ``(F, C, W0, ...)``, and only a stride
that fits the image exactly. What fastconv does not compute (integers, more than three spatial axes,
images without a cell) is left to MyGrad's own functions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastconv as fc
from fastconv._extras import host
from fastconv.adapters.shared.bilinear import CONV, CONV_TRANSPOSE, Bilinear
from fastconv.geometry import effective
from fastconv.geometry.request import integer, is_sequence
from fastconv.operands import FLOATS, refuse_foreign
from fastconv.typing import Int

host("mygrad", "mygrad")

import mygrad  # noqa: E402
from mygrad import Tensor  # noqa: E402
from mygrad.nnet import layers  # noqa: E402
from mygrad.operation_base import Operation  # noqa: E402

__all__ = ["ArgumentError", "avg_pool", "conv_nd", "conv_transpose_nd", "max_pool"]

NCHW = "channels_first"


class ArgumentError(ValueError, AssertionError):
    """An argument that does not fit; MyGrad raises one of the two for its own functions."""


def conv_nd(
    x: Any,
    filter_bank: Any,
    *,
    stride: Int,
    padding: Int = 0,
    dilation: Int = 1,
    constant: bool | None = None,
) -> Tensor:
    """Convolution of a batch of images, 1-D, 2-D or 3-D.

    Parameters
    ----------
    x : array-like (N, C, X0, ...)
    filter_bank : array-like (F, C, W0, ...)
    stride, padding, dilation : int, or one per spatial axis
        The stride must take the window from one end of the padded image exactly to the other.
    constant : bool, optional
        Whether the result takes no part in back-propagation.

    Returns
    -------
    Tensor (N, F, G0, ...)

    Raises
    ------
    ArgumentError
        A ValueError and an AssertionError: for sizes that do not fit.

    Examples
    --------
    >>> x, k = mygrad.ones((1, 1, 8)), mygrad.ones((1, 1, 3))
    >>> conv_nd(x, k, stride=1).sum().backward()
    >>> x.grad.tolist()
    [[[1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 2.0, 1.0]]]
    """
    x, filter_bank = _tensor("x", x), _tensor("filter_bank", filter_bank)
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    if not _computes(x, filter_bank, rank=x.ndim - 2):
        return layers.conv_nd(x, filter_bank, **steps, constant=constant)
    _check_fit(x, filter_bank.shape[2:], **steps)
    return Tensor._op(_Conv, x, filter_bank, op_kwargs=steps, constant=constant)


def conv_transpose_nd(
    x: Any,
    filter_bank: Any,
    *,
    stride: Int,
    padding: Int = 0,
    output_padding: Int = 0,
    dilation: Int = 1,
    constant: bool | None = None,
) -> Tensor:
    """Transposed convolution; see :func:`fastconv.conv_transpose`.

    Parameters
    ----------
    x : array-like (N, C, X0, ...)
    filter_bank : array-like (C, F, W0, ...)
        Filters of the convolution whose input gradient this is.
    stride, padding, output_padding, dilation : int, or one per spatial axis
    constant : bool, optional
        Whether the result takes no part in back-propagation.

    Returns
    -------
    Tensor (N, F, G0, ...)

    Raises
    ------
    ArgumentError
        For sizes that do not fit.

    Examples
    --------
    >>> conv_transpose_nd(mygrad.ones((2, 8, 4, 4)), mygrad.ones((8, 3, 2, 2)), stride=2).shape
    (2, 3, 8, 8)
    """
    x, filter_bank = _tensor("x", x), _tensor("filter_bank", filter_bank)
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    options = {**steps, "output_padding": output_padding}
    return Tensor._op(_ConvTranspose, x, filter_bank, op_kwargs=options, constant=constant)


def max_pool(x: Any, pool: Int, stride: Int, *, constant: bool | None = None) -> Tensor:
    """Maximum of windows over the last axes.

    Parameters
    ----------
    x : array-like (..., X0, ...)
    pool : tuple of int, or int
        The window; its length is the number of axes that are pooled. An integer is the extent on
        every axis behind the first two, of images ``(N, C, X0, ...)``.
    stride : int, or one per pooled axis
        Must take the window from one end of the image exactly to the other.
    constant : bool, optional
        Whether the result takes no part in back-propagation.

    Returns
    -------
    Tensor (..., G0, ...)
        The gradient goes to the first maximum of each window.

    Raises
    ------
    ArgumentError
        For sizes that do not fit.

    Examples
    --------
    >>> max_pool(mygrad.arange(6.0).reshape(2, 3), (2,), 1).data.tolist()
    [[1.0, 2.0], [4.0, 5.0]]
    """
    x = _tensor("x", x)
    window = _window(x, pool)
    if not _computes(x, rank=len(window)):
        return layers.max_pool(x, window, stride, constant=constant)
    _check_fit(x, window, stride)
    return Tensor._op(_MaxPool, x, op_args=(window, stride), constant=constant)


def avg_pool(x: Any, pool: Int, stride: Int, *, constant: bool | None = None) -> Tensor:
    """Mean of windows over the last axes; arguments as for :func:`max_pool`.

    Returns
    -------
    Tensor (..., G0, ...)

    Raises
    ------
    ArgumentError
        For sizes that do not fit.

    Examples
    --------
    >>> avg_pool(mygrad.arange(6.0).reshape(2, 3), (2,), 1).data.tolist()
    [[0.5, 1.5], [3.5, 4.5]]
    """
    x = _tensor("x", x)
    window = _window(x, pool)
    _check_fit(x, window, stride)
    return Tensor._op(_AvgPool, x, op_args=(window, stride), constant=constant)


# ------------------------------------------------------------------------- checks


def _tensor(name: str, value: Any) -> Tensor:
    """`value` as a tensor, if MyGrad may read it."""
    refuse_foreign(name, value)
    return mygrad.astensor(value)


def _window(x: Tensor, pool: Int) -> tuple[int, ...]:
    """`pool` with an entry for each axis that is pooled."""
    if is_sequence(pool):
        return tuple(integer("pool", k) for k in pool)  # type: ignore[union-attr]
    extent = integer("pool", pool)
    if x.ndim < 3:
        raise ArgumentError(
            f"pool: {pool!r} must be a tuple, one extent for each axis that is pooled: x has shape "
            f"{x.shape}, without an axis behind images and channels"
        )
    return (extent,) * (x.ndim - 2)


def _computes(*tensors: Tensor, rank: int) -> bool:
    """Whether fastconv has this dtype, this many spatial axes, and a cell to compute with."""
    dtype = np.result_type(*(tensor.dtype for tensor in tensors))
    return dtype in FLOATS and 1 <= rank <= 3 and all(tensor.size for tensor in tensors)


def _check_fit(
    x: Tensor, window: tuple[int, ...], stride: Int, padding: Int = 0, dilation: Int = 1
) -> None:
    """MyGrad's rule, which fastconv does not have: no cell may be left over."""
    rank = len(window)
    steps: list[Any] = [stride, padding, dilation]
    s, p, d = (np.broadcast_to(a, rank) if np.ndim(a) == 0 else a for a in steps)
    for n in s:
        integer("stride", n)  # None too, which is the window elsewhere
    if not all(hasattr(n, "__index__") for n in (*p, *d)):
        return  # the call itself says what is wrong
    sizes = x.shape[x.ndim - rank :]
    if not rank == len(sizes) == len(s) == len(p) == len(d) or min(s) < 1:
        return
    for n, k, step, pad, apart in zip(sizes, window, s, p, d, strict=True):
        spare = n + 2 * pad - effective(k, apart)
        if spare >= 0 and spare % step:
            raise ArgumentError(
                f"stride={stride} leaves cells over: a window of {effective(k, apart)} moves by "
                f"{step} over {n + 2 * pad} cells (x has shape {x.shape}, padding={padding})"
            )


def _refusing(function: Any, *args: Any, **options: Any) -> Any:
    """Call a function of fastconv; its ValueError is what MyGrad's callers may expect, too."""
    try:
        return function(*args, **options)
    except ValueError as error:
        raise ArgumentError(str(error)) from error


# ------------------------------------------------------------------------- operations


class _Product(Operation):
    """A product of images and filters."""

    product: Bilinear

    def __call__(self, x: Tensor, w: Tensor, **options: Any) -> np.ndarray:
        self.variables = (x, w)
        self.options = {**options, "data_format": NCHW}
        self.dtype = np.result_type(x.dtype, w.dtype)
        y: np.ndarray = _refusing(self.product.apply, *self._operands(), **self.options)
        return y

    def backward_var(self, grad: np.ndarray, index: int, **_: Any) -> np.ndarray:
        """Gradient for the images (0) or the filters (1)."""
        x, w = self._operands()
        dy = grad.astype(self.dtype, copy=False)
        if index == 0:
            dx: np.ndarray = self.product.x_grad(dy, w, x.shape, **self.options)
            return dx
        dw = self.product.w_grad(x, dy, w.shape, **self.options)
        return np.ascontiguousarray(np.moveaxis(dw, (-1, -2), (0, 1)))  # (F, C, W0, ...)

    def _operands(self) -> tuple[np.ndarray, np.ndarray]:
        """Images as they are, filters as (W0, ..., C, F)."""
        x, w = (variable.data.astype(self.dtype, copy=False) for variable in self.variables)
        return x, w if w.ndim < 2 else np.moveaxis(w, (0, 1), (-1, -2))


class _Conv(_Product):
    product = CONV


class _ConvTranspose(_Product):
    product = CONV_TRANSPOSE


class _Pool(Operation):
    """A pooling over the last axes: those before are joined to images and channels."""

    def __call__(self, x: Tensor, window: tuple[int, ...], stride: Int) -> np.ndarray:
        self.variables = (x,)
        self.window = window
        self.options: dict[str, Any] = {"stride": stride, "data_format": NCHW}
        lead, size = x.shape[: x.ndim - len(window)], x.shape[x.ndim - len(window) :]
        self.shape = (math.prod(lead[:-1]), math.prod(lead[-1:]), *size)
        y = self._pool(x.data.reshape(self.shape))
        self.y_shape, self.dtype = y.shape, y.dtype
        return y.reshape(*lead, *y.shape[2:])

    def backward_var(self, grad: np.ndarray, index: int, **_: Any) -> np.ndarray:
        """Gradient for the images."""
        dy = grad.reshape(self.y_shape).astype(self.dtype, copy=False)
        return self._spread(dy).reshape(self.variables[0].shape)

    def _pool(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _spread(self, dy: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class _MaxPool(_Pool):
    def _pool(self, x: np.ndarray) -> np.ndarray:
        y, self.argmax = _refusing(fc.max_pool, x, self.window, return_argmax=True, **self.options)
        return y

    def _spread(self, dy: np.ndarray) -> np.ndarray:
        return fc.max_pool_backward(dy, self.argmax, self.shape, self.window, **self.options)


class _AvgPool(_Pool):
    def _pool(self, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = _refusing(fc.avg_pool, x, self.window, **self.options)
        return y

    def _spread(self, dy: np.ndarray) -> np.ndarray:
        return fc.avg_pool_backward(dy, self.shape, self.window, **self.options)
