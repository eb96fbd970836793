"""The two networks that are explained by name, in float64, small enough to be read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.examples import binary_cnn
from fastconv.nn import AvgPool, Conv, Dense, Flatten, Layer, MaxPool, ReLU, Sequential, Sigmoid
from fastconv.nn.checks import as_array, assign, positive_int

__all__ = ["build_binary", "build_two_conv", "kernel"]

POOLS: dict[str, type[MaxPool] | type[AvgPool]] = {"max": MaxPool, "mean": AvgPool}
ACTIVATIONS: dict[str, type[Layer]] = {"sigmoid": Sigmoid, "relu": ReLU}
HIDDEN = (4, 3)  # units of h1 and h2


def one_of(name: str, value: Any, legal: Sequence[str]) -> str:
    """`value`, if it is one of the words, else a ValueError that lists them."""
    if value not in legal:
        raise ValueError(f"{name}: must be one of {', '.join(map(repr, legal))}, got {value!r}")
    return str(value)


def kernel(name: str, value: Any, channels: int) -> np.ndarray:
    """A kernel as float64 (KH, KW, C, F), of (KH, KW) for one filter or (KH, KW, F) where C = 1.

    >>> kernel("w1", [[0, 1], [1, 0]], 1).shape
    (2, 2, 1, 1)
    """
    w = as_array(name, value)
    if w.dtype.kind not in "iuf":
        raise TypeError(f"{name}: a kernel of numbers is needed, got {w.dtype}")
    shapes = {2: (*w.shape, 1, 1), 3: (*w.shape[:2], 1, *w.shape[2:]), 4: w.shape}
    shape = shapes.get(w.ndim, ())
    if len(shape) != 4 or 0 in shape or shape[2] != channels:
        raise ValueError(
            f"{name}: expected (KH, KW, C, F) with C = {channels}"
            f"{', (KH, KW, F) or (KH, KW)' if channels == 1 else ''}, got {w.shape}"
        )
    if not np.isfinite(w).all():
        raise ValueError(f"{name}: holds NaN or infinity")
    return w.astype(np.float64).reshape(shape)


def build_binary(shape: Sequence[int], pool: str, given: dict[str, Any], seed: int) -> Sequential:
    """`fastconv.examples.binary_cnn`, with another pool or parameters if they are given.

    >>> build_binary((8, 8, 1), "max", {}, 2).name
    'binary_cnn'
    """
    one_of("pool", pool, tuple(POOLS))
    if tuple(shape) != (8, 8, 1):
        size = "x".join(map(str, shape))
        raise ValueError(f"x: binary_cnn takes images of 8x8x1, got {size}; two_conv takes others")
    conv, relu, _, flatten, dense = binary_cnn(seed=seed, dtype=np.float64).layers
    model = Sequential(conv, relu, POOLS[pool](2), flatten, dense, name="binary_cnn")
    _set(given, {"w1": (conv, "w"), "b1": (conv, "b"), "w3": (dense, "w"), "b3": (dense, "b")})
    return model


def build_two_conv(
    shape: Sequence[int],
    pool: str,
    given: dict[str, Any],
    seed: int,
    *,
    filters: Any = 2,
    activation: str = "sigmoid",
    classes: int = 2,
) -> Sequential:
    """c1, f, pool, c2, f, pool, h1, f, h2, f, output: windows of 3x3, no padding, pools of 2x2.

    >>> build_two_conv((14, 14, 1), "mean", {}, 0).layers[6:8]
    (Flatten(), Dense(inputs=8, outputs=4, bias=True, dtype='float64'))
    """
    one_of("pool", pool, tuple(POOLS))
    one_of("activation", activation, tuple(ACTIVATIONS))
    H, W, C = shape
    pair = filters if isinstance(filters, (tuple, list)) else (filters, filters)
    if len(pair) != 2:
        raise ValueError(f"filters: expected one number, or those of c1 and c2, got {filters!r}")
    F1, F2 = (positive_int("filters", n) for n in pair)
    given = dict(given)
    windows = [(3, 3), (3, 3)]
    if given.get("w1") is not None:
        w1 = given["w1"] = kernel("w1", given["w1"], C)
        windows[0], F1 = w1.shape[:2], w1.shape[3]
    if given.get("w2") is not None:
        w2 = given["w2"] = kernel("w2", given["w2"], F1)
        windows[1], F2 = w2.shape[:2], w2.shape[3]
    left = [H, W]
    for window in windows:
        left = [(n - k + 1) // 2 for n, k in zip(left, window, strict=True)]
        if min(left) < 1:
            raise ValueError(
                f"x: {H}x{W} pixels are too few: two convolutions {windows[0]} and {windows[1]} "
                "without padding, each halved by its pool, leave nothing (14x14 are enough for 3x3)"
            )
    rng = np.random.default_rng(seed)
    init = "glorot" if activation == "sigmoid" else "he"
    options: dict[str, Any] = {"init": init, "rng": rng, "dtype": np.float64}
    active, subsampling = ACTIVATIONS[activation], POOLS[pool]
    c1, c2 = Conv(C, F1, windows[0], **options), Conv(F1, F2, windows[1], **options)
    sizes = (left[0] * left[1] * F2, *HIDDEN, classes)
    h1, h2, out = (Dense(n, k, **options) for n, k in itertools.pairwise(sizes))
    model = Sequential(
        c1, active(), subsampling(2), c2, active(), subsampling(2),
        Flatten(), h1, active(), h2, active(), out, name="two_conv",
    )  # fmt: skip
    layers = {"1": c1, "2": c2, "3": h1, "4": h2, "5": out}
    _set(given, {f"{p}{n}": (layer, p) for n, layer in layers.items() for p in "wb"})
    return model


def _set(given: dict[str, Any], places: dict[str, tuple[Any, str]]) -> None:
    """Put the parameters that were given in their places."""
    for name, value in given.items():
        if value is None:
            continue
        if name not in places:
            raise ValueError(f"{name}: this network has only {', '.join(places)}")
        layer, attribute = places[name]
        target: np.ndarray = getattr(layer, attribute).value
        if name[0] == "w" and target.ndim == 4:
            value = kernel(name, value, target.shape[2])
        array = np.asarray(as_array(name, value), np.float64)
        if array.size == target.size and name[0] == "b":
            array = array.reshape(target.shape)
        if array.shape == target.shape[:-1] and target.shape[-1] == 1:
            array = array[..., None]
        assign(target, array, name)
