"""Files that hold one compiled kernel each, and what is done about those that cannot be trusted.

A file is a magic line, a SHA-256 digest and the machine code. The digest covers the kernel's key
too (name, signature, processor, options), so a file that is cut short, overwritten or swapped with
another's is found out before anything of it is used. Files are written under another name and
renamed: a reader sees all of a file or none, whoever writes or is killed at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fastconv.compiler.folder import kernel_folder, not_private, prepare, problem
from fastconv.compiler.sources import NoCodeError

__all__ = ["KernelFile", "load"]

MAGIC = b"fastconv kernel 1\n"
HEADER = len(MAGIC) + hashlib.sha256().digest_size
# Seconds to wait for another process that compiles the same kernel, before doing it as well.
LOCK_TIMEOUT = 60.0

Kernel = TypeVar("Kernel")
_said: set[str] = set()


def _say_once(subject: str, message: str) -> None:
    """Warn about a subject once a process."""
    if subject not in _said:
        _said.add(subject)
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def _not_kept(reason: object) -> None:
    cure = "; FASTCONV_CACHE_DIR can name a private folder for them"
    if isinstance(reason, NoCodeError):  # no folder helps
        cure = ""
    _say_once("not kept", f"{reason}, so kernels are compiled anew in every process{cure}")


class KernelFile:
    """The file of a kernel.

    Parameters
    ----------
    name : str
        Of the kernel; part of the file's name.
    key : object
        What besides the sources the machine code depends on; its repr counts.
    """

    def __init__(self, name: str, key: Any) -> None:
        self.name = name
        self.key = f"{name} {key!r}".encode()
        stem = re.sub(r"\W+", "_", name)[:60]
        self.stem = f"{stem}-{hashlib.sha256(self.key).hexdigest()[:16]}"

    @property
    def path(self) -> Path:
        """Where the file is, or would be."""
        return kernel_folder() / f"{self.stem}.kernel"

    def exists(self) -> bool:
        """Whether there is a file, good or bad."""
        try:
            return self.path.exists()
        except (OSError, RuntimeError):  # no permission to look, no home
            return False

    def read(self) -> bytes | None:
        """The machine code; None if there is no file, or no folder that is safe.

        Raises
        ------
        OSError, ValueError
            If there is one that cannot be read or trusted.
        """
        try:
            place = kernel_folder()
        except (OSError, RuntimeError) as error:  # no code, no home
            _not_kept(error)
            return None
        wrong = problem(place)
        if wrong:
            _not_kept(wrong)
            return None
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            number = os.open(place / f"{self.stem}.kernel", flags)
        except FileNotFoundError:
            return None
        with open(number, "rb") as file:
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode) or not_private(found):
                raise ValueError(not_private(found) or "is not a file")
            data = file.read()
        if data[:HEADER] != self._header(data[HEADER:]):
            raise ValueError("is damaged")
        return data[HEADER:]

    def _header(self, code: bytes) -> bytes:
        digest = hashlib.sha256(len(self.key).to_bytes(8, "little") + self.key)
        digest.update(code)
        return MAGIC + digest.digest()

    def write(self, code: bytes) -> None:
        """Keep the machine code; warn, once a process, if that cannot be."""
        temporary = None
        try:
            place = kernel_folder()
            prepare(place)
            temporary = place / f"{self.stem}-{uuid.uuid4().hex}.tmp"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(self._header(code) + code)
            os.replace(temporary, self.path)
        except (OSError, RuntimeError) as error:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    temporary.unlink()
            if not self.exists():  # on Windows, one that is being read cannot be replaced
                _not_kept(error)

    def purge(self) -> None:
        """Delete the file if there is one; one that cannot be deleted will be distrusted again."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time compile this kernel; the others then find its file.

        Only work is saved by it, no result depends on it: where there can be no lock, or its
        owner hangs, processes go ahead.
        """
        from filelock import FileLock

        held = None
        try:
            place = kernel_folder()
            prepare(place)
            held = FileLock(place / f"{self.stem}.lock", mode=0o600)
            held.acquire(timeout=LOCK_TIMEOUT)
        except (OSError, RuntimeError, NotImplementedError):  # also filelock's Timeout
            held = None
        try:
            if held is not None:
                self._sweep()
            yield
        finally:
            if held is not None:
                held.release()

    def _sweep(self) -> None:
        """Delete what a process that was killed while it wrote has left."""
        for file in self.path.parent.glob(f"{self.stem}-*.tmp"):
            with contextlib.suppress(OSError):
                file.unlink()


def load(
    file: KernelFile, rebuild: Callable[[bytes], Kernel], works: Callable[[Kernel], bool]
) -> Kernel | None:
    """The kernel in a file, or None if there is none that can be trusted.

    Parameters
    ----------
    rebuild : callable
        Makes a kernel from the bytes.
    works : callable
        Whether the kernel gives a known answer.
    """
    try:
        code = file.read()
        if code is None:
            return None
        kernel = rebuild(code)
        if works(kernel):
            return kernel
        wrong = "gave a wrong answer to a known problem"
    except MemoryError:
        raise
    except Exception as error:  # whatever a bad file can lead to; the user is told what it was
        wrong = f"{error}" if isinstance(error, ValueError) else f"cannot be loaded ({error!r})"
    distrust(file, wrong)
    return None


def distrust(file: KernelFile, wrong: str) -> None:
    """Delete a file, and warn once a process that its kernel is compiled again."""
    file.purge()
    _say_once("distrusted", f"the kernel {file.path} {wrong}; it is compiled again")
