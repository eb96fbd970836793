"""Models as files: the architecture as JSON, the arrays as .npy members, in one .npz."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from fastconv.nn.activations import Dropout, ReLU, Sigmoid, Tanh
from fastconv.nn.base import Layer
from fastconv.nn.checks import Array
from fastconv.nn.container import Residual, Sequential
from fastconv.nn.conv import Conv, ConvTranspose
from fastconv.nn.dense import Dense, Flatten
from fastconv.nn.normalisation import BatchNorm
from fastconv.nn.npz import NpzReader, write_npz
from fastconv.nn.pooling import AvgPool, GlobalAvgPool, MaxPool

FORMAT = "fastconv model 1"

# The only classes that a file can make: it names one of these and gives its arguments.
LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer
    for layer in (
        AvgPool,
        BatchNorm,
        Conv,
        ConvTranspose,
        Dense,
        Dropout,
        Flatten,
        GlobalAvgPool,
        MaxPool,
        ReLU,
        Residual,
        Sequential,
        Sigmoid,
        Tanh,
    )
}


def model_arrays(model: Layer) -> dict[str, Array]:
    """Parameters and buffers (not copies) under the names they have in files."""
    arrays = {f"parameters/{path}": p.value for path, p in model.named_parameters().items()}
    return arrays | {f"buffers/{path}": array for path, array in model.named_buffers().items()}


def architecture(model: Layer) -> str:
    """JSON text from which `build_layer` makes the model again.

    Raises
    ------
    TypeError
        If a layer is not one of fastconv.nn's.
    """
    for path, layer in model.walk():
        if LAYERS.get(type(layer).__name__) is not type(layer):
            raise TypeError(
                f"layer {path or 'model'}: {type(layer)!r} is not one that can be saved"
            )
    return json.dumps({"type": type(model).__name__, **model.config()})


def build_layer(config: dict[str, Any]) -> Layer:
    """Make a layer, and those inside it, from its description; all weights are zero."""
    config = dict(config)
    kind = config.pop("type")
    if kind not in LAYERS:
        raise ValueError(f"unknown layer type {kind!r}")
    if kind == "Sequential":
        layers = [build_layer(item) for item in config.pop("layers")]
        return Sequential(*layers, **config)
    if kind == "Residual":
        inner = {name: item and build_layer(item) for name, item in config.items()}
        return Residual(**inner)
    return LAYERS[kind].from_config({name: _tuples(value) for name, value in config.items()})


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def save_model(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Write a model; see `Sequential.save`."""
    header = {"format": np.array(FORMAT), "architecture": np.array(architecture(model))}
    write_npz(path, header | model_arrays(model))


def load_model(path: str | os.PathLike[str]) -> Sequential:
    """Read a model; see `Sequential.load`.

    Zero weights cost no memory until they are written, and the shapes in the file are compared
    before anything is read, so a file cannot claim more than it holds.
    """
    with NpzReader(path, "a model saved by fastconv") as reader:
        found = str(reader.read("format", shape=()))
        if found != FORMAT:
            raise reader.error(f"its format is {found!r} instead of {FORMAT!r}")
        text = str(reader.read("architecture", shape=()))
        try:
            model = build_layer(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise reader.error(f"its architecture makes no model ({error})") from error
        except (MemoryError, RecursionError) as error:
            raise reader.error(f"its architecture is too large ({error})") from error
        if not isinstance(model, Sequential):
            raise reader.error(f"it holds a {type(model).__name__}, not a Sequential")
        read_arrays(reader, model_arrays(model))
    return model


def read_arrays(reader: NpzReader, targets: dict[str, Array]) -> None:
    """Fill the target arrays from members of the same names, shapes and dtypes, or change none."""
    found = {
        name: reader.read(name, shape=array.shape, dtype=array.dtype)
        for name, array in targets.items()
    }
    for name, array in targets.items():
        array[...] = found[name]
