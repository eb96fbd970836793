"""The optimizers' steps in NumPy, rounding by rounding: what the compiled loops must equal.

All arrays are of one shape and dtype, float32 or float64, and change in place. NumPy rounds a
Python float to the dtype of the array that it meets.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["adam", "rmsprop", "sgd"]


def sgd(
    value: np.ndarray,
    grad: np.ndarray,
    velocity: np.ndarray | None,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:
    """One step; `velocity` is needed with a momentum."""
    g = grad.copy()
    if weight_decay:
        g += weight_decay * value
    if momentum and velocity is not None:
        velocity *= momentum
        velocity += g
    if momentum and velocity is not None and not nesterov:
        g[...] = velocity
    value -= g * lr
    if nesterov and velocity is not None:
        value -= velocity * (lr * momentum)


def adam(
    value: np.ndarray,
    grad: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float = 0.0,
) -> None:
    """The step of number `step`, from 1 on."""
    beta1, beta2 = betas
    mean *= beta1
    mean += grad * (1 - beta1)
    square *= beta2
    square += grad * grad * (1 - beta2)
    divisor = np.sqrt(square) * (1 / math.sqrt(1 - beta2**step)) + epsilon
    if weight_decay:
        value *= 1 - lr * weight_decay
    value -= mean / divisor * (lr / (1 - beta1**step))


def rmsprop(
    value: np.ndarray,
    grad: np.ndarray,
    square: np.ndarray,
    velocity: np.ndarray | None,
    *,
    lr: float,
    alpha: float,
    epsilon: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> None:
    """One step; `velocity` is needed with a momentum."""
    g = grad.copy()
    if weight_decay:
        g += weight_decay * value
    square *= alpha
    square += g * g * (1 - alpha)
    move = g / (np.sqrt(square) + epsilon)
    if momentum and velocity is not None:
        velocity *= momentum
        velocity += move
        move = velocity
    value -= move * lr
