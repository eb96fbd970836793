"""The command line of ``compare.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from comparison.cases import CONV_PRODUCTS, DELTA_PRODUCTS, POOL_PRODUCTS
from fastconv.cli.parser import Parser, positive_int, rate
from fastconv.problems import table_names

# Tables for tests, of no network.
NOT_BY_DEFAULT = ("tails",)


def build_parser(description: str | None, peers: Sequence[str]) -> Parser:
    """The parser, for these other libraries."""
    parser = Parser(
        prog="compare.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "tables",
        nargs="*",
        metavar="TABLE",
        help=f"tables by name, or files of the same form (default: all but "
        f"{', '.join(NOT_BY_DEFAULT)}); names: {', '.join(table_names())}",
    )
    _what(parser)
    _how(parser, peers)
    return parser


def _what(parser: Parser) -> None:
    """Modes and products."""
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--pool",
        action="store_true",
        help="the pooling functions on activations of the tables, 2x2 stride 2 and 3x3 stride 2",
    )
    modes.add_argument(
        "--deltas",
        action="store_true",
        help="the gradients of a ReLU, half of it off at random, and of a bias, on the outputs",
    )
    modes.add_argument(
        "--memory",
        action="store_true",
        help="instead: peak memory of one call over its operands and result, in fresh processes",
    )
    modes.add_argument(
        "--startup",
        action="store_true",
        help="instead: whole processes from start to first result, an empty kernel cache, and a "
        "tiny call",
    )
    products = CONV_PRODUCTS + POOL_PRODUCTS + DELTA_PRODUCTS
    parser.add_argument(
        "--products",
        nargs="+",
        choices=products,
        metavar="PRODUCT",
        help=f"some of {', '.join(products)} (default: {' '.join(CONV_PRODUCTS)}; kernel and "
        "input are the gradients)",
    )
    parser.add_argument(
        "--rows",
        metavar="PATTERN",
        default="*",
        help="only rows whose name matches, such as 'conv*'",
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=("float32", "float64"),
        help="default: the table's, which is float32",
    )


def _how(parser: Parser, peers: Sequence[str]) -> None:
    """Libraries, threads, effort, files."""
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=peers,
        default=list(peers),
        metavar="LIBRARY",
        help=f"the other libraries (default: {' '.join(peers)})",
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=positive_int,
        metavar="N",
        help="default: 1 and all processors",
    )
    parser.add_argument(
        "--repeat",
        type=positive_int,
        default=20,
        metavar="N",
        help="rounds per row and product (default 20)",
    )
    parser.add_argument(
        "--seconds",
        type=rate,
        default=1.0,
        metavar="S",
        help="begin no further round after this time (default 1; at least 3 rounds)",
    )
    parser.add_argument(
        "--allocate", action="store_true", help="let fastconv allocate its results, too"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all figures as CSV")
    parser.add_argument(
        "--png",
        type=Path,
        metavar="FILE",
        help="also draw the ratios to PyTorch (needs matplotlib)",
    )
