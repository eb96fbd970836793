"""Runs the sections one after the other, each in a process of its own, and reads their scores."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from fastconv.cli.check_cases import Score
from fastconv.cli.deep import SECTIONS, Section, Tick

__all__ = ["command", "run_section"]

MESSAGE_LINES = 3


def command(section: Section, seed: int, count: int) -> list[str]:
    """The words that run a section in a process."""
    number = str(SECTIONS.index(section))
    return [sys.executable, "-m", "fastconv.cli.deep", number, str(seed), str(count)]


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
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stdout is not None
    assert process.stderr is not None
    late = threading.Event()
    timer = threading.Timer(deadline, lambda: (late.set(), process.kill()))
    errors: list[str] = []
    reader = threading.Thread(target=errors.extend, args=(process.stderr,), daemon=True)
    scores: list[Score] = []
    timer.start()
    reader.start()
    try:
        for line in process.stdout:
            found = _read(line)
            if "scores" in found:
                scores = [Score(**score) for score in found["scores"]]
            elif "done" in found:
                tick(found["done"], found["total"])
        status = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()
    if status == 0 and scores:
        return scores
    score = Score(title)
    score.fail(_reason(status, late.is_set(), deadline, errors))
    return [*scores, score]


def _read(line: str) -> dict[str, object] | dict[str, list[dict[str, object]]]:
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
