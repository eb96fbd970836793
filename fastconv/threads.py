"""How many threads kernels use, and how they are launched inside other people's processes.

Numba has three threading layers. Only tbb may be entered from several Python threads and survives
a fork, so it is loaded where its wheel is installed. The others are guarded:

- workqueue aborts the process when two threads enter it, or one does twice, and the caller's own
  parallel functions count: only the main thread launches, the others run serially;
- a child forked after omp has started is killed at its first launch, workqueue's threads are gone
  there, and tbb can end its threads before a fork only if no other thread has used them: such a
  child runs serially.

A fork waits until no thread compiles, loads or runs a kernel: the child would inherit locks that
nobody will release.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from fastconv.geometry.request import integer
from fastconv.processors import default_threads, processors

__all__ = ["allowed", "building", "describe", "get_num_threads", "launch", "num_threads", "parts",
           "set_num_threads", "threading_layer"]  # fmt: skip

_default: int | None = None
_override: ContextVar[int | None] = ContextVar("fastconv_num_threads", default=None)
_layer: str | None = None
_starter = threading.main_thread()  # the thread that started Numba's
_serial = False  # in a child that has lost the parent's threads

# Held while kernels are imported, compiled or loaded, and while plans are made.
building = threading.RLock()
# Launches under way, and forks: threads that want to launch wait while one forks.
_launches = 0
_forks = 0
_gate = threading.Condition(threading.Lock())
# Seconds that a fork waits for kernels to end.
FORK_TIMEOUT = 10.0


@cache
def _from_environment() -> tuple[int, str]:
    """The default number of threads, and why; read once."""
    return default_threads()


def describe() -> str:
    """The number of threads and what decided it, in a line; or what is wrong with it.

    >>> with num_threads(2):
    ...     describe().partition(" of ")[0]
    '2'
    """
    if _override.get() or _default:
        why = "num_threads" if _override.get() else "set_num_threads"
        return f"{get_num_threads()} of {processors()}: {why}"
    try:
        count, why = _from_environment()
    except ValueError as error:
        return str(error)
    return f"{count} of {processors()}: {why}"


def _checked(n: int) -> int:
    count = integer("n", n)
    if count < 1:
        raise ValueError(f"n={n!r} must be at least 1 thread")
    return count


def get_num_threads() -> int:
    """Threads that the next call may use.

    By default FASTCONV_NUM_THREADS if the environment has it, else the least of the processors,
    NUMBA_NUM_THREADS, OMP_NUM_THREADS and the CPU quota of the container.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is up to FASTCONV_NUM_THREADS, and that is not a whole number of at least 1.

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    return _override.get() or _default or _from_environment()[0]


def set_num_threads(n: int) -> None:
    """Use at most `n` threads from now on, in every Python thread of the process.

    It wins over the environment and the CPU quota. Results do not depend on it. Numba's own
    setting, which belongs to the caller, is untouched.

    Parameters
    ----------
    n : int
        At least 1. More than there are processors, or than NUMBA_NUM_THREADS, which Numba reads
        when it is imported, is allowed, and no faster.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer of at least 1.

    Examples
    --------
    >>> set_num_threads(2)  # doctest: +SKIP
    """
    global _default
    _default = _checked(n)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use at most `n` threads inside the ``with`` block, in this Python thread.

    Parameters
    ----------
    n : int
        At least 1; see :func:`set_num_threads`.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer of at least 1.

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
    if count < 2:
        return 1
    return allowed(min(count, get_num_threads()))


def allowed(count: int) -> int:
    """`count` threads, or 1 where this Python thread may not launch kernels on several."""
    return count if count > 1 and _may_launch() else 1


def _may_launch() -> bool:
    """Whether this Python thread may launch kernels on several threads."""
    if _serial:
        return False
    if _layer is None:
        _start()
    return _layer != "workqueue" or threading.current_thread() is threading.main_thread()


def launch(kernel: Callable[..., Any], count: int, *args: Any) -> Any:
    """Call the parallel `kernel` on at most `count` threads: ``kernel(count, *args)``.

    The caller's ``numba.set_num_threads`` is restored.
    """
    import numba

    global _launches
    before = numba.get_num_threads()
    with _gate:
        while _forks:
            _gate.wait()
        _launches += 1
    wanted = min(count, numba.config.NUMBA_NUM_THREADS)
    if wanted != before:
        numba.set_num_threads(wanted)
    try:
        return kernel(count, *args)
    finally:
        if wanted != before:
            numba.set_num_threads(before)
        with _gate:
            _launches -= 1
            if _forks:  # which another thread may have set meanwhile
                _gate.notify_all()  # type: ignore[unreachable]


def _start() -> None:
    """Start Numba's threads, and learn of which layer they are."""
    global _layer, _starter
    import numba

    with building:
        if _started_layer() is None:
            _starter = threading.current_thread()
        _load_tbb()
        numba.get_num_threads()  # starts them
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


_locked: list[Any] = []  # by the thread that forks, in this order
_alone = True  # whether tbb can end its threads


def _before_fork() -> None:
    """Wait for other threads, and keep them from starting anything until the fork is done."""
    global _forks, _alone
    _gate.acquire()
    _forks += 1
    ended = _gate.wait_for(lambda: not _launches, FORK_TIMEOUT)
    _alone = ended and threading.current_thread() is _starter and threading.active_count() == 1
    compiler = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    for lock in (building, compiler):
        if lock is not None:
            lock.acquire()
            _locked.append(lock)


def _after_fork() -> None:
    global _forks
    while _locked:
        _locked.pop().release()
    _forks -= 1
    _gate.notify_all()
    _gate.release()


def _after_fork_in_child() -> None:
    global _launches, _forks, _serial
    started = _started_layer()
    _serial |= started is not None and not (started == "tbb" and _alone)
    _launches, _forks = 0, 1  # those of other threads are not in here
    _after_fork()


def _started_layer() -> str | None:
    """Numba's threading layer, if it has been started: by us, or by the caller's own functions."""
    try:
        return sys.modules["numba"].threading_layer()
    except (KeyError, AttributeError, ValueError):  # not imported, half imported, not started
        return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
