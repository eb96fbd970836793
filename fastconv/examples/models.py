"""The example networks. All return logits; the sigmoid or softmax is in the loss."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

import numpy as np

from fastconv.nn import (
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    ReLU,
    Sequential,
    Sigmoid,
)
from fastconv.nn.checks import positive_int
from fastconv.typing import DTypeLike, Padding


def binary_cnn(
    *, seed: int = 0, dtype: DTypeLike = np.float32, ops: ModuleType | None = None
) -> Sequential:
    """The smallest CNN that shows every step of backpropagation: yes or no for an 8x8 image.

    ::

        x  (m, 8, 8, 1)
        z1 = conv(x, w1) + b1     (m, 6, 6, 1)    3x3, one filter: 9 + 1 parameters
        a1 = max(z1, 0)           (m, 6, 6, 1)
        a2 = max of 2x2 windows   (m, 3, 3, 1)
        z3 = flatten(a2) w3 + b3  (m, 1)          9 + 1 parameters
        a3 = sigmoid(z3)          in `BinaryCrossEntropy`

    The layers are Conv, ReLU, MaxPool, Flatten, Dense, so each of z1, a1, a2, z3 is one of
    ``model.activations(x)`` and each delta one of ``model.deltas(dz3)``.

    Parameters
    ----------
    seed : int
        Seed of the initial weights (He).
    dtype : dtype
        float32 or float64.
    ops : module, optional
        `fastconv` (default) or `fastconv.reference`.

    Returns
    -------
    Sequential

    Raises
    ------
    TypeError
        For another dtype.

    Examples
    --------
    >>> binary_cnn().forward(np.zeros((2, 8, 8, 1), np.float32)).shape
    (2, 1)
    """
    rng = np.random.default_rng(seed)
    return Sequential(
        Conv(1, 1, 3, rng=rng, dtype=dtype),
        ReLU(),
        MaxPool(2),
        Flatten(),
        Dense(9, 1, rng=rng, dtype=dtype),
        name="binary_cnn",
        ops=ops,
    )


def two_conv_cnn(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    *,
    subsampling: Literal["max", "mean"] = "max",
    activation: Literal["sigmoid", "relu"] = "sigmoid",
    seed: int = 0,
    dtype: DTypeLike = np.float32,
    ops: ModuleType | None = None,
) -> Sequential:
    """Two convolutions c1, c2, each with an activation and 2x2 subsampling, then h1, h2 and output.

    The classical LeNet arrangement (LeCun et al. 1998): 6 and 16 filters, 120 and 84 hidden units.
    Images of at least 16x16 get 5x5 windows without padding; smaller ones 3x3 windows with
    "same" padding, since nothing would be left of them otherwise.

    Parameters
    ----------
    input_shape : (H, W, C)
        At least 4x4.
    classes : int
    subsampling : "max" or "mean"
    activation : "sigmoid" (Glorot weights) or "relu" (He weights)
    seed, dtype, ops
        As in `binary_cnn`.

    Returns
    -------
    Sequential
        c1, activation, s1, c2, activation, s2, Flatten, h1, activation, h2, activation, output.

    Raises
    ------
    ValueError
        Naming the argument.

    Examples
    --------
    >>> two_conv_cnn().forward(np.zeros((2, 28, 28, 1), np.float32)).shape
    (2, 10)
    """
    H, W, C = _image_shape(input_shape, 4)
    classes = positive_int("classes", classes)
    pools = {"max": MaxPool, "mean": AvgPool}
    if subsampling not in pools:
        raise ValueError(f"subsampling: must be 'max' or 'mean', got {subsampling!r}")
    if activation not in ("sigmoid", "relu"):
        raise ValueError(f"activation: must be 'sigmoid' or 'relu', got {activation!r}")
    pool = pools[subsampling]
    active, init = (Sigmoid, "glorot") if activation == "sigmoid" else (ReLU, "he")
    large = min(H, W) >= 16
    window = 5 if large else 3
    padding: Padding = 0 if large else "same"
    left = [((n - 4) // 2 - 4) // 2 if large else n // 2 // 2 for n in (H, W)]
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {"init": init, "rng": rng, "dtype": dtype}
    return Sequential(
        Conv(C, 6, window, padding=padding, **options),
        active(),
        pool(2),
        Conv(6, 16, window, padding=padding, **options),
        active(),
        pool(2),
        Flatten(),
        Dense(left[0] * left[1] * 16, 120, **options),
        active(),
        Dense(120, 84, **options),
        active(),
        Dense(84, classes, **options),
        name="two_conv_cnn",
        ops=ops,
    )


def digits_cnn(
    input_shape: tuple[int, int, int] = (8, 8, 1),
    classes: int = 10,
    *,
    seed: int = 0,
    dtype: DTypeLike = np.float32,
    ops: ModuleType | None = None,
) -> Sequential:
    """A small modern CNN: three 3x3 convolutions, two of them with batch normalisation.

    Each image side is halved twice; dropout and one dense layer follow.

    Parameters
    ----------
    input_shape : (H, W, C)
        At least 4x4.
    classes : int
    seed, dtype, ops
        As in `binary_cnn`; the seed is that of the dropout, too.

    Returns
    -------
    Sequential

    Raises
    ------
    ValueError
        Naming the argument.

    Examples
    --------
    >>> digits_cnn().forward(np.zeros((2, 8, 8, 1), np.float32)).shape
    (2, 10)
    """
    H, W, C = _image_shape(input_shape, 4)
    classes = positive_int("classes", classes)
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {"rng": rng, "dtype": dtype}
    return Sequential(
        Conv(C, 16, 3, padding="same", activation="relu", **options),
        Conv(16, 32, 3, padding="same", bias=False, **options),
        BatchNorm(32, dtype=dtype),
        ReLU(),
        MaxPool(2),
        Conv(32, 64, 3, padding="same", bias=False, **options),
        BatchNorm(64, dtype=dtype),
        ReLU(),
        MaxPool(2),
        Flatten(),
        Dropout(0.3, seed=seed),
        Dense((H // 4) * (W // 4) * 64, classes, init="glorot", **options),
        name="digits_cnn",
        ops=ops,
    )


def fashion_cnn(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    *,
    seed: int = 0,
    dtype: DTypeLike = np.float32,
    ops: ModuleType | None = None,
) -> Sequential:
    """A small VGG-like CNN for photographs of clothes: three blocks, each halves the image's sides.

    A block is a 3x3 convolution, batch normalisation, ReLU and 2x2 max pooling; they have 32, 64
    and 128 filters. Dropout and one dense layer follow.

    Parameters
    ----------
    input_shape : (H, W, C)
        At least 8x8.
    classes : int
    seed, dtype, ops
        As in `digits_cnn`.

    Returns
    -------
    Sequential

    Raises
    ------
    ValueError
        Naming the argument.

    Examples
    --------
    >>> fashion_cnn().forward(np.zeros((2, 28, 28, 1), np.float32)).shape
    (2, 10)
    """
    H, W, C = _image_shape(input_shape, 8)
    classes = positive_int("classes", classes)
    rng = np.random.default_rng(seed)
    blocks: list[Layer] = []
    for channels, filters in ((C, 32), (32, 64), (64, 128)):
        conv = Conv(channels, filters, 3, padding="same", bias=False, rng=rng, dtype=dtype)
        blocks += [conv, BatchNorm(filters, dtype=dtype), ReLU(), MaxPool(2)]
    inputs = (H // 8) * (W // 8) * 128
    return Sequential(
        *blocks,
        Flatten(),
        Dropout(0.3, seed=seed),
        Dense(inputs, classes, init="glorot", rng=rng, dtype=dtype),
        name="fashion_cnn",
        ops=ops,
    )


def _image_shape(input_shape: Any, least: int) -> tuple[int, int, int]:
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        raise ValueError(f"input_shape: expected (H, W, C), got {input_shape!r}")
    H, W, C = (positive_int("input_shape", n) for n in input_shape)
    if min(H, W) < least:
        raise ValueError(f"input_shape: at least {least}x{least} pixels are needed, got {H}x{W}")
    return H, W, C
