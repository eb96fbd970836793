"""Reading and writing .npz files that may be wrong, cut short, or made to do harm.

An .npz file is a zip archive of .npy members. Nothing here unpickles, and nothing allocates what a
header claims before the archive has shown that the bytes are there.
"""

from __future__ import annotations

import contextlib
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fastconv.nn.checks import Array

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
# A compressed member that grows by more than this, and to more than so many bytes, is a zip bomb:
# deflate shrinks real images to a tenth, zeros to a thousandth.
BOMB_RATIO = 200
BOMB_BYTES = 64 * 2**20
# And for a header: NumPy's reader of old headers, and Python's parser given too many brackets.
HEADER_DAMAGE = (*DAMAGE, tokenize.TokenError, RecursionError, MemoryError)


def write_npz(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], *, previous: Path | None = None
) -> None:
    """Write `arrays` to `path` so that a crash leaves either the old file or the new one.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is
    then renamed. Equal arrays give equal bytes. Where the disk is full, or the user interrupts,
    the temporary file is removed.

    Parameters
    ----------
    path : path
        Taken as it is; no suffix is added.
    arrays : mapping of str to ndarray
        No object arrays.
    previous : path, optional
        Where an existing file at `path` goes; it stays whole at every moment.
    """
    with replacing(Path(path), previous) as temporary:
        _write(temporary, arrays)


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Give the path of a temporary file, which takes the place of `path` if all goes well."""
    if path.is_dir():
        raise ValueError(f"path: {path} is a folder; a file name is needed")
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a write's error names no file
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if previous is not None and path.exists():
        os.replace(path, previous)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    with open(path, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, array in arrays.items():
                # ZipInfo's default date is 1980-01-01: no clock in the file.
                with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        self.path = Path(path)
        self.what = what
        self.limit = limit
        self.stored = stored
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path}: no such file ({what} is needed)")
        try:
            self._archive = zipfile.ZipFile(self.path)
        except PermissionError:
            raise
        except DAMAGE as error:
            raise self.error(f"it is no whole .npz file ({error})") from error
        # of compressed members, `read` says that they are compressed
        plain = [i for i in self._archive.infolist() if i.compress_type == zipfile.ZIP_STORED]
        if stored and sum(info.file_size for info in plain) > self.path.stat().st_size:
            self._archive.close()
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
        self._archive.close()

    def read(self, name: str, *, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Array:
        """Read one array; with `shape` and `dtype`, refuse any other before reading the data."""
        if name not in self.names:
            raise self.error(f"array {name!r} is missing (found: {self._found()})")
        info = self._archive.getinfo(name + ".npy")
        if self.stored and info.compress_type != zipfile.ZIP_STORED:
            raise self.error(f"array {name!r} is compressed, which fastconv never does")
        try:
            with self._archive.open(info) as member:
                found_shape, found_dtype = _read_header(member)
                held = info.file_size - member.tell()
        except HEADER_DAMAGE as error:
            raise self.error(f"array {name!r} has no readable header ({error})") from error
        self._check(name, found_shape, found_dtype, held)
        if info.file_size > max(BOMB_BYTES, BOMB_RATIO * info.compress_size):
            raise self.error(
                f"array {name!r} would grow from {info.compress_size} to {info.file_size} bytes"
            )
        if shape is not None and found_shape != shape:
            raise self.error(f"array {name!r} has shape {found_shape} instead of {shape}")
        if dtype is not None and found_dtype != dtype:
            raise self.error(f"array {name!r} is {found_dtype} instead of {dtype}")
        try:
            with self._archive.open(info) as member:
                array: Array = np.lib.format.read_array(member, allow_pickle=False)
                member.read(1)  # reaches the end of the member, where zipfile checks the CRC
        except DAMAGE as error:
            raise self.error(f"array {name!r} cannot be read ({error})") from error
        return array

    def _check(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], held: int) -> None:
        if dtype.hasobject or dtype.kind not in "biufcSU":
            raise self.error(f"array {name!r} holds {dtype}, which is never loaded")
        if any(n < 0 for n in shape):
            raise self.error(f"array {name!r} has the shape {shape}")
        claimed = math.prod(shape) * dtype.itemsize
        if claimed != held:
            raise self.error(f"array {name!r} should have {claimed} bytes but holds {held}")
        if claimed > self.limit:
            raise self.error(f"array {name!r} has {claimed} bytes, above the limit {self.limit}")

    def _found(self) -> str:
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
