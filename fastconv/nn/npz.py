"""Reading and writing .npz files that may be wrong, cut short, or made to do harm.

An .npz file is a zip archive of .npy members. Nothing here unpickles, and nothing allocates what a
header claims before the archive has shown that the bytes are there.
"""

from __future__ import annotations

import math
import os
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fastconv.nn.checks import Array
from fastconv.nn.files import file_path, replacing

# What zipfile and the .npy parser raise for damaged files.
DAMAGE = (
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression method or zip version that Python does not know
    RuntimeError,  # an encrypted member
    KeyError,
    SyntaxError,  # a header that is no Python literal
    TypeError,
    UnicodeDecodeError,
    OverflowError,
    OSError,
)
# Deflate shrinks real images to a tenth, nearly empty ones to a thousandth, as far as it can shrink
# anything: of a file that grows by more than this nobody can say whether it is a zip bomb. It is
# read up to so many bytes; as float32 images bytes take four times as much.
BOMB_RATIO = 200
BOMB_BYTES = 256 * 2**20
# And for a header: NumPy's reader of old headers, and Python's parser given too many brackets.
HEADER_DAMAGE = (*DAMAGE, tokenize.TokenError, RecursionError, MemoryError)
# NumPy reads a header with Python's parser, which until 3.12 counts its depth for all threads
# together: two that parse at once may get a SystemError (python/cpython#106905).
_PARSER = threading.Lock()


def write_npz(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], *, previous: Path | None = None
) -> None:
    """Write `arrays` to `path`; equal arrays give equal bytes.

    Parameters
    ----------
    path : path
        As for `fastconv.nn.files.replacing`, which says what a crash leaves.
    arrays : mapping of str to ndarray
        No object arrays.
    previous : path, optional
        Another name in the same folder, under which an existing file at `path` stays.
    """
    with (
        replacing(path, previous) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for name, array in arrays.items():
            # ZipInfo's default date is 1980-01-01: no clock in the file.
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


class NpzReader:
    """Members of an .npz file, checked before they are read.

    Parameters
    ----------
    path : path
    what : str
        What the file should be, for messages: "a model saved by fastconv".
    limit : int
        Largest number of bytes that one array may have.
    stored : bool
        Whether to refuse compressed members, as `write_npz` writes none: then no array can be
        larger than the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        Naming the file and what is wrong with it.
    """

    def __init__(
        self, path: str | os.PathLike[str], what: str, *, limit: int = 2**40, stored: bool = True
    ) -> None:
        self.path = file_path("path", path)
        self.what = what
        self.limit = limit
        self.stored = stored
        if self.path.is_dir():
            raise self.error("it is no whole .npz file (it is a folder)")
        try:
            # One handle for everything: another file may take this name at any time.
            self._file = open(self.path, "rb")  # noqa: SIM115 (closed with the reader)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.path}: no such file ({what} is needed)") from error
        try:
            self._archive = zipfile.ZipFile(self._file)
        except DAMAGE as error:
            self._file.close()
            raise self.error(f"it is no whole .npz file ({error})") from error
        # of compressed members, `read` says that they are compressed
        plain = [i for i in self._archive.infolist() if i.compress_type == zipfile.ZIP_STORED]
        size = os.fstat(self._file.fileno()).st_size
        if stored and sum(info.file_size for info in plain) > size:
            self._close()
            raise self.error("its members overlap, or claim more bytes than the file has")
        self.names = {
            name.removesuffix(".npy") for name in self._archive.namelist() if name.endswith(".npy")
        }

    def error(self, reason: str) -> ValueError:
        """A ValueError that names the file, what was expected and what is wrong."""
        return ValueError(f"{self.path}: expected {self.what}, but {reason}")

    def __enter__(self) -> NpzReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._archive.close()
        self._file.close()

    def read(self, name: str, *, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Array:
        """Read one array; with `shape` and `dtype`, refuse any other before reading the data."""
        if name not in self.names:
            raise self.error(f"array {name!r} is missing (found: {self.found()})")
        info = self._archive.getinfo(name + ".npy")
        if self.stored and info.compress_type != zipfile.ZIP_STORED:
            raise self.error(f"array {name!r} is compressed, which fastconv never does")
        try:
            with _PARSER, self._archive.open(info) as member:
                found_shape, found_dtype = _read_header(member)
                held = info.file_size - member.tell()
        except HEADER_DAMAGE as error:
            raise self.error(f"array {name!r} has no readable header ({error})") from error
        self._check(name, found_shape, found_dtype, held)
        if info.file_size > max(BOMB_BYTES, BOMB_RATIO * info.compress_size):
            raise self.error(
                f"array {name!r} would grow from {info.compress_size} to {info.file_size} bytes, "
                f"above the limit {BOMB_BYTES} for arrays that are nearly empty, or made to do "
                "harm; saved without compression (np.savez) it is read"
            )
        if shape is not None and found_shape != shape:
            raise self.error(f"array {name!r} has shape {found_shape} instead of {shape}")
        if dtype is not None and found_dtype != dtype:
            raise self.error(f"array {name!r} is {found_dtype} instead of {dtype}")
        try:
            with _PARSER, self._archive.open(info) as member:  # reads the header once more
                array: Array = np.lib.format.read_array(member, allow_pickle=False)
                member.read(1)  # reaches the end of the member, where zipfile checks the CRC
        except DAMAGE as error:
            raise self.error(f"array {name!r} cannot be read ({error})") from error
        return array

    def _check(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], held: int) -> None:
        if dtype.hasobject or dtype.kind not in "biufcSU":
            cure = "; astype(str) makes strings of it" if dtype.hasobject else ""
            raise self.error(f"array {name!r} holds {dtype}, which is never loaded{cure}")
        if any(n < 0 for n in shape):
            raise self.error(f"array {name!r} has the shape {shape}")
        claimed = math.prod(shape) * dtype.itemsize
        if claimed != held:
            raise self.error(f"array {name!r} should have {claimed} bytes but holds {held}")
        if claimed > self.limit:
            raise self.error(f"array {name!r} has {claimed} bytes, above the limit {self.limit}")

    def found(self) -> str:
        """Names of the arrays, the first few of many, for a message."""
        names = sorted(self.names)
        return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "no array"


def _read_header(member: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    else:
        raise ValueError(f"version {version} of the .npy format is not supported")
    return shape, dtype
