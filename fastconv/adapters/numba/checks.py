"""What the types of arguments must be, before anything is compiled for them."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core.errors import TypingError

__all__ = ["bias", "floats", "given", "integers", "made", "names", "shape", "steps"]

FLOATS = (types.float32, types.float64, types.float16)


def names(keywords_only: Any) -> None:
    """The arguments that follow are keywords, as in Python.

    Inside a ``try`` block Numba 0.68 forgets the names of keywords and binds them in the order of
    the parameters. One that nobody may give, in front of them, shows it.
    """
    if given(keywords_only):
        raise TypingError(
            "stride, padding and what follows must be keywords, outside of any try block: "
            "inside, Numba forgets their names"
        )


def floats(**arrays: Any) -> Any:
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


def unless_none(value: Any) -> Any:
    """The type of ``value if condition else None``, when it is not None."""
    return value.type if isinstance(value, types.Optional) else value


def bias(b: Any, dtype: Any) -> None:
    """A bias is an array of one axis, or None."""
    b = unless_none(b)
    if given(b) and not (isinstance(b, types.Array) and b.ndim == 1 and b.dtype == dtype):
        raise TypingError(
            f"b is {b}; an array of {dtype} with one axis is needed, or None "
            f"(inside a try block, Numba forgets the names of keywords)"
        )


def shape(name: str, value: Any, ndim: int) -> None:
    """A shape is a tuple of as many integers as there are axes."""
    if not (isinstance(value, types.BaseTuple) and len(value) == ndim and integers(value)):
        raise TypingError(f"{name} is {value}; a tuple of {ndim} integers is needed")


def steps(padding: Any, **numbers: Any) -> None:
    """Check window, stride, dilation and groups, and padding, which has more forms."""
    if isinstance(numbers.get("stride"), types.Optional) and "window" in numbers:
        numbers["stride"] = unless_none(numbers["stride"])  # None is a pool's own stride
    for name, value in numbers.items():
        if given(value) and not (isinstance(value, types.Integer) or integers(value)):
            raise TypingError(f"{name} is {value}; an integer is needed, or a tuple of integers")
    text = isinstance(padding, types.UnicodeType | types.StringLiteral)
    pairs = isinstance(padding, types.BaseTuple) and all(map(integers, padding))
    number = isinstance(padding, types.Integer) or integers(padding)
    if given(padding) and not (text or pairs or number):
        raise TypingError(f"padding is {padding}; integers, pairs of integers or a name are needed")


def given(value: Any) -> bool:
    """Whether the caller wrote it: a default arrives as a plain value or as Omitted."""
    return isinstance(value, types.Type) and not isinstance(value, types.Omitted | types.NoneType)


def integers(value: Any) -> bool:
    """Whether it is a tuple of integers."""
    return isinstance(value, types.BaseTuple) and all(isinstance(n, types.Integer) for n in value)


def made(out: Any, dtype: Any, ndim: int) -> Any:
    """Type of the result: a new array, or `out`, or either."""
    if not given(out):
        return types.Array(dtype, ndim, "C")
    if isinstance(out, types.Optional):
        layout = "C" if made(out.type, dtype, ndim).layout == "C" else "A"
        return types.Array(dtype, ndim, layout)
    if not isinstance(out, types.Array) or out.dtype != dtype or out.ndim != ndim:
        raise TypingError(f"out is {out}; an array of {dtype} with {ndim} axes is needed, or None")
    return out
