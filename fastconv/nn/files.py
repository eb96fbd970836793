"""Writing files: everything in fastconv that writes one does it through `replacing`.

A file appears under its name when it is whole, by a rename; whoever reads it meanwhile goes on
reading the old one. Any number of threads and processes may write one path at once: the last one
to finish wins.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastconv.nn.checks import shown

try:
    import fcntl as _fcntl

    fcntl: Any = _fcntl
except ImportError:  # Windows
    fcntl = None

# Temporary files in the folder of the target, one name for all targets: whoever writes next clears
# away what killed writers left. (The target's own name may be as long as names can be.)
PREFIX, SUFFIX = ".fastconv-", ".tmp"
# A leftover is told from a file in use by its lock. Where there are no locks its age must do.
AGE_WITHOUT_LOCKS = 24 * 3600.0  # seconds
AGE_ON_WINDOWS = 60.0  # an open file cannot be removed there; one is renamed right after closing
WAIT_ON_WINDOWS = 5.0  # for readers, who keep a file from being replaced there


def file_path(name: str, path: Any) -> Path:
    """The argument called `name` as a path.

    Raises
    ------
    TypeError, ValueError
        If it is none, is empty or has a null character.

    Examples
    --------
    >>> file_path("path", "a.txt").suffix
    '.txt'
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        text = ""
    if text and "\0" not in text:
        return Path(text)
    kind = ValueError if isinstance(path, (str, bytes, os.PathLike)) else TypeError
    raise kind(f"{name}: a path is needed, got {shown(path)}")


def new_file(name: str, path: Any) -> Path:
    """The argument called `name` as the path of a file that can be made, or replaced.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, PermissionError
        If it is no path, or is a folder, or in none, or may not be written.
    """
    found = file_path(name, path)
    target = _no_folder(name, found)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {target.parent}")
    in_place = target.exists() and not target.is_file()  # a pipe, /dev/stdout
    for place in [target] * target.exists() + [target.parent] * (not in_place):
        if not may_write(place):
            raise PermissionError(f"{name}: {place} may not be written to")
    return found


def may_write(path: Path) -> bool:
    """Whether this process may write to a file, or into a folder, that exists."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _no_folder(name: str, path: Path) -> Path:
    target = followed(path)
    if target.is_dir():
        raise ValueError(f"{name}: {path} is a folder; a file name is needed")
    return target


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], previous: str | os.PathLike[str] | None = None
) -> Iterator[BinaryIO]:
    """Give a binary file to write to, which takes the place of `path` if all goes well.

    The bytes are on the disk before they get the name. On any exception, Ctrl-C too, `path` is
    what it was and the temporary file is gone. As `open` does, it follows a symbolic link, keeps
    the mode of a file that exists, obeys the umask for one that does not, refuses one that is
    write-protected, and writes straight into what is no file (``/dev/stdout``, a named pipe).

    Parameters
    ----------
    path : path
        Taken as it is; no suffix is added.
    previous : path, optional
        Another name in the same folder, under which an existing file at `path` stays.

    Yields
    ------
    file object, opened for writing bytes

    Raises
    ------
    TypeError, ValueError
        If `path` is none, or is a folder.
    OSError
        As `open` and `write` raise it, with `path` as its file name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.txt")) as file:
    ...         _ = file.write(b"whole")
    ...     [(p.name, p.read_bytes()) for p in Path(folder).iterdir()]
    [('a.txt', b'whole')]
    """
    target, temporary = _no_folder("path", file_path("path", path)), None
    try:
        before = _stat_or_none(target)
        if before is not None and not stat.S_ISREG(before.st_mode):
            with open(target, "wb") as stream:
                yield stream
            return
        if before is not None:
            open(target, "r+b").close()  # raises where `open` may not write
        _remove_leftovers(target.parent)
        temporary, file = _create(target.parent)
        with file:
            _take_over_mode(file, before)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file; elsewhere the lock is needed till then
            if previous is not None:
                _keep(target, Path(previous))
            _rename(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.filename is None or temporary is None or error.filename == str(temporary):
            error.filename = str(path)  # a write's error names no file, others the temporary one
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def followed(path: str | os.PathLike[str]) -> Path:
    """`path`, or where it leads if it is a symbolic link, to a file that exists or not."""
    return Path(os.path.realpath(path) if os.path.islink(path) else path)


def _stat_or_none(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _create(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file that nobody takes for a leftover."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        path = folder / f"{PREFIX}{uuid.uuid4().hex}{SUFFIX}"
        file = open(os.open(path, flags, 0o666), "wb")  # noqa: SIM115 (the caller closes it)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks: see _remove_leftover
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        if path.exists():
            return path, file
        file.close()  # another writer removed it before it was locked


def _take_over_mode(file: BinaryIO, before: os.stat_result | None) -> None:
    """Give the new file the owner and the mode of the one that it replaces, as far as one may."""
    if before is None or sys.platform == "win32":
        return
    now = os.fstat(file.fileno())
    with contextlib.suppress(PermissionError):
        if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
    with contextlib.suppress(PermissionError):  # a file system that has no modes
        os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode) & 0o777)


def _keep(target: Path, previous: Path) -> None:
    """Give the file at `target` the name `previous`, too: at every moment it has its own."""
    while target.exists():
        link = target.parent / f"{PREFIX}{uuid.uuid4().hex}{SUFFIX}"
        try:
            os.link(target, link)
        except FileNotFoundError:
            continue
        except OSError:  # a file system without hard links: for a moment there is only `previous`
            with contextlib.suppress(FileNotFoundError):  # another writer has done it
                _rename(target, previous)
            return
        try:
            _rename(link, previous)
            return
        except FileNotFoundError:  # another writer took the link for a leftover
            continue
        finally:
            link.unlink(missing_ok=True)  # still there if both were the same file already


def _rename(old: Path, new: Path) -> None:
    deadline = time.monotonic() + WAIT_ON_WINDOWS
    while True:
        try:
            os.replace(old, new)
            return
        except PermissionError:
            if fcntl is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk, where folders can be opened: not in Windows."""
    if fcntl is None:
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that one may write to but not list
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(handle)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writers that were killed; it is no error if that cannot be."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [e for e in entries if e.name.startswith(PREFIX) and e.name.endswith(SUFFIX)]
        for entry in found:
            if entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_leftover(Path(entry.path))


def _remove_leftover(path: Path) -> None:
    with open(path, "r+b") as file:
        least_age = 0.0
        if fcntl is None:
            least_age = AGE_ON_WINDOWS
        else:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # somebody is writing it
            except OSError:
                least_age = AGE_WITHOUT_LOCKS
        old = time.time() - os.fstat(file.fileno()).st_mtime >= least_age
        if old and fcntl is not None:
            path.unlink()
    if old and fcntl is None:
        path.unlink()  # Windows: raises if somebody has it open
