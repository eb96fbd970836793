"""How commands speak: errors, tables, colours. Works without rich; uses it on a terminal."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

__all__ = [
    "INSTALL_EXAMPLES",
    "CommandError",
    "command_line",
    "one_line",
    "passing",
    "print_table",
    "program",
    "standard_streams",
    "style",
    "threads_text",
    "write_csv",
]

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
    text = " ".join(str(error).split()).removeprefix("path: ")  # a function's name for it
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return text or type(error).__name__


class _Stream:
    """Standard output or error that a command may write to, whoever reads it and for how long.

    When the reader of a pipe (head, less) has gone the rest is dropped, so that the work is done;
    where the stream was closed from the start, everything is. Any other fault is kept.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream: Any = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115
        self.fault: OSError | None = None

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        try:
            self.stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop what was not written yet."""
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        # Windows says EINVAL of a pipe without a reader.
        if not isinstance(error, BrokenPipeError) and (os.name, error.errno) != (
            "nt",
            errno.EINVAL,
        ):
            self.fault = self.fault or error
        # What Python's buffers still hold goes nowhere, too, now or at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def standard_streams() -> Iterator[tuple[_Stream, _Stream]]:
    """Put streams that never raise in the place of `sys.stdout` and `sys.stderr`."""
    out, err = _Stream(sys.stdout), _Stream(sys.stderr)
    streams: Any = out, err
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            yield out, err
        finally:
            out.flush()  # a closed pipe shows here, not at exit
            err.flush()


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


def threads_text(n: int) -> str:
    """So many threads, in words.

    >>> threads_text(1), threads_text(2)
    ('1 thread', '2 threads')
    """
    return "1 thread" if n == 1 else f"{n} threads"


def passing(text: str) -> None:
    """Show a line that the next one replaces, on a terminal behind standard error; "" clears it."""
    if sys.stderr.isatty():
        print(f"\r{text[:100]}\x1b[K", end="", file=sys.stderr, flush=True)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same keys, which are the columns.

    Raises
    ------
    CommandError
        If the file cannot be written.
    """
    from fastconv.nn.files import replacing

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    try:
        with replacing(path) as file:
            file.write(text.getvalue().encode())
    except (OSError, ValueError) as error:
        raise CommandError(f"--csv: {one_line(error)}") from error


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
