"""A program: calls of other entries, one after another, in one parallel region.

Every thread walks all calls. It enters a call, takes what pieces of work are left, and waits until
all who entered have left: then the call is done, and what it wrote is seen by all. A thread that
the layer starts late, or never, holds no work, so nobody waits for it; it finds the calls done and
walks through. So a program cannot hang where fewer threads come than were asked for.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine.emit.memory import add_one, call_entry, load_element, wait_until_left, word

__all__ = ["walk"]


@inner
def walk(call, thread, zero):
    """All calls of a program, until one says stop: a number of its that is not finite."""
    steps = word(call, aw.STEPS)
    for i in range(word(call, aw.STEP_COUNT)):
        step = steps + i * 8 * aw.STEP_WORDS
        if add_one(step, aw.STEP_ENTERED) < word(step, aw.STEP_THREADS):
            call_entry(word(step, aw.STEP_ENTRY), word(step, aw.STEP_CALL), thread)
        add_one(step, aw.STEP_LEFT)
        wait_until_left(step, aw.STEP_ENTERED, aw.STEP_LEFT)
        checked = word(step, aw.STEP_CHECKED)
        if checked != 0:
            value = load_element(checked, zero)
            if value - value != zero:
                return
