"""The filters of `scipy.ndimage` that smooth: one axis after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.ndimage

from fastconv.adapters.scipy import arguments
from fastconv.adapters.scipy.linear import passes
from fastconv.adapters.scipy.own import taking

__all__ = ["gaussian_filter", "gaussian_laplace", "uniform_filter"]


@taking(scipy.ndimage)
def uniform_filter(
    input: Any,
    size: Any = 3,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    origin: Any = 0,
    *,
    axes: Any = None,
) -> Any:
    """Mean of each window: `scipy.ndimage.uniform_filter`.

    Parameters
    ----------
    input : array
    size, output, mode, cval, origin, axes
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
    >>> uniform_filter(9 * np.eye(400), 3)[1, :4].round(9)
    array([3., 3., 2., 1.])
    """
    if not arguments.plain(input) or input.dtype.kind in "biu":
        return NotImplemented  # SciPy cuts off behind the point after each axis
    found = arguments.sorted_axes(axes, input.ndim)
    if found is None:
        return NotImplemented
    sizes = arguments.integers(size, len(found))
    origins = arguments.integers(origin, len(found))
    words = arguments.modes(mode, len(found))
    if not sizes or not origins or not words or min(sizes) < 1:
        return NotImplemented
    lo = arguments.starts(sizes, origins)
    if lo is None:
        return NotImplemented
    kernels = [np.full(k, 1 / k) for k in sizes]
    return passes(
        input,
        [step for step in zip(found, kernels, lo, words, strict=True) if step[1].size > 1],
        output,
        cval,
        "uniform",
    )


@taking(scipy.ndimage)
def gaussian_filter(
    input: Any,
    sigma: Any,
    order: Any = 0,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    truncate: Any = 4.0,
    *,
    radius: Any = None,
    axes: Any = None,
) -> Any:
    """Gaussian mean, or its derivative: `scipy.ndimage.gaussian_filter`.

    Parameters
    ----------
    input : array
    sigma, order, output, mode, cval, truncate, radius, axes
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
    >>> gaussian_filter(np.eye(300), 1.0, radius=1)[1, :4].round(3)
    array([0.323, 0.354, 0.248, 0.075])
    """
    if not arguments.plain(input):
        return NotImplemented
    found = arguments.sorted_axes(axes, input.ndim)
    if found is None:
        return NotImplemented
    steps = _gaussian_steps(found, sigma, order, mode, truncate, radius)
    return NotImplemented if steps is None else passes(input, steps, output, cval, "line")


@taking(scipy.ndimage)
def gaussian_laplace(
    input: Any,
    sigma: Any,
    output: Any = None,
    mode: Any = "reflect",
    cval: Any = 0.0,
    *,
    axes: Any = None,
    **kwargs: Any,
) -> Any:
    """Sum of second derivatives of a Gaussian mean: `scipy.ndimage.gaussian_laplace`.

    Parameters
    ----------
    input : array
    sigma, output, mode, cval, axes
        SciPy's.
    **kwargs
        `truncate` and `radius`, as of :func:`gaussian_filter`.

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
    >>> gaussian_laplace(np.ones((300, 300)), 1.0).shape
    (300, 300)
    """
    if not arguments.plain(input) or input.dtype.kind in "biu" or axes is not None:
        return NotImplemented
    if not set(kwargs) <= {"truncate", "radius"} or not isinstance(mode, str):
        return NotImplemented
    target = arguments.target(output, input, input.dtype.kind == "c")
    if target is None:
        return NotImplemented
    total: Any = 0
    for axis in range(input.ndim):
        order = [2 * (a == axis) for a in range(input.ndim)]
        steps = _gaussian_steps(
            list(range(input.ndim)),
            sigma,
            order,
            mode,
            kwargs.get("truncate", 4.0),
            kwargs.get("radius"),
        )
        part = NotImplemented if steps is None else passes(input, steps, target.dtype, cval, "line")
        if part is NotImplemented:
            return NotImplemented
        total = total + part
    return target.put(total)


def _gaussian_steps(
    axes: Sequence[int], sigma: Any, order: Any, mode: Any, truncate: Any, radius: Any
) -> list[Any] | None:
    count = len(axes)
    sigmas, radii = arguments.each(sigma, count), arguments.each(radius, count)
    orders, words = arguments.integers(order, count), arguments.modes(mode, count)
    if orders is None or words is None or len(sigmas) != count or len(radii) != count:
        return None
    if not all(isinstance(s, int | float | np.integer | np.floating) for s in (*sigmas, truncate)):
        return None
    steps = []
    for axis, s, n, word, r in zip(axes, sigmas, orders, words, radii, strict=True):
        if not s > 1e-15:  # NaN too
            continue
        reach = int(truncate * float(s) + 0.5) if r is None else r
        if not isinstance(reach, int) or reach < 0 or n < 0:
            return None
        steps.append((axis, gaussian(float(s), n, reach)[::-1], reach, word))
    return steps


def gaussian(sigma: float, order: int, radius: int) -> np.ndarray:
    """A Gaussian's derivative of that order, ``(-1/s)**n * He_n(x/s) * g(x)``, of sum 1 at order 0.

    >>> gaussian(1.0, 0, 1).round(3).tolist()
    [0.274, 0.452, 0.274]
    """
    x = np.arange(-radius, radius + 1)
    bell = np.exp(-0.5 / (sigma * sigma) * x**2)
    bell /= bell.sum()
    hermite = np.polynomial.hermite_e.hermeval(x / sigma, [0] * order + [1])
    values: np.ndarray = bell * hermite * (-1 / sigma) ** order
    return values
