"""Runs of taps that are packed one behind the other; a phase's taps are a part of one."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Holding", "runs"]


def runs(taps: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The tap sequences that are packed: those that are not a part of a longer one."""
    found: list[tuple[int, ...]] = []
    holding = Holding()
    for sequence in sorted(set(taps), key=len, reverse=True):
        if holding.find(sequence) is None:
            found.append(sequence)
            holding.add(sequence)
    return found


class Holding:
    """Finds a run that a sequence of taps is a part of, among those that hold its first tap.

    A stride of 64 on two axes has 4096 sequences: comparing each with all takes seconds.
    """

    def __init__(self) -> None:
        self._runs: dict[int, list[tuple[tuple[int, ...], int]]] = {}

    def add(self, run: tuple[int, ...]) -> None:
        """Remember a run."""
        for i, tap in enumerate(run):
            self._runs.setdefault(tap, []).append((run, i))

    def __getitem__(self, part: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        found = self.find(part)
        if found is None:
            raise KeyError(part)
        return found

    def find(self, part: tuple[int, ...]) -> tuple[tuple[int, ...], int] | None:
        """The run and where `part` begins in it, if one has it without a gap."""
        for run, i in self._runs.get(part[0], ()):
            if run[i : i + len(part)] == part:
                return run, i
        return None
