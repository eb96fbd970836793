"""Images in rows of features, and a network for images of any size."""

from __future__ import annotations

import math

import numpy as np

from fastconv import nn

__all__ = ["image_shape_of", "small_cnn"]


def image_shape_of(
    features: int, own: tuple[int, ...] | None, asked: tuple[int, ...] | None
) -> tuple[int, int, int]:
    """(H, W, C) of images of that many features.

    Parameters
    ----------
    features : int
        H*W*C.
    own : tuple of int or None
        What the array's axes say.
    asked : tuple of int or None
        What the user says, with or without C.

    Examples
    --------
    >>> image_shape_of(64, None, None), image_shape_of(20, None, None)
    ((8, 8, 1), (1, 20, 1))
    """
    side = math.isqrt(features)
    shape = (side, side, 1) if side * side == features else (1, features, 1)
    if asked is not None:
        shape = (*asked, 1)[:3]  # type: ignore[assignment]
    if own is not None:
        if asked is not None and tuple(own) != shape:
            raise ValueError(f"image_shape={asked!r}, but X has images of shape {own}")
        if len(own) != 3:
            raise ValueError(f"X must be (m, features), (m, H, W) or (m, H, W, C), not (m, {own})")
        shape = own
    if math.prod(shape) != features:
        raise ValueError(f"image_shape={asked!r} does not make {features} features")
    return shape


def small_cnn(
    input_shape: tuple[int, ...],
    outputs: int,
    filters: tuple[int, ...],
    hidden: tuple[int, ...],
    seed: int,
) -> nn.Sequential:
    """Convolutions with ReLU and 2x2 maxima, then dense layers, for images of any size.

    Examples
    --------
    >>> small_cnn((8, 8, 1), 10, (16,), (), 0).forward(np.zeros((2, 8, 8, 1), "float32")).shape
    (2, 10)
    """
    *size, channels = input_shape
    rng = np.random.default_rng(seed)
    layers: list[nn.Layer] = []
    for count in filters:
        layers.append(nn.Conv(channels, count, 3, padding="same", activation="relu", rng=rng))
        channels = count
        window = tuple(min(2, n) for n in size)
        layers.append(nn.MaxPool(window, ceil_mode=True))
        size = [-(-n // k) for n, k in zip(size, window, strict=True)]
    layers.append(nn.Flatten())
    units = math.prod(size) * channels
    for count in hidden:
        layers += [nn.Dense(units, count, rng=rng), nn.ReLU()]
        units = count
    layers.append(nn.Dense(units, outputs, init="glorot", rng=rng))
    return nn.Sequential(*layers, name="small_cnn")
