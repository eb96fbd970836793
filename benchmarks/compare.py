"""Compare fastconv with other libraries, side by side in one process.

Every library computes the same case in turn (A B C A B C ...); medians are compared. Answers are
checked first: a library whose answer is wrong is reported and not timed. Libraries that are not
installed are left out. To have them all: ``python -m pip install torch jax onnx onnxruntime``.

    python benchmarks/compare.py                          # all tables; it takes long
    python benchmarks/compare.py lenet5_mnist --threads 1
    python benchmarks/compare.py --pool
    python benchmarks/compare.py --deltas
    python benchmarks/compare.py --memory
    python benchmarks/compare.py --startup
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

# Idle threads of OpenBLAS would spin for 100 ms after a product and slow down whoever comes next
# 1.7-fold (measured at 2 threads). NumPy reads this when it is imported: 2**16 cycles.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")

from comparison.cases import (
    CONV_PRODUCTS,
    DELTA_PRODUCTS,
    POOL_PRODUCTS,
    POOLED,
    Case,
    conv_cases,
    delta_cases,
    pool_cases,
)
from comparison.options import NOT_BY_DEFAULT, build_parser
from comparison.peer_fastconv import Fastconv
from comparison.report import print_notes, print_rows, print_summary, write_csv
from comparison.rows import BASELINE, OURS, Library, Row, measure_case, thread_count
from comparison.timing import Peak

import fastconv
from fastconv.cli.bench_timing import blas_threads
from fastconv.cli.output import one_line
from fastconv.cli.parser import Parser
from fastconv.problems import Problem, find_table, read_problems, table_names

DESCRIPTION = (__doc__ or "").partition("\n\n    ")[0].replace("``", "")


def _adapter(name: str) -> Callable[[], Library]:
    """Make a library's adapter; ImportError if the library is not installed."""
    return lambda: getattr(import_module(f"comparison.peer_{name}"), _CLASSES[name])()


_CLASSES = {
    "pytorch": "Pytorch",
    "jax": "Jax",
    "onnxruntime": "OnnxRuntime",
    "numpy": "Numpy",
}
PEERS: dict[str, Callable[[], Library]] = {name: _adapter(name) for name in _CLASSES}


def main(
    argv: Sequence[str] | None = None,
    peers: Mapping[str, Callable[[], Library]] | None = None,
) -> int:
    """Run the program and return its exit status: 1 if an answer was wrong.

    Parameters
    ----------
    argv : sequence of str, optional
        Words of the command line.
    peers : mapping of str to callable, optional
        Makers of the adapters of other libraries.
    """
    known = PEERS if peers is None else peers
    parser = build_parser(DESCRIPTION, list(known))
    args = parser.parse_args(argv)
    available = fastconv.get_num_threads()
    counts = list(dict.fromkeys(args.threads or (1, available)))
    if max(counts) > available:
        parser.error(f"--threads {max(counts)}: this process has {available} processors")
    if args.memory or args.startup:
        if args.tables:
            parser.error("--memory and --startup have problems of their own and take no TABLE")
        from comparison import processes

        _say_load(available)
        return processes.memory(counts) if args.memory else processes.startup(counts)
    selected = _select(parser, args)
    _check_files(parser, args)
    _say_load(available)
    libraries = _libraries({name: known[name] for name in args.peers}, args.allocate)
    rows = _measure(selected, libraries, counts, args)
    return _report(parser, args, rows, list(libraries))


def _say_load(processors: int) -> None:
    """One line if other processes keep the processors busy."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > processors / 4:
        print(
            f"note: load {load:.1f} on {processors} processors: other processes are running, and "
            "results are not to be trusted, least of all at several threads"
        )


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


def _check_files(parser: Parser, args: argparse.Namespace) -> None:
    """Errors now rather than after the measurements."""
    for option in ("csv", "png"):
        path = getattr(args, option)
        if path and not path.parent.is_dir():
            parser.error(f"--{option}: there is no folder {path.parent}")
    if args.png:
        try:
            import_module("matplotlib")
        except ImportError:
            parser.error("--png needs matplotlib: python -m pip install matplotlib")
        if BASELINE not in args.peers:
            parser.error(f"--png draws ratios to {BASELINE}, which --peers leaves out")


def _libraries(peers: Mapping[str, Callable[[], Library]], allocate: bool) -> dict[str, Library]:
    """The adapters, fastconv's first; one line about each that is not installed."""
    libraries: dict[str, Library] = {OURS: Fastconv(allocate)}
    for name, make in peers.items():
        try:
            libraries[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {one_line(error)}")
    return libraries


def _cases(table: str, problem: Problem, products: Sequence[str]) -> Iterator[Case]:
    """All cases of one row of a table."""
    conv = [product for product in products if product in CONV_PRODUCTS]
    pool = [product for product in products if product in POOL_PRODUCTS]
    deltas = [product for product in products if product in DELTA_PRODUCTS]
    if conv:
        yield from conv_cases(table, problem, conv)
    if pool:
        yield from pool_cases(table, problem, pool)
    if deltas:
        yield from delta_cases(table, problem, deltas)


def _measure(
    selected: Sequence[tuple[str, Problem]],
    libraries: Mapping[str, Library],
    counts: Sequence[int],
    args: argparse.Namespace,
) -> list[Row]:
    """Measure everything; print each table when it is done."""
    rows: list[Row] = []
    for threads in counts:
        with thread_count(libraries, threads), blas_threads(threads):
            peaks = {dtype: Peak(dtype) for dtype in {p.dtype for _, p in selected}}
            for table, group in itertools.groupby(selected, lambda pair: pair[0]):
                some = []
                for _, problem in group:
                    peaks[problem.dtype].again()
                    for case in _cases(table, problem, args.products):
                        _progress(f"{threads} threads, {table}, {case.name}, {case.product}")
                        some.append(
                            measure_case(
                                case,
                                libraries,
                                threads=threads,
                                peak=peaks[problem.dtype],
                                repeat=args.repeat,
                                seconds=args.seconds,
                            )
                        )
                _progress("")
                print(f"\n{table}, {'1 thread' if threads == 1 else f'{threads} threads'}")
                print_rows(some, libraries)
                rows += some
    return rows


def _progress(text: str) -> None:
    """Say on a terminal what is being measured."""
    if sys.stderr.isatty():
        print(f"\r{text[:100]}\x1b[K", end="", file=sys.stderr, flush=True)


def _report(
    parser: Parser, args: argparse.Namespace, rows: Sequence[Row], libraries: Sequence[str]
) -> int:
    """Summary, notes, files; the exit status."""
    print_summary(rows, libraries)
    print_notes(rows, args.allocate)
    try:
        if args.csv:
            write_csv(args.csv, rows)
        if args.png:
            import_module("comparison.figure").draw(args.png, rows)
    except (OSError, ValueError) as error:
        parser.error(one_line(error))
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
