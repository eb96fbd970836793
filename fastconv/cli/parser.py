"""The argument parser: one-line errors that suggest what was meant, rich help if installed."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from fastconv.cli.output import program

__all__ = ["Parser", "parse", "pathname", "positive_int", "rate"]


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors are one line and end in a suggestion."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Print one line on standard error and exit with status 2."""
        if match := re.search(r"invalid choice: '([^']*)'", message):
            message += suggestion(match[1], _choices(self))
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")

    def format_help(self) -> str:
        """Format the help with rich-argparse's formatter if it is installed."""
        try:
            from rich_argparse import RichHelpFormatter
        except ImportError:
            pass
        else:
            plain: Any = _plain_markup(RichHelpFormatter)
            self.formatter_class = plain
        return super().format_help()


def _plain_markup(formatter: type[Any]) -> type[Any]:
    """A help formatter of rich-argparse that prints square brackets as they are."""
    return type("HelpFormatter", (formatter,), {"text_markup": False, "help_markup": False})


def _choices(parser: argparse.ArgumentParser) -> list[str]:
    """Every word that some argument of the parser accepts."""
    return [str(c) for action in parser._actions for c in action.choices or ()]


def suggestion(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?', or nothing if no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def parse(parser: Parser, commands: dict[str, Parser], argv: list[str]) -> argparse.Namespace:
    """Parse a command line; unknown options end in a one-line error that suggests one.

    Parameters
    ----------
    parser : Parser
        The program's parser.
    commands : dict
        Its commands' parsers by name.
    argv : list of str
        The words of the command line, without the program's name.
    """
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        named = commands.get(args.command, parser)
        word = unknown[0].split("=")[0]
        options = list(named._option_string_actions)
        hint = suggestion(word, options) if word.startswith("-") else ""
        what = "option" if word.startswith("-") else "argument"
        named.error(f"unknown {what} {unknown[0]}{hint}")
    return args


def new_parser(description: str) -> Parser:
    """The program's parser, without commands."""
    return Parser(prog=program(), description=description)


def pathname(text: str) -> Path:
    """Argument type: a path that a file or a folder could have."""
    if not text:
        raise argparse.ArgumentTypeError("a path is needed, got ''")
    try:
        os.stat(text)
    except OSError as error:
        short = text if len(text) <= 40 else f"{text[:40]}..."
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise argparse.ArgumentTypeError(f"'{short}': {error.strerror}") from None
    return Path(text)


def positive_int(text: str) -> int:
    """Argument type: an integer of at least 1."""
    return _number(text, int, lambda n: n >= 1, "a whole number of at least 1")


def seed(text: str) -> int:
    """Argument type: an integer of at least 0."""
    return _number(text, int, lambda n: n >= 0, "a whole number of at least 0")


def rate(text: str) -> float:
    """Argument type: a finite number above 0."""
    return _number(text, float, lambda v: 0 < v < sys.float_info.max, "a number above 0")


def _number(text: str, kind: type, legal: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not legal(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not {expected}")
    return value
