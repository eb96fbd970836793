"""The IDX format of the MNIST files, read from files that may be wrong.

A big-endian header (magic number: two zero bytes, the element type, the number of axes; then each
axis's length as 32 bits), then the elements. Here the type is always unsigned bytes (8).
Description: http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from fastconv.nn.base import Array

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CHUNK = 2**20


def find_idx(folder: Path, name: str) -> Path | None:
    """Path of an IDX file under any of its four usual names, or None."""
    for base in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            path = folder / (base + suffix)
            if path.is_file():
                return path
    return None


def read_idx(folder: Path, name: str, max_bytes: int) -> Array:
    """Read one IDX file.

    Memory stays below the smaller of what the header claims and what the file holds, plus 1 MiB:
    a header that claims more than there is, or a gzip stream that is longer, is an error.

    Parameters
    ----------
    folder : Path
    name : str
        One of the names in `TRAIN` and `TEST`; its "idx3" or "idx1" says how many axes it has.
    max_bytes : int
        Largest array to read.

    Returns
    -------
    ndarray of uint8, (m, H, W) or (m,)

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file and saying what was expected.
    """
    path = find_idx(folder, name)
    if path is None:
        raise FileNotFoundError(f"{folder}: expected a file {name} or {name}.gz")
    axes = 3 if "idx3" in name else 1
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as stream:
                return _parse(stream, path, axes, max_bytes)
        with open(path, "rb") as stream:
            return _parse(stream, path, axes, max_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: expected a whole gzip file, but {error}") from error


def _parse(stream: IO[bytes] | gzip.GzipFile, path: Path, axes: int, max_bytes: int) -> Array:
    header = stream.read(4 + 4 * axes)
    magic = 0x800 + axes
    if len(header) < 4 or struct.unpack(">I", header[:4])[0] != magic:
        raise ValueError(
            f"{path}: expected an IDX file of bytes with {axes} axes, which starts with "
            f"{magic:08x}, got {header[:4].hex() or 'an empty file'}"
        )
    if len(header) < 4 + 4 * axes:
        raise ValueError(f"{path}: the file ends inside its IDX header")
    shape = struct.unpack(f">{axes}I", header[4:])
    size = math.prod(shape)
    if size > max_bytes:
        raise ValueError(f"{path}: its header claims {shape} bytes, above the limit {max_bytes}")
    pixels = bytearray()
    while len(pixels) < size:
        part = stream.read(min(CHUNK, size - len(pixels)))
        if not part:
            raise ValueError(
                f"{path}: the file is cut short: its header says {shape}, {size} bytes, "
                f"but it holds {len(pixels)}"
            )
        pixels += part
    if stream.read(1):
        raise ValueError(f"{path}: more bytes than its header says, {size} for {shape}")
    return np.frombuffer(pixels, np.uint8).reshape(shape)
