"""The folder in which kernels are kept, and whether it can be trusted.

Another user who could write there could have their code run, so it is private.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from fastconv.compiler.sources import folder_name

__all__ = ["ENDINGS", "kernel_folder", "not_private", "prepare", "problem", "root"]

# The ends of the names of the files that are ours to delete.
ENDINGS = (".kernel", ".lock", ".tmp")


def kernel_folder() -> Path:
    """The folder of this version; it need not exist yet."""
    return root() / folder_name()


def root() -> Path:
    """The folder of the folders of all versions, by the environment and the system's custom."""
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
