"""Activations that are nearly ReLU, on arrays as those of `program.ops.elementwise`.

`program.naive.rectifiers` has the same functions in NumPy; the bits do not depend on the layout,
threads, or the place of an element.
"""

from __future__ import annotations

import numpy as np

from fastconv.program.ops.elementwise import of_each

__all__ = ["elu", "elu_backward", "gelu", "gelu_backward", "hardswish", "hardswish_backward",
           "leaky_relu", "leaky_relu_backward", "silu", "silu_backward", "softplus",
           "softplus_backward"]  # fmt: skip


def leaky_relu(x: np.ndarray, slope: float) -> np.ndarray:
    """X where it is positive, else ``slope * x``."""
    return of_each("leaky_relu", x, number=slope)


def leaky_relu_backward(dy: np.ndarray, x: np.ndarray, slope: float) -> np.ndarray:
    """``dy`` where x is positive, else ``slope * dy``."""
    return of_each("leaky_relu_delta", dy, x, slope)


def elu(x: np.ndarray, alpha: float) -> np.ndarray:
    """X where it is positive, else ``alpha (exp(x) - 1)``."""
    return of_each("elu", x, number=alpha)


def elu_backward(dy: np.ndarray, x: np.ndarray, alpha: float) -> np.ndarray:
    """``dy`` where x is positive, else ``dy alpha exp(x)``."""
    return of_each("elu_delta", dy, x, alpha)


def silu(x: np.ndarray) -> np.ndarray:
    """``x sigmoid(x)``."""
    return of_each("silu", x)


def silu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``dy s (1 + x (1 - s))`` with ``s = sigmoid(x)``."""
    return of_each("silu_delta", dy, x)


def softplus(x: np.ndarray) -> np.ndarray:
    """``log(1 + exp(x))``, without overflow."""
    return of_each("softplus", x)


def softplus_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``dy sigmoid(x)``."""
    return of_each("softplus_delta", dy, x)


def hardswish(x: np.ndarray) -> np.ndarray:
    """``x min(max(x + 3, 0), 6) / 6``."""
    return of_each("hardswish", x)


def hardswish_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """0 for x up to -3, ``dy`` from 3 on, ``dy (x / 3 + 1 / 2)`` between them."""
    return of_each("hardswish_delta", dy, x)


def gelu(x: np.ndarray) -> np.ndarray:
    """X times the normal distribution's share below x."""
    return of_each("gelu", x)


def gelu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``dy`` times that share, plus x times the density at x."""
    return of_each("gelu_delta", dy, x)
