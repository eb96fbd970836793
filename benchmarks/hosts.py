"""Compare projects that fastconv can be the backend of, with it and without it.

For every host the same computation is done by its own implementation and by fastconv behind the
host's interface, in turn, in one process; medians are compared. Answers are checked first. Hosts
that are not installed are left out. To have them all: ``python -m pip install ".[test]" jax``.

    python benchmarks/hosts.py                  # all hosts
    python benchmarks/hosts.py onnx --threads 1
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fastconv.cli.output import one_line, print_table
from fastconv.cli.parser import Parser, positive_int, rate

DESCRIPTION = (__doc__ or "").partition("\n\n    ")[0].replace("``", "")
HOSTS = sorted(
    path.stem for path in (Path(__file__).parent / "host_cases").glob("*.py") if path.stem[0] != "_"
)
# Read by OpenBLAS, OpenMP and XLA when they start.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NPROC")
# Of the largest number in an array: one that is small because its terms cancel has the errors of
# the large ones. What cancels here are at most 20,000 terms in float32, in any order.
CLOSE = 1e-4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 1 if an answer was wrong."""
    args = _parser().parse_args(argv)
    if args.threads:
        os.environ |= dict.fromkeys(THREAD_VARIABLES, str(args.threads))
    # Idle threads of OpenBLAS would spin and slow down whoever comes next.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")
    import fastconv

    if args.threads:
        fastconv.set_num_threads(args.threads)
    print(f"threads: {fastconv.get_num_threads()}")
    lines, wrong = [], 0
    for host in args.hosts or HOSTS:
        try:
            cases = import_module(f"host_cases.{host}").cases()
        except ImportError as error:
            print(f"{host} is left out: {one_line(error)}")
            continue
        for case in cases:
            difference = _difference(case)
            if difference:
                print(f"WRONG: {host}, {case.name}: {difference}", file=sys.stderr)
                wrong += 1
            else:
                lines.append([host, case.name, *_figures(case, args.repeat, args.seconds)])
    print_table(["host", "problem", "its own ms", "fastconv ms", "ratio"], lines, left=2)
    return 1 if wrong else 0


def _parser() -> Parser:
    parser = Parser(
        prog="hosts.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "hosts",
        nargs="*",
        type=host_name,
        metavar="HOST",
        help=f"some of {', '.join(HOSTS)} (default: all)",
    )
    parser.add_argument(
        "--threads", type=positive_int, metavar="N", help="of every library (default: theirs)"
    )
    parser.add_argument(
        "--repeat", type=positive_int, default=20, metavar="N", help="rounds at most (default 20)"
    )
    parser.add_argument(
        "--seconds",
        type=rate,
        default=3.0,
        metavar="S",
        help="begin no further round of a problem after this time (default 3; at least 3 rounds)",
    )
    return parser


def host_name(text: str) -> str:
    """Argument type: one of the hosts."""
    if text not in HOSTS:
        raise argparse.ArgumentTypeError(f"'{text}' is not one of {', '.join(HOSTS)}")
    return text


def _figures(case: Any, repeat: int, seconds: float) -> list[str]:
    """Median milliseconds of both, and their ratio: above 1 where fastconv is faster."""
    from fastconv.problems.timing import in_turn

    runs = {"theirs": case.theirs, "ours": case.ours}
    times = in_turn(runs, repeat=repeat, seconds=seconds, keep=("ours",))
    theirs, ours = (1e3 * statistics.median(times[name]) for name in runs)
    return [f"{theirs:.2f}", f"{ours:.2f}", f"{theirs / ours:.1f}"]


def _difference(case: Any) -> str:
    """Nothing where both answers agree, otherwise in what they do not."""
    import numpy as np

    theirs, ours = (list(_arrays(run())) for run in (case.theirs, case.ours))
    if len(theirs) != len(ours):
        return f"{len(theirs)} and {len(ours)} arrays"
    for a, b in zip(theirs, ours, strict=True):
        if a.shape != b.shape:
            return f"shapes {a.shape} and {b.shape}"
        difference = np.abs(a.astype(np.float64) - b)
        if not (difference <= CLOSE * np.abs(a).max(initial=0)).all():
            return f"the largest difference is {difference.max():.3g}"
    return ""


def _arrays(answer: Any) -> Iterable[Any]:
    import numpy as np

    if isinstance(answer, list | tuple):
        for part in answer:
            yield from _arrays(part)
    else:
        yield np.asarray(answer)


if __name__ == "__main__":
    sys.exit(main())
