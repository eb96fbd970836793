"""mpi4py's communicator as what `fit` trains over: sums in the order of the ranks.

MPI may add in any order, another one for another number of nodes or length of a message. Here it
only moves bytes: every rank gets all ranks' numbers of its share of the buffer, adds them in the
order of the ranks, and gives the sums to all. That moves as much as a ring does, 2 (N - 1) / N of
the buffer, and the bits depend on N alone, whatever library, network and placement there is.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, NamedTuple

import numpy as np

__all__ = ["MPICommunicator", "add_in_order", "is_mpi"]

# Elements up to which all ranks get everything and add for themselves: one message, not two.
SMALL = 2048
# Elements that are added at once, and stay in the cache.
BLOCK = 2**13


def is_mpi(comm: Any) -> bool:
    """Whether `comm` is a communicator of mpi4py."""
    module = sys.modules.get("mpi4py.MPI")
    return module is not None and isinstance(comm, module.Comm)


class _Shares(NamedTuple):
    """How a buffer is cut between ranks: counts and starts, and what this one receives and adds."""

    places: tuple[list[int], list[int]]
    own: slice
    parts: np.ndarray
    received: tuple[list[int], list[int]]
    kind: Any


class MPICommunicator:
    """A communicator of mpi4py, duplicated: messages of the caller's own do not get in the way.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm

    Attributes
    ----------
    rank, size : int

    Raises
    ------
    TypeError
        If it is an intercommunicator, or null.
    """

    def __init__(self, comm: Any) -> None:
        self._mpi = sys.modules["mpi4py.MPI"]
        if comm == self._mpi.COMM_NULL or comm.Is_inter():
            raise TypeError("comm: an intracommunicator is needed, such as MPI.COMM_WORLD")
        self._comm = comm.Dup()
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())
        self._shares: dict[Any, _Shares] = {}  # of the buffers so far: few, the gradients'

    def allreduce(self, buffer: np.ndarray) -> None:
        """Replace a contiguous buffer by the sum of all ranks' buffers, each sum rounded once."""
        flat = buffer.reshape(-1)
        if flat.size <= SMALL:
            add_in_order(self.gather(flat), flat)
            return
        shares = self._shares.get((flat.size, flat.dtype))
        if shares is None:
            shares = self._shares[flat.size, flat.dtype] = self._cut(flat)
        whole = [flat, shares.places, shares.kind]
        self._comm.Alltoallv(whole, [shares.parts, shares.received, shares.kind])
        add_in_order(shares.parts, flat[shares.own])
        self._comm.Allgatherv(self._mpi.IN_PLACE, whole)

    def _cut(self, flat: np.ndarray) -> _Shares:
        """Which elements of a buffer which rank adds up."""
        cuts = np.linspace(0, flat.size, self.size + 1).astype(int).tolist()
        counts, own = np.diff(cuts).tolist(), slice(*cuts[self.rank : self.rank + 2])
        n = counts[self.rank]
        received = [n] * self.size, [n * i for i in range(self.size)]
        kind = self._mpi.Datatype.fromcode(flat.dtype.char)
        return _Shares(
            (counts, cuts[:-1]), own, np.empty((self.size, n), flat.dtype), received, kind
        )

    def gather(self, numbers: np.ndarray) -> np.ndarray:
        """All ranks' numbers (k,) as rows (size, k)."""
        rows = np.empty((self.size, numbers.size), numbers.dtype)
        self._comm.Allgather(numbers, rows)
        return rows

    def abort(self) -> None:
        """End all ranks, with the traceback of the exception that is being handled."""
        print(f"rank {self.rank} of {self.size} ends all ranks:", file=sys.stderr)
        traceback.print_exc()
        sys.stderr.flush()
        self._comm.Abort(1)

    def neighbours(self) -> int:
        """How many ranks, this one included, share this one's processors."""
        node = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        found: list[Any] = node.allgather(own)
        node.Free()
        return found.count(own)

    def close(self) -> None:
        """Free the duplicate."""
        self._comm.Free()


def add_in_order(rows: np.ndarray, out: np.ndarray) -> None:
    """The sum of rows, one after the other in float64; of two rows in one rounding."""
    if len(rows) == 2:
        np.add(rows[0], rows[1], out=out)
        return
    for start in range(0, out.size, BLOCK):
        block = slice(start, start + BLOCK)
        total = rows[0, block].astype(np.float64)
        for row in rows[1:]:
            total += row[block]
        out[block] = total
