"""The linear filters of `scipy.ndimage`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.ndimage

from fastconv.adapters.scipy import arguments, windows
from fastconv.adapters.scipy.linear import filtered, spread
from fastconv.adapters.scipy.own import taking

__all__ = [
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "laplace",
    "prewitt",
    "sobel",
]

# Weights that are not above it, `ndimage.correlate` leaves out.
TINY = np.finfo(np.float64).eps


@taking(scipy.ndimage)
def correlate(
    input: Any,
    weights: Any,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
    *,
    axes: Any = None,
) -> Any:
    """Correlation with weights over some or all axes: `scipy.ndimage.correlate`.

    Parameters
    ----------
    input : array
    weights : array
        An axis for each of `axes`, or of `input`.
    output, mode, cval, origin, axes
        SciPy's; `mode` is one of reflect, constant, nearest, mirror, wrap.

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
    >>> correlate(np.ones((300, 300)), np.ones((3, 3)), mode="constant")[:2, :2]
    array([[4., 6.],
           [6., 9.]])
    """
    return _over_axes(input, weights, output, mode, cval, origin, axes, False)


@taking(scipy.ndimage)
def convolve(
    input: Any,
    weights: Any,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
    *,
    axes: Any = None,
) -> Any:
    """Convolution with weights over some or all axes: `scipy.ndimage.convolve`.

    Parameters
    ----------
    input : array
    weights : array
        An axis for each of `axes`, or of `input`.
    output, mode, cval, origin, axes
        SciPy's; `mode` is one of reflect, constant, nearest, mirror, wrap.

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
    >>> convolve(np.eye(300), np.array([[1.0, 2.0, 3.0]]))[1, :4]
    array([1., 2., 3., 0.])
    """
    return _over_axes(input, weights, output, mode, cval, origin, axes, True)


@taking(scipy.ndimage)
def correlate1d(
    input: Any,
    weights: Any,
    axis: Any = -1,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
) -> Any:
    """Correlation along one axis: `scipy.ndimage.correlate1d`.

    Parameters
    ----------
    input : array
    weights : array (k,)
    axis, output, mode, cval, origin
        SciPy's.

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
    >>> correlate1d(np.eye(300), [1, 2, 3])[1, :4]
    array([3., 2., 1., 0.])
    """
    return _along_axis(input, weights, axis, output, mode, cval, origin, False)


@taking(scipy.ndimage)
def convolve1d(
    input: Any,
    weights: Any,
    axis: Any = -1,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
) -> Any:
    """Convolution along one axis: `scipy.ndimage.convolve1d`.

    Parameters
    ----------
    input : array
    weights : array (k,)
    axis, output, mode, cval, origin
        SciPy's.

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
    >>> convolve1d(np.eye(300), [1, 2, 3])[1, :4]
    array([1., 2., 3., 0.])
    """
    return _along_axis(input, weights, axis, output, mode, cval, origin, True)


@taking(scipy.ndimage)
def sobel(
    input: Any, axis: Any = -1, output: Any = None, mode: Any = "reflect", cval: Any = 0.0
) -> Any:
    """Sobel's derivative along one axis: `scipy.ndimage.sobel`.

    Parameters
    ----------
    input : array
    axis, output, mode, cval
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
    >>> sobel(np.arange(90000.0).reshape(300, 300))[1, :3]
    array([4., 8., 8.])
    """
    return _slope(input, axis, output, mode, cval, [1, 2, 1])


@taking(scipy.ndimage)
def prewitt(
    input: Any, axis: Any = -1, output: Any = None, mode: Any = "reflect", cval: Any = 0.0
) -> Any:
    """Prewitt's derivative along one axis: `scipy.ndimage.prewitt`.

    Parameters
    ----------
    input : array
    axis, output, mode, cval
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
    >>> prewitt(np.arange(90000.0).reshape(300, 300))[1, :3]
    array([3., 6., 6.])
    """
    return _slope(input, axis, output, mode, cval, [1, 1, 1])


@taking(scipy.ndimage)
def laplace(
    input: Any, output: Any = None, mode: Any = "reflect", cval: Any = 0.0, *, axes: Any = None
) -> Any:
    """Sum of second differences: `scipy.ndimage.laplace`.

    Parameters
    ----------
    input : array
    output, mode, cval, axes
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
    >>> laplace(np.eye(300))[1, :4]
    array([ 2., -4.,  2.,  0.])
    """
    if not arguments.plain(input):
        return NotImplemented
    found = arguments.sorted_axes(axes, input.ndim)
    words = None if found is None else arguments.modes(mode, len(found))
    if found is None or words is None:
        return NotImplemented
    # Its windows cross at right angles: no cell of theirs lies beyond two edges.
    w = np.zeros([3 if axis in found else 1 for axis in range(input.ndim)])
    centre = [n // 2 for n in w.shape]
    for axis in found:
        for cell, weight in enumerate((1, -2, 1)):
            w[(*centre[:axis], cell, *centre[axis + 1 :])] += weight
    return filtered(input, w, centre, spread(words, found, input.ndim), cval, output, "line")


def _over_axes(
    x: Any, weights: Any, output: Any, mode: Any, cval: Any, origin: Any, axes: Any, flip: bool
) -> Any:
    """Correlation, or with `flip` convolution, with an axis of weights for each of `axes`."""
    if not arguments.plain(x) or not arguments.plain(weights) or not isinstance(mode, str):
        return NotImplemented
    found = arguments.sorted_axes(axes, x.ndim)
    if found is None or weights.ndim != len(found):
        return NotImplemented
    origins, words = arguments.integers(origin, len(found)), arguments.modes(mode, len(found))
    if origins is None or words is None:
        return NotImplemented
    if flip:
        weights = np.flip(weights)
        origins = [-o - (k % 2 == 0) for o, k in zip(origins, weights.shape, strict=True)]
    elif weights.dtype.kind == "c":
        weights = weights.conj()
    lo = arguments.starts(weights.shape, origins)
    if lo is None:
        return NotImplemented
    if weights.dtype.kind == "f":
        weights = np.where(np.abs(weights) > TINY, weights, 0)
    w = np.expand_dims(weights, [axis for axis in range(x.ndim) if axis not in found])
    starts = spread(lo, found, x.ndim)
    return filtered(x, w, starts, spread(words, found, x.ndim), cval, output, "window")


def _along_axis(
    x: Any, weights: Any, axis: Any, output: Any, mode: Any, cval: Any, origin: Any, flip: bool
) -> Any:
    """Correlation, or with `flip` convolution, along one axis."""
    if not arguments.plain(x) or not isinstance(mode, str):
        return NotImplemented
    if isinstance(weights, list | tuple) and all(isinstance(w, int | float) for w in weights):
        weights = np.array(weights)
    if not arguments.plain(weights) or weights.ndim != 1:
        return NotImplemented
    found, origins = arguments.sorted_axes(axis, x.ndim), arguments.integers(origin, 1)
    words = arguments.modes(mode, 1)
    if not isinstance(axis, int) or not found or not origins or not words:
        return NotImplemented
    if flip:
        weights, origins = weights[::-1], [-origins[0] - (weights.size % 2 == 0)]
    elif weights.dtype.kind == "c":
        weights = weights.conj()
    lo = arguments.starts(weights.shape, origins)
    if lo is None:
        return NotImplemented
    w = np.expand_dims(weights, [a for a in range(x.ndim) if a != found[0]])
    starts = spread(lo, found, x.ndim)
    return filtered(x, w, starts, spread(words, found, x.ndim), cval, output, "line")


def _slope(x: Any, axis: Any, output: Any, mode: Any, cval: Any, across: Sequence[int]) -> Any:
    """A difference along `axis`, sums of weight `across` along the others."""
    if not arguments.plain(x) or not isinstance(axis, int) or not -x.ndim <= axis < x.ndim:
        return NotImplemented
    words = arguments.modes(mode, x.ndim)
    if words is None or x.ndim > windows.LIMIT or not arguments.number(cval):
        return NotImplemented
    if "constant" in words and cval != 0:
        return NotImplemented  # what stands beyond the edge is not filtered before the next axis
    w = np.ones((1,) * x.ndim, np.int64)
    for a in range(x.ndim):
        line = [-1, 0, 1] if a == axis % x.ndim else across
        w = w * np.expand_dims(np.array(line), [b for b in range(x.ndim) if b != a])
    return filtered(x, w, [1] * x.ndim, words, cval, output, "line")
