"""Activations, sums and products of elements, on arrays of any layout.

Arrays are float32 or float64 in the machine's byte order, and two of them of one shape and dtype;
nothing is validated. Results are new arrays in C order. `program.naive.elementwise` has the
same functions in NumPy.
"""

from __future__ import annotations

import numpy as np

from fastconv.plans import compiled

__all__ = ["add", "add_relu", "contiguous", "multiply", "of_each", "relu", "sigmoid",
           "sigmoid_backward", "tanh", "tanh_backward"]  # fmt: skip


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of it in C order."""
    return array if array.flags.c_contiguous else array.copy(order="C")


def of_each(
    name: str, a: np.ndarray, b: np.ndarray | None = None, number: float = 0.0
) -> np.ndarray:
    """A loop of `engine.elementwise` over all elements of `a`, or of `a` and `b`."""
    a = contiguous(a)
    y = np.empty(a.shape, a.dtype)
    other = None if b is None else contiguous(b)
    engine = compiled.engine()
    engine.perform(
        engine.elementwise.each_call(engine.loop(name, a.dtype), name, a, y, other, number)
    )
    return y


def relu(x: np.ndarray) -> np.ndarray:
    """``max(x, 0)``; NaN stays NaN."""
    return of_each("relu", x)


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a + b``."""
    return of_each("add", a, b)


def add_relu(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``max(a + b, 0)``; NaN stays NaN."""
    return of_each("add_relu", a, b)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a * b``: dropout, with a mask of 0 and 1 / (1 - rate)."""
    return of_each("multiply", a, b)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))``, without overflow; NaN stays NaN."""
    return of_each("sigmoid", x)


def sigmoid_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``dy * (y * (1 - y))``, where `y` is what `sigmoid` gave."""
    return of_each("sigmoid_delta", dy, y)


def tanh(x: np.ndarray) -> np.ndarray:
    """Hyperbolic tangent."""
    return of_each("tanh", x)


def tanh_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``dy * (1 - y * y)``, where `y` is what `tanh` gave."""
    return of_each("tanh_delta", dy, y)
