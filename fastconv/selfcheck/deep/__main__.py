"""One section in this process: ``python -m fastconv.selfcheck.deep MODULE:FUNCTION SEED COUNT``.

Prints a JSON object a line: progress, then the scores.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import fastconv
from fastconv.selfcheck.deep import cut_finely, load

SECONDS_BETWEEN_LINES = 0.1


def main(function: str, seed: int, count: int) -> None:
    """Run a section and print what it says."""
    cut_finely()
    said = [0.0]

    def tick(done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - said[0] > SECONDS_BETWEEN_LINES:
            said[0] = now
            print(json.dumps({"done": done, "total": total}), flush=True)

    scores = load(function)(fastconv, seed, count, tick)
    print(json.dumps({"scores": [dataclasses.asdict(score) for score in scores]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
