"""Where compiled kernels are kept on disk.

Every version of fastconv, its kernels' sources (or their bytecode, where it was installed without
sources), Numba and Python has a folder of its own in the user's cache folder, or in the folder that
the environment variable FASTCONV_CACHE_DIR names. The folder is private: another user who could
write there could have their code run. Kernels are compiled in memory, with one warning, where no
such folder can be had.

Examples
--------
>>> path().name.startswith("fastconv-")
True
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import stat
import sys
import types
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["clear", "path"]

# Everything that machine code is made from, below the package: what compiled functions consist of
# and what says how they are compiled.
SOURCES = (
    "_jit.py",
    *(f"engine/{name}.py" for name in ("delta_loop", "emit", "emit_delta", "emit_pool", "entries",
                                       "gather", "inner", "loop", "packing", "pool_loop",
                                       "primitives", "slots", "tiles")),
    "kernels/col2im.py",
)  # fmt: skip
# The ends of the names of the files that are ours to delete.
ENDINGS = (".kernel", ".lock", ".tmp")


def path() -> Path:
    r"""The folder in which this version keeps its kernels; it need not exist yet.

    Returns
    -------
    pathlib.Path
        Below ``FASTCONV_CACHE_DIR`` if that is set, else below ``$XDG_CACHE_HOME/fastconv``,
        ``~/.cache/fastconv``, ``~/Library/Caches/fastconv`` or ``%LOCALAPPDATA%\fastconv``.

    Examples
    --------
    >>> path().is_absolute()
    True
    """
    return _root() / _version()


def clear() -> int:
    """Delete the kernels on disk of every version; those in use stay in memory.

    Returns
    -------
    int
        How many kernels were deleted.

    Raises
    ------
    OSError
        If a kernel cannot be deleted.
    """
    deleted = 0
    for folder in _root().glob("fastconv-*"):
        if problem(folder):
            continue
        for file in folder.iterdir():
            if file.suffix in ENDINGS:
                file.unlink(missing_ok=True)
                deleted += file.suffix == ".kernel"
        if not any(folder.iterdir()):
            folder.rmdir()
    return deleted


def describe() -> str:
    """The folder, or why there is none, in a line."""
    try:
        folder = path()
    except (OSError, RuntimeError) as error:
        return f"none: {error}"
    wrong = problem(folder)
    return f"none: {wrong}" if wrong else str(folder)


def _root() -> Path:
    asked = os.environ.get("FASTCONV_CACHE_DIR")
    if asked:
        return Path(asked).absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "fastconv"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastconv"
    xdg = os.environ.get("XDG_CACHE_HOME", "")  # a relative path has no meaning there
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "fastconv"


@lru_cache(1)
def _version() -> str:
    """Name of the folder; it changes with everything that machine code or its files depend on."""
    import llvmlite
    import numba
    import numpy

    from fastconv import __version__

    digest = hashlib.sha256(f"{llvmlite.__version__} {numpy.__version__}".encode())
    for name in SOURCES:
        digest.update(_source(name))
    tag = sys.implementation.cache_tag
    return f"fastconv-{__version__}-numba-{numba.__version__}-{tag}-{digest.hexdigest()[:16]}"


def _source(name: str) -> bytes:
    """A source file of the package, which may lie in a zip file; else its code (see `_code`).

    Raises
    ------
    NoCodeError
        If this Python has neither.
    """
    from fastconv import __spec__

    loader: Any = __spec__.loader
    with contextlib.suppress(OSError, AttributeError):  # installed as .pyc files, or frozen
        data: bytes = loader.get_data(os.path.join(os.path.dirname(__file__), *name.split("/")))
        return data
    module = f"fastconv.{name.removesuffix('.py').replace('/', '.')}"
    spec: Any = importlib.util.find_spec(module)
    code = spec.loader.get_code(module) if hasattr(spec.loader, "get_code") else None
    if code is None:
        raise NoCodeError(f"neither source nor bytecode of {module} can be read")
    return repr(_code(code)).encode()


class NoCodeError(RuntimeError):
    """There is nothing by which kernels of these sources could be told from those of others."""


def _code(value: Any) -> Any:
    """What a code object does, without where it was compiled: names, constants, instructions."""
    if isinstance(value, types.CodeType):
        constants = tuple(_code(constant) for constant in value.co_consts)
        return (value.co_code, value.co_flags, value.co_argcount, value.co_kwonlyargcount,
                value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars,
                value.co_exceptiontable, constants)  # fmt: skip
    if isinstance(value, frozenset):  # of no order
        return sorted(map(repr, value))
    return tuple(map(_code, value)) if isinstance(value, tuple) else value


def problem(folder: Path) -> str:
    """Why a folder cannot be trusted, or "": it must be ours, and nobody else's to write to.

    Both the folder and the one it lies in are looked at: whoever may write to that could put
    another in its place.
    """
    for place in (folder.parent, folder):
        try:
            found = place.lstat()
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{place}: {error.strerror}"
        if stat.S_ISLNK(found.st_mode):
            return f"{place} is a symbolic link"
        if not stat.S_ISDIR(found.st_mode):
            return f"{place} is not a folder"
        if not_private(found):
            return f"{place} {not_private(found)}"
    return ""


def not_private(found: os.stat_result) -> str:
    """What is wrong with the owner or the permissions of a file or folder, or ""."""
    if os.name == "nt":  # the user's folders are private there, and the numbers mean nothing
        return ""
    if found.st_uid != os.geteuid():
        return f"belongs to another user ({found.st_uid})"
    return "is writable by other users" if found.st_mode & 0o022 else ""


def prepare(folder: Path) -> None:
    """Make the folder if there is none.

    Raises
    ------
    OSError
        If there can be none.
    """
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for place in (folder.parent, folder):
        place.mkdir(mode=0o700, exist_ok=True)
    found = problem(folder)
    if found:
        raise OSError(found)
