"""A thread that makes items, as batches are, while those before them are used."""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

__all__ = ["AHEAD", "prefetched"]

AHEAD = 2  # batches that wait: with the one in use and the one in the making, four are in memory
ALIVE = 0.5  # seconds after which a reader looks whether the thread still lives


class _End:
    """What the thread says last: that there is no more, or the error that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Ahead:
    """A thread that runs an iterator, at most so many items ahead.

    It runs in the caller's context: the same number of threads, and NumPy's error state.
    """

    def __init__(self, items: Iterator[Any], ahead: int) -> None:
        self.items = items
        self.ready: queue.Queue[Any] = queue.Queue(ahead)
        self.stopped = threading.Event()
        self.process = os.getpid()
        run = contextvars.copy_context().run
        self.thread = threading.Thread(
            target=run, args=(self._work,), name="fastconv-feed", daemon=True
        )
        self.thread.start()

    def _work(self) -> None:
        end = _End()
        try:
            for item in self.items:
                if not self._put(item):
                    break
            if isinstance(self.items, Generator):
                self.items.close()
        except BaseException as error:  # raised again by `get`, in the caller's thread
            end = _End(error)
        self._put(end)

    def _put(self, item: Any) -> bool:
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=ALIVE)
                return True
            except queue.Full:
                continue
        return False

    def get(self) -> Any:
        """The next item, or an `_End`."""
        if os.getpid() != self.process:
            # Its locks may be held for ever here: the thread is only in the parent.
            raise RuntimeError(
                "x: this process was forked while batches were read: the thread that reads them "
                "stayed in the parent; start fit anew in the child"
            )
        while True:
            try:
                return self.ready.get(timeout=ALIVE)
            except queue.Empty:
                if not self.thread.is_alive() and self.ready.empty():
                    return _End(RuntimeError("x: the thread that reads batches has ended"))

    def close(self) -> None:
        """End the thread, after the item that it is making."""
        self.stopped.set()
        if os.getpid() != self.process:
            return
        while self.thread.is_alive():
            try:
                while True:
                    self.ready.get_nowait()
            except queue.Empty:
                self.thread.join(0.01)


def prefetched(items: Iterator[Any], ahead: int = AHEAD) -> Generator[Any, None, None]:
    """The items of an iterator, made by a thread while those before them are used.

    An error of the iterator is raised here, after the items before it. The thread ends with this
    generator: when it is exhausted, closed or collected.

    Examples
    --------
    >>> list(prefetched(iter([1, 2, 3])))
    [1, 2, 3]
    """
    worker = _Ahead(items, ahead)
    try:
        while not isinstance(item := worker.get(), _End):
            yield item
            del item  # not a batch more in memory while the next one is awaited
        if item.error is not None:
            raise item.error
    finally:
        worker.close()
