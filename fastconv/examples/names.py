"""Names of classes, from a text file with one a line."""

from __future__ import annotations

import os
from collections.abc import Iterable

from fastconv.nn.files import file_path

MAX_NAMES_BYTES = 2**22


def read_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    r"""Names of the classes from 0, one a line in UTF-8; empty lines at the end are left out.

    Parameters
    ----------
    path : path

    Returns
    -------
    tuple of str

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "names.txt").write_text("cat\ndog\n")
    ...     read_names(f"{folder}/names.txt")
    ('cat', 'dog')
    """
    with open(file_path("path", path), "rb") as file:
        content = file.read(MAX_NAMES_BYTES + 1)
    if len(content) > MAX_NAMES_BYTES:
        raise ValueError(f"{path}: above {MAX_NAMES_BYTES} bytes: it cannot be names of classes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected names of classes in UTF-8, but {error}") from error
    if "\0" in text:
        raise ValueError(f"{path}: expected names of classes, one a line, found zero bytes")
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names or not all(names):
        where = f"line {names.index('') + 1} is empty" if names else "the file is empty"
        raise ValueError(f"{path}: expected names of classes, one a line, but {where}")
    return names


def sorted_names(names: Iterable[str]) -> list[str]:
    """Different names in their order: that of numbers if all of them are.

    >>> sorted_names(["10", "9", "10"]), sorted_names(["b", "10", "a"])
    (['9', '10'], ['10', 'a', 'b'])
    """
    found = sorted(set(names))
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else found
