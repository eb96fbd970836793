"""How many processors this process may use, and what its environment says about threads."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

__all__ = ["default_threads", "processors", "quota"]

# Read when the package is imported, which pathlib would make a tenth longer.
CGROUPS = "/sys/fs/cgroup"
OWN_CGROUPS = "/proc/self/cgroup"
# Ours says how many threads there are; each of the others is an upper limit.
OURS, OTHERS = "FASTCONV_NUM_THREADS", ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")


def processors() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota() -> int | None:
    """Processors that the CPU quota of this process's control groups is worth, rounded up.

    Notes
    -----
    As joblib's ``cpu_count``: ``cpu.max`` in version 2 of Linux's control groups,
    ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` in version 1. A container sees its own group as
    the root; elsewhere the groups above this process's own limit it, too. None without a limit.
    """
    found = [count for group in _groups() if (count := _limit(group)) is not None]
    return min(found, default=None)


def _groups() -> Iterator[str]:
    """Folders of the control groups that may limit this process."""
    roots = {"": CGROUPS, "cpu": os.path.join(CGROUPS, "cpu")}  # of version 2, and of version 1
    yield from roots.values()
    try:
        lines = _text(OWN_CGROUPS).splitlines()
    except (OSError, ValueError):  # not Linux
        return
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]  # 0::/a/b or 4:cpu,cpuacct:/a/b
        root = roots.get("cpu" if "cpu" in controllers.split(",") else controllers)
        names = [name for name in path.split("/") if name]
        if root is not None and ".." not in names:  # else it is outside what we can see
            yield from (os.path.join(root, *names[: i + 1]) for i in range(len(names)))


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


def _limit(group: str) -> int | None:
    """What the quota of one group is worth; None if it has none, or none that can be read."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            limit, period = " ".join(_text(os.path.join(group, file)) for file in files).split()
            if int(limit) > 0 and int(period) > 0:  # "max", or -1: no limit
                return math.ceil(int(limit) / int(period))
        except (OSError, ValueError):
            continue
    return None


def default_threads() -> tuple[int, str]:
    """How many threads to use unless the caller says, and what decided that.

    FASTCONV_NUM_THREADS if it is set; else the least of the processors, NUMBA_NUM_THREADS,
    OMP_NUM_THREADS and the CPU quota.

    Raises
    ------
    ValueError
        If FASTCONV_NUM_THREADS is not a whole number of at least 1. The others' variables are
        left out then, as their own libraries do.
    """
    asked = os.environ.get(OURS, "").strip()
    if asked:
        count = _count(asked)
        if count is None:
            raise ValueError(
                f"the environment variable {OURS}={asked!r} must be a whole number of at least 1"
            )
        return count, f"{OURS}={asked}"
    limits = [(processors(), "all processors")]
    if (worth := quota()) is not None:
        limits.append((worth, "the CPU quota"))
    for name in OTHERS:
        text = os.environ.get(name, "")
        count = _count(text.split(",")[0])  # OpenMP's may be a list, of levels of nesting
        if count is not None:
            limits.append((count, f"{name}={text}"))
    return min(limits, key=lambda limit: limit[0])


def _count(text: str) -> int | None:
    """A whole number of at least 1, or None."""
    text = text.strip()
    whole = text.isascii() and text.isdigit() and len(text) < 10
    return int(text) if whole and int(text) > 0 else None
