"""Measure tables of cases and report: what every comparison does once it knows its cases."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from comparison.memory import CLEAR, peak_bytes
from comparison.networks import NETWORKS, AnyCase, NetworkCase
from comparison.options import (
    Makers,
    add_network_options,
    add_options,
    check_options,
    installed,
)
from comparison.peers.fastconv import Fastconv
from comparison.report import csv_lines, print_notes, print_rows, print_summary
from comparison.rows import BASELINE, OURS, Library, Row, measure_case, thread_count
from fastconv.cli.output import CommandError, passing, threads_text, write_csv
from fastconv.cli.parser import Parser
from fastconv.problems.timing import Peak, blas_threads

# A table's name, and what makes the cases of one of its lines, whose operands take memory.
Line = tuple[str, Callable[[], Iterable[AnyCase]]]


def measure_tables(
    lines: Sequence[Line],
    libraries: Mapping[str, Library],
    args: argparse.Namespace,
    *,
    baseline: str = BASELINE,
    memory: Callable[[str, Any, int], int] | None = None,
) -> list[Row]:
    """Measure everything; print each table when it is done.

    Parameters
    ----------
    lines : sequence of Line
        Those of one table beside each other.
    libraries : mapping of str to Library
    args : Namespace
        Of the command line.
    baseline : str
        The library that ratios refer to.
    memory : callable, optional
        From a library's name, a case and a number of threads to peak bytes.
    """
    rows: list[Row] = []
    for threads in args.threads:
        with thread_count(libraries, threads), blas_threads(threads):
            peaks: dict[str, Peak] = {}
            for table, group in itertools.groupby(lines, lambda line: line[0]):
                some = []
                for _, make in group:
                    for number, case in enumerate(make()):
                        passing(f"{threads} threads, {table}, {case.name}, {case.product}")
                        if number == 0 and not isinstance(case, NetworkCase):
                            _look_again(peaks, case.dtype)
                        row = measure_case(
                            case,
                            libraries,
                            threads=threads,
                            peak=peaks.get(case.dtype),
                            repeat=args.repeat,
                            seconds=args.seconds,
                            baseline=baseline,
                        )
                        if memory:
                            row.memory = {name: memory(name, case, threads) for name in row.seconds}
                        some.append(row)
                passing("")
                print(f"\n{table}, {threads_text(threads)}")
                print_rows(some, libraries)
                rows += some
    return rows


def compare_networks(
    parser: Parser,
    argv: Sequence[str] | None,
    known: Makers,
    product: str,
    *,
    legend: str,
    batches: Sequence[int],
    baseline: str = BASELINE,
) -> int:
    """The whole program of a comparison of networks; its exit status."""
    add_network_options(parser, batches)
    add_options(parser, list(known))
    args = parser.parse_args(argv)
    for name in args.networks:
        if name not in NETWORKS:
            parser.error(f"there is no network '{name}'; expected one of {', '.join(NETWORKS)}")
    check_options(parser, args)
    if args.memory and not CLEAR.exists():
        parser.error("--memory needs Linux: it resets the high-water mark in /proc")
    libraries = {OURS: Fastconv()} | installed({name: known[name] for name in args.peers})
    lines = [
        (name, partial(_network_cases, name, args.batches, product))
        for name in args.networks or NETWORKS
    ]
    memory = peak_bytes if args.memory else None
    rows = measure_tables(lines, libraries, args, baseline=baseline, memory=memory)
    return report(parser, args, rows, list(libraries), legend)


def _network_cases(name: str, batches: Sequence[int], product: str) -> list[NetworkCase]:
    return [NetworkCase(NETWORKS[name], batch, product) for batch in batches]


def _look_again(peaks: dict[str, Peak], dtype: str) -> None:
    """Measure the peak of a dtype: another line, another moment."""
    if dtype in peaks:
        peaks[dtype].again()
    else:
        peaks[dtype] = Peak(dtype)


def report(
    parser: Parser,
    args: argparse.Namespace,
    rows: Sequence[Row],
    libraries: Sequence[str],
    legend: str,
) -> int:
    """Summary, notes, files; the exit status: 1 if an answer was wrong."""
    print_summary(rows, libraries)
    print_notes(rows, legend)
    try:
        if args.csv:
            write_csv(args.csv, csv_lines(rows))
    except CommandError as error:
        parser.error(str(error))
    return 1 if any(row.wrong for row in rows) else 0
