"""The notebooks of ``fastconv explain --notebook``, out of pages of text with fenced Python."""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

from fastconv.nn.files import file_path, replacing

__all__ = ["lessons", "notebook", "write_notebooks"]

FENCE = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def lessons() -> dict[str, str]:
    """Text of each page, by the notebook's name.

    Examples
    --------
    >>> sorted(lessons())[0]
    '1_max_pool'
    """
    folder = resources.files("fastconv.explain") / "lessons"
    pages = [page for page in folder.iterdir() if page.name.endswith(".md")]
    return {
        page.name.removesuffix(".md"): page.read_text(encoding="utf-8")
        for page in sorted(pages, key=lambda page: page.name)
    }


def notebook(text: str) -> dict[str, Any]:
    r"""A page as a notebook (nbformat 4.5): fenced Python is code, what stands between is text.

    Examples
    --------
    >>> fence = "`" * 3
    >>> page = notebook(f"# Title\n\n{fence}python\n1 + 1\n{fence}\n")
    >>> [cell["cell_type"] for cell in page["cells"]]
    ['markdown', 'code']
    """
    cells: list[dict[str, Any]] = []
    for k, part in enumerate(FENCE.split(text)):
        source = part.strip("\n")
        if not source:
            continue
        cell: dict[str, Any] = {
            "id": f"cell-{len(cells)}",
            "metadata": {},
            "source": source.splitlines(True),
        }
        if k % 2:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        else:
            cell |= {"cell_type": "markdown"}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def write_notebooks(folder: str | os.PathLike[str]) -> list[Path]:
    """Write all notebooks into a folder, which is made if there is none.

    Returns
    -------
    list of Path

    Raises
    ------
    FileExistsError
        If a notebook of that name is there and differs: yours is kept, and nothing is written.
    OSError
        If the folder cannot be written to.
    """
    folder = file_path("folder", folder)
    files = {
        folder / f"{name}.ipynb": json.dumps(notebook(text), indent=1, ensure_ascii=False) + "\n"
        for name, text in lessons().items()
    }
    for path, text in files.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise FileExistsError(
                f"{path} is there and differs: it is kept; give another folder, or remove it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        with replacing(path) as file:
            file.write(text.encode())
    return list(files)
