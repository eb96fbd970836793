"""Compiling a kernel once on a machine, and a word to the user when it takes long."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from fastconv.compiler.files import KernelFile

__all__ = ["once_on_this_machine"]

log = logging.getLogger("fastconv")

# Seconds of compiling in this process after which the user is told, once, on stderr.
PATIENCE = 2.0


class _Patience:
    """Says that kernels are being compiled, while they are, once PATIENCE has been used up."""

    def __init__(self) -> None:
        self._depth = 0
        self._spent = 0.0
        self._said = False
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1 and not self._said:
                self._begin = time.perf_counter()
                self._timer = threading.Timer(max(0.0, PATIENCE - self._spent), self._say)
                self._timer.daemon = True
                self._timer.start()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and not self._said:
                self._timer.cancel()
                self._spent += time.perf_counter() - self._begin

    def _say(self) -> None:
        with self._lock:
            first, self._said = not self._said, True
        if first:
            log.warning("fastconv is compiling its kernels: some seconds, once on this machine")


_patience = _Patience()


@contextlib.contextmanager
def once_on_this_machine(file: KernelFile) -> Iterator[None]:
    """Around compiling a kernel: other processes wait for it, and the user is told if it lasts."""
    with _patience, file.lock():
        yield
