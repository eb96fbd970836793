"""What the checks of one function found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Score"]


@dataclass
class Score:
    """What the checks of one function found.

    Attributes
    ----------
    op : str
        What was checked.
    cases, failures : int
        Results compared, and how many were wrong.
    worst : float
        Largest error: absolute for exact comparisons, relative for the others.
    first_failure : str
        What the first wrong case was; empty if there was none.

    Examples
    --------
    >>> score = Score("conv")
    >>> score.record("m1 w3c1 f1 k1", error=0.0)
    >>> score.record("m1 w4c1 f1 k1", error=2.0)
    >>> score.cases, score.failures, score.first_failure
    (2, 1, 'm1 w4c1 f1 k1: error 2')
    """

    op: str
    cases: int = 0
    failures: int = 0
    worst: float = 0.0
    first_failure: str = ""

    def record(self, case: str, error: float, limit: float = 0.0) -> None:
        """Count one case; it fails if `error` is above `limit` or NaN."""
        self.cases += 1
        if not error <= limit:
            self._fail(f"{case}: error {error:.3g}")
        self.worst = max(self.worst, error if error == error else float("inf"))

    def attempt(self, case: str, find: Callable[[], float], limit: float = 0.0) -> None:
        """Count one case by the error that `find` returns; one that it raises is a failure."""
        try:
            error = find()
        except Exception as fault:  # a result like any other
            self.record_exception(case, fault)
        else:
            self.record(case, error, limit)

    def record_exception(self, case: str, error: Exception) -> None:
        """Count one case in which an error was raised."""
        self.fail(f"{case}: {type(error).__name__}: {' '.join(str(error).split())}")

    def fail(self, reason: str) -> None:
        """Count one case that failed."""
        self.cases += 1
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        self.failures += 1
        self.first_failure = self.first_failure or reason
