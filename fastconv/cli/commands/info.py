"""``fastconv info``: versions, CPU, threads and cache."""

from __future__ import annotations

import argparse

from fastconv.cli.parser import Parser


def add(parser: Parser) -> None:
    """Add the command's options: there are none."""
    parser.description = "Print what fastconv.show_config() says: for bug reports."


def run(args: argparse.Namespace) -> int:
    """Print the configuration, and return the exit status."""
    import fastconv

    fastconv.show_config()
    return 0
