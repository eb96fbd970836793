"""Runs the sections one after the other, each in a process of its own, and reads their scores."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from fastconv.selfcheck.deep import SECTIONS, Section, Tick
from fastconv.selfcheck.score import Score

__all__ = ["command", "run_all", "run_section"]

MESSAGE_LINES = 3


def run_all(seed: int, bar: Any = None) -> list[Score]:
    """All sections' scores; a line about each, on standard error.

    Parameters
    ----------
    seed : int
    bar : object, optional
        Shows how far a section is, and prints the lines: has ``start(title, total)``,
        ``move(done, text)``, ``line(text)`` and ``close()``.
    """
    scores: list[Score] = []
    try:
        for section in SECTIONS:
            if bar:
                bar.start(section.title, section.count)

            def tick(done: int, total: int, count: int = section.count) -> None:
                if bar:
                    bar.move(done * count // max(total, 1), "")

            start = time.monotonic()
            words = command(section, seed)
            found = run_section(section.title, words, section.deadline, tick)
            line = f"{section.title}: {_summary(found)}, {time.monotonic() - start:.1f} s"
            if bar:
                bar.line(line)
            else:
                print(line, file=sys.stderr, flush=True)
            scores += found
    finally:
        if bar:
            bar.close()
    return scores


def _summary(scores: Sequence[Score]) -> str:
    cases, failures = sum(s.cases for s in scores), sum(s.failures for s in scores)
    if not cases:
        return "not possible on this system"
    return f"{cases} cases, {failures or 'no'} failures"


def command(section: Section, seed: int) -> list[str]:
    """The words that run a section in a process."""
    words = [section.function, str(seed), str(section.count)]
    return [sys.executable, "-m", "fastconv.selfcheck.deep", *words]


def run_section(title: str, words: Sequence[str], deadline: float, tick: Tick) -> list[Score]:
    """Run a section's process; a signal, a hang or a traceback is a failure like any other.

    Parameters
    ----------
    title : str
        What is checked, for the score of a process that ends without one.
    words : sequence of str
        The command.
    deadline : float
        Seconds after which the process is killed.
    tick : callable
        Told how far the section is.

    Examples
    --------
    >>> words = [sys.executable, "-c", "raise SystemExit('no')"]
    >>> run_section("a section", words, 60, lambda done, total: None)[0].first_failure
    'ended without a result, exit status 1: no'
    """
    scores: list[Score] = []
    late = threading.Event()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
        ) as process,
    ):

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(deadline, stop)
        timer.start()
        try:
            for line in process.stdout or ():
                found = _read(line)
                if "scores" in found:
                    scores = [Score(**score) for score in found["scores"]]
                elif "done" in found:
                    tick(found["done"], found["total"])
            status = process.wait()
        finally:
            timer.cancel()
            process.kill()
        errors.seek(0)
        said = errors.readlines()
    if status == 0 and scores:
        return scores
    score = Score(title)
    score.fail(_reason(status, late.is_set(), deadline, said))
    return [*scores, score]


def _read(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:  # something else that a library printed
        return {}
    return found if isinstance(found, dict) else {}


def _reason(status: int, late: bool, deadline: float, errors: Sequence[str]) -> str:
    """What became of a process without scores."""
    if late:
        return f"no result in {deadline:.0f} s: killed"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    last = " ".join(" ".join(errors[-MESSAGE_LINES:]).split())
    return f"ended without a result, exit status {status}: {last}"
