"""Files of named arrays that other frameworks write, read without running anything in them.

Arrays are looked at by name, shape and dtype first and read only when they are wanted.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastconv._extras import host
from fastconv.nn.checks import Array
from fastconv.nn.files import replacing
from fastconv.nn.npz import BOMB_BYTES, BOMB_RATIO, DAMAGE

__all__ = ["FLOATS", "Tensor", "read_keras", "read_safetensors", "write_safetensors"]

FLOATS = ("float16", "float32", "float64")
IN_KERAS = "model.weights.h5"  # the member of a .keras file that holds the arrays


class Tensor(NamedTuple):
    """An array of a file, not read yet."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Array]


def _damaged(path: Any, what: str, error: BaseException) -> ValueError:
    cause = str(error).strip().partition("\n")[0]
    return ValueError(f"{os.fspath(path)}: it is no whole {what} file ({cause})")


def _found(path: Any) -> None:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{os.fspath(path)}: no such file (weights are needed)")


# safetensors ------------------------------------------------------------------------------------

NAMES = {"F16": "float16", "F32": "float32", "F64": "float64"}


@contextlib.contextmanager
def read_safetensors(
    path: str | os.PathLike[str],
) -> Iterator[tuple[dict[str, Tensor], dict[str, str]]]:
    """Arrays by name, and the file's remarks about itself.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    FileNotFoundError, ValueError
        If there is no such file, or it is none.
    """
    library = host("safetensors", "weights")
    _found(path)
    try:
        file = library.safe_open(os.fspath(path), framework="numpy")
    except (library.SafetensorError, OSError) as error:
        raise _damaged(path, "safetensors", error) from error
    with file:
        tensors = {}
        for name in file.keys():  # noqa: SIM118 (no mapping)
            one = file.get_slice(name)
            dtype = NAMES.get(one.get_dtype(), one.get_dtype())
            tensors[name] = Tensor(tuple(one.get_shape()), dtype, _reader(file, name, path))
        yield tensors, file.metadata() or {}


def _reader(file: Any, name: str, path: Any) -> Callable[[], Array]:
    def read() -> Array:
        try:
            return np.asarray(file.get_tensor(name))
        except Exception as error:  # SafetensorError, and what NumPy says of dtypes that it lacks
            raise _damaged(path, "safetensors", error) from error

    return read


def write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays; equal arrays give equal bytes."""
    library = host("safetensors.numpy", "weights")
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = library.save(plain, metadata={"format": "fastconv"})
    with replacing(path) as file:
        file.write(text)


# Keras ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_keras(path: str | os.PathLike[str]) -> Iterator[dict[str, list[Tensor]]]:
    """The arrays of each layer, by the layer's path, of a ``.weights.h5`` or ``.keras`` file.

    Raises
    ------
    ImportError
        If h5py is not installed.
    FileNotFoundError, ValueError
        If there is no such file, or it is none, or leads to other files.
    """
    library = host("h5py", "weights")
    _found(path)
    source: Any = os.fspath(path)
    if zipfile.is_zipfile(path):
        source = io.BytesIO(_member(path))
    try:
        file = library.File(source, "r")
    except (OSError, ValueError) as error:
        raise _damaged(path, "Keras", error) from error
    with file:
        layers: dict[str, list[Tensor]] = {}
        try:
            _walk(library, file, "", layers)
        except (OSError, RuntimeError, KeyError) as error:
            raise _damaged(path, "Keras", error) from error
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
        yield layers


def _member(path: Any) -> bytes:
    """The HDF5 file inside a .keras file."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(IN_KERAS)
            if info.file_size > max(BOMB_BYTES, BOMB_RATIO * info.compress_size):
                raise ValueError(f"{IN_KERAS} would grow to {info.file_size} bytes")
            return archive.read(info)
    except DAMAGE as error:
        raise _damaged(path, "Keras", error) from error


def _walk(library: Any, group: Any, path: str, layers: dict[str, list[Tensor]]) -> None:
    """Collect the groups ``vars`` of all layers; the optimizer's state is left out."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), library.HardLink):
            raise ValueError(f"{path}{name} is a link, which is never followed")
        item = group[name]
        if isinstance(item, library.Group):
            if name == "vars" and path:
                if arrays := _variables(library, item, path):
                    layers[path.rstrip("/")] = arrays
            elif path or name != "optimizer":
                if path.count("/") > 64:
                    raise ValueError(f"{path}{name} is too deep")
                _walk(library, item, f"{path}{name}/", layers)


def _variables(library: Any, group: Any, path: str) -> list[Tensor]:
    found = []
    for name in sorted(group, key=lambda text: (len(text), text)):
        if not isinstance(group.get(name, getlink=True), library.HardLink):
            raise ValueError(f"{path}vars/{name} is a link, which is never followed")
        item = group[name]
        if not isinstance(item, library.Dataset) or item.external or item.is_virtual:
            raise ValueError(f"{path}vars/{name} is no array of this file")
        if item.dtype.name in FLOATS:  # a Dropout keeps integers, of its generator
            found.append(Tensor(tuple(item.shape), item.dtype.name, _data_of(item)))
    return found


def _data_of(item: Any) -> Callable[[], Array]:
    return lambda: np.asarray(item[()])
