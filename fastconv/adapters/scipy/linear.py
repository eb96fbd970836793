"""Correlation of an array with weights: what the linear filters of `scipy.ndimage` share.

NotImplemented is the answer where the result might not be SciPy's, or would not come sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.adapters.scipy import arguments, windows
from fastconv.adapters.scipy.arguments import Target
from fastconv.adapters.scipy.gain import gains

__all__ = ["filtered", "passes", "spread"]


def filtered(
    x: np.ndarray,
    w: np.ndarray,
    lo: Sequence[int],
    modes: Sequence[str],
    cval: Any,
    output: Any,
    kind: str,
) -> Any:
    """The correlation with `w`, which has the axes of `x`, or NotImplemented."""
    target = arguments.target(output, x, "c" in (x.dtype.kind, w.dtype.kind))
    dtype = _dtype(x, [w], cval, target)
    if target is None or dtype is None or not gains(kind, x.size, w.shape):
        return NotImplemented
    if sum(k > 1 for k in w.shape) > windows.LIMIT:
        return NotImplemented
    y = _correlated(x.astype(_like(x, dtype), copy=False), w, lo, modes, cval)
    return target.put(y) if x.dtype.kind in "biu" or windows.finite(y) else NotImplemented


def passes(x: np.ndarray, steps: Sequence[Any], output: Any, cval: Any, kind: str) -> Any:
    """One correlation after the other, each a step ``(axis, weights, lo, mode)``."""
    target = arguments.target(output, x, x.dtype.kind == "c")
    dtype = _dtype(x, [np.asarray(step[1]) for step in steps], cval, target)
    if target is None or dtype is None or not steps:
        return NotImplemented
    if not gains(kind, x.size, [len(step[1]) for step in steps]):
        return NotImplemented
    y = x.astype(_like(x, dtype), copy=False)
    for axis, weights, lo, mode in steps:
        w = np.expand_dims(weights, [a for a in range(x.ndim) if a != axis])
        starts, words = spread([lo], [axis], x.ndim), spread([mode], [axis], x.ndim)
        y = _correlated(y, w, starts, words, cval)
    return target.put(y) if x.dtype.kind in "biu" or windows.finite(y) else NotImplemented


def _correlated(
    x: np.ndarray, w: np.ndarray, lo: Sequence[int], modes: Sequence[str], cval: Any
) -> np.ndarray:
    pads = [(a, k - 1 - a) for k, a in zip(w.shape, lo, strict=True)]
    return windows.correlated(x, w, pads, modes, cval)


def _dtype(
    x: np.ndarray, weights: Sequence[np.ndarray], cval: Any, target: Target | None
) -> np.dtype | None:
    """The real dtype to compute in, if the result is then SciPy's."""
    if target is None or not arguments.number(cval):
        return None
    if isinstance(cval, complex | np.complexfloating) and x.dtype.kind != "c":
        return None
    if not all(np.isfinite(w).all() for w in weights):
        return None
    if target.dtype.kind in "iu":
        # Of sums beyond 32 unsigned bits between two axes, SciPy keeps what the processor leaves.
        wide = target.dtype.kind == "u" and target.dtype.itemsize >= 4
        return None if wide else windows.exact_dtype(x, weights, cval)
    if x.dtype.kind in "biu" and target.dtype.kind == "c":
        return None
    return windows.rounding(x, target.dtype)


def _like(x: np.ndarray, dtype: np.dtype) -> np.dtype:
    """`dtype`, complex where `x` is."""
    return np.result_type(dtype, np.complex64) if x.dtype.kind == "c" else dtype


def spread(values: Sequence[Any], axes: Sequence[int], ndim: int) -> list[Any]:
    """`values` of those axes among all: of the others, what a window of one cell has."""
    empty: Any = "constant" if isinstance(values[0], str) else 0
    places = dict(zip(axes, values, strict=True))
    return [places.get(axis, empty) for axis in range(ndim)]
