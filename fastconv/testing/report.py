"""What the checks share: is it the right array at all, and which element is worst."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["EXACT", "expect_array", "worst"]

# Integers up to here are exact; float16 is summed in float32.
EXACT = {"float16": 2**24, "float32": 2**24, "float64": 2**53}


def worst(wrong: np.ndarray, excess: np.ndarray) -> tuple[int, ...]:
    """Index of the wrong element with the largest excess; one that is no number comes first."""
    rank = np.where(wrong, np.where(np.isnan(excess), np.inf, excess), -np.inf)
    return tuple(int(i) for i in np.unravel_index(np.argmax(rank), rank.shape))


def expect_array(name: str, got: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    """Assert that ``got`` is an array of this dtype (in any byte order) and shape."""
    if not isinstance(got, np.ndarray):
        raise AssertionError(f"{name} must be a NumPy array; got {type(got).__name__}")
    if got.dtype.newbyteorder("=") != dtype or got.shape != shape:
        found = f"{got.dtype} {got.shape}"
        raise AssertionError(f"{name} must be {dtype} with shape {shape}; got {found}")
