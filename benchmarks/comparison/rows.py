"""From a case to a row of figures: check every library's answer, then time those that are right."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from comparison.answers import (
    WrongAnswerError,
    check_by_definition,
    check_network,
    compare,
    first_prediction,
    magnitude,
)
from comparison.cases import Call, Case, ConvCase, UnsupportedError
from comparison.networks import AnyCase, NetworkCase
from fastconv.problems.timing import Peak, Run, in_turn

OURS, FAST, BASELINE = "fastconv", "fast", "pytorch"
# Median over best. On an idle machine it is below 1.2; where another process takes a core now and
# then, a barrier of OpenMP waits for it, 4 ms or more, and PyTorch's median goes up to 100-fold.
NOISY = 1.5

Average = Callable[[Sequence[float]], float]


class Library(Protocol):
    """An adapter."""

    def threads(self, n: int) -> Any:
        """Context in which the library computes with n threads."""

    def prepare(self, case: AnyCase) -> Call:
        """How the library computes the case, or raise UnsupportedError."""


@dataclass
class Row:
    """Figures of one case.

    Attributes
    ----------
    case : Case
    threads : int
    peak : Peak or None
        Best rate of numpy.matmul in the run; it may still rise. None without `case.flops`.
    baseline : str
        The library that ratios refer to.
    seconds : dict of str to list of float
        Per library, seconds per call in each round.
    wrong, failed, left_out : dict of str to str
        Libraries that were not timed, and why: a wrong answer, an error, not its kind of problem.
    memory : dict of str to int
        Per library, peak bytes, where they were asked for.
    """

    case: AnyCase
    threads: int
    peak: Peak | None = None
    baseline: str = BASELINE
    seconds: dict[str, list[float]] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def time(self, library: str, of: Average = statistics.median) -> float | None:
        """Median (or minimum) time of a call in seconds, None if the library was not timed."""
        times = self.seconds.get(library)
        return of(times) if times else None

    def ratio(self, library: str | None = None, of: Average = statistics.median) -> float | None:
        """The library's (the baseline's) time over fastconv's: above 1 where fastconv is faster.

        Of the shortest times (`min`): other processes disturb them less.
        """
        theirs, ours = self.time(library or self.baseline, of), self.time(OURS, of)
        return None if theirs is None or ours is None else theirs / ours

    @property
    def noisy(self) -> bool:
        """Whether a median that the ratio compares is far above its best: other processes ran."""
        pairs = [(self.time(name), self.time(name, min)) for name in (OURS, self.baseline)]
        return any(median and best and median > NOISY * best for median, best in pairs)

    def gflops(self, library: str = OURS) -> float | None:
        """Rate in GFLOP/s, None where no operations are counted."""
        seconds = self.time(library)
        return self.case.flops / seconds / 1e9 if seconds and self.case.flops else None

    def share(self, library: str = OURS) -> float | None:
        """Rate over the peak of numpy.matmul."""
        rate = self.gflops(library)
        return rate / self.peak.gflops if rate and self.peak and self.peak.gflops else None

    def rate(self, library: str = OURS) -> float | None:
        """Images a second, None for a layer."""
        seconds = self.time(library)
        return self.case.images / seconds if seconds and self.case.images else None


@contextmanager
def thread_count(libraries: Mapping[str, Library], n: int) -> Iterator[None]:
    """Let every library compute with n threads inside the block."""
    with ExitStack() as stack:
        for library in libraries.values():
            stack.enter_context(library.threads(n))
        yield


def measure_case(
    case: AnyCase,
    libraries: Mapping[str, Library],
    *,
    threads: int,
    peak: Peak | None,
    repeat: int,
    seconds: float,
    baseline: str = BASELINE,
) -> Row:
    """Check the libraries' answers and time the right ones in turn.

    A library whose answer is wrong is not timed. fastconv's answer for a layer must be exact, and
    the others must agree with it within ``16 eps G``. Networks must agree within their rounding,
    the first prediction with the naive loops, too.
    """
    row = Row(case, threads, peak, baseline)
    runs: dict[str, Run] = {}
    agreed: Any = None
    for name, library in libraries.items():
        try:
            call = library.prepare(case)
            got = call.answer(call.run())
            _check(case, got, agreed, libraries, exact=name != FAST)
        except UnsupportedError as reason:
            row.left_out[name] = str(reason)
        except WrongAnswerError as fault:
            row.wrong[name] = str(fault)
        except (ArithmeticError, RuntimeError, ValueError, MemoryError) as error:
            if name == OURS:
                raise
            row.failed[name] = f"{type(error).__name__}: {error}"
        else:
            runs[name] = call.run
            agreed = got if name == OURS else agreed
    if OURS in runs:
        row.seconds = in_turn(runs, repeat=repeat, seconds=seconds, keep=(OURS, baseline))
    return row


def _check(
    case: AnyCase, got: Any, agreed: Any, libraries: Mapping[str, Library], exact: bool = True
) -> None:
    """Raise WrongAnswerError unless the answer is right, and that of fastconv, `agreed`, if any.

    Where sums of integers are not `exact`, being that of fastconv within the bound is enough.
    """
    if isinstance(case, NetworkCase):
        check_network(got, agreed)
        if agreed is None and case.product == "predict":
            check_network(got[:1], first_prediction(case))
        return
    if exact:
        check_by_definition(case, got)
    if agreed is not None:
        compare(case, got, agreed, lambda: _magnitude(case, libraries))


def _magnitude(case: Case, libraries: Mapping[str, Library]) -> Any:
    """G of the error bound: the same product over absolute values."""
    if not isinstance(case, ConvCase):
        return magnitude(case)
    call = libraries[OURS].prepare(case.magnitude())
    return call.answer(call.run())
