"""The one decorator of compiled kernels, and a word to the user when compiling takes long."""

from __future__ import annotations

import logging
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
from numba.core import event

__all__ = ["kernel", "not_kept", "own_files"]

log = logging.getLogger("fastconv")

# Seconds of compiling in this process after which the user is told, once, on stderr.
PATIENCE = 2.0


def kernel(function: Callable[..., Any] | None = None, *, parallel: bool = False) -> Any:
    """Compile `function` at its first call and keep the machine code on disk.

    ``contract`` is the only relaxation of floating-point rules: the others would delete the tests
    for NaN or change the order of sums. Where no folder is writable the kernel is compiled anew
    in every process, with a warning.
    """
    if function is None:
        return lambda f: kernel(f, parallel=parallel)
    options: dict[str, Any] = {
        "nogil": True,
        "parallel": parallel,
        "error_model": "numpy",
        "fastmath": {"contract"},
    }
    try:
        dispatcher = numba.njit(cache=True, **options)(function)
        own_files(dispatcher._cache)
        return dispatcher
    except RuntimeError as error:  # "cannot cache function …: no locator available"
        not_kept(error)
        return numba.njit(**options)(function)


@cache
def _warn_once() -> None:
    message = "no folder is writable, so kernels are compiled anew in every process"
    warnings.warn(f"{message}; NUMBA_CACHE_DIR can name one", RuntimeWarning, stacklevel=3)


def not_kept(error: RuntimeError) -> None:
    """Warn, once a process, that Numba found no folder for machine code; pass on other errors."""
    if "locator" not in str(error):
        raise error
    _warn_once()


def own_files(files: Any) -> None:
    """Give each piece of machine code that `files`, Numba's cache, saves a name of its own.

    Numba counts 1, 2, 3 …: two processes that compile different signatures at once both write
    number 1, and the index of one of them then points at the other's code. With names that
    nobody else uses, what such a race loses is compiled again.
    """
    base = files._cache_file._index_name.removesuffix(".nbi")
    files._cache_file._data_name = lambda number: f"{base}.{uuid.uuid4().hex}.nbc"


class _Notice(event.Listener):
    """Says that kernels are being compiled, while they are, once PATIENCE has been used up."""

    def __init__(self) -> None:
        self._depth = 0
        self._spent = 0.0
        self._said = False
        self._lock = threading.Lock()

    def on_start(self, started: event.Event) -> None:
        with self._lock:
            self._depth += self._is_ours(started)
            if self._depth == 1 and not self._said:
                self._begin = time.perf_counter()
                self._timer = threading.Timer(max(0.0, PATIENCE - self._spent), self._say)
                self._timer.daemon = True
                self._timer.start()

    def on_end(self, ended: event.Event) -> None:
        with self._lock:
            ours = self._is_ours(ended)
            self._depth -= ours
            if ours and self._depth == 0 and not self._said:
                self._timer.cancel()
                self._spent += time.perf_counter() - self._begin

    @staticmethod
    def _is_ours(what: event.Event) -> bool:
        function = getattr(what.data["dispatcher"], "py_func", None)
        return getattr(function, "__module__", "").startswith("fastconv.")

    def _say(self) -> None:
        with self._lock:
            first, self._said = not self._said, True
        if first:
            log.warning("fastconv is compiling its kernels: some seconds, once on this machine")


event.register("numba:compile", _Notice())
