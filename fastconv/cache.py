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

from pathlib import Path

from fastconv.compiler.folder import ENDINGS, kernel_folder, problem, root

__all__ = ["clear", "describe", "path"]


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
    return kernel_folder()


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
    for place in root().glob("fastconv-*"):
        if problem(place):
            continue
        for file in place.iterdir():
            if file.suffix in ENDINGS:
                file.unlink(missing_ok=True)
                deleted += file.suffix == ".kernel"
        if not any(place.iterdir()):
            place.rmdir()
    return deleted


def describe() -> str:
    """The folder, or why there is none, in a line."""
    try:
        place = kernel_folder()
    except (OSError, RuntimeError) as error:
        return f"none: {error}"
    wrong = problem(place)
    return f"none: {wrong}" if wrong else str(place)
