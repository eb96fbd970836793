"""`scipy.signal.convolve` and `correlate`, whose names `scipy.ndimage` has too.

Examples
--------
>>> import numpy as np
>>> from fastconv.adapters.scipy import signal
>>> signal.convolve(np.ones((64, 64)), np.ones((5, 5)), "valid").shape
(60, 60)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.signal

from fastconv.adapters.scipy import arguments
from fastconv.adapters.scipy.own import taking
from fastconv.adapters.scipy.planes import summed

__all__ = ["convolve", "correlate"]

# What SciPy does, most often; "fft" asks for the transform itself.
METHODS = {"auto": "transform", "direct": "plane"}


@taking(scipy.signal)
def convolve(in1: Any, in2: Any, mode: Any = "full", method: Any = "auto") -> Any:
    """Convolution of two arrays: `scipy.signal.convolve`.

    Parameters
    ----------
    in1, in2 : array
        Of as many axes.
    mode, method
        SciPy's; what "auto" sums is summed without transforms.

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
    >>> convolve(np.ones((100, 100)), np.ones((3, 3)), "same")[0, :3]
    array([4., 6., 6.])
    """
    if not _taken(in1, in2, method):
        return NotImplemented
    return summed(METHODS[method], in1, np.flip(in2), mode)


@taking(scipy.signal)
def correlate(in1: Any, in2: Any, mode: Any = "full", method: Any = "auto") -> Any:
    """Correlation of two arrays: `scipy.signal.correlate`.

    Parameters
    ----------
    in1, in2 : array
        Of as many axes.
    mode, method
        SciPy's; what "auto" sums is summed without transforms.

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
    >>> correlate(np.ones((100, 100)), np.ones((3, 3)), "same")[0, :3]
    array([4., 6., 6.])
    """
    if not _taken(in1, in2, method):
        return NotImplemented
    return summed(METHODS[method], in1, in2.conj() if in2.dtype.kind == "c" else in2, mode)


def _taken(in1: Any, in2: Any, method: Any) -> bool:
    return (
        isinstance(method, str)
        and method in METHODS
        and arguments.plain(in1)
        and arguments.plain(in2)
        and in1.ndim == in2.ndim
    )
