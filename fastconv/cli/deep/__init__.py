"""``fastconv check --deep``: faults and hard inputs, each section in a process of its own.

A section is a function ``section(ops, seed, count, tick) -> list of Score``: `ops` has the
functions of `fastconv` by their names, `count` says how much to try, and ``tick(done, total)``
tells how far it is. Its process cuts the smallest problem into parts for all threads
(`cut_finely`). A crash or a hang ends the process, and is reported as a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ["GRAINS", "SECTIONS", "Section", "Tick", "cut_finely", "load"]

Tick = Callable[[int, int], None]

# How much work is worth a thread: with 1, the smallest problem is cut into parts.
GRAINS = (
    ("fastconv.engine.products", "GRAIN"),
    ("fastconv.engine.pools", "GRAIN"),
    ("fastconv.engine.deltas", "GRAIN"),
    ("fastconv.plans.columns", "COL2IM_GRAIN"),
)


@dataclass(frozen=True)
class Section:
    """A section: its title and "module:function", how much it tries, seconds until it hangs."""

    title: str
    function: str
    count: int
    deadline: float


SECTIONS = (
    Section("layouts and threads", "bits:check_bits", 40, 300),
    Section("rounding errors", "numbers:check_numbers", 80, 300),
    Section("guard pages", "guard:check_guard", 389, 300),
    Section("threads at once", "processes:check_threads", 400, 120),
    Section("fork", "processes:check_forks", 30, 120),
    Section("kernel cache", "processes:check_cache", 1, 300),
    Section("memory stays flat", "memory:check_flat", 8000, 300),
    Section("memory runs out", "memory:check_exhausted", 6, 120),
)


def load(function: str) -> Any:
    """The section with the name "module:function"."""
    module, name = function.split(":")
    return getattr(import_module(f"fastconv.cli.deep.{module}"), name)


def cut_finely() -> None:
    """Use several threads for the smallest problem, in this process from now on."""
    for module, name in GRAINS:
        setattr(import_module(module), name, 1)
