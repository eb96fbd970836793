"""SciPy's arguments in fastconv's terms; what is wrong or unusual is None: SciPy's to answer.

Symbols: `lo`, cells of the window before the output's cell; an axis of `k` taps has ``k - 1 - lo``
behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "Target",
    "each",
    "integers",
    "modes",
    "number",
    "plain",
    "sorted_axes",
    "starts",
    "target",
]

# What SciPy calls them, and what NumPy does.
MODES = {
    "reflect": "symmetric",
    "grid-mirror": "symmetric",
    "mirror": "reflect",
    "nearest": "edge",
    "wrap": "wrap",
    "constant": "constant",
}
FLOATS = tuple(map(np.dtype, ("float32", "float64")))
COMPLEX = tuple(map(np.dtype, ("complex64", "complex128")))


class Target:
    """Where a result goes: `dtype`, and the caller's array if there is one."""

    def __init__(self, dtype: np.dtype, array: np.ndarray | None = None) -> None:
        self.dtype = dtype
        self.array = array

    def put(self, y: np.ndarray) -> np.ndarray:
        """`y` in this dtype, in the caller's array if there is one."""
        if self.dtype.kind in "iu" and y.dtype.kind == "f":
            y = y.astype(np.int64)  # of negative numbers, C leaves unsigned ones open
        if self.array is None:
            return np.ascontiguousarray(y, self.dtype)
        np.copyto(self.array, y, casting="unsafe")
        return self.array


def plain(value: Any) -> bool:
    """Whether it is an array with elements that fastconv computes with: no subclass, no list."""
    return (
        type(value) is np.ndarray
        and value.ndim > 0
        and value.size > 0
        and value.dtype.isnative
        and (value.dtype in FLOATS or value.dtype in COMPLEX or value.dtype.kind in "biu")
    )


def target(output: Any, x: np.ndarray, needs_complex: bool = False) -> Target | None:
    """Where a result of the shape of `x` goes; `needs_complex` says that it is complex."""
    if output is None:
        return Target(np.promote_types(x.dtype, np.complex64) if needs_complex else x.dtype)
    if type(output) is np.ndarray:
        dtype, array = output.dtype, output
        if array.shape != x.shape or not array.flags.writeable:
            return None
    elif isinstance(output, str | type | np.dtype):
        try:
            dtype, array = np.dtype(output), None
        except TypeError:
            return None
    else:
        return None
    fits = dtype in COMPLEX if needs_complex else dtype in FLOATS or dtype.kind in "iu"
    return Target(dtype, array) if fits and dtype.isnative else None


def number(value: Any) -> bool:
    """Whether it is one real or complex number."""
    return isinstance(value, int | float | complex | np.number)


def each(value: Any, count: int) -> list[Any]:
    """The values of a sequence, or one for all of `count` axes."""
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1):
        return list(value)
    return [value] * count


def integers(value: Any, count: int) -> list[int] | None:
    """`count` integers: one for all, or a sequence of them."""
    values = each(value, count)
    if len(values) != count or not all(isinstance(n, int | np.integer) for n in values):
        return None
    return [int(n) for n in values]


def modes(value: Any, count: int) -> list[str] | None:
    """`count` of NumPy's modes: one for all, or a sequence of SciPy's."""
    values = each(value, count)
    if len(values) != count or not all(isinstance(m, str) and m in MODES for m in values):
        return None
    return [MODES[m] for m in values]


def sorted_axes(axes: Any, ndim: int) -> list[int] | None:
    """The axes to filter, if they are in order: SciPy has a rule of its own where they are not."""
    if axes is None:
        return list(range(ndim))
    found = integers(axes, len(axes) if isinstance(axes, list | tuple) else 1)
    if not found or not all(-ndim <= a < ndim for a in found):
        return None
    found = [a % ndim for a in found]
    return found if found == sorted(set(found)) else None


def starts(sizes: Sequence[int], origins: Sequence[int]) -> list[int] | None:
    """`lo` of each axis, if every window holds its output's cell."""
    lo = [k // 2 + origin for k, origin in zip(sizes, origins, strict=True)]
    return lo if all(0 <= a < k for a, k in zip(lo, sizes, strict=True)) else None
