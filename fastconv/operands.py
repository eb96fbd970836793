"""Array arguments of the public functions: what is accepted, and what `out` must be.

Everything is checked before any work, so a call that raises has changed nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.geometry.cures import array_cure, dtype_cure
from fastconv.geometry.request import DATA_FORMATS

__all__ = [
    "as_array",
    "bias_operand",
    "channels_last",
    "check_activation",
    "computing_dtype",
    "copied",
    "expect_shape",
    "float_dtype",
    "native_dtype",
    "operand",
    "overlap",
    "put",
    "quiet",
    "refuse_foreign",
    "result",
    "same_dtype",
    "user_shape",
]

ACTIVATIONS = (None, "relu")
FLOATS = frozenset(np.dtype(name) for name in ("float32", "float64", "float16"))
# Work bound of the exact overlap test; numbers beyond it are treated as an overlap.
OVERLAP_WORK = 100_000
# The one rule for floating-point flags: an operation neither warns nor raises for an overflow, an
# underflow or an invalid value, whatever the caller's `numpy.errstate`, which it leaves as it is.
# The compiled loops look at no flags; this decorates what NumPy computes, such as casts to float16.
# A call takes 1 us: it is not for what every small convolution or pooling goes through.
quiet = np.errstate(all="ignore")
copied = quiet(np.array)


@quiet
def put(target: np.ndarray, values: Any) -> None:
    """Write values into an array, in its dtype."""
    target[...] = values


def float_dtype(name: str, dtype: Any, cure: str = "") -> np.dtype:
    """`dtype` in native byte order, if it is a dtype that fastconv computes with.

    `cure` ends the message of the TypeError if it is not.

    >>> float_dtype("x", ">f4")
    dtype('float32')
    """
    has = "is" if name.startswith("dtype") else "has dtype"
    try:
        native = np.dtype(dtype).newbyteorder("=") if dtype is not None else None
    except TypeError:  # no dtype at all, or one without a byte order, such as NumPy's strings
        native = None
    if native not in FLOATS:
        found = str(dtype) if native is None else str(np.dtype(dtype))
        legal = "use float32, float64 or float16"
        raise TypeError(f"{name} {has} {found}; {legal}{cure and f': {cure}'}")
    return native


def as_array(name: str, value: Any) -> np.ndarray:
    """`value` as a plain array; neither a mask nor a matrix is taken for one.

    >>> as_array("x", [[1.0, 2.0]]).shape
    (1, 2)
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored; fill it first")
    if isinstance(value, np.matrix):
        raise ValueError(f"{name} is a numpy.matrix, which has 2 axes only; pass an array")
    refuse_foreign(name, value)
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} cannot be made an array: {error}") from error
    except (TypeError, RuntimeError) as error:  # what a foreign array says of itself
        raise TypeError(f"{name} cannot be made an array: {error}") from error


def refuse_foreign(name: str, value: Any) -> None:
    """TypeError for arrays that must not become NumPy's silently: of dask, xarray, or in a graph.

    >>> refuse_foreign("x", [1.0])
    """
    if cure := array_cure(name, value):
        raise TypeError(cure)


def computing_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of sums: float16 is computed in float32."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def operand(name: str, value: Any) -> np.ndarray:
    """`value` as a plain floating-point array of any strides and byte order."""
    if type(value) is np.ndarray and value.dtype in FLOATS:
        return value
    array = as_array(name, value)
    float_dtype(name, array.dtype, dtype_cure(name, array.dtype, isinstance(value, np.ndarray)))
    return array


def pooled(name: str, value: Any) -> np.ndarray:
    """`operand`, for what takes integers and bool too: their maximum needs no sum."""
    if type(value) is np.ndarray and value.dtype.kind in "biu":
        return value
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biu":
        return operand(name, value)
    return as_array(name, value)


def same_dtype(**operands: Any) -> np.dtype:
    """The one dtype of the operands, of which all but the first may be None.

    Mixing dtypes is a TypeError, never an upcast.
    """
    first = next(iter(operands))
    dtype = native_dtype(operands[first])
    for name, array in operands.items():
        if array is not None and array.dtype is not dtype and native_dtype(array) != dtype:
            raise TypeError(
                f"{name} has dtype {native_dtype(array)}, but {first} has {dtype}: convert one, "
                f"such as {name}.astype(np.{dtype})"
            )
    return dtype


def native_dtype(array: np.ndarray) -> np.dtype:
    """The dtype in this machine's byte order."""
    return array.dtype if array.dtype in FLOATS else array.dtype.newbyteorder("=")


def bias_operand(b: Any, F: int, dtype: np.dtype, owner: str) -> np.ndarray:
    """The bias as an array `(F,)` of `dtype`, which `owner` has."""
    if type(b) is np.ndarray and b.dtype is dtype and b.shape == (F,):
        return b  # by far the most frequent
    array = as_array("b", b)
    if not isinstance(b, np.ndarray) and array.dtype.kind in "fiub":  # a number, or a list of them
        if array.ndim == 0:
            made = f"np.full({F}, b, np.{dtype})"
            expect_shape("b", array, (F,), f"one number per filter is needed: {made}, whose shape")
        if array.dtype != dtype:
            cure = f"np.array(b, np.{dtype})"
            raise TypeError(f"b has dtype {array.dtype}, but {owner} has {dtype}: {cure}")
    array = operand("b", array)
    expect_shape("b", array, (F,), "the shape for one number per filter, (F,),")
    if native_dtype(array) != dtype:
        raise TypeError(
            f"b has dtype {native_dtype(array)}, but {owner} has {dtype}: convert one, "
            f"such as b.astype(np.{dtype})"
        )
    return array


def expect_shape(name: str, array: np.ndarray, shape: tuple[int, ...], why: str) -> None:
    """ValueError unless `array` has the `shape` that the other arguments ask for."""
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but {why} is {shape}")


def result(
    out: Any, shape: tuple[int, ...], dtype: np.dtype, **inputs: np.ndarray | None
) -> np.ndarray:
    """A new array, or the caller's `out` if it can take the result.

    Raises
    ------
    TypeError
        If `out` is not an array.
    ValueError
        If `out` has another shape or dtype, is read-only, or overlaps an input or itself.
    MemoryError
        If there is no room for a new array.
    """
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out must be a numpy array, not {type(out).__name__}")
    expect_shape("out", out, shape, "the result's shape")
    if out.dtype != dtype:
        raise ValueError(f"out has dtype {out.dtype.str!r}, but the result has {dtype.str!r}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if not out.flags.c_contiguous and _overlaps_itself(out):
        raise ValueError(f"out overlaps itself: strides {out.strides} for shape {out.shape}")
    for name, array in inputs.items():
        if array is not None and overlap(out, array):
            raise ValueError(f"out overlaps the input {name}")
    return out


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays share an element, or might, where finding out would take long."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, OVERLAP_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _overlaps_itself(array: np.ndarray) -> bool:
    """Whether two elements may share memory: each stride must step over all smaller axes."""
    axes = sorted(
        (abs(stride), n) for stride, n in zip(array.strides, array.shape, strict=True) if n > 1
    )
    reach = array.itemsize
    for stride, n in axes:
        if stride < reach:
            return array.size > 0
        reach = stride * (n - 1) + reach
    return False


def channels_last(array: np.ndarray, data_format: str) -> np.ndarray:
    """`array` seen as ``(m, H, W, C)``: a view, whatever the data format.

    >>> channels_last(np.zeros((2, 3, 8, 9)), "channels_first").shape
    (2, 8, 9, 3)
    """
    if data_format == DATA_FORMATS[0]:
        return array
    return array.transpose(0, *range(2, array.ndim), 1)


def user_shape(shape: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    """The channels-last `shape` in the caller's data format."""
    if data_format == DATA_FORMATS[0]:
        return shape
    m, *size, channels = shape
    return (m, channels, *size)


def check_activation(activation: Any) -> bool:
    """Whether `activation` is ReLU."""
    if activation is not None and not isinstance(activation, str):
        raise TypeError(f"activation={activation!r} must be None or a string")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} must be one of {ACTIVATIONS}")
    return activation == "relu"
