"""CIFAR-10 and CIFAR-100 in their binary form, read from files that may be wrong.

A file is a row of records: one byte of label (CIFAR-100: two, coarse and fine), then 3072 bytes of
a 32x32 image, its red plane, its green and its blue. The form and the files:
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastconv.examples.names import read_names
from fastconv.nn.checks import Array

PIXELS = 3 * 32 * 32
FOLDERS = ("cifar-10-batches-bin", "cifar-100-binary")  # inside the archives
PICKLED_FOLDERS = ("cifar-10-batches-py", "cifar-100-python")
PICKLED = {"data_batch_1", "test_batch", "batches.meta", "meta"}  # names in those


class Form(NamedTuple):
    """Which files one of the two data sets has, and what is in them."""

    classes: int
    labels: int  # bytes before the pixels, the last of which counts
    train: str  # pattern of names
    test: str
    names: str


FORMS = (
    Form(10, 1, r"data_batch_\d+\.bin", "test_batch.bin", "batches.meta.txt"),
    Form(100, 2, r"train\.bin", "test.bin", "fine_label_names.txt"),
)


def is_cifar(folder: Path) -> bool:
    """Whether a folder holds CIFAR's files, in the binary form or the pickled one."""
    return _binary(folder) is not None or _pickled(folder)


def _binary(folder: Path) -> tuple[Path, Form] | None:
    """The folder of the .bin files, this one or the archive's inside it, and which they are."""
    for place in (folder, *(folder / name for name in FOLDERS)):
        for form in FORMS:
            if _training_files(place, form):
                return place, form
    return None


def _training_files(folder: Path, form: Form) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if re.fullmatch(form.train, p.name)]
    return sorted(found, key=lambda p: (len(p.name), p.name))  # batch 10 after 9


def _pickled(folder: Path) -> bool:
    inside = any((folder / name).is_dir() for name in PICKLED_FOLDERS)
    names = {name for name in PICKLED if (folder / name).is_file()}
    return inside or folder.name in PICKLED_FOLDERS or bool(names)


def read_cifar(
    folder: Path, max_bytes: int
) -> tuple[list[tuple[Array, Array]], int, tuple[str, ...] | None]:
    """Images and labels of the training and, if it is there, of the test.

    Parameters
    ----------
    folder : Path
        With the .bin files, or with the folder that the archive has around them.
    max_bytes : int
        Largest sum of the sizes of the training files, and size of the test file.

    Returns
    -------
    pairs : list of (ndarray (m, 32, 32, 3) of uint8, ndarray (m,) of uint8)
    classes : int
    names : tuple of str or None
        Of the classes, if the file with them is there.

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file, and saying what was expected.
    """
    found = _binary(folder)
    if found is None and _pickled(folder):
        raise ValueError(
            f"{folder}: this is CIFAR's Python version, which is pickled: unpickling runs whatever "
            "a file says, so it is never read; the binary version (cifar-10-binary.tar.gz, "
            "cifar-100-binary.tar.gz), from the same page, has the same images"
        )
    if found is None:
        raise FileNotFoundError(
            f"{folder}: expected CIFAR's binary files: data_batch_1.bin and so on, or train.bin"
        )
    place, form = found
    pairs = [_records(_training_files(place, form), form, max_bytes)]
    if (place / form.test).exists():
        pairs.append(_records([place / form.test], form, max_bytes))
    names = None
    if (place / form.names).exists():
        names = read_names(place / form.names)
        if len(names) != form.classes:
            raise ValueError(
                f"{place / form.names}: expected {form.classes} names of classes, one a line, "
                f"found {len(names)}"
            )
    return pairs, form.classes, names


def _records(paths: list[Path], form: Form, max_bytes: int) -> tuple[Array, Array]:
    width = form.labels + PIXELS
    sizes = [path.stat().st_size for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        if not size or size % width:
            raise ValueError(
                f"{path}: expected records of {width} bytes, {form.labels} of labels and {PIXELS} "
                f"of pixels, found {size} bytes"
            )
    if sum(sizes) > max_bytes:
        raise ValueError(f"{paths[0]}: {sum(sizes)} bytes, above the limit {max_bytes}")
    m = sum(sizes) // width
    images, labels = np.empty((m, 32, 32, 3), np.uint8), np.empty(m, np.uint8)
    start = 0
    for path, size in zip(paths, sizes, strict=True):
        with open(path, "rb") as file:
            content = file.read(size)
        if len(content) != size:
            raise ValueError(f"{path}: the file shrank while it was read")
        records = np.frombuffer(content, np.uint8).reshape(-1, width)
        part = slice(start, start + len(records))
        labels[part] = records[:, form.labels - 1]
        if labels[part].max() >= form.classes:
            raise ValueError(
                f"{path}: expected labels in 0 .. {form.classes - 1}, found {labels[part].max()}"
            )
        planes = records[:, form.labels :].reshape(-1, 3, 32, 32)  # (m, C, H, W)
        images[part] = planes.transpose(0, 2, 3, 1)
        start = part.stop
    return images, labels
