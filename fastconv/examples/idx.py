"""The IDX format of the MNIST files and their kin, read from files that may be wrong.

A big-endian header (magic number: two zero bytes, the element type, the number of axes; then each
axis's length as 32 bits), then the elements: unsigned bytes (8), or 32-bit integers (C) in QMNIST's
labels, whose first column is the digit. Description: http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from fastconv.nn.base import Array

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CHUNK = 2**20
GZIP = b"\x1f\x8b"
# MNIST's names; with a dot before "idx"; EMNIST's (emnist-letters-train-..., -test-...); QMNIST's.
NAME = re.compile(
    r"(?P<set>.*?)(?P<part>train|t10k|test)-"
    r"((?P<images>images[-.]idx3-ubyte)|labels[-.]idx1-ubyte|(?P<wide>labels[-.]idx2-int))(\.gz)?"
)

Pair = tuple[Path, Path]  # images and labels


def find_idx(folder: Path) -> list[Pair]:
    """Files of a folder: images and labels of the training and, if there are any, of the test.

    Raises
    ------
    FileNotFoundError
        If one is missing; the message lists what is there.
    ValueError
        If there are several data sets.
    """
    sets: dict[str, dict[tuple[bool, bool], Path]] = {}
    for name, path in _files(folder):
        if match := NAME.fullmatch(name):
            key = (match["part"] == "train", match["images"] is not None)
            sets.setdefault(match["set"], {}).setdefault(key, path)
    if len(sets) > 1 and "" not in sets:
        raise ValueError(
            f"{folder}: expected the IDX files of one data set, found those of "
            f"{', '.join(sorted(sets))}: give one of them a folder of its own"
        )
    name = "" if not sets or "" in sets else next(iter(sets))
    found = sets.get(name, {})
    pairs = []
    for training, usual in ((True, TRAIN), (False, TEST)):
        keys = [(training, True), (training, False)]
        if not training and not any(key in found for key in keys):
            continue
        for key, last in zip(keys, usual, strict=True):
            if key not in found:
                wanted = name + (last.replace("t10k", "test") if name else last)
                raise FileNotFoundError(
                    f"{folder}: expected a file {wanted} or {wanted}.gz (found: {_listed(folder)})"
                )
        pairs.append((found[keys[0]], found[keys[1]]))
    return pairs


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and files, unpacked ones first; Kaggle's archives have a folder around each file."""
    for path in sorted(folder.iterdir(), key=lambda p: (p.suffix == ".gz", p.name)):
        inner = path / path.name
        if path.is_file():
            yield path.name, path
        elif inner.is_file():
            yield path.name, inner


def _listed(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "an empty folder"


def read_idx(path: Path, max_bytes: int) -> Array:
    """Read one IDX file, gzipped or not, whatever its suffix says.

    Memory stays below the smaller of what the header claims and what the file holds, plus 1 MiB:
    a header that claims more than there is, or a gzip stream that is longer, is an error.

    Parameters
    ----------
    path : Path
        One that `find_idx` gave: its name says what the file holds.
    max_bytes : int
        Largest array to read.

    Returns
    -------
    ndarray of uint8, (m, H, W) or (m,), or of int32, (m,)

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file and saying what was expected.
    """
    match = NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: expected a name such as {TRAIN[0]} or {TRAIN[1]}")
    magic = 0x803 if match["images"] else 0xC02 if match["wide"] else 0x801
    with open(path, "rb") as stream:
        head = stream.read(4)
        stream.seek(0)
        # A browser may have unpacked a file and left its name, or the other way round.
        plain = head == struct.pack(">I", magic) or not (path.suffix == ".gz" or head[:2] == GZIP)
        if plain:
            return _parse(stream, path, magic, max_bytes)
        try:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                return _parse(unpacked, path, magic, max_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: expected a whole gzip file, but {error}") from error


def _parse(stream: IO[bytes] | gzip.GzipFile, path: Path, magic: int, max_bytes: int) -> Array:
    axes = magic & 0xFF
    dtype = np.dtype(np.uint8) if magic >> 8 == 8 else np.dtype(">i4")
    header = stream.read(4 + 4 * axes)
    if len(header) < 4 or struct.unpack(">I", header[:4])[0] != magic:
        elements = "bytes" if dtype.itemsize == 1 else "32-bit integers"
        raise ValueError(
            f"{path}: expected an IDX file of {elements} with {axes} axes, which starts with "
            f"{magic:08x}, got {header[:4].hex() or 'an empty file'}"
        )
    if len(header) < 4 + 4 * axes:
        raise ValueError(f"{path}: the file ends inside its IDX header")
    shape = struct.unpack(f">{axes}I", header[4:])
    size = math.prod(shape) * dtype.itemsize
    if size > max_bytes:
        raise ValueError(
            f"{path}: its header claims {shape}, {size} bytes, above the limit {max_bytes}"
        )
    content = bytearray()
    while len(content) < size:
        part = stream.read(min(CHUNK, size - len(content)))
        if not part:
            raise ValueError(
                f"{path}: the file is cut short: its header says {shape}, {size} bytes, "
                f"but it holds {len(content)}"
            )
        content += part
    if stream.read(1):
        raise ValueError(f"{path}: more bytes than its header says, {size} for {shape}")
    array = np.frombuffer(content, dtype).reshape(shape)
    if magic != 0xC02:
        return array
    if not shape[1]:
        raise ValueError(f"{path}: expected labels in the first column, found no column")
    return array[:, 0].astype(np.int32)
