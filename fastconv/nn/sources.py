"""Where images and labels come from: arrays, and what is read as it is needed.

Whatever has `shape`, `dtype` and ``[...]`` will do: a NumPy array or memory map, an array of zarr,
a data set of h5py, a folder that is read lazily. All of them become `Rows`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np

from fastconv.nn.checks import Array, as_array, foreign, shown

__all__ = ["Data", "Rows", "Stored", "as_labels", "as_rows", "is_array", "labels_of"]

SAMPLED_ROWS = 64  # whose digest stands for data that are not in memory
BLOCK_BYTES = 2**22  # read at a time where all rows are


class Stored(Protocol):
    """What is read as it is needed; the first axis counts the images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all images: (m, ...)."""
        ...

    @property
    def dtype(self) -> Any:
        """A NumPy dtype."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Rows by a slice, an ascending array of integers, or at least one by an integer."""
        ...


Data: TypeAlias = Array | Stored | Iterable[Any]


def is_array(value: Any) -> bool:
    """Whether `value` has `shape`, `dtype` and ``[...]``.

    Examples
    --------
    >>> is_array(np.zeros(3)), is_array([0.0, 0.0])
    (True, False)
    """
    return all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__"))


def as_rows(name: str, value: Any) -> Rows:
    """An array, or what is read like one, as `Rows`.

    Raises
    ------
    TypeError
        If it is none, or is lazy, labelled or masked, or holds no numbers.
    """
    if isinstance(value, Rows):
        return value
    if error := foreign(name, value):
        raise error
    if isinstance(value, np.ma.MaskedArray) or not is_array(value):
        raise _no_array(name, value)
    try:
        dtype, shape = np.dtype(value.dtype), tuple(map(int, value.shape))
    except TypeError:  # a tensor's dtype is none of NumPy's
        raise _no_array(name, value) from None
    return Rows(name, value, shape, dtype)


def _no_array(name: str, value: Any) -> TypeError:
    cause = f"{name}: a NumPy array is needed, got {type(value).__name__}"
    if getattr(value, "requires_grad", False):
        cause += f" that requires a gradient; {name.split()[-1]}.detach().numpy() is one"
    return TypeError(cause)


def as_labels(name: str, value: Any) -> Rows:
    """Labels as `Rows`: those of pixels may be read as needed, one per image are read here."""
    several = is_array(value) and len(value.shape) > 1 and not isinstance(value, np.ndarray)
    if several and foreign(name, value) is None:
        return as_rows(name, value)
    array = as_array(name, value)
    return Rows(name, array, array.shape, array.dtype)


class Rows:
    """Rows of an array, or of what is read like one.

    Parameters
    ----------
    name : str
        The caller's argument, for messages.
    given : array, or what is like one
    shape, dtype
        Of all rows.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    stored : bool
        Whether rows are read from somewhere: a file, mapped or not.

    Examples
    --------
    >>> Rows("x", np.arange(6).reshape(3, 2), (3, 2), np.dtype(int)).take(np.array([2, 0])).tolist()
    [[4, 5], [0, 1]]
    """

    def __init__(self, name: str, given: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.name, self.given, self.shape, self.dtype = name, given, shape, dtype
        self.stored = not isinstance(given, np.ndarray) or isinstance(given, np.memmap)
        self._slices = self._arrays = isinstance(given, np.ndarray)
        if not self._slices and shape and len(self):
            last = len(self) - 1
            self._slices = self._understands(slice(0, 1), 1)
            some = np.unique([0, last])
            self._arrays = self._understands(some, len(some))

    def __len__(self) -> int:
        return self.shape[0]

    def _understands(self, index: Any, rows: int) -> bool:
        """Whether the source takes an index of this kind."""
        try:
            return np.shape(self.given[index]) == (rows, *self.shape[1:])
        except MemoryError:
            raise
        except Exception:  # it is asked for single rows then, and their error is the caller's
            return False

    def take(self, chosen: Array) -> Array:
        """The rows of these numbers (k,), in this order, as an array of its own."""
        if isinstance(self.given, np.ndarray):
            return np.asarray(self.given[chosen])
        order = np.argsort(chosen, kind="stable")  # files are read forwards; h5py demands it
        ascending = chosen[order]
        if self._slices and len(chosen) and ascending[-1] - ascending[0] == len(chosen) - 1:
            found = self.given[int(ascending[0]) : int(ascending[-1]) + 1]
        elif self._arrays:
            found = self.given[ascending]
        else:
            rows = [np.asarray(self.given[int(i)]) for i in ascending]
            found = np.stack(rows) if rows else np.empty((0, *self.shape[1:]), self.dtype)
        array = self._checked(np.asarray(found), len(chosen))
        if np.array_equal(ascending, chosen):
            return array
        out = np.empty_like(array)
        out[order] = array
        return out

    def slice(self, start: int, stop: int) -> Array:
        """The rows from `start` to `stop`; a view where they are in memory."""
        stop = min(stop, len(self))
        if isinstance(self.given, np.ndarray):
            found = np.asarray(self.given[start:stop])
            return found.copy() if self.stored else found  # a mapped file is read here, not later
        return self.take(np.arange(start, stop))

    def whole(self) -> Array:
        """All rows in memory."""
        if isinstance(self.given, np.ndarray):
            return np.asarray(self.given)
        return self.slice(0, len(self))

    def part(self, chosen: Array) -> Rows:
        """Rows of these numbers only, read as needed if these are."""
        if not self.stored:
            array = self.take(chosen)
            return Rows(self.name, array, array.shape, array.dtype)
        return Rows(self.name, _Part(self, chosen), (len(chosen), *self.shape[1:]), self.dtype)

    def _checked(self, found: Array, rows: int) -> Array:
        if found.shape != (rows, *self.shape[1:]) or found.dtype != self.dtype:
            raise ValueError(
                f"{self.name}: {shown(self.given)} says {self.shape} of {self.dtype}, but gave "
                f"{found.shape} of {found.dtype} for {rows} images"
            )
        return found

    def blocks(self, sampled: bool) -> Iterator[Array]:
        """All rows, or a few that are spread over them, a few at a time."""
        size = max(1, BLOCK_BYTES // max(1, self.dtype.itemsize * int(np.prod(self.shape[1:]))))
        if sampled and self.stored:
            chosen = np.unique(np.linspace(0, len(self) - 1, SAMPLED_ROWS).astype(np.int64))
            for start in range(0, len(chosen), size):
                yield self.take(chosen[start : start + size])
        else:
            for start in range(0, len(self), size):
                yield self.slice(start, start + size)

    def digest(self, digest: Any, *, sampled: bool) -> None:
        """Add shape, dtype and rows to a hash; `sampled`: of stored rows those of `blocks`."""
        digest.update(f"{self.shape}{self.dtype.str}".encode())
        for block in self.blocks(sampled):
            for row in block:
                digest.update(np.ascontiguousarray(row).data)


class _Part:
    """Some rows of others."""

    def __init__(self, rows: Rows, chosen: Array) -> None:
        self.rows, self.chosen = rows, np.asarray(chosen)
        self.shape, self.dtype = (len(self.chosen), *rows.shape[1:]), rows.dtype

    def __getitem__(self, index: Any) -> Array:
        return self.rows.take(np.atleast_1d(self.chosen[index]))


def labels_of(x: Rows, y_name: str, y: Any) -> Rows:
    """Labels, checked to be one per image.

    Raises
    ------
    TypeError, ValueError
        Naming them.
    """
    labels = as_labels(y_name, y)
    if len(labels.shape) < 1 or len(labels) != len(x):
        raise ValueError(f"{y_name}: expected {len(x)} labels, one per image, got {labels.shape}")
    return labels


def fingerprint_of(x: Rows, y: Rows, *, sampled: bool) -> str:
    """Digest of images and labels.

    Of those that are read as needed a sample counts, if `sampled`: the text begins with "sample".
    """
    found = hashlib.blake2b(digest_size=16)
    for rows in (x, y):
        rows.digest(found, sampled=sampled)
    return f"sample {found.hexdigest()}" if sampled else found.hexdigest()
