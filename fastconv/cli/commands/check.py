"""``fastconv check``: whether everything is right on this machine."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence

from fastconv.cli.output import passing, print_table, style
from fastconv.cli.parser import Parser, seed
from fastconv.nn.progress import new_bar
from fastconv.selfcheck.score import Score

RANDOM_PROBLEMS = 40  # besides the table's: 4 s for all functions, dtypes and formats


def add(parser: Parser) -> None:
    """Add the command's options."""
    parser.description = (
        "Compare every function with the naive loops, exactly, on integers, in three dtypes and "
        "both data formats; then its gradients with differences; then the example CNNs with the "
        "same networks on the naive loops, layer by layer, and as programs. Takes about half a "
        "minute. The exit status is 0 only if nothing failed."
    )
    parser.add_argument(
        "--deep",
        action="store_true",
        help="also look for what crashes, hangs, leaks or rounds too much: every layout at several "
        "thread counts, arrays between unreadable pages, threads, forks, kernels from disk, "
        "memory; one to two minutes more",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of operands and geometries (default 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Check, print a table, and return the exit status."""
    import numpy as np

    import fastconv
    from fastconv.problems import find_table, read_problems
    from fastconv.selfcheck.functions import check_ops
    from fastconv.selfcheck.gradients import check_gradients
    from fastconv.selfcheck.models import check_models
    from fastconv.selfcheck.programs import check_programs
    from fastconv.selfcheck.trials import random_problem

    fastconv.warmup(["conv"])  # what the environment forbids is one error, not one a case
    start = time.perf_counter()
    rng = np.random.default_rng(args.seed)
    problems = list(read_problems(find_table("tails")))
    problems += [random_problem(rng) for _ in range(RANDOM_PROBLEMS)]
    done = itertools.count(1)
    scores = check_ops(
        fastconv,
        problems,
        args.seed,
        on_problem=lambda: passing(f"{next(done)}/{len(problems)} problems"),
    )
    passing("")
    scores += check_gradients(fastconv, args.seed)
    scores += check_models(fastconv, args.seed)
    scores += check_programs(args.seed)
    if args.deep:
        from fastconv.selfcheck.deep.runner import run_all

        scores += run_all(args.seed, new_bar())
    failures = report(scores)
    seconds = time.perf_counter() - start
    verdict = f"{failures} failures" if failures else "no failures"
    words = style(verdict, "bad" if failures else "good")
    print(f"{words} in {sum(s.cases for s in scores)} cases, {seconds:.1f} s, seed {args.seed}")
    return 1 if failures else 0


def report(scores: Sequence[Score]) -> int:
    """Print the table and the first failure of each row; return the number of failures.

    Examples
    --------
    >>> score = Score("conv")
    >>> score.record("m1 w3c1 f1 k1", error=0.0)
    >>> report([score])
    op     cases  failures  worst
    -----  -----  --------  -----
    conv       1         0      0
    -----  -----  --------  -----
    total      1         0      0
    0
    """
    rows = [[s.op, str(s.cases), str(s.failures), f"{s.worst:.2g}"] for s in scores]
    failures = sum(s.failures for s in scores)
    worst = max((s.worst for s in scores), default=0.0)
    total = ["total", str(sum(s.cases for s in scores)), str(failures), f"{worst:.2g}"]
    print_table(("op", "cases", "failures", "worst"), rows, total=total)
    for s in scores:
        if s.failures:
            print(f"{style('FAILED', 'bad')} {s.op}: {s.first_failure}")
    return failures
