"""Checks of what a caller gives, and the errors about it: the cause first, then the layer."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastconv.geometry.cures import foreign_array

Array: TypeAlias = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")

# Longest text of an error: what a terminal shows in a few lines.
LONGEST = 280
# Packages whose arrays compute or lose labels when NumPy converts them: never silently.
FOREIGN = {
    "dask": "fastconv.adapters.dask predicts from it; else compute it first: {name}.compute()",
    "xarray": "fastconv.adapters.xarray predicts from it; else take its array: {name}.to_numpy()",
}


def quiet(function: Callable[P, R]) -> Callable[P, R]:
    """`function` without floating-point warnings and errors, whatever `numpy.seterr` says.

    Underflow and overflow belong to training: exp(-1000) is 0. What is not finite in the end is
    the loss, and `fit` says so.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return run


# Errors -----------------------------------------------------------------------------------------


def shown(value: Any, length: int = 60) -> str:
    """`value` as messages show it: an array's shape and dtype, anything else cut to `length`.

    Examples
    --------
    >>> shown(np.zeros((3, 4)))
    'an array of shape (3, 4) and dtype float64'
    >>> shown(dict)
    'the class dict'
    """
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    own: object = type(value).__repr__
    if own is object.__repr__ or hasattr(value, "named_parameters"):
        # An address, or a whole network, would stand before the reason.
        return f"an object of {type(value).__name__}"
    return cut(repr(value), length)


def cut(text: str, length: int) -> str:
    """`text`, or its beginning and an ellipsis, in at most `length` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."


class Place:
    """Where an error happened: kept with the error while it passes through containers."""

    def __init__(self, cause: str, path: str, name: str) -> None:
        self.cause, self.path, self.name = cause, path, name

    def text(self) -> str:
        """Cause, then the layer: in the first line, because a geometry fills several."""
        where = f", in layer {self.path} ({self.name})" if self.path else f", in {self.name}"
        first, *lines = self.cause.split("\n")
        text = cut(first, LONGEST - len(where)) + where
        for line in lines:
            if len(text) + 1 + len(line) > LONGEST:
                break
            text += "\n" + line
        return text


def layer_error(kind: type[Exception], layer: Any, cause: str) -> Exception:
    """An error of a layer that does not know where it stands; a container adds that."""
    place = Place(cause, "", type(layer).__name__)
    error = kind(place.text())
    error.place = place  # type: ignore[attr-defined]
    return error


def locate(error: Exception, key: str, layer: Any) -> None:
    """Say in an error that passes through a container which of its layers it came from.

    Parameters
    ----------
    error : Exception
        Its text becomes "cause, in layer 3 (Dense)"; an error with other arguments than a text,
        such as one of the user's own class, gets a note instead.
    key : str
        Name of the layer in the container; paths grow from the inside out: "2.body.0".
    layer : Layer
    """
    place = getattr(error, "place", None)
    if place is None:
        place = Place(str(error), key, type(layer).__name__)
        if type(error) not in (ValueError, TypeError) or len(error.args) != 1:
            if not hasattr(error, "__notes__"):
                error.add_note(place.text().removeprefix(place.cause).lstrip(", "))
            return
    else:
        place.path = f"{key}.{place.path}" if place.path else key
    error.place = place  # type: ignore[attr-defined]
    error.args = (place.text(),)


# Arrays -----------------------------------------------------------------------------------------


def foreign(name: str, value: Any) -> TypeError | None:
    """What to raise where `value` is a lazy or labelled array, which NumPy would convert."""
    *where, own = name.split()
    found = foreign_array(where.pop() if own.isdecimal() else own, value)
    if found is None:
        return None
    argument, kind, package = found
    cure = FOREIGN[package].format(name=argument)
    return TypeError(f"{name}: a NumPy array is needed, got {kind} of {package}; {cure}")


def as_array(name: str, value: Any) -> Array:
    """`value` (an array, a list, a column of pandas) as a NumPy array.

    Raises
    ------
    TypeError
        If it is lazy, labelled or masked, or cannot be converted, as a torch tensor that requires
        a gradient.
    """
    if error := foreign(name, value):
        raise error
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: the mask of a masked array would be ignored; fill it first")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name}: {cut(str(error), 160)}, got {type(value).__name__}: no NumPy array can be "
            "made of it"
        ) from error


def check_array(name: str, value: Any, layer: Any = None) -> None:
    """Raise TypeError unless `value` is a NumPy array of float32 or float64 and not masked."""
    cause = ""
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        error = foreign(name, value)
        cause = str(error or f"{name}: a NumPy array is needed, got {type(value).__name__}")
        if getattr(value, "requires_grad", False):
            cause += f" that requires a gradient; {name.split()[-1]}.detach().numpy() is one"
    elif value.dtype not in (np.float32, np.float64):
        cause = f"{name}: dtype must be float32 or float64, got {value.dtype}"
    if cause:
        raise TypeError(cause) if layer is None else layer_error(TypeError, layer, cause)


def check_input(layer: Any, x: Any, axes: str, last: int, dtype: Any) -> None:
    """Check a layer's input against `axes` (such as ``"m, H, W"``), its last axis and its dtype."""
    check_array("x", x, layer)
    if x.ndim != axes.count(",") + 2 or x.shape[-1] != last:
        raise layer_error(ValueError, layer, f"x: expected ({axes}, {last}), got {x.shape}")
    if x.dtype != dtype:
        raise layer_error(
            TypeError,
            layer,
            f"x: expected dtype {dtype}, got {x.dtype}; convert with x.astype(np.{dtype})",
        )


def as_layers(name: str, value: Any, number: str, kind: type) -> Any:
    """What an attribute for layers may hold, several as a tuple.

    Parameters
    ----------
    number : {"one", "optional", "several"}
    kind : type
        The class of all layers, which lies above.

    Raises
    ------
    TypeError, ValueError
        If there is no layer, or something else.
    """
    if number != "several":
        if not isinstance(value, kind) and not (value is None and number == "optional"):
            raise TypeError(f"{name}: a fastconv.nn layer is needed, got {shown(value)}")
        return value
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: a tuple of layers is needed, got {shown(value)}")
    if not value:
        raise ValueError(f"{name}: at least one layer is needed")
    for layer in value:
        if not isinstance(layer, kind):
            raise TypeError(f"{name}: expected fastconv.nn layers, got {shown(layer)}")
    return tuple(value)


def assign(target: Array, value: Any, name: str) -> None:
    """Copy `value` into `target`; nothing is broadcast or cast.

    Raises
    ------
    ValueError, TypeError
        If the shape or the dtype differs.
    """
    value = as_array(name, value)
    if value.shape != target.shape:
        raise ValueError(f"{name}: expected shape {target.shape}, got {value.shape}")
    if value.dtype != target.dtype:
        raise TypeError(f"{name}: expected dtype {target.dtype}, got {value.dtype}")
    target[...] = value


# Numbers ----------------------------------------------------------------------------------------


def positive_int(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as a Python int of at least `minimum`; booleans and floats are a TypeError."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: an integer is needed, got {shown(value)}")
    number = operator.index(value)
    if number < minimum:
        raise ValueError(f"{name}: must be at least {minimum}, got {number}")
    return number


def unit_interval(name: str, value: Any) -> float:
    """`value` as a float in [0, 1); anything else is a ValueError or TypeError."""
    number = real_number(name, value)
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{name}: must be in [0, 1), got {value!r}")
    return number


def real_number(name: str, value: Any, *, minimum: float = -np.inf) -> float:
    """`value` as a finite float of at least `minimum`."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: a number is needed, got {shown(value)}")
    number = float(value)
    if not np.isfinite(number) or number < minimum:
        bound = "finite" if minimum == -np.inf else f"finite and at least {minimum:g}"
        raise ValueError(f"{name}: must be {bound}, got {value!r}")
    return number


def plain(value: Any) -> Any:
    """Tuples, lists and NumPy scalars as the nested tuples and scalars that JSON can hold."""
    if isinstance(value, (tuple, list)):
        return tuple(plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    return value
