"""Weights of a model alone, in files: our own, PyTorch's and Keras's."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, shown
from fastconv.nn.copying import scratch_copy
from fastconv.nn.files import file_path
from fastconv.nn.foreign_weights import (
    keras_modules,
    layers_of,
    matched,
    pytorch_modules,
    turned_arrays,
)
from fastconv.nn.npz import NpzReader, write_npz
from fastconv.nn.storage import model_arrays, read_arrays
from fastconv.nn.tensor_files import read_keras, read_safetensors, write_safetensors

__all__ = ["load_weights", "save_weights"]

FORMAT = "fastconv weights 1"
SUFFIXES = ".npz, .safetensors, .weights.h5 or .keras"


def save_weights(model: Layer, path: str | os.PathLike[str]) -> None:
    """Write the weights of a model; see `Sequential.save_weights`."""
    path = file_path("path", path)
    suffix = path.suffix
    if suffix == ".npz":
        write_npz(path, {"format": np.array(FORMAT)} | model_arrays(model))
    elif suffix == ".safetensors":
        write_safetensors(path, model_arrays(model))
    else:
        raise ValueError(
            f"path: its name must end with .npz or .safetensors, got {shown(path.name)}"
        )


def load_weights(
    model: Layer, path: str | os.PathLike[str], input_shape: tuple[int, ...] | None = None
) -> None:
    """Read the weights of a model; see `Sequential.load_weights`."""
    path = file_path("path", path)
    name = path.name
    if name.endswith(".npz"):
        with NpzReader(path, "weights of a fastconv model") as reader:
            read_arrays(reader, model_arrays(model))
    elif name.endswith(".safetensors"):
        with read_safetensors(path) as (tensors, remarks):
            if remarks.get("format") == "fastconv":
                found = _own(path, model, tensors)
            else:
                found = _foreign(path, model, pytorch_modules, tensors, "pytorch", input_shape)
        _fill(found)
    elif name.endswith((".weights.h5", ".keras")):
        with read_keras(path) as layers:
            found = _foreign(path, model, keras_modules, layers, "keras", input_shape)
        _fill(found)
    else:
        raise ValueError(f"path: its name must end with {SUFFIXES}, got {shown(path.name)}")


def _fill(found: list[tuple[Array, Array]]) -> None:
    for target, array in found:
        target[...] = array


def _own(path: Any, model: Layer, tensors: Any) -> list[tuple[Array, Array]]:
    found = []
    targets = model_arrays(model)
    if set(targets) != set(tensors):
        other = sorted(set(targets) ^ set(tensors))[0]
        raise ValueError(f"{os.fspath(path)}: it belongs to another model: see {other!r}")
    for name, target in targets.items():
        tensor = tensors[name]
        if tensor.shape != target.shape or tensor.dtype != target.dtype.name:
            raise ValueError(
                f"{os.fspath(path)}: {name} is {tensor.shape} of {tensor.dtype} instead of "
                f"{target.shape} of {target.dtype}"
            )
        found.append((target, tensor.read()))
    return found


def _foreign(
    path: Any, model: Layer, modules_of: Any, given: Any, style: str, input_shape: Any
) -> list[tuple[Array, Array]]:
    try:
        modules = modules_of(given)
        channels = _Channels(model, input_shape) if style == "pytorch" else lambda path: 1
        pairs = matched(layers_of(model, channels), modules)
        found = []
        for target, module in pairs:
            arrays = turned_arrays(target, module, style)
            layer = target.layer
            held = {name: p.value for name, p in layer._parameters.items()} | layer._buffers
            found += [(held[name], array) for name, array in arrays.items()]
    except ValueError as error:
        if str(error).startswith("input_shape"):
            raise
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return found


class _Channels:
    """How many channels the images had that Flatten made the rows of, by a dense layer's path."""

    def __init__(self, model: Layer, input_shape: tuple[int, ...] | None) -> None:
        self._known = input_shape is not None
        twin = model
        if input_shape is not None:
            dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
            twin = scratch_copy(model, evaluating=True)
            try:
                twin.forward(np.zeros((0, *input_shape), dtype))
            except (ValueError, TypeError) as error:
                raise ValueError(f"input_shape: {input_shape} does not fit: {error}") from error
        self._layers = [(path, layer) for path, layer in twin.walk() if not layer.children()]
        self._first = None if input_shape is None else tuple(input_shape)

    def __call__(self, path: str) -> int:
        at = [name for name, _ in self._layers].index(path)
        before = self._layers[:at]
        while before:
            _, layer = before.pop()
            if type(layer).__name__ == "Flatten":
                shape = before[-1][1].output_shape if before else self._first
                if shape is None:
                    raise ValueError(
                        "input_shape: give the shape of one image, such as (28, 28, 1): PyTorch "
                        f"has the weights behind Flatten, of layer {path}, in another order, and "
                        "the model has not seen an image yet"
                    )
                return shape[-1] if len(shape) > 1 else 1
            if "w" in layer._parameters or type(layer).__name__.startswith("Global"):
                return 1
        return 1
