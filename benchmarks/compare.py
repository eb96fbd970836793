"""Compare fastconv with other libraries, side by side in one process.

Every library computes the same case in turn (A B C A B C ...); medians are compared. Answers are
checked first: a library whose answer is wrong is reported and not timed. Libraries that are not
installed are left out. To have them all: ``python -m pip install torch jax onnx onnxruntime``.
Whole networks are compared by ``training.py`` and ``inference.py``.

    python benchmarks/compare.py                          # all tables; it takes long
    python benchmarks/compare.py lenet5_mnist --threads 1
    python benchmarks/compare.py --pool
    python benchmarks/compare.py --deltas
    python benchmarks/compare.py --fast                   # beside it, algorithm="fast"
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

# Idle threads of OpenBLAS would spin for 100 ms after a product and slow down whoever comes next
# 1.7-fold (measured at 2 threads). NumPy reads this when it is imported: 2**16 cycles.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")

from comparison.cases import (
    CONV_PRODUCTS,
    DELTA_PRODUCTS,
    POOL_PRODUCTS,
    POOLED,
    cases,
)
from comparison.options import Makers, add_options, build_parser, check_options, installed, makers
from comparison.peers.fastconv import Fastconv
from comparison.rows import FAST, OURS, Library
from comparison.run import measure_tables, report

from fastconv.cli.output import one_line
from fastconv.cli.parser import Parser
from fastconv.problems import Problem, find_table, read_problems, table_names

PEERS = makers("pytorch", "jax", "onnxruntime", "numpy")
# Tables for tests, of no network.
NOT_BY_DEFAULT = ("tails",)
LEGEND = """\
of peak: share of the best numpy.matmul rate of this run.
fastconv: plans{out}. The others allocate their results.
PyTorch: channels-last memory format, inference mode, only the wanted gradient.
  Rows with * have padding that differs between two sides: PyTorch's forward time includes F.pad;
  its kernel gradient gets the padded input, as from the forward pass.
ONNX RT: channels first, constant kernel. NumPy: explicit im2col matrix and matmul."""


def main(argv: Sequence[str] | None = None, peers: Makers | None = None) -> int:
    """Run the program and return its exit status: 1 if an answer was wrong.

    Parameters
    ----------
    argv : sequence of str, optional
        Words of the command line.
    peers : mapping of str to callable, optional
        Makers of the adapters of other libraries.
    """
    known = PEERS if peers is None else peers
    parser = _parser(list(known))
    args = parser.parse_args(argv)
    selected = _select(parser, args)
    check_options(parser, args)
    libraries: dict[str, Library] = {OURS: Fastconv(args.allocate)}
    if args.fast:
        libraries[FAST] = Fastconv(args.allocate, "fast")
    libraries |= installed({name: known[name] for name in args.peers})
    lines = [(table, partial(cases, table, problem, args.products)) for table, problem in selected]
    rows = measure_tables(lines, libraries, args)
    out = "" if args.allocate else ", results into arrays given beforehand (out=)"
    return report(parser, args, rows, list(libraries), LEGEND.format(out=out))


def _parser(peers: Sequence[str]) -> Parser:
    parser = build_parser("compare.py", __doc__)
    parser.add_argument(
        "tables",
        nargs="*",
        metavar="TABLE",
        help=f"tables by name, or files of the same form (default: all but "
        f"{', '.join(NOT_BY_DEFAULT)}); names: {', '.join(table_names())}",
    )
    parser.add_argument(
        "--pool",
        action="store_true",
        help="the pooling functions on activations of the tables, 2x2 stride 2 and 3x3 stride 2",
    )
    parser.add_argument(
        "--deltas",
        action="store_true",
        help="the gradients of a ReLU, half of it off at random, and of a bias, on the outputs",
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
    add_options(parser, peers)
    parser.add_argument(
        "--fast", action="store_true", help='a column for algorithm="fast", where it rounds more'
    )
    parser.add_argument(
        "--allocate", action="store_true", help="let fastconv allocate its results, too"
    )
    return parser


def _select(parser: Parser, args: argparse.Namespace) -> list[tuple[str, Problem]]:
    """Rows of the tables asked for; an error if there is nothing to measure."""
    names = args.tables or [name for name in table_names() if name not in NOT_BY_DEFAULT]
    asked = (POOL_PRODUCTS if args.pool else ()) + (DELTA_PRODUCTS if args.deltas else ())
    wanted = args.products or (() if asked else CONV_PRODUCTS)
    args.products = list(dict.fromkeys((*wanted, *asked)))
    every = any(product not in POOL_PRODUCTS for product in args.products)
    rows = []
    for name in names:
        is_file = Path(name).suffix != "" or Path(name).is_file()
        try:
            problems = read_problems(Path(name) if is_file else find_table(name))
        except (OSError, ValueError) as error:
            parser.error(one_line(error))
        table = Path(name).stem if is_file else name
        rows += [
            (table, dataclasses.replace(problem, dtype=dtype) if dtype else problem)
            for dtype in args.dtype or [None]
            for problem in problems
            if fnmatch.fnmatch(problem.name, args.rows)
            and (every or problem.name in POOLED.get(table, ()))
        ]
    if not rows:
        parser.error(
            f"no row of {', '.join(names)} has a name like '{args.rows}' and one of the products "
            f"{', '.join(args.products)}"
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
