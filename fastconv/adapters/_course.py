"""What the adapters for course code share: dtypes, and tied maxima."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.operands import FLOATS, as_array, quiet

__all__ = ["floats", "tied"]


def floats(**values: Any) -> list[np.ndarray]:
    """Named `values` as arrays of one dtype: theirs if fastconv has it, else float64."""
    arrays = [as_array(name, value) for name, value in values.items()]
    kinds = {array.dtype.newbyteorder("=") for array in arrays}
    if len(kinds) == 1 and kinds <= FLOATS:
        return arrays
    return [array.astype(np.float64, copy=False) for array in arrays]


@quiet
def tied(
    x: np.ndarray, y: np.ndarray, dy: np.ndarray, window: tuple[int, int], stride: int, share: bool
) -> np.ndarray:
    """Gradient of max pooling in which every cell that equals its window's maximum is a winner.

    Parameters
    ----------
    x : array (m, H, W, C)
        Input of the forward call.
    y, dy : array (m, OH, OW, C)
        The maxima, and the gradient with respect to them.
    window : (KH, KW)
    stride : int
    share : bool
        Split each error evenly among the winners; otherwise each gets the whole error.
    """
    OH, OW = y.shape[1:3]
    taps = [
        (slice(None), _every(u, OH, stride), _every(v, OW, stride))
        for u in range(window[0])
        for v in range(window[1])
    ]
    if share:
        dy = dy / sum(x[tap] == y for tap in taps)  # of a maximum that is NaN, by zero
    dx = np.zeros_like(x, dy.dtype)
    for tap in taps:
        dx[tap] += dy * (x[tap] == y)
    return dx


def _every(first: int, count: int, step: int) -> slice:
    """`count` cells from `first` on, `step` apart."""
    return slice(first, first + (count - 1) * step + 1, step)
