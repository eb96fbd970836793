"""Models as files: the architecture as JSON, the arrays as .npy members, in one .npz."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, positive_int, real_number, shown
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


class About(NamedTuple):
    """What a model's file may say of the images that it was trained on.

    Attributes
    ----------
    class_names : tuple of str
        Empty where they are numbers.
    image_shape : (H, W, C), or None
    scale : float
        What bytes are multiplied by.
    """

    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, ...] | None = None
    scale: float = 1 / 255


def save_model(model: Layer, path: str | os.PathLike[str], about: About | None = None) -> None:
    """Write a model; see `Sequential.save`. Who reads it need not know of `about`."""
    header = {"format": np.array(FORMAT), "architecture": np.array(architecture(model))}
    if about is not None:
        header["about"] = np.array(json.dumps(about._asdict()))
    write_npz(path, header | model_arrays(model))


def read_about(path: str | os.PathLike[str]) -> About:
    """What a model's file says of its images; what it does not say is as `About` has it.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is damaged.
    """
    with NpzReader(path, "a model saved by fastconv") as reader:
        if "about" not in reader.names:
            return About()
        try:
            found = About(**json.loads(str(reader.read("about", shape=()))))
            names, shape = tuple(found.class_names), found.image_shape
            if shape is not None:
                shape = tuple(positive_int("image_shape", n) for n in shape)
                if len(shape) != 3:
                    raise ValueError(f"image_shape: (H, W, C) is needed, got {shape}")
            if not all(isinstance(name, str) for name in names):
                raise TypeError(f"class_names: texts are needed, got {shown(names)}")
            return About(names, shape, real_number("scale", found.scale))
        except (TypeError, ValueError, RecursionError) as error:
            raise reader.error(f"what it says of its images cannot be read ({error})") from error


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
