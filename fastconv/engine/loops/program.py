"""A program: calls of other entries, one after another, in one parallel region.

Every thread walks all calls. It enters a call, takes what pieces of work are left, and waits until
all who entered have left: then the call is done, and what it wrote is seen by all. A thread that
the layer starts late, or never, holds no work, so nobody waits for it; it finds the calls done and
walks through. So a program cannot hang where fewer threads come than were asked for.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, call_entry, load_element, wait_until_left, word

__all__ = ["walk"]


@inner
def walk(call, thread, zero):
    """All calls of a program, until one says stop: a number of its that is not finite."""
    steps = word(call, s.STEPS)
    for i in range(word(call, s.STEP_COUNT)):
        step = steps + i * 8 * s.STEP_WORDS
        if add_one(step, s.STEP_ENTERED) < word(step, s.STEP_THREADS):
            call_entry(word(step, s.STEP_ENTRY), word(step, s.STEP_CALL), thread)
        add_one(step, s.STEP_LEFT)
        wait_until_left(step, s.STEP_ENTERED, s.STEP_LEFT)
        checked = word(step, s.STEP_CHECKED)
        if checked != 0:
            value = load_element(checked, zero)
            if value - value != zero:
                return
