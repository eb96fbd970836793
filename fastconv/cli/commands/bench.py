"""``fastconv bench``: time the three products of convolution problems."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from fastconv.cli.output import (
    CommandError,
    one_line,
    passing,
    print_table,
    threads_text,
    write_csv,
)
from fastconv.cli.parser import Parser, pathname, positive_int
from fastconv.problems import (
    EXAMPLE,
    Problem,
    find_table,
    parse_problem,
    read_problems,
    table_names,
)

DTYPES = ("float32", "float64", "float16")


def add(parser: Parser) -> None:
    """Add the command's options."""
    parser.description = (
        "Time forward, kernel gradient and input gradient of a convolution problem or a table of "
        "them, in turn, and numpy.matmul, whose best rate in the same run is the peak. Outputs "
        "are allocated beforehand; times are medians."
    )
    parser.add_argument(
        "problem",
        nargs="*",
        help=f"a descriptor such as {EXAMPLE} (the default; see fastconv.problems), a table file "
        f"with one descriptor a line, or a table by name: {', '.join(table_names())}",
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="default: all processors")
    parser.add_argument("--dtype", choices=DTYPES, help="instead of the problem's own")
    parser.add_argument(
        "--repeat",
        type=positive_int,
        default=20,
        metavar="N",
        help="measurements of each product (default 20; fewer where they take more than 10 s)",
    )
    parser.add_argument(
        "--csv", type=pathname, metavar="FILE", help="also write the figures as CSV"
    )


def run(args: argparse.Namespace) -> int:
    """Time, print a table, and return the exit status."""
    import fastconv
    from fastconv.problems.timing import blas_threads, measure

    problems = _problems(args.problem)
    if args.csv and (args.csv.is_dir() or not args.csv.parent.is_dir()):
        raise CommandError(f"--csv: {args.csv} cannot be written: a file in a folder is needed")
    if args.dtype:
        problems = [dataclasses.replace(p, dtype=args.dtype) for p in problems]
    threads = args.threads or fastconv.get_num_threads()
    rows: list[dict[str, Any]] = []
    peaks: dict[str, float] = {}
    right = True
    with fastconv.num_threads(threads), blas_threads(threads) as limited:
        for number, problem in enumerate(problems, start=1):
            passing(f"[{number}/{len(problems)}] {problem.name}")
            result = measure(problem, args.repeat)
            rows += [{"threads": threads, **row} for row in result.rows()]
            peaks[result.peak_dtype] = max(result.peak, peaks.get(result.peak_dtype, 0.0))
            if not result.consistent:
                right = False
                print(f"WRONG: the three products of {problem} disagree", file=sys.stderr)
    passing("")
    _print(rows, problems)
    for dtype, peak in peaks.items():
        print(f"peak: numpy.matmul {dtype}, {threads_text(threads)}: {peak:.1f} GFLOP/s")
    if not limited:
        print(
            "note: numpy.matmul chose its number of threads itself; threadpoolctl would let "
            "--threads decide"
        )
    if args.csv:
        write_csv(args.csv, rows)
    return 0 if right else 1


def _problems(words: list[str]) -> list[Problem]:
    """The problems that the command line asks for."""
    text = " ".join(words) or EXAMPLE
    try:
        if len(words) == 1 and words[0] in table_names():
            return list(read_problems(find_table(words[0])))
        if len(words) == 1 and (Path(words[0]).is_file() or Path(words[0]).suffix):
            return list(read_problems(words[0]))
        return [parse_problem(text)]
    except (OSError, ValueError) as error:
        raise CommandError(one_line(error)) from error


def _print(rows: list[dict[str, Any]], problems: list[Problem]) -> None:
    if len(problems) == 1:
        print(problems[0])
    columns = ["problem", "product", "ms", "GFLOP/s", "of peak"]
    cells = []
    for row in rows:
        cells.append(
            [
                str(row["name"] or row["problem"]),
                str(row["product"]),
                f"{row['milliseconds']:.3f}",
                f"{row['gflops']:.1f}",
                f"{row['share']:.0%}",
            ]
        )
    skip = 1 if len(problems) == 1 else 0
    print_table(columns[skip:], [line[skip:] for line in cells], left=2 - skip)
