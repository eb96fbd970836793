"""Keras on NumPy: its own functions, which are JAX's, beside fastconv's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import fastconv.adapters.keras as adapter

# Without JAX, Keras can be imported after it only.
# isort: split
import jax  # noqa: F401  (Keras's own functions need it: no comparison without)
import keras
import numpy as np

from host_cases import Case


def cases() -> list[Case]:
    """Single functions, with one shape and with ever new ones, and a small CNN."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 28, 28, 16)).astype(np.float32)
    w = rng.normal(size=(3, 3, 16, 32)).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    images = rng.random((256, 28, 28, 1), np.float32)
    return [
        _case("conv 3x3, 32 filters on (32, 28, 28, 16)", lambda: keras.ops.conv(x, w)),
        _case("max_pool 2x2 on (32, 28, 28, 16)", lambda: keras.ops.max_pool(x, 2, 2)),
        Case("conv, each call a new shape", _stock(_new_shapes()), _new_shapes()),
        _case(
            "predict, CNN of 2 convolutions, 256 images", lambda: model.predict(images, verbose=0)
        ),
    ]


def _case(name: str, call: Callable[[], Any]) -> Case:
    return Case(name, _stock(call), call)


def _stock(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call with Keras's own functions."""

    def run() -> Any:
        adapter.uninstall()
        try:
            return call()
        finally:
            adapter.install()

    return run


def _new_shapes() -> Callable[[], Any]:
    """A convolution of an image that is never the same size twice."""
    w = np.ones((3, 3, 4, 8), np.float32)
    counter = itertools.count()

    def run() -> Any:
        number = next(counter)
        return keras.ops.conv(np.ones((1, 8 + number // 64, 8 + number % 64, 4), np.float32), w)

    return run
