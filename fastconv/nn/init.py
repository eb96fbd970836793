"""Initial weights: He for layers followed by ReLU, Glorot for sigmoid and tanh."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.nn.checks import Array

INITS = ("he", "glorot", "zeros")


def generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """A generator as it is, a new one from a seed, or (None) one from the system's entropy.

    Raises
    ------
    TypeError
        If `rng` is something else.

    Examples
    --------
    >>> generator(0).integers(10, size=3).shape
    (3,)
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None or (hasattr(rng, "__index__") and not isinstance(rng, bool)):
        return np.random.default_rng(rng)
    raise TypeError(f"rng: a numpy.random.Generator, a seed or None is needed, got {rng!r}")


def parameter_dtype(dtype: Any) -> np.dtype[Any]:
    """float32 or float64 as a native dtype; anything else is a TypeError."""
    result = np.dtype(dtype)
    if result not in (np.float32, np.float64):
        raise TypeError(f"dtype: float32 or float64 is needed, got {result}")
    return result.newbyteorder("=")


def initial_weights(
    shape: tuple[int, ...],
    fans: tuple[int, int],
    init: str,
    rng: np.random.Generator | int | None,
    dtype: Any,
) -> Array:
    """Draw a kernel.

    Parameters
    ----------
    shape : tuple of int
        Shape of the kernel.
    fans : (int, int)
        Inputs that feed one output, and outputs that one input feeds.
    init : "he", "glorot" or "zeros"
        He et al. 2015 (normal, variance 2 / fan_in); Glorot and Bengio 2010 (uniform, variance
        2 / (fan_in + fan_out)); zeros draw nothing.
    rng : numpy.random.Generator, int or None
        Source of the random numbers.
    dtype : dtype
        float32 or float64. Drawn in float64 and rounded, so both types start from one network.

    Returns
    -------
    ndarray of `shape`

    Raises
    ------
    ValueError
        If `init` is not one of the three.

    Examples
    --------
    >>> initial_weights((3, 3, 1, 8), (9, 72), "he", 0, np.float32).shape
    (3, 3, 1, 8)
    """
    if init not in INITS:
        raise ValueError(f"init: must be one of {', '.join(map(repr, INITS))}, got {init!r}")
    if init == "zeros":
        return np.zeros(shape, dtype)
    source = generator(rng)
    fan_in, fan_out = fans
    if init == "he":
        drawn = source.normal(0.0, math.sqrt(2.0 / fan_in), shape)
    else:
        bound = math.sqrt(6.0 / (fan_in + fan_out))
        drawn = source.uniform(-bound, bound, shape)
    return drawn.astype(dtype)
