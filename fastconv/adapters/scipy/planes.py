"""`scipy.signal`'s convolutions: sums of products, where SciPy would take loops or transforms.

Symbols: of an axis, `n` cells of the signal and `k` of the kernel; ``full`` has ``n + k - 1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.signal

from fastconv.adapters.scipy import arguments, windows
from fastconv.adapters.scipy.arguments import COMPLEX, FLOATS
from fastconv.adapters.scipy.gain import gains
from fastconv.adapters.scipy.own import taking

__all__ = ["convolve2d", "correlate2d", "oaconvolve", "summed"]

BOUNDARIES = {"fill": "constant", "symm": "symmetric", "wrap": "wrap"}


@taking(scipy.signal)
def convolve2d(
    in1: Any, in2: Any, mode: Any = "full", boundary: Any = "fill", fillvalue: Any = 0
) -> Any:
    """Convolution of two planes: `scipy.signal.convolve2d`.

    Parameters
    ----------
    in1, in2 : array (H, W)
    mode, boundary, fillvalue
        SciPy's.

    Returns
    -------
    y : array
        Its shape by `mode`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        SciPy's own, for what SciPy does not take.

    Examples
    --------
    >>> convolve2d(np.ones((100, 100)), np.ones((3, 3)))[:2, :3]
    array([[1., 2., 3.],
           [2., 4., 6.]])
    """
    if not _planes(in1, in2):
        return NotImplemented
    return summed("plane", in1, in2[::-1, ::-1], mode, boundary, fillvalue)


@taking(scipy.signal)
def correlate2d(
    in1: Any, in2: Any, mode: Any = "full", boundary: Any = "fill", fillvalue: Any = 0
) -> Any:
    """Correlation of two planes: `scipy.signal.correlate2d`.

    Parameters
    ----------
    in1, in2 : array (H, W)
    mode, boundary, fillvalue
        SciPy's.

    Returns
    -------
    y : array
        Its shape by `mode`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        SciPy's own, for what SciPy does not take.

    Examples
    --------
    >>> correlate2d(np.eye(100), np.ones((3, 3)), "same")[0, :4]
    array([2., 2., 1., 0.])
    """
    if not _planes(in1, in2):
        return NotImplemented
    kernel = in2.conj() if in2.dtype.kind == "c" else in2
    return summed("plane", in1, kernel, mode, boundary, fillvalue, before=True)


@taking(scipy.signal)
def oaconvolve(in1: Any, in2: Any, mode: Any = "full", axes: Any = None) -> Any:
    """Convolution with a kernel that is much smaller: `scipy.signal.oaconvolve`.

    Parameters
    ----------
    in1, in2 : array
        Of as many axes.
    mode, axes
        SciPy's.

    Returns
    -------
    y : array
        Its shape by `mode`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        SciPy's own, for what SciPy does not take.

    Examples
    --------
    >>> oaconvolve(np.ones((100, 100)), np.ones((3, 3)), "valid").shape
    (98, 98)
    """
    if axes is not None or not arguments.plain(in1) or not arguments.plain(in2):
        return NotImplemented
    if in1.dtype.kind in "biu" or in1.ndim != in2.ndim:
        return NotImplemented
    if any(n == 1 and k != 1 for n, k in zip(in1.shape, in2.shape, strict=True)):
        return NotImplemented
    return summed("transform", in1, np.flip(in2), mode)


def _planes(in1: Any, in2: Any) -> bool:
    return arguments.plain(in1) and arguments.plain(in2) and in1.ndim == in2.ndim == 2


def summed(
    kind: str,
    x: np.ndarray,
    w: np.ndarray,
    mode: Any,
    boundary: Any = "fill",
    fillvalue: Any = 0,
    before: bool = False,
) -> Any:
    """Sums of ``x * w`` over windows, or NotImplemented.

    Parameters
    ----------
    kind : {"plane", "transform"}
        What SciPy would do with two or three axes.
    x, w : array
        Plain arrays of as many axes; the kernel as it lies on the signal.
    mode : {"full", "same", "valid"}
    boundary : {"fill", "symm", "wrap"}
    fillvalue : number
    before : bool
        Of an even kernel's two middle cells, "same" takes the first, not the second.
    """
    if not isinstance(mode, str) or not isinstance(boundary, str) or boundary not in BOUNDARIES:
        return NotImplemented
    same_kind = x.dtype == w.dtype and (x.dtype in (*FLOATS, *COMPLEX) or x.dtype.kind in "iu")
    if not same_kind or x.ndim != w.ndim or x.ndim > windows.LIMIT:
        return NotImplemented
    if not isinstance(fillvalue, int | float | np.integer | np.floating):
        return NotImplemented
    if any(k > n for n, k in zip(x.shape, w.shape, strict=True)):
        return NotImplemented
    pads, kind = _pads(w.shape, mode, before), kind if x.ndim > 1 else "sequence"
    if pads is None or not gains(kind, x.size, w.shape) or not np.isfinite(w).all():
        return NotImplemented
    if x.dtype.kind in "iu":
        dtype = windows.exact_dtype(x, [w.astype(np.float64)], fillvalue)
        if dtype is None:
            return NotImplemented
    else:
        dtype = x.dtype
    words = [BOUNDARIES[boundary]] * x.ndim
    y = windows.correlated(x.astype(dtype, copy=False), w, pads, words, fillvalue)
    if x.dtype.kind in "iu":
        return np.ascontiguousarray(y.astype(np.int64), x.dtype)
    return np.ascontiguousarray(y, x.dtype) if windows.finite(y) else NotImplemented


def _pads(window: Sequence[int], mode: str, before: bool) -> list[tuple[int, int]] | None:
    """Cells around the signal that the windows of a mode see."""
    if mode == "full":
        return [(k - 1, k - 1) for k in window]
    if mode == "valid":
        return [(0, 0) for _ in window]
    if mode == "same":
        low = [(k - 1) // 2 if before else k // 2 for k in window]
        return [(a, k - 1 - a) for a, k in zip(low, window, strict=True)]
    return None
