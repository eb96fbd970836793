"""What `benchmarks/hosts.py` times: for each host, its own implementation beside fastconv's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One computation, done by the host alone and with fastconv."""

    name: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
