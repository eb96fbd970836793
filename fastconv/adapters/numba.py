"""`fastconv` inside anybody's ``@njit`` functions; there is nothing to import.

Numba finds `init` through the entry point ``numba_extensions`` when it compiles for the first time.
From then on these are callable from nopython code, in ``prange`` too, with the arguments that they
have in Python: `conv`, `conv_input_grad`, `conv_kernel_grad`, `max_pool`, `max_pool_backward`,
`avg_pool`, `avg_pool_backward`.

Their keywords must stand outside of any ``try`` block.

A call takes the GIL to plan and lets it go while it computes, on the thread that it comes from: who
wants several threads writes the ``prange``. Types that do not fit are a ``TypingError`` when the
caller is compiled; sizes that do not fit are the ValueError that Python code gets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.adapters._host import host

host("numba", "numba")

from numba import objmode, types  # noqa: E402
from numba.core.errors import TypingError  # noqa: E402
from numba.extending import overload  # noqa: E402

__all__ = ["init"]

TEXT = types.unicode_type
FLOATS = (types.float32, types.float64, types.float16)


def init() -> None:
    """Tell Numba about the functions; called once by Numba itself."""
    for function, implementation in IMPLEMENTATIONS.items():
        overload(function, prefer_literal=function is fc.max_pool)(implementation)


def _serially(
    function: Callable[..., Any], first: Any, *args: Any, out: Any = None, **options: Any
) -> tuple[Any, str]:
    """Call a public function on this thread alone, which may be one of a ``prange``.

    Returns the result and "", or something of its type and what a ValueError said: nopython code
    can catch only what nopython code raises.
    """
    try:
        with fc.num_threads(1):
            return function(first, *args, out=out, **options), ""
    except ValueError as error:
        nothing = np.empty((0,) * first.ndim, first.dtype.newbyteorder("="))
        y = nothing if out is None else out
        pair = options.get("return_argmax", False)
        return (y, nothing.astype(np.int64)) if pair else y, str(error)


# ------------------------------------------------------------------------- types


def _names(keywords_only: Any) -> None:
    """The arguments that follow are keywords, as in Python.

    Inside a ``try`` block Numba 0.68 forgets the names of keywords and binds them in the order of
    the parameters. One that nobody may give, in front of them, shows it.
    """
    if _given(keywords_only):
        raise TypingError(
            "stride, padding and what follows must be keywords, outside of any try block: "
            "inside, Numba forgets their names"
        )


def _floats(**arrays: Any) -> Any:
    """The one dtype of arrays of images, errors or kernels; checks their types."""
    names = list(arrays)
    for name, array in arrays.items():
        if not isinstance(array, types.Array):
            raise TypingError(f"{name} is {array}; an array is needed")
        if array.dtype not in FLOATS:
            raise TypingError(f"{name} has dtype {array.dtype}; use float32, float64 or float16")
        if not 3 <= array.ndim <= 5:
            raise TypingError(f"{name} has {array.ndim} axes; 3 to 5 are needed")
        first = arrays[names[0]]
        if array.dtype != first.dtype:
            raise TypingError(
                f"{name} has dtype {array.dtype}, but {names[0]} has {first.dtype}: convert one"
            )
        if array.ndim != first.ndim:
            raise TypingError(
                f"{name} has {array.ndim} axes, but {names[0]} has {first.ndim}: they must be equal"
            )
    return arrays[names[0]].dtype


def _unless_none(value: Any) -> Any:
    """The type of ``value if condition else None``, when it is not None."""
    return value.type if isinstance(value, types.Optional) else value


def _bias(b: Any, dtype: Any) -> None:
    b = _unless_none(b)
    if _given(b) and not (isinstance(b, types.Array) and b.ndim == 1 and b.dtype == dtype):
        raise TypingError(
            f"b is {b}; an array of {dtype} with one axis is needed, or None "
            f"(inside a try block, Numba forgets the names of keywords)"
        )


def _shape(name: str, value: Any, ndim: int) -> None:
    if not (isinstance(value, types.BaseTuple) and len(value) == ndim and _integers(value)):
        raise TypingError(f"{name} is {value}; a tuple of {ndim} integers is needed")


def _steps(padding: Any, **numbers: Any) -> None:
    """Check window, stride, dilation and groups, and padding, which has more forms."""
    if isinstance(numbers.get("stride"), types.Optional) and "window" in numbers:
        numbers["stride"] = _unless_none(numbers["stride"])  # None is a pool's own stride
    for name, value in numbers.items():
        if _given(value) and not (isinstance(value, types.Integer) or _integers(value)):
            raise TypingError(f"{name} is {value}; an integer is needed, or a tuple of integers")
    text = isinstance(padding, types.UnicodeType | types.StringLiteral)
    pairs = isinstance(padding, types.BaseTuple) and all(map(_integers, padding))
    number = isinstance(padding, types.Integer) or _integers(padding)
    if _given(padding) and not (text or pairs or number):
        raise TypingError(f"padding is {padding}; integers, pairs of integers or a name are needed")


def _given(value: Any) -> bool:
    """Whether the caller wrote it: a default arrives as a plain value or as Omitted."""
    return isinstance(value, types.Type) and not isinstance(value, types.Omitted | types.NoneType)


def _integers(value: Any) -> bool:
    return isinstance(value, types.BaseTuple) and all(isinstance(n, types.Integer) for n in value)


def _made(out: Any, dtype: Any, ndim: int) -> Any:
    """Type of the result: a new array, or `out`, or either."""
    if not _given(out):
        return types.Array(dtype, ndim, "C")
    if isinstance(out, types.Optional):
        layout = "C" if _made(out.type, dtype, ndim).layout == "C" else "A"
        return types.Array(dtype, ndim, layout)
    if not isinstance(out, types.Array) or out.dtype != dtype or out.ndim != ndim:
        raise TypingError(f"out is {out}; an array of {dtype} with {ndim} axes is needed, or None")
    return out


# ------------------------------------------------------------------------- implementations


def _conv(
    x, w, b=None, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
    data_format="channels_last", activation=None, out=None,
):  # fmt: skip
    _names(keywords_only)
    dtype = _floats(x=x, w=w)
    _bias(b, dtype)
    _steps(padding, stride=stride, dilation=dilation, groups=groups)
    made = _made(out, dtype, x.ndim)

    def conv(
        x, w, b=None, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
        data_format="channels_last", activation=None, out=None,
    ):  # fmt: skip
        with objmode(y=made, wrong=TEXT):
            y, wrong = _serially(
                fc.conv, x, w, b, stride=stride, padding=padding, dilation=dilation,
                groups=groups, data_format=data_format, activation=activation, out=out,
            )  # fmt: skip
        if wrong:
            raise ValueError(wrong)
        return y

    return conv


def _conv_input_grad(
    dy, w, x_shape, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
    data_format="channels_last", out=None,
):  # fmt: skip
    _names(keywords_only)
    dtype = _floats(dy=dy, w=w)
    _shape("x_shape", x_shape, dy.ndim)
    _steps(padding, stride=stride, dilation=dilation, groups=groups)
    made = _made(out, dtype, dy.ndim)

    def conv_input_grad(
        dy, w, x_shape, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
        data_format="channels_last", out=None,
    ):  # fmt: skip
        with objmode(dx=made, wrong=TEXT):
            dx, wrong = _serially(
                fc.conv_input_grad, dy, w, x_shape, stride=stride, padding=padding,
                dilation=dilation, groups=groups, data_format=data_format, out=out,
            )  # fmt: skip
        if wrong:
            raise ValueError(wrong)
        return dx

    return conv_input_grad


def _conv_kernel_grad(
    x, dy, w_shape, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
    data_format="channels_last", out=None,
):  # fmt: skip
    _names(keywords_only)
    dtype = _floats(x=x, dy=dy)
    _shape("w_shape", w_shape, x.ndim)
    _steps(padding, stride=stride, dilation=dilation, groups=groups)
    made = _made(out, dtype, x.ndim)

    def conv_kernel_grad(
        x, dy, w_shape, keywords_only=None, stride=1, padding=0, dilation=1, groups=1,
        data_format="channels_last", out=None,
    ):  # fmt: skip
        with objmode(dw=made, wrong=TEXT):
            dw, wrong = _serially(
                fc.conv_kernel_grad, x, dy, w_shape, stride=stride, padding=padding,
                dilation=dilation, groups=groups, data_format=data_format, out=out,
            )  # fmt: skip
        if wrong:
            raise ValueError(wrong)
        return dw

    return conv_kernel_grad


def _max_pool(
    x, window, keywords_only=None, stride=None, padding=0, dilation=1, ceil_mode=False,
    return_argmax=False, data_format="channels_last", out=None,
):  # fmt: skip
    _names(keywords_only)
    dtype = _floats(x=x)
    _steps(padding, window=window, stride=stride, dilation=dilation)
    made, winners = _made(out, dtype, x.ndim), types.Array(types.int64, x.ndim, "C")
    wanted = getattr(return_argmax, "literal_value", getattr(return_argmax, "value", return_argmax))
    if not isinstance(wanted, bool):
        raise TypingError("return_argmax must be written as True or False: it decides the type")

    def max_pool(
        x, window, keywords_only=None, stride=None, padding=0, dilation=1, ceil_mode=False,
        return_argmax=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        with objmode(y=made, wrong=TEXT):
            y, wrong = _serially(
                fc.max_pool, x, window, stride=stride, padding=padding, dilation=dilation,
                ceil_mode=ceil_mode, data_format=data_format, out=out,
            )  # fmt: skip
        if wrong:
            raise ValueError(wrong)
        return y

    def max_pool_and_winners(
        x, window, keywords_only=None, stride=None, padding=0, dilation=1, ceil_mode=False,
        return_argmax=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        with objmode(y=made, argmax=winners, wrong=TEXT):
            (y, argmax), wrong = _serially(
                fc.max_pool, x, window, stride=stride, padding=padding, dilation=dilation,
                ceil_mode=ceil_mode, return_argmax=True, data_format=data_format, out=out,
            )  # fmt: skip
        if wrong:
            raise ValueError(wrong)
        return y, argmax

    return max_pool_and_winners if wanted else max_pool


def _max_pool_backward(
    dy, argmax, x_shape, window, keywords_only=None, stride=None, padding=0, dilation=1,
    ceil_mode=False, data_format="channels_last", out=None,
):  # fmt: skip
    _names(keywords_only)
    dtype = _floats(dy=dy)
    if not (isinstance(argmax, types.Array) and argmax.dtype == types.int64):
        raise TypingError(f"argmax is {argmax}; an array of int64 is needed")
    _shape("x_shape", x_shape, dy.ndim)
    _steps(padding, window=window, stride=stride, dilation=dilation)
    made = _made(out, dtype, dy.ndim)

    def max_pool_backward(
        dy, argmax, x_shape, window, keywords_only=None, stride=None, padding=0, dilation=1,
        ceil_mode=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        with objmode(dx=made, wrong=TEXT):
            dx, wrong = _serially(
                fc.max_pool_backward, dy, argmax, x_shape, window, stride=stride, padding=padding,
                dilation=dilation, ceil_mode=ceil_mode, data_format=data_format, out=out,
            )  # fmt: skip
        if wrong:
            raise ValueError(wrong)
        return dx

    return max_pool_backward


def _avg_pool(
    x, window, keywords_only=None, stride=None, padding=0, dilation=1,
    ceil_mode=False, count_include_pad=False, data_format="channels_last", out=None,
):  # fmt: skip
    _names(keywords_only)
    dtype = _floats(x=x)
    _steps(padding, window=window, stride=stride, dilation=dilation)
    made = _made(out, dtype, x.ndim)

    def avg_pool(
        x, window, keywords_only=None, stride=None, padding=0, dilation=1,
        ceil_mode=False, count_include_pad=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        with objmode(y=made, wrong=TEXT):
            y, wrong = _serially(
                fc.avg_pool, x, window, stride=stride, padding=padding, dilation=dilation,
                ceil_mode=ceil_mode, count_include_pad=count_include_pad,
                data_format=data_format, out=out,
            )  # fmt: skip
        if wrong:
            raise ValueError(wrong)
        return y

    return avg_pool


def _avg_pool_backward(
    dy, x_shape, window, keywords_only=None, stride=None, padding=0, dilation=1,
    ceil_mode=False, count_include_pad=False, data_format="channels_last", out=None,
):  # fmt: skip
    _names(keywords_only)
    dtype = _floats(dy=dy)
    _shape("x_shape", x_shape, dy.ndim)
    _steps(padding, window=window, stride=stride, dilation=dilation)
    made = _made(out, dtype, dy.ndim)

    def avg_pool_backward(
        dy, x_shape, window, keywords_only=None, stride=None, padding=0, dilation=1,
        ceil_mode=False, count_include_pad=False, data_format="channels_last", out=None,
    ):  # fmt: skip
        with objmode(dx=made, wrong=TEXT):
            dx, wrong = _serially(
                fc.avg_pool_backward, dy, x_shape, window, stride=stride, padding=padding,
                dilation=dilation, ceil_mode=ceil_mode, count_include_pad=count_include_pad,
                data_format=data_format, out=out,
            )  # fmt: skip
        if wrong:
            raise ValueError(wrong)
        return dx

    return avg_pool_backward


IMPLEMENTATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    fc.conv: _conv,
    fc.conv_input_grad: _conv_input_grad,
    fc.conv_kernel_grad: _conv_kernel_grad,
    fc.max_pool: _max_pool,
    fc.max_pool_backward: _max_pool_backward,
    fc.avg_pool: _avg_pool,
    fc.avg_pool_backward: _avg_pool_backward,
}
