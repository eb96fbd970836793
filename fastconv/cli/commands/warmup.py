"""``fastconv warmup``: compile the kernels ahead of time."""

from __future__ import annotations

import argparse
import time

from fastconv.cli.parser import Parser

DTYPES = ("float32", "float64", "float16")


def add(parser: Parser) -> None:
    """Add the command's options."""
    parser.description = (
        "Compile the kernels, or load them if they are compiled already, so that the first call "
        "of a program does not have to."
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=DTYPES,
        default=["float32"],
        metavar="DTYPE",
        help=f"some of {', '.join(DTYPES)} (default float32)",
    )


def run(args: argparse.Namespace) -> int:
    """Compile, say how long it took, and return the exit status."""
    import fastconv

    start = time.perf_counter()
    fastconv.warmup(dtypes=tuple(args.dtype))
    seconds = time.perf_counter() - start
    print(f"kernels for {', '.join(args.dtype)} are ready ({seconds:.1f} s)")
    return 0
