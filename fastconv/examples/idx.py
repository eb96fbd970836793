"""The IDX format of the MNIST files and their kin, read from files that may be wrong.

A big-endian header (magic number: two zero bytes, the element type, the number of axes; then each
axis's length as 32 bits), then the elements. Most are unsigned bytes; in QMNIST's labels, 32-bit
integers, the first column is the digit. Description: http://yann.lecun.com/exdb/mnist/
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

from fastconv.nn.checks import Array

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CHUNK = 2**20
GZIP = b"\x1f\x8b"
# Element types: their number in the header, the dtype, the word in a file's name, and in a message.
TYPES = (
    (0x08, ">u1", "ubyte", "bytes"),
    (0x09, ">i1", "byte", "signed bytes"),
    (0x0B, ">i2", "short", "16-bit integers"),
    (0x0C, ">i4", "int", "32-bit integers"),
    (0x0D, ">f4", "float", "32-bit floats"),
    (0x0E, ">f8", "double", "64-bit floats"),
)
# MNIST's names; with a dot before "idx"; EMNIST's (emnist-letters-train-..., -test-...); QMNIST's;
# and those of other types and axes: train-images-idx4-float, train_images.idx.
NAME = re.compile(
    r"(?P<set>.*?)(?P<part>train|t10k|test)[-_.]((?P<images>images)|labels)"
    r"[-_.]idx((?P<axes>[1-4])[-_.](?P<type>ubyte|byte|short|int|float|double))?(\.gz)?"
)
AXES = {True: (3, 4), False: (1, 2)}  # of images, with channels or without; of labels

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
                    f"{folder}: expected a file {wanted} or {wanted}.gz (found: {listed(folder)})"
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


def has_idx(folder: Path) -> bool:
    """Whether a folder holds a file with the name of an IDX file."""
    return any(NAME.fullmatch(name) for name, _ in _files(folder))


def listed(folder: Path) -> str:
    """Names of what a folder holds, the first few of many, for a message."""
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
    ndarray
        Images (m, H, W) or (m, H, W, C); labels (m,), or one-hot rows (m, classes).

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file and saying what was expected.
    """
    match = NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: expected a name such as {TRAIN[0]} or {TRAIN[1]}")
    with open(path, "rb") as stream:
        head = stream.read(4)
        stream.seek(0)
        # A browser may have unpacked a file and left its name, or the other way round.
        plain = _is_magic(head, match) or not (path.suffix == ".gz" or head[:2] == GZIP)
        if plain:
            return _parse(stream, path, match, max_bytes)
        try:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                return _parse(unpacked, path, match, max_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: expected a whole gzip file, but {error}") from error


def _is_magic(head: bytes, match: re.Match[str]) -> bool:
    """Whether a file begins as its name says."""
    known = any(number == head[2] for number, *_ in TYPES) if len(head) == 4 else False
    if not known or head[:2] != b"\0\0" or head[3] not in AXES[match["images"] is not None]:
        return False
    return match["axes"] is None or head == _magic(match)


def _magic(match: re.Match[str]) -> bytes:
    number = next(n for n, _, word, _ in TYPES if word == match["type"])
    return bytes([0, 0, number, int(match["axes"])])


def _expected(match: re.Match[str]) -> str:
    if match["axes"] is None:
        axes = " or ".join(map(str, AXES[match["images"] is not None]))
        return f"an IDX file with {axes} axes, which starts with two zero bytes and a known type"
    elements = next(text for _, _, word, text in TYPES if word == match["type"])
    magic = _magic(match).hex()
    axes = f"{match['axes']} {'axis' if match['axes'] == '1' else 'axes'}"
    return f"an IDX file of {elements} with {axes}, which starts with {magic}"


def _parse(
    stream: IO[bytes] | gzip.GzipFile, path: Path, match: re.Match[str], max_bytes: int
) -> Array:
    head = stream.read(4)
    if not _is_magic(head, match):
        found = head.hex() or "an empty file"
        raise ValueError(f"{path}: expected {_expected(match)}, got {found}")
    axes = head[3]
    dtype = np.dtype(next(code for number, code, *_ in TYPES if number == head[2]))
    header = stream.read(4 * axes)
    if len(header) < 4 * axes:
        raise ValueError(f"{path}: the file ends inside its IDX header")
    shape = struct.unpack(f">{axes}I", header)
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
    return array if match["images"] or axes == 1 else _first_column(array, path)


def _first_column(labels: Array, path: Path) -> Array:
    """The digits of QMNIST's labels; one-hot rows stay."""
    if not labels.shape[1]:
        raise ValueError(f"{path}: expected labels in the first column, found no column")
    one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()
    return labels if one_hot and labels.shape[1] > 1 else labels[:, 0]
