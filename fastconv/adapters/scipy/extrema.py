"""`scipy.ndimage`'s largest and smallest cells of windows, by `fastconv.max_pool`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.ndimage

import fastconv as fc
from fastconv.adapters.scipy import arguments, windows
from fastconv.adapters.scipy.gain import gains
from fastconv.adapters.scipy.own import taking

__all__ = ["maximum_filter", "minimum_filter"]


@taking(scipy.ndimage)
def maximum_filter(
    input: Any,
    size: Any = None,
    footprint: Any = None,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
    *,
    axes: Any = None,
) -> Any:
    """Largest cell of each window: `scipy.ndimage.maximum_filter`.

    Parameters
    ----------
    input : array
    size, footprint, output, mode, cval, origin, axes
        SciPy's; a mode for each axis, too.

    Returns
    -------
    y : array of the shape of `input`
        `output`, if that is an array.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        SciPy's own, for what SciPy does not take.

    Examples
    --------
    >>> maximum_filter(np.eye(300), 3)[1, :4]
    array([1., 1., 1., 1.])
    """
    return _extreme(input, size, footprint, output, mode, cval, origin, axes, False)


@taking(scipy.ndimage)
def minimum_filter(
    input: Any,
    size: Any = None,
    footprint: Any = None,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
    *,
    axes: Any = None,
) -> Any:
    """Smallest cell of each window: `scipy.ndimage.minimum_filter`.

    Parameters
    ----------
    input : array
    size, footprint, output, mode, cval, origin, axes
        SciPy's; a mode for each axis, too.

    Returns
    -------
    y : array of the shape of `input`
        `output`, if that is an array.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        SciPy's own, for what SciPy does not take.

    Examples
    --------
    >>> minimum_filter(-np.eye(300), 3)[1, :4]
    array([-1., -1., -1., -1.])
    """
    return _extreme(input, size, footprint, output, mode, cval, origin, axes, True)


def _extreme(
    x: Any,
    size: Any,
    footprint: Any,
    output: Any,
    mode: Any,
    cval: Any,
    origin: Any,
    axes: Any,
    smallest: bool,
) -> Any:
    if not arguments.plain(x) or x.dtype.kind in "bc" or x.dtype.name in ("int64", "uint64"):
        return NotImplemented  # SciPy compares in float64, which does not hold 64 bits
    found = arguments.sorted_axes(axes, x.ndim)
    if found is None or (size is None) == (footprint is None) or not _holds(x.dtype, cval):
        return NotImplemented
    if footprint is not None:
        if not arguments.plain(footprint) or not footprint.all():
            return NotImplemented
        if footprint.ndim != len(found):
            return NotImplemented
        size = footprint.shape
    sizes, origins = arguments.integers(size, len(found)), arguments.integers(origin, len(found))
    words, target = arguments.modes(mode, len(found)), arguments.target(output, x)
    if not sizes or not origins or not words or target is None or target.dtype != x.dtype:
        return NotImplemented
    lo = arguments.starts(sizes, origins)
    if lo is None or max(sizes) == 1 or not gains("extreme", x.size, sizes):
        return NotImplemented
    y = _opposite(x) if smallest else x
    edge = _opposite(x.dtype.type(cval)) if smallest else cval
    for axis, k, start, word in zip(found, sizes, lo, words, strict=True):
        if k == 1:
            continue
        pads = [(start, k - 1 - start) if a == axis else (0, 0) for a in range(x.ndim)]
        y = _lines(windows.padded(y, pads, [word] * x.ndim, edge), axis, k)
    if x.dtype.kind == "f" and not windows.finite(y):
        return NotImplemented  # with a NaN, SciPy's answer depends on the order of the cells
    return target.put(_opposite(y) if smallest else y)


def _lines(x: np.ndarray, axis: int, k: int) -> np.ndarray:
    """The largest of `k` neighbours along `axis`."""
    before, n, behind = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    images, window = x.reshape(before, n, behind, 1), (k, 1)
    if behind == 1:
        images, window = x.reshape(1, before, n, 1), (1, k)
    shape = (*x.shape[:axis], n - k + 1, *x.shape[axis + 1 :])
    y: np.ndarray = fc.max_pool(images, window, stride=1).reshape(shape)
    return y


def _opposite(x: Any) -> Any:
    """In reverse order: the smallest becomes the largest."""
    return -x if x.dtype.kind == "f" else ~x


def _holds(dtype: np.dtype, cval: Any) -> bool:
    """Whether an array can hold that number."""
    if not isinstance(cval, int | float | np.integer | np.floating):
        return False
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return bool(float(cval).is_integer() and limits.min <= cval <= limits.max)
