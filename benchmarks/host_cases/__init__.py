"""What ``hosts.py`` times: one file per host, each with a function ``cases() -> list[Case]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One computation, done by the host as it comes and by the host on fastconv.

    Attributes
    ----------
    name : str
        The problem, in a few words.
    theirs, ours : callable
        Without arguments; both return arrays, or lists and tuples of arrays, that agree.
    """

    name: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
