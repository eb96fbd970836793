"""The functions of `program.ops.rectifiers` in NumPy: what they are compared with, for reading."""

from __future__ import annotations

import math

import numpy as np

from fastconv.program.naive.elementwise import sigmoid

__all__ = ["elu", "elu_backward", "gelu", "gelu_backward", "hardswish", "hardswish_backward",
           "leaky_relu", "leaky_relu_backward", "silu", "silu_backward", "softplus",
           "softplus_backward"]  # fmt: skip


def leaky_relu(x: np.ndarray, slope: float) -> np.ndarray:
    """X where it is positive, else ``slope * x``."""
    return np.where(x > 0, x, x * x.dtype.type(slope))


def leaky_relu_backward(dy: np.ndarray, x: np.ndarray, slope: float) -> np.ndarray:
    """``dy`` where x is positive, else ``slope * dy``."""
    return np.where(x > 0, dy, dy * x.dtype.type(slope))


def elu(x: np.ndarray, alpha: float) -> np.ndarray:
    """X where it is positive, else ``alpha (exp(x) - 1)``."""
    return np.where(x > 0, x, np.expm1(np.where(x > 0, 0, x)) * x.dtype.type(alpha))


def elu_backward(dy: np.ndarray, x: np.ndarray, alpha: float) -> np.ndarray:
    """``dy`` where x is positive, else ``dy alpha exp(x)``."""
    slope = np.exp(np.where(x > 0, 0, x)) * x.dtype.type(alpha)
    return np.where(x > 0, dy, dy * slope)


def silu(x: np.ndarray) -> np.ndarray:
    """``x sigmoid(x)``."""
    return np.multiply(x, sigmoid(x))


def silu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``dy s (1 + x (1 - s))`` with ``s = sigmoid(x)``."""
    s, one = sigmoid(x), x.dtype.type(1)
    return np.multiply(dy, s * (one + x * (one - s)))


def softplus(x: np.ndarray) -> np.ndarray:
    """``log(1 + exp(x))``, without overflow."""
    wide = x.astype(np.float64)
    y: np.ndarray = np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide)))
    return y.astype(x.dtype)


def softplus_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``dy sigmoid(x)``."""
    return np.multiply(dy, sigmoid(x))


def hardswish(x: np.ndarray) -> np.ndarray:
    """``x min(max(x + 3, 0), 6) / 6``."""
    three, six = x.dtype.type(3), x.dtype.type(6)
    y: np.ndarray = x * np.minimum(np.maximum(x + three, x.dtype.type(0)), six) / six
    return y


def hardswish_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """0 for x up to -3, ``dy`` from 3 on, ``dy (x / 3 + 1 / 2)`` between them."""
    three, half = x.dtype.type(3), x.dtype.type(0.5)
    return np.where(x <= -three, x.dtype.type(0), np.where(x >= three, dy, dy * (x / three + half)))


def _below(x: np.ndarray) -> np.ndarray:
    """The normal distribution's share below each element, in float64."""
    shares = [math.erfc(-v / math.sqrt(2)) / 2 for v in x.reshape(-1).tolist()]
    return np.array(shares, np.float64).reshape(x.shape)


def gelu(x: np.ndarray) -> np.ndarray:
    """X times the normal distribution's share below x."""
    y: np.ndarray = x.astype(np.float64) * _below(x)
    return y.astype(x.dtype)


def gelu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``dy`` times that share, plus x times the density at x."""
    wide = x.astype(np.float64)
    density = np.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    dx: np.ndarray = dy.astype(np.float64) * (_below(x) + wide * density)
    return dx.astype(x.dtype)
