"""How commands speak: errors, tables, colours. Works without rich; uses it on a terminal."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

__all__ = ["INSTALL_EXAMPLES", "CommandError", "command_line", "print_table", "program", "style"]

INSTALL_EXAMPLES = 'python -m pip install "fastconv[examples]"'

_CODES = {"head": "1", "win": "1;32", "stop": "31", "dim": "2", "bad": "1;31", "good": "32"}


class CommandError(Exception):
    """An error the user can act on: printed as one line, without a traceback.

    Parameters
    ----------
    message : str
        What was wrong and what was expected.
    status : int
        Exit status of the program.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def one_line(error: BaseException) -> str:
    """The message of an error on one line."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return text or type(error).__name__


def program() -> str:
    """How the program was started: ``fastconv`` or ``python -m fastconv``."""
    module = Path(sys.argv[0]).parts[-2:] == ("fastconv", "__main__.py")
    return "python -m fastconv" if module else "fastconv"


def command_line(words: Sequence[str]) -> str:
    """A command the user can paste into a shell."""
    return f"{program()} {shlex.join(words)}"


def coloured(stream: TextIO) -> bool:
    """Whether colours make sense on a stream: a terminal, and NO_COLOR is not set."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def style(text: str, name: str) -> str:
    """Text in a named style for standard output, unchanged where colours make no sense."""
    code = _CODES.get(name)
    return f"\x1b[{code}m{text}\x1b[0m" if code and coloured(sys.stdout) else text


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    total: Sequence[str] | None = None,
    left: int = 1,
) -> None:
    """Print a table: the first `left` columns flush left, the others flush right.

    On a terminal with rich installed it is drawn by rich, otherwise as aligned plain text.

    Examples
    --------
    >>> print_table(["op", "cases"], [["conv", "120"], ["max_pool", "8"]], total=["total", "128"])
    op        cases
    --------  -----
    conv        120
    max_pool      8
    --------  -----
    total       128
    """
    if sys.stdout.isatty() and _print_rich_table(columns, rows, total, left):
        return
    everything = [columns, *rows, *([total] if total else [])]
    widths = [max(len(row[i]) for row in everything) for i in range(len(columns))]
    rule = "  ".join("-" * width for width in widths)

    def line(row: Sequence[str]) -> str:
        pairs = list(zip(row, widths, strict=True))
        cells = [text.ljust(width) for text, width in pairs[:left]]
        cells += [text.rjust(width) for text, width in pairs[left:]]
        return "  ".join(cells).rstrip()

    print("\n".join([line(columns), rule, *map(line, rows)]))
    if total:
        print("\n".join([rule, line(total)]))


def _print_rich_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: Sequence[str] | None,
    left: int,
) -> bool:
    """Draw with rich; False if it is not installed."""
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        return False
    table = Table(show_footer=total is not None)
    for i, column in enumerate(columns):
        footer = escape(total[i]) if total else ""
        table.add_column(
            escape(column), footer, justify="left" if i < left else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
    return True
