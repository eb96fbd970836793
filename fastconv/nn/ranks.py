"""Processes that train one model together: what they tell each other, and how they stay together.

A rule keeps ranks from waiting for each other for ever: what only one of them can fail at is done
between two exchanges, and each begins with a word about whether it went well (`Ranks.together`).
Then all go on, or all raise. In the middle of a step, where others wait for numbers, the only way
out is to end them (`Ranks.alone`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from fastconv.nn.checks import Array, shown
from fastconv.nn.mpi import MPICommunicator, is_mpi

__all__ = ["Communicator", "RankError", "Ranks", "closing_ranks", "ranks_of"]

T = TypeVar("T")
# Numbers that an agreement can carry besides the word about failure.
TOLD = 3
# Bytes that are sent at once, as a double each: any communicator can add doubles.
PIECE = 2**20


class Communicator(Protocol):
    """What `fit` takes as `comm`."""

    @property
    def rank(self) -> int:
        """Number of this process among all: 0 .. size - 1."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    def allreduce(self, buffer: Array, /) -> Any:
        """Replace a contiguous buffer of float32 or float64 by the sum over all ranks, in place.

        All ranks get the same bits.
        """
        ...


class RankError(RuntimeError):
    """Another rank has raised an exception; the message has its rank, class and text."""


class Ranks:
    """The process among those that train together.

    Parameters
    ----------
    comm : Communicator

    Attributes
    ----------
    rank, size : int

    Examples
    --------
    >>> class Alone:
    ...     rank, size = 0, 1
    ...     def allreduce(self, buffer):
    ...         pass
    >>> ranks = Ranks(Alone())
    >>> ranks.gather([2.0, 3.0]).tolist(), ranks.part(10), ranks.broadcast("text")
    ([[2.0, 3.0]], slice(0, 10, None), 'text')
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.rank, self.size = int(comm.rank), int(comm.size)
        self._gather = getattr(comm, "gather", None) if isinstance(comm, MPICommunicator) else None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone prints and writes."""
        return self.rank == 0

    def part(self, m: int) -> slice:
        """Which of m images are this rank's: neighbours, as many as the others' or one more."""
        each, more = divmod(m, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    # Exchanges: all ranks call the same one at the same time -------------------------------------

    def sum(self, buffer: Array) -> None:
        """Replace a contiguous buffer by the sum over all ranks."""
        self._comm.allreduce(buffer)

    def gather(self, numbers: Sequence[float] | Array) -> Array:
        """All ranks' numbers (k,) as rows (size, k) of float64, in the order of the ranks."""
        own = np.asarray(numbers, np.float64).reshape(-1)
        if self._gather is not None:
            found: Array = self._gather(own)
            return found
        rows = np.zeros((self.size, own.size))
        rows[self.rank] = own
        self.sum(rows)  # all others add 0, so that no order can matter
        return rows

    def broadcast(self, text: str, source: int = 0) -> str:
        """The text that one rank has."""
        return self.broadcast_bytes(text.encode(), source).decode()

    def broadcast_bytes(self, data: bytes, source: int = 0) -> bytes:
        """The bytes that one rank has."""
        own = self.rank == source
        length = int(self.gather([len(data) if own else 0])[source, 0])
        found = bytearray()
        for start in range(0, length, PIECE):
            piece = np.zeros(min(PIECE, length - start))
            if own:
                piece[...] = np.frombuffer(data, np.uint8, len(piece), start)
            self.sum(piece)
            found += piece.astype(np.uint8).tobytes()
        return bytes(found)

    def broadcast_arrays(
        self, text: dict[str, Any], arrays: dict[str, Array]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """What rank 0 has: a dictionary of JSON types, and arrays by name."""
        forms = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
        said, forms = json.loads(self.broadcast(json.dumps([text, forms])))
        data = self.broadcast_bytes(b"".join(array.tobytes() for array in arrays.values()))
        found, at = {}, 0
        for name, kind, shape in forms:
            count = math.prod(shape)
            found[name] = np.frombuffer(data, kind, count, at).reshape(shape).copy()
            at += found[name].nbytes
        return said, found

    # Staying together ---------------------------------------------------------------------------

    def together(
        self, work: Callable[[], T], told: Callable[[T], Sequence[float]] = lambda _: ()
    ) -> tuple[T, Array]:
        """Do what may fail on one rank alone; then all go on, or all raise.

        Parameters
        ----------
        work : callable
            Without an exchange inside.
        told : callable
            Up to `TOLD` numbers about its result, for all to know.

        Returns
        -------
        result
            Of this rank's `work`.
        numbers : ndarray (size, TOLD)
            What all ranks told, and zeros.

        Raises
        ------
        Exception
            Of this rank's `work`; or RankError, where another's has raised one.
        """
        row, fault = np.zeros(1 + TOLD), None
        try:
            found = work()
            numbers = told(found)
            row[1 : 1 + len(numbers)] = numbers
        except Exception as error:
            fault, row[0] = error, 1
        rows = self.gather(row)
        if rows[:, 0].any():
            self._fail(int(rows[:, 0].argmax()), fault)
        return found, rows[:, 1:]

    def _fail(self, source: int, fault: Exception | None) -> None:
        text = "" if fault is None else f"{type(fault).__name__}: {fault}"
        text = self.broadcast(text, source)
        if fault is not None:
            raise fault
        raise RankError(f"rank {source} of {self.size}: {text}")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Around what other ranks wait for: an exception ends them all, if the communicator can."""
        try:
            yield
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End all ranks, if the communicator has a method for it."""
        if callable(abort := getattr(self._comm, "abort", None)):
            abort()

    def close(self) -> None:
        """Give back what was made for these exchanges."""
        if isinstance(self._comm, MPICommunicator):
            self._comm.close()


@contextmanager
def closing_ranks(ranks: Ranks | None) -> Iterator[None]:
    """Around all that ranks do together: Ctrl-C in one ends all, which would wait for it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if ranks is not None:
            ranks.end()
        raise
    finally:
        if ranks is not None:
            ranks.close()


def ranks_of(comm: Any) -> Ranks | None:
    """The ranks of a caller's `comm`; None without one, and where there is one rank only.

    Raises
    ------
    TypeError, ValueError
        Naming `comm`.
    """
    if comm is None:
        return None
    if is_mpi(comm):
        comm = MPICommunicator(comm)
    elif not callable(getattr(comm, "allreduce", None)):
        raise TypeError(
            f"comm: mpi4py's MPI.COMM_WORLD is needed, or an object with rank, size and "
            f"allreduce(buffer), got {shown(comm)}"
        )
    for name in ("rank", "size"):
        if not hasattr(getattr(comm, name, None), "__index__"):
            found = shown(getattr(comm, name, None))
            raise TypeError(f"comm: {name} must be an integer, got {found}")
    if not 0 <= comm.rank < comm.size:
        raise ValueError(f"comm: rank {comm.rank} is not in 0 .. {comm.size - 1}")
    ranks = Ranks(comm)
    if ranks.size == 1:
        ranks.close()
        return None
    numbers = ranks.gather([ranks.rank + 1]).reshape(-1)
    if not np.array_equal(numbers, np.arange(ranks.size) + 1):
        raise ValueError(
            "comm: allreduce(buffer) must replace the buffer by the sum over all ranks, in place; "
            f"of {ranks.size} ranks' numbers 1, 2, ... it made {numbers.tolist()}"
        )
    return ranks
