"""Operands that several hosts share: a LeNet's second convolution, and the whole network."""

from __future__ import annotations

import numpy as np

NCHW = (0, 3, 1, 2)  # from NHWC
OIHW = (3, 2, 0, 1)  # from HWIO


def second_layer(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (32, 12, 12, 6) and a kernel (5, 5, 6, 16)."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(32, 12, 12, 6)), rng.normal(size=(5, 5, 6, 16))
    return x.astype(dtype), w.astype(dtype)


def network(dtype: str) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Parameters, 32 images (28, 28, 1) and their labels."""
    rng = np.random.default_rng(0)
    shapes = [(5, 5, 1, 6), (5, 5, 6, 16), (256, 84), (84, 10)]
    parameters = [
        (rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(dtype) for shape in shapes
    ]
    return parameters, rng.normal(size=(32, 28, 28, 1)).astype(dtype), rng.integers(0, 10, 32)
