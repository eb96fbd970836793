"""``python -m fastconv.guide FOLDER``: these pages and the reference of all names as HTML."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import types
import typing
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastconv.guide import PAGES, page
from fastconv.nn.files import replacing

# Each public module, and what has to be installed for it.
MODULES = {
    "fastconv": "",
    "fastconv.nn": "",
    "fastconv.examples": "",
    "fastconv.explain": "",
    "fastconv.testing": "",
    "fastconv.reference": "",
    "fastconv.typing": "",
    "fastconv.cache": "",
    "fastconv.guide": "",
    "fastconv.adapters": "",
    "fastconv.adapters.coursera": "",
    "fastconv.adapters.cs231n": "",
    "fastconv.adapters.dlfs": "",
    "fastconv.adapters.scipy": "",
    "fastconv.adapters.scipy.signal": "",
    "fastconv.adapters.onnx": "onnx",
    "fastconv.adapters.autograd": "autograd",
    "fastconv.adapters.mygrad": "mygrad",
    "fastconv.adapters.jax": "jax",
    "fastconv.sklearn": "sklearn",
}

# From a line of "=" to the last one before an empty line.
TABLE = re.compile(r"^=+(?: +=+)+\n(?:.+\n)*?=+(?: +=+)+(?=\n\n|\n?\Z)", re.MULTILINE)


def main(words: list[str] | None = None) -> int:
    """Build, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fastconv.guide", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the HTML is written")
    folder = parser.parse_args(words).folder
    if find_spec("pdoc") is None:
        print('pdoc is not installed: pip install "fastconv[docs]"', file=sys.stderr)
        return 1
    missing = sorted({host for host in MODULES.values() if host and find_spec(host) is None})
    if missing:
        print(f"left out, since they are not installed: {', '.join(missing)}", file=sys.stderr)
    build(folder, [name for name, host in MODULES.items() if host not in missing])
    print(folder / "index.html")
    return 0


def build(folder: Path, names: list[str]) -> None:
    """Write a page for each module and each page of the guide, an index and the search."""
    from pdoc import doc, render

    os.environ["PDOC_ALLOW_EXEC"] = "1"  # jax asks `platform` what machine this is
    # A TypedDict forgets the one it derives from; its fields stand on both pages all the same.
    warnings.filterwarnings("ignore", "Cannot determine where fastconv.typing")
    render.configure(docformat="numpy", search=True, show_source=False, footer_text="fastconv")
    modules = [importlib.import_module(name) for name in names]
    for module in modules:
        _name_types(module)
        module.__doc__ = with_tables(module.__doc__ or "")
    modules[0].__doc__ = f"{modules[0].__doc__}\n{_contents(modules[1:])}"
    pages: dict[str, Any] = {module.__name__: doc.Module(module) for module in modules}
    for name in PAGES:
        pages[f"fastconv.guide.{name}"] = doc.Module(_text(name))
    for name, drawn in pages.items():
        path = folder / f"{name.replace('.', '/')}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, render.html_module(drawn, pages))
    _write(folder / "index.html", render.html_index(pages))
    _write(folder / "search.js", render.search_index(pages))


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def _contents(modules: list[types.ModuleType]) -> str:
    """Links to all pages, as Markdown, for the first one."""
    guide = [(page(name).partition("\n")[0][2:], f"fastconv/guide/{name}") for name in PAGES]
    lines = ["## Pages", "", *(f"- [{title}]({path}.html)" for title, path in guide)]
    lines += ["", "## Modules", ""]
    for module in modules:
        name, first = module.__name__, (module.__doc__ or "").strip().partition("\n")[0]
        lines.append(f"- [{name}]({name.replace('.', '/')}.html): {first}")
    return "\n".join(lines)


def with_tables(text: str) -> str:
    r"""The simple tables of reStructuredText in a docstring as those of Markdown, which pdoc draws.

    >>> print(with_tables("== =====\na  b\n== =====\nm  count\n== =====").strip())
    | a | b |
    | --- | --- |
    | m | count |
    """
    return TABLE.sub(_as_markdown, text)


def _as_markdown(table: re.Match[str]) -> str:
    rule, *lines = table[0].splitlines()
    starts = [match.start() for match in re.finditer("=+", rule)]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    rows = [[line[a:b].strip() for a, b in spans] for line in lines[:-1] if line[0] != "="]
    if len(lines) == 2 or lines[1][0] != "=":
        rows.insert(0, [""] * len(spans))  # a table without a head
    rows.insert(1, ["---"] * len(spans))
    return "\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _name_types(module: types.ModuleType) -> None:
    """Give named tuples their types: they hold the names alone, without the module to find them."""
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if isinstance(value, type) and hasattr(value, "_fields"):
            value.__new__.__annotations__ = typing.get_type_hints(value)


def _text(name: str) -> types.ModuleType:
    """A page as a module without names, which is what pdoc draws."""
    text = re.sub(r"\]\((\w+)\.md\)", r"](\1.html)", page(name))  # links to other pages
    text = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", text)  # what is not in the folder
    module = types.ModuleType(f"fastconv.guide.{name}", text)
    module.__dict__["__all__"] = []
    module.__dict__["__docformat__"] = "markdown"
    return module


if __name__ == "__main__":
    sys.exit(main())
