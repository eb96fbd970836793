"""The functions of `program.ops.elementwise` in NumPy: what they are compared with, for reading."""

from __future__ import annotations

import numpy as np

__all__ = ["add", "add_relu", "multiply", "relu", "sigmoid", "sigmoid_backward", "tanh",
           "tanh_backward"]  # fmt: skip


def relu(x: np.ndarray) -> np.ndarray:
    """``max(x, 0)``; NaN stays NaN."""
    return np.maximum(x, x.dtype.type(0))


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a + b``."""
    return np.add(a, b)


def add_relu(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``max(a + b, 0)``; NaN stays NaN."""
    return relu(a + b)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a * b``."""
    return np.multiply(a, b)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))``, without overflow; NaN stays NaN."""
    # exp(-|x|) is at most 1: for x >= 0 it divides 1, for x < 0 it stands above as exp(x)
    small = np.exp(-np.abs(x))
    one = small.dtype.type(1)
    return np.where(x >= 0, one, small) / (one + small)


def sigmoid_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``dy * (y * (1 - y))``, where `y` is what `sigmoid` gave."""
    return np.multiply(dy, y * (y.dtype.type(1) - y))


def tanh(x: np.ndarray) -> np.ndarray:
    """Hyperbolic tangent."""
    return np.tanh(x)


def tanh_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``dy * (1 - y * y)``, where `y` is what `tanh` gave."""
    return np.multiply(dy, y.dtype.type(1) - y * y)
