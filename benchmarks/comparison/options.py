"""The part of the command line that all comparisons share, and what it selects."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import fastconv
from comparison.networks import NETWORKS
from comparison.rows import Library
from fastconv.cli.output import one_line
from fastconv.cli.parser import Parser, positive_int, rate

Makers = Mapping[str, Callable[[], Library]]
_CLASSES = {
    "pytorch": "Pytorch",
    "jax": "Jax",
    "onnxruntime": "OnnxRuntime",
    "numpy": "Numpy",
}


def makers(*names: str, **options: dict[str, object]) -> Makers:
    """Makers of these libraries' adapters: ImportError if a library is not installed.

    Options of an adapter are given under its name.
    """

    def maker(name: str) -> Callable[[], Library]:
        module = f"comparison.peers.{name}"
        return lambda: getattr(import_module(module), _CLASSES[name])(**options.get(name, {}))

    return {name: maker(name) for name in names}


def build_parser(prog: str, doc: str | None) -> Parser:
    """A parser; the description is the module's docstring up to its commands."""
    return Parser(
        prog=prog,
        description=(doc or "").partition("\n\n    ")[0].replace("``", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_options(parser: Parser, peers: Sequence[str], repeat: int = 20) -> None:
    """Libraries, threads, effort, files."""
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=peers,
        default=list(peers),
        metavar="LIBRARY",
        help=f"the other libraries (default: {' '.join(peers)}; none: fastconv alone)",
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
        default=repeat,
        metavar="N",
        help=f"rounds per row and product (default {repeat})",
    )
    parser.add_argument(
        "--seconds",
        type=rate,
        default=1.0,
        metavar="S",
        help="begin no further round after this time (default 1; at least 3 rounds)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all figures as CSV")


def add_network_options(parser: Parser, batches: Sequence[int]) -> None:
    """Networks, batches, memory."""
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help=f"some of {', '.join(NETWORKS)} (default: all)",
    )
    parser.add_argument(
        "--batches",
        nargs="+",
        type=positive_int,
        default=list(batches),
        metavar="M",
        help=f"images in a batch (default {' '.join(map(str, batches))})",
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="also the peak memory, in new processes (Linux)",
    )


def check_options(parser: Parser, args: argparse.Namespace) -> None:
    """Errors now rather than after the measurements; one line if other processes are busy."""
    available = fastconv.get_num_threads()
    args.threads = list(dict.fromkeys(args.threads or (1, available)))
    if max(args.threads) > available:
        parser.error(f"--threads {max(args.threads)}: this process has {available} processors")
    if args.csv and not args.csv.parent.is_dir():
        parser.error(f"--csv: there is no folder {args.csv.parent}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > available / 4:
        print(
            f"note: load {load:.1f} on {available} processors: other processes are running, and "
            "results are not to be trusted, least of all at several threads"
        )


def installed(peers: Makers) -> dict[str, Library]:
    """The adapters; one line about each that is not installed."""
    libraries = {}
    for name, make in peers.items():
        try:
            libraries[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {one_line(error)}")
    return libraries
