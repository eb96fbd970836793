"""Labels as they are found in files: numbers, one column, one-hot rows, or names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastconv.examples.names import sorted_names
from fastconv.nn.checks import Array

# A label far above the number of classes would make an output layer that fills the memory.
MAX_CLASSES = 65536


class Labels(NamedTuple):
    """Labels (m,) int64 of each array, the number of classes, and their names if they have any."""

    numbers: list[Array]
    classes: int
    names: tuple[str, ...] | None


def as_labels(pairs: Sequence[tuple[str, Array, str, Array]], where: str) -> Labels:
    """Labels of one data set as numbers from 0.

    Parameters
    ----------
    pairs : sequence of (name of images, images, name of labels, labels)
        Labels are (m,) or (m, 1) integers from 0, bool or strings; or (m, classes) with a single
        1 in each row. Strings become the number of their name among all names in order; the
        order is that of numbers if all of them are.
    where : str
        The file, for messages.

    Returns
    -------
    Labels

    Raises
    ------
    TypeError
        If the labels have another dtype.
    ValueError
        If there are not as many labels as images, or they are out of range.

    Examples
    --------
    >>> x = np.zeros((3, 8, 8))
    >>> as_labels([("x", x, "y", np.array(["dog", "cat", "dog"]))], "a.npz")
    Labels(numbers=[array([1, 0, 1])], classes=2, names=('cat', 'dog'))
    """
    found = [_one_label_each(*pair, where) for pair in pairs]
    columns = [column for column, _ in found]
    texts = [y.dtype.kind in "US" for y in columns]
    if any(texts):
        if not all(texts):
            kinds = " and ".join(
                f"{pair[2]} {y.dtype}" for pair, y in zip(pairs, columns, strict=True)
            )
            raise TypeError(f"{where}: labels must be of one kind, got {kinds}")
        return _named(columns, where)
    numbers = [_numbers(pair[2], y, where) for pair, y in zip(pairs, columns, strict=True)]
    width = max(width for _, width in found)
    classes = max(width, *(int(y.max()) + 1 for y in numbers if len(y)), 0)
    return Labels(numbers, classes, None)


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

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1.

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


def _one_label_each(x_name: str, x: Array, name: str, y: Array, where: str) -> tuple[Array, int]:
    """Labels (m,), and the number of classes that one-hot rows tell, else 0."""
    m = len(x) if x.ndim else -1
    if y.shape == (m,):
        return y, 0
    if y.shape == (m, 1):
        return y[:, 0], 0
    if y.ndim != 2 or len(y) != m:
        raise ValueError(
            f"{where}: {name}: expected one label per image, {x_name} is {x.shape}, {name} "
            f"{y.shape}"
        )
    if y.dtype.kind not in "biuf" or ((y != 0) & (y != 1)).any() or (y.sum(axis=1) != 1).any():
        raise ValueError(
            f"{where}: {name}: expected one label per image, or one-hot rows with a single 1 each; "
            f"got {y.shape} of {y.dtype} that are neither"
        )
    if y.shape[1] > MAX_CLASSES:
        raise ValueError(f"{where}: {name}: at most {MAX_CLASSES} classes, got {y.shape[1]}")
    return y.argmax(axis=1), y.shape[1]


def _numbers(name: str, y: Array, where: str) -> Array:
    if y.dtype.kind not in "biu":
        raise TypeError(
            f"{where}: {name}: expected integer labels, got {y.dtype}; if they are classes, save "
            f"{name}.astype(int)"
        )
    if len(y) and (y.min() < 0 or y.max() >= MAX_CLASSES):
        raise ValueError(
            f"{where}: {name}: labels must be in 0 .. {MAX_CLASSES - 1}, got {y.min()} .. "
            f"{y.max()}; np.unique({name}, return_inverse=True)[1] numbers them from 0"
        )
    return y.astype(np.int64)


def _named(columns: list[Array], where: str) -> Labels:
    """Strings, or bytes in UTF-8, as the numbers of their names."""
    texts = [np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y for y in columns]
    names = sorted_names(str(name) for name in np.unique(np.concatenate(texts)))
    if len(names) > MAX_CLASSES:
        raise ValueError(f"{where}: at most {MAX_CLASSES} classes, got {len(names)} names")
    number = {name: i for i, name in enumerate(names)}
    numbers = [np.array([number[str(text)] for text in y], np.int64) for y in texts]
    return Labels(numbers, len(names), tuple(names))
