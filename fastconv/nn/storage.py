"""Models as files: the architecture as JSON, the arrays as .npy members, in one .npz."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array
from fastconv.nn.npz import NpzReader, write_npz
from fastconv.nn.registry import built, described, registered

FORMAT = "fastconv model 1"


def model_arrays(model: Layer) -> dict[str, Array]:
    """Parameters and buffers (not copies) under the names they have in files."""
    arrays = {f"parameters/{path}": p.value for path, p in model.named_parameters().items()}
    return arrays | {f"buffers/{path}": array for path, array in model.named_buffers().items()}


def architecture(model: Layer) -> str:
    """JSON text from which `load_model` makes the model again.

    Raises
    ------
    TypeError
        If a layer is not registered, as all of fastconv.nn's are.
    """
    for path, layer in model.walk():
        if not registered(layer):
            raise TypeError(
                f"layer {path or 'model'}: {type(layer)!r} is not one that can be saved"
            )
    return json.dumps(described(model))


def save_model(model: Layer, path: str | os.PathLike[str]) -> None:
    """Write a model; see `Sequential.save`."""
    header = {"format": np.array(FORMAT), "architecture": np.array(architecture(model))}
    write_npz(path, header | model_arrays(model))


def load_model(path: str | os.PathLike[str], kind: type[Layer]) -> Any:
    """Read a model, which must be one of `kind`; see `Sequential.load`.

    A file can make registered layers and nothing else: it names a class and gives its arguments.
    Zero weights cost no memory until they are written, and the shapes in the file are compared
    before anything is read, so a file cannot claim more than it holds.
    """
    with NpzReader(path, "a model saved by fastconv") as reader:
        found = str(reader.read("format", shape=()))
        if found != FORMAT:
            raise reader.error(f"its format is {found!r} instead of {FORMAT!r}")
        text = str(reader.read("architecture", shape=()))
        try:
            model = built(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise reader.error(f"its architecture makes no model ({error})") from error
        except (MemoryError, RecursionError) as error:
            raise reader.error(f"its architecture is too large ({error})") from error
        if not isinstance(model, kind):
            raise reader.error(f"it holds a {type(model).__name__}, not a {kind.__name__}")
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
