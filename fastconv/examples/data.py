"""Images to train on: scikit-learn's digits, .npz and IDX files, CIFAR, folders of PNG and JPEG."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastconv import _html
from fastconv.examples.cifar import is_cifar, read_cifar
from fastconv.examples.folder import ImageFiles, find_images, is_folder_of_images
from fastconv.examples.idx import NAME, TRAIN, find_idx, has_idx, listed, read_idx
from fastconv.examples.labels import as_labels, stratified_split
from fastconv.examples.pixels import as_images
from fastconv.nn.checks import Array
from fastconv.nn.files import file_path
from fastconv.nn.npz import NpzReader

# Largest array that is read from a file, in bytes as stored. All of EMNIST is 0.6e9.
MAX_BYTES = 2**30
# Names of training images and labels, and of test images and labels, in an .npz file.
NAMES = (
    ("x", "y", "x_test", "y_test"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)

SHOWN_CLASSES = 20  # in a notebook

INSTALL_EXAMPLES = 'python -m pip install "fastconv[examples]"'


class Dataset(NamedTuple):
    """Images and their labels, for training and held out.

    Attributes
    ----------
    x_train, x_test : ndarray (m, H, W, C) of float32
        Or, of a folder that is read lazily, `ImageFiles` of uint8.
    y_train, y_test : ndarray (m,) of int64
        From 0 to ``classes - 1``.
    classes : int
    class_names : tuple of str, or None
        Name of each class, where the data have names.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: int
    class_names: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        size = "x".join(map(str, np.shape(self.x_train)[1:]))
        return (
            f"<Dataset: {len(self.x_train):,} training and {len(self.x_test):,} test images of "
            f"{size}, {self.classes} classes>"
        )

    def _repr_html_(self) -> str:
        """The counts, and the first training image of each class."""
        names = self.class_names or tuple(map(str, range(self.classes)))
        counts = [np.bincount(y, minlength=self.classes) for y in (self.y_train, self.y_test)]
        shown = range(min(self.classes, SHOWN_CLASSES))
        rows = [(names[k], *(int(count[k]) for count in counts)) for k in shown]
        images = [
            _html.grey_image(self.x_train[np.argmax(self.y_train == k)].mean(axis=-1), 56, names[k])
            for k in shown
            if counts[0][k]
        ]
        title = repr(self).strip("<>")
        return _html.table(title, ("class", "training", "test"), rows) + "".join(images)


def load_digits() -> Dataset:
    """The 1797 real 8x8 digits of scikit-learn (UCI, Alpaydin and Kaynak 1998), scaled to [0, 1].

    A fixed fifth of each class is held out: the same images on every machine, whatever the seed of
    the training.

    Returns
    -------
    Dataset

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
    return _hold_out(x, np.asarray(bunch.target, np.int64), "load_digits", 10)


def load_data(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> Dataset:
    """Load whatever `path` is: an .npz file, or a folder of IDX files, CIFAR's files or images.

    Parameters
    ----------
    path : path
        For `load_npz`, `load_idx`, `load_cifar` or `load_folder`.
    size : (H, W), optional
        Of `load_folder`, what every image is resized to.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError, ValueError, TypeError, ImportError
        Saying what was expected.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/images.npz", x=np.zeros((10, 8, 8)), y=np.arange(10) % 2)
    ...     load_data(f"{folder}/images.npz").classes
    2
    """
    path = file_path("path", path)
    images = path.is_dir() and not has_idx(path) and not is_cifar(path)
    if images and is_folder_of_images(path):
        return load_folder(path, size=size)
    if size is not None:
        raise ValueError(f"size: only a folder of PNG or JPEG files is resized, {path} is none")
    if path.is_dir():
        return _load_files(path)
    if path.exists() and path.suffix.lower() != ".npz":
        cure = ": give the folder of this one" if NAME.fullmatch(path.name) else ""
        cure = ": unpack it, and give the folder" if ".tar" in path.suffixes else cure
        raise ValueError(
            f"{path}: expected an .npz file with x and y, or a folder of IDX files, of CIFAR's "
            f".bin files, or of PNG and JPEG files{cure}"
        )
    return load_npz(path)


def _load_files(folder: Path) -> Dataset:
    if has_idx(folder):
        return load_idx(folder)
    if is_cifar(folder):
        return load_cifar(folder)
    raise FileNotFoundError(
        f"{folder}: expected IDX files such as {TRAIN[0]}, CIFAR's .bin files, or a folder of PNG "
        f"or JPEG files for each class (found: {listed(folder)})"
    )


def load_cifar(folder: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Dataset:
    """Load CIFAR-10 or CIFAR-100 in its binary form, with the fine labels.

    Parameters
    ----------
    folder : path
        Of ``data_batch_1.bin`` ..., ``test_batch.bin`` and ``batches.meta.txt``, or ``train.bin``,
        ``test.bin`` and ``fine_label_names.txt``; or the one around it. Any number of batches will
        do. Without a test file a fifth of each class is held out, without the names there are none.
    max_bytes : int
        Largest sum of the sizes of the training files.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file and saying what was expected. The pickled form (the "Python version") is
        refused: nothing is unpickled.

    Examples
    --------
    >>> data = load_cifar("cifar-10-batches-bin")  # doctest: +SKIP
    >>> data.x_train.shape, data.class_names[0]  # doctest: +SKIP
    ((50000, 32, 32, 3), 'airplane')
    """
    found, classes, names = read_cifar(file_path("folder", folder), max_bytes)
    kinds = ("x", "y"), ("x_test", "y_test")
    pairs = [(x, images, y, labels) for (x, y), (images, labels) in zip(kinds, found, strict=False)]
    return _dataset(pairs, str(folder))._replace(classes=classes, class_names=names)


def load_folder(
    folder: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    lazy: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """Load a folder with a folder of PNG or JPEG files for each class.

    The classes have the folders' names, in order. The class folders may be inside ``train`` and
    ``test`` (or ``val``); otherwise a fixed fifth of each class is held out. Colour images become
    RGB; transparency is left out. Pillow reads them.

    Parameters
    ----------
    folder : path
    size : (H, W), optional
        What every image is resized to. Without it all must be of one size.
    lazy : bool
        Whether `x_train` and `x_test` are `ImageFiles` of uint8, which are read as they are needed;
        train on them with ``fit(..., scale=1/255)``.
    max_bytes : int
        Largest number of bytes of all images as uint8, unless they are read lazily.

    Returns
    -------
    Dataset

    Raises
    ------
    ImportError
        Without Pillow; the message says which command installs it.
    FileNotFoundError, ValueError
        Naming the file or folder and saying what was expected.

    Examples
    --------
    >>> data = load_folder("photos", size=(32, 32))  # doctest: +SKIP
    >>> data.class_names  # doctest: +SKIP
    ('cat', 'dog')
    """
    parts, names = find_images(file_path("folder", folder))
    images = ImageFiles([path for paths, _ in parts for path in paths], size)
    numbers = np.split(np.arange(len(images)), [len(parts[0][0])])[: len(parts)]
    several: Any = [images.part(chosen) for chosen in numbers]
    nbytes = math.prod(images.shape)
    if not lazy:
        if nbytes > max_bytes:
            raise ValueError(
                f"{folder}: {nbytes} bytes of pixels, above the limit {max_bytes}; "
                "load_folder(folder, lazy=True) reads them as needed"
            )
        several = [some[:] for some in several]
    kinds = ("x", "y"), ("x_test", "y_test")
    pairs = [
        (x, some, y, labels)
        for (x, y), some, (_, labels) in zip(kinds, several, parts, strict=False)
    ]
    if not lazy:
        return _dataset(pairs, str(folder))._replace(classes=len(names), class_names=names)
    if len(pairs) == 1:
        return _hold_out(several[0], parts[0][1], str(folder), len(names), names)
    return Dataset(several[0], parts[0][1], several[1], parts[1][1], len(names), names)


def load_npz(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Dataset:
    """Load images (m, H, W) or (m, H, W, C) and their labels from an .npz file.

    They are called `x` and `y`, `x_train` and `y_train`, or `train_images` and `train_labels`.
    The file may also hold `x_test` and `y_test`, or `test_images` and `test_labels`; otherwise a
    fixed fifth of each class is held out. Nothing is unpickled.

    Each array of pixels is scaled by its own dtype: uint8 is divided by 255; other integers by
    their largest magnitude (by 255 if they lie in 0 .. 255 beside an array of uint8); floats are
    taken as they are. Labels are integers from 0, (m,) or (m, 1); strings; or one-hot rows.

    Parameters
    ----------
    path : path
    max_bytes : int
        Largest array to read. Compressed arrays that grow by more than 200 times, as only nearly
        empty ones do, are read up to 256 MiB.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        Saying what was expected.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/images.npz", x=np.zeros((10, 8, 8), np.uint8), y=np.arange(10) % 2)
    ...     data = load_npz(f"{folder}/images.npz")
    >>> data.x_train.shape, data.x_train.dtype, data.classes
    ((8, 8, 8, 1), dtype('float32'), 2)
    """
    what = "an .npz file with images x (m, H, W) or (m, H, W, C) and labels y (m,)"
    with NpzReader(path, what, limit=max_bytes, stored=False) as reader:
        pairs = []
        for x, y in _named_pairs(reader):
            pairs.append((x, reader.read(x), y, reader.read(y)))
    return _dataset(pairs, str(path))


def _named_pairs(reader: NpzReader) -> list[tuple[str, str]]:
    """Names of images and labels that the file has, or lacks one of."""
    chosen = [names for names in NAMES if reader.names & set(names[:2])]
    if len(chosen) != 1:
        known = ", ".join(f"{names[0]} and {names[1]}" for names in NAMES)
        has = "several of the pairs" if chosen else "none of the pairs"
        raise reader.error(f"it has {has} {known} (found: {reader.found()})")
    x, y, x_test, y_test = chosen[0]
    others = {name for names in NAMES for name in names[2:]} - {x_test, y_test}
    if stray := sorted(reader.names & others):
        raise reader.error(f"test images beside {x} are called {x_test}, not {stray[0]}")
    return [(x, y)] + [(x_test, y_test)] * bool(reader.names & {x_test, y_test})


def load_idx(folder: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Dataset:
    """Load a folder of IDX files: MNIST's, and those of its kin that have its format.

    Expected are ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, and for the test the
    same with ``t10k`` or ``test``; each may be gzipped, with or without ``.gz``, have a dot before
    ``idx``, be in a folder of its own name (Kaggle), and have the name of the data set in front,
    as EMNIST's and QMNIST's have (whose labels are ``...-labels-idx2-int``). Other types and axes
    have other names, ``train-images-idx4-float``: byte, short, int, float or double; images in
    colour are (m, H, W, C). Without test files a fixed fifth of each class is held out. EMNIST's
    images stay transposed, as they are stored.

    Parameters
    ----------
    folder : path
    max_bytes : int
        Largest array to read.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file and saying what was expected.

    Examples
    --------
    >>> data = load_idx("fashion-mnist")  # doctest: +SKIP
    >>> data.x_train.shape  # doctest: +SKIP
    (60000, 28, 28, 1)
    """
    folder = file_path("folder", folder)
    pairs = []
    for files, names in zip(find_idx(folder), (("x", "y"), ("x_test", "y_test")), strict=False):
        images, labels = (read_idx(path, max_bytes) for path in files)
        if len(images) != len(labels):
            raise ValueError(
                f"{folder}: {files[0].name} holds {len(images)} images "
                f"but {files[1].name} {len(labels)} labels"
            )
        pairs.append((names[0], images, names[1], labels))
    return _dataset(pairs, str(folder))


def _hold_out(x: Any, y: Array, where: str, classes: int, names: Any = None) -> Dataset:
    kept, held = stratified_split(y)
    if not len(held):
        raise ValueError(
            f"{where}: y: {len(y)} images are too few to hold out a fifth of each class"
        )
    take: Any = x.part if isinstance(x, ImageFiles) else x.__getitem__
    return Dataset(take(kept), y[kept], take(held), y[held], classes, names)


def _dataset(pairs: list[tuple[str, Array, str, Array]], where: str) -> Dataset:
    """One pair of images and labels, split here, or two: train and test."""
    labels = as_labels(pairs, where)
    images = as_images({name: x for name, x, _, _ in pairs}, where)
    if len(pairs) == 1:
        return _hold_out(images[0], labels.numbers[0], where, labels.classes, labels.names)
    (x, x_test), (y, y_test) = images, labels.numbers
    return Dataset(x, y, x_test, y_test, labels.classes, labels.names)
