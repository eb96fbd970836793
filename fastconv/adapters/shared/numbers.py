"""Dtypes that hosts have and fastconv does not: bfloat16, integers, bool.

Each is computed in a float dtype that holds its values exactly, and cast back once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["as_float", "exact", "product"]

NATIVE = frozenset(("float16", "float32", "float64"))
LIMB = 16  # bits: products of two limbs are below 2**32, and 2**21 of them sum exactly in float64
FLOAT32_EXACT, FLOAT64_EXACT = 2**24, 2**53  # integers up to here


def as_float(x: np.ndarray) -> np.ndarray:
    """`x` in a dtype that fastconv computes with and that holds every value.

    Raises
    ------
    TypeError
        If the dtype is not one of numbers.
    ValueError
        If a 64-bit integer is too large for float64.

    Examples
    --------
    >>> as_float(np.ones(3, np.uint8)).dtype, as_float(np.ones(3, np.int32)).dtype
    (dtype('float32'), dtype('float64'))
    """
    if x.dtype.name in NATIVE:
        return x
    if x.dtype.name == "bfloat16" or x.dtype.kind == "b":
        return x.astype(np.float32)
    if x.dtype.kind not in "iu":
        raise TypeError(f"dtype {x.dtype} is not one that fastconv can compute with")
    if x.dtype.itemsize <= 2:
        return x.astype(np.float32)
    if x.dtype.itemsize == 8 and x.size and max(int(x.max()), -int(x.min())) > FLOAT64_EXACT:
        raise ValueError(f"{x.dtype} values beyond 2**53 are not exact in float64")
    return x.astype(np.float64)


def product(
    call: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray, w: np.ndarray
) -> np.ndarray:
    """``call(x, w)``, a sum of products of elements of both, in the dtype of `x`.

    Integers wrap around as NumPy's do: operands are cut into limbs of 16 bits, whose products
    are exact. bool is the integers 0 and 1, and true where their sum is not 0.

    Raises
    ------
    TypeError
        If the dtypes differ or are not of numbers.

    Examples
    --------
    >>> x, w = np.full((1, 1), 100, np.int8), np.full((1, 1), 2, np.int8)
    >>> product(np.matmul, x, w)
    array([[-56]], dtype=int8)
    """
    if x.dtype != w.dtype:
        raise TypeError(f"operands have different dtypes, {x.dtype} and {w.dtype}: convert one")
    if x.dtype.kind == "b":
        return call(as_float(x), as_float(w)) != 0
    if x.dtype.kind not in "iu":
        return call(as_float(x), as_float(w)).astype(x.dtype, copy=False)
    limbs = max(1, 8 * x.dtype.itemsize // LIMB)
    total: Any = 0
    for i in range(limbs):
        for j in range(limbs - i):  # what lies above the dtype's bits is lost anyway
            part = call(_limb(x, i), _limb(w, j)).astype(np.uint64)
            total = total + (part << np.uint64(LIMB * (i + j)))
    result: np.ndarray = total.astype(x.dtype)
    return result


def _limb(x: np.ndarray, i: int) -> np.ndarray:
    """Bits ``16*i`` and up of two's complement integers, as floats."""
    bits = x.astype(np.int64).astype(np.uint64) if x.dtype.kind == "i" else x.astype(np.uint64)
    limb: np.ndarray = (bits >> np.uint64(LIMB * i)) & np.uint64(2**LIMB - 1)
    return limb.astype(np.float64)


def exact(
    call: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray, w: np.ndarray, terms: int
) -> np.ndarray:
    """``call(x, w)`` of small integers, each result a sum of `terms` products, as int32.

    Examples
    --------
    >>> exact(np.matmul, np.full((1, 2), -3), np.full((2, 1), 5), 2)
    array([[-30]], dtype=int32)
    """
    largest = [int(np.abs(a).max(initial=0)) for a in (x, w)]
    small = largest[0] * largest[1] * terms <= FLOAT32_EXACT
    dtype = np.float32 if small else np.float64
    return call(x.astype(dtype), w.astype(dtype)).astype(np.int64).astype(np.int32)
