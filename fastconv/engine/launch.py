"""Calling compiled entries by address, on one thread or several.

`run` is the one parallel function of the engine: it calls entries by address, so no entry pays the
two to three seconds that compiling with ``parallel=True`` takes.
"""

from __future__ import annotations

import numba
import numpy as np

from fastconv.compiler.kernel import kernel
from fastconv.engine import known_calls
from fastconv.engine.emit.memory import call_entry
from fastconv.threads import launch

__all__ = ["run", "run_serial", "start"]


@kernel(works=known_calls.run_works, parallel=True)
def run(threads, entry, call):
    """Call `entry` on `threads` threads."""
    for thread in numba.prange(threads):
        call_entry(entry, call, np.int64(thread))


@kernel(works=known_calls.run_serial_works)
def run_serial(entry, call):
    """`run` on this thread."""
    call_entry(entry, call, 0)


def start(entry: int, call: int, threads: int) -> None:
    """Call the entry at an address with the words at `call`, on so many threads."""
    if threads == 1:
        run_serial(entry, call)
    else:
        launch(run, threads, entry, call)
