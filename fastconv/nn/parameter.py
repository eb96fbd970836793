"""What training changes: an array and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.checks import Array, assign


class Parameter:
    """An array that training changes, and the gradient of the loss with respect to it.

    Parameters
    ----------
    value : ndarray of float32 or float64, any shape
        Kept as it is when it is a contiguous array of its own; otherwise copied.
    name : str
        What messages and saved files call it; a container makes it the path, such as "0.w".

    Attributes
    ----------
    value, grad : ndarray of one shape and dtype
        Updated in place, never replaced: setting one copies into it, as `assign` does.

    Raises
    ------
    TypeError
        If `value` is not a float32 or float64 array.

    Examples
    --------
    >>> Parameter(np.zeros((3, 3, 1, 8), np.float32), "w").grad.shape
    (3, 3, 1, 8)
    """

    def __init__(self, value: Array, name: str) -> None:
        if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float64):
            kind = getattr(value, "dtype", type(value).__name__)
            raise TypeError(f"value: a float32 or float64 array is needed for {name!r}, got {kind}")
        self.value: Array = np.require(value, requirements=("C", "A", "W"))
        self.grad: Array = np.zeros(self.value.shape, self.value.dtype)
        self.name = name

    def __setattr__(self, name: str, value: Any) -> None:
        held = self.__dict__.get(name) if name in ("value", "grad") else None
        if held is None or value is held:  # `p.value -= step` sets what it has changed in place
            object.__setattr__(self, name, value)
        else:
            assign(held, value, f"{self.name}.{name}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `value` and of `grad`."""
        return self.value.shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.value.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.value.dtype

    def assign(self, value: Array) -> None:
        """Copy `value` into the parameter, in place.

        Raises
        ------
        ValueError, TypeError
            If the shape or the dtype differs: nothing is broadcast or cast.
        """
        assign(self.value, value, self.name)

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype})"
