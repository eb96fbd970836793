"""Images to train on: scikit-learn's digits, an .npz file, or a folder of MNIST-style IDX files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastconv.examples.idx import TEST, TRAIN, find_idx, read_idx
from fastconv.nn.base import Array
from fastconv.nn.npz import NpzReader

# Largest array that is read from a file, in bytes as stored. All of EMNIST is 0.6e9.
MAX_BYTES = 2**30
# A label far above the number of classes would make an output layer that fills the memory.
MAX_CLASSES = 65536

INSTALL_EXAMPLES = 'python -m pip install "fastconv[examples]"'


class Dataset(NamedTuple):
    """Images (m, H, W, C) as float32 and labels (m,) as int64, for training and held out."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: int


def load_digits() -> Dataset:
    """The 1797 real 8x8 digits of scikit-learn (UCI, Alpaydin and Kaynak 1998), scaled to [0, 1].

    A fixed fifth of each class is held out: the same images on every machine, whatever the seed of
    the training.

    Raises
    ------
    ImportError
        Without scikit-learn; the message says which command installs it.

    Examples
    --------
    >>> load_digits().x_train.shape
    (1438, 8, 8, 1)
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError(
            f"the digits come with scikit-learn; install it with: {INSTALL_EXAMPLES}"
        ) from error
    bunch = load()
    x = np.asarray(bunch.images, np.float32)[..., None] / np.float32(16)  # (1797, 8, 8, 1)
    return _hold_out(x, np.asarray(bunch.target, np.int64), "load_digits")


def load_data(path: str | os.PathLike[str]) -> Dataset:
    """Load an .npz file or a folder of IDX files, whichever `path` is.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        Saying what was expected.
    """
    path = Path(path)
    if path.is_dir():
        return load_idx(path)
    if path.exists() and path.suffix.lower() != ".npz":
        raise ValueError(f"{path}: expected an .npz file with x and y, or a folder of IDX files")
    return load_npz(path)


def load_npz(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Dataset:
    """Load images `x` (m, H, W) or (m, H, W, C) and labels `y` (m,) from an .npz file.

    The file may also hold `x_test` and `y_test`; otherwise a fixed fifth of each class is held
    out. Integer pixels are divided by the largest value of their type (8 bits) or of the data;
    floats are taken as they are. Nothing is unpickled.

    Parameters
    ----------
    path : path
    max_bytes : int
        Largest array to read.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        Saying what was expected.
    """
    what = "an .npz file with images x (m, H, W) or (m, H, W, C) and integer labels y (m,)"
    with NpzReader(path, what, limit=max_bytes, stored=False) as reader:
        pairs = [(reader.read("x"), reader.read("y"))]
        if "x_test" in reader.names:
            pairs.append((reader.read("x_test"), reader.read("y_test")))
    return _dataset(pairs, str(path))


def load_idx(folder: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Dataset:
    """Load a folder of MNIST-style IDX files, gzipped or not.

    Expected are ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, and for the test the
    same with ``t10k``; each may end in ``.gz`` and have a dot before ``idx``. Without the
    ``t10k`` files a fixed fifth of each class is held out.

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file and saying what was expected.
    """
    folder = Path(folder)
    parts = [TRAIN]
    if any(find_idx(folder, name) for name in TEST):
        parts.append(TEST)
    pairs = []
    for names in parts:
        images, labels = (read_idx(folder, name, max_bytes) for name in names)
        if len(images) != len(labels):
            raise ValueError(
                f"{folder}: {names[0]} holds {len(images)} images "
                f"but {names[1]} {len(labels)} labels"
            )
        pairs.append((images, labels))
    return _dataset(pairs, str(folder))


def stratified_split(y: Array, fraction: float = 0.2, seed: int = 0) -> tuple[Array, Array]:
    """Indices of the kept and the held-out images; each class gives up the same share.

    The choice uses the bit generator's raw output, which NumPy promises never to change, so it is
    the same on every machine and version.

    Parameters
    ----------
    y : ndarray (m,)
        Integer labels.
    fraction : float in (0, 1)
        Share of each class that is held out, rounded to whole images.
    seed : int

    Returns
    -------
    kept, held : ndarray of int64
        Both in ascending order.

    Examples
    --------
    >>> kept, held = stratified_split(np.arange(50) % 5)
    >>> kept.shape, held.shape
    ((40,), (10,))
    """
    y = np.asarray(y)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: must be between 0 and 1, got {fraction!r}")
    order = np.argsort(np.random.PCG64(seed).random_raw(len(y)), kind="stable")
    held = []
    for label in np.unique(y):
        members = order[y[order] == label]
        held.append(members[: round(len(members) * fraction)])
    chosen = np.sort(np.concatenate(held)) if held else np.zeros(0, np.int64)
    kept = np.setdiff1d(np.arange(len(y)), chosen)
    return kept, chosen


def _hold_out(x: Array, y: Array, where: str) -> Dataset:
    kept, held = stratified_split(y)
    if not len(held):
        raise ValueError(
            f"{where}: y: {len(y)} images are too few to hold out a fifth of each class"
        )
    return Dataset(x[kept], y[kept], x[held], y[held], int(y.max()) + 1)


def _dataset(pairs: list[tuple[Array, Array]], where: str) -> Dataset:
    """One pair of images and labels, split here, or two: train and test."""
    labels = [_labels(x, y, where) for x, y in pairs]
    scale = _scale(pairs[0][0], where)
    images = [_images(x, scale, where) for x, _ in pairs]
    if len(pairs) == 1:
        return _hold_out(images[0], labels[0], where)
    if images[0].shape[1:] != images[1].shape[1:]:
        raise ValueError(
            f"{where}: training images are {images[0].shape[1:]}, test images {images[1].shape[1:]}"
        )
    classes = int(max(y.max() for y in labels)) + 1
    return Dataset(images[0], labels[0], images[1], labels[1], classes)


def _scale(x: Array, where: str) -> float:
    if x.dtype.kind not in "biuf":
        raise TypeError(f"{where}: x: expected numbers (images), got {x.dtype}")
    if x.dtype.kind == "f" or x.size == 0:
        return 1.0
    if x.dtype.kind == "b":
        return 1.0
    largest = 255 if x.dtype == np.uint8 else max(abs(int(x.max())), abs(int(x.min())))
    return float(largest or 1)


def _images(x: Array, scale: float, where: str) -> Array:
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(f"{where}: x: expected (m, H, W) or (m, H, W, C), got {x.shape}")
    images = np.array(x, np.float32, order="C").reshape(*x.shape[:3], -1)  # (m, H, W, C)
    if scale != 1.0:
        images /= np.float32(scale)
    if not np.isfinite(images).all():
        raise ValueError(f"{where}: x: holds NaN or infinity")
    return images


def _labels(x: Array, y: Array, where: str) -> Array:
    if x.ndim < 1 or y.shape != x.shape[:1]:
        raise ValueError(f"{where}: y: expected one label per image, x is {x.shape}, y {y.shape}")
    if y.dtype.kind not in "iu":
        raise TypeError(f"{where}: y: expected integer labels, got {y.dtype}")
    if len(y) and (y.min() < 0 or y.max() >= MAX_CLASSES):
        raise ValueError(
            f"{where}: y: labels must be in 0 .. {MAX_CLASSES - 1}, got {y.min()} .. {y.max()}"
        )
    return y.astype(np.int64)
