"""How many threads kernels use, and how they are launched inside other people's processes.

Numba has three threading layers. Only tbb may be entered from several Python threads and survives
a fork, so it is loaded where its wheel is installed. The others are guarded: workqueue aborts the
process when two threads enter it, so launches queue up; a child forked after omp has run is killed
at its first parallel kernel, so it runs serially.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from fastconv.arguments import integer

__all__ = ["get_num_threads", "launch", "num_threads", "set_num_threads", "threading_layer"]

_default: int | None = None
_override: ContextVar[int | None] = ContextVar("fastconv_num_threads", default=None)
_one_at_a_time = threading.Lock()
_layer: str | None = None
_forked = False


@cache
def _available() -> int:
    """Processors this process may run on, or what NUMBA_NUM_THREADS says."""
    asked = os.environ.get("NUMBA_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked(n: int) -> int:
    count = integer("n", n)
    if count < 1:
        raise ValueError(f"n={n!r} must be at least 1 thread")
    return count


def get_num_threads() -> int:
    """Threads that the next call may use.

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    return _override.get() or _default or _available()


def set_num_threads(n: int) -> None:
    """Use at most `n` threads from now on, in every Python thread of the process.

    Results do not depend on it. Numba's own setting, which belongs to the caller, is untouched.

    Parameters
    ----------
    n : int
        At least 1. More than there are processors is allowed, and no faster.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer of at least 1.
    """
    global _default
    _default = _checked(n)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use at most `n` threads inside the ``with`` block, in this Python thread.

    Examples
    --------
    >>> with num_threads(1):
    ...     get_num_threads()
    1
    """
    token = _override.set(_checked(n))
    try:
        yield
    finally:
        _override.reset(token)


def threading_layer() -> str:
    """Numba's threading layer, or "not started" before the first parallel kernel."""
    return _layer or "not started"


def parts(work: float, grain: float) -> int:
    """Into how many parts to cut `work` so that each is worth at least `grain`."""
    count = int(work // grain)
    if count < 2 or (_forked and _layer != "tbb"):
        return 1
    return min(get_num_threads(), count)


def launch(kernel: Callable[..., Any], count: int, *args: Any) -> Any:
    """Call the parallel `kernel` on at most `count` threads: ``kernel(count, *args)``.

    The caller's ``numba.set_num_threads`` is restored.
    """
    import numba

    if _layer is None:
        _load_tbb()
    before = numba.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    try:
        if _layer in ("tbb", "omp"):
            return kernel(count, *args)
        with _one_at_a_time:
            result = kernel(count, *args)
            _note_layer()
            return result
    finally:
        numba.set_num_threads(before)


def _note_layer() -> None:
    global _layer
    import numba

    _layer = numba.threading_layer()


def _load_tbb() -> None:
    """Load the library of the tbb wheel; Numba does not look where wheels put it."""
    import ctypes
    from importlib import metadata

    try:
        files = metadata.files("tbb") or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name in ("libtbb.so.12", "tbb12.dll"):
            ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)


def _after_fork() -> None:
    global _forked, _one_at_a_time
    _forked = _layer is not None
    _one_at_a_time = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
