"""Ranks that are threads of one process: a communicator for tests, and one fit on all of them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class Together:
    """What the ranks share: a slot for each, and a barrier."""

    def __init__(self, size):
        self.size, self.slots = size, [None] * size
        self.barrier = threading.Barrier(size, timeout=60)


class ThreadRank:
    """One rank: adds up in the order of the ranks."""

    def __init__(self, together, rank):
        self.together, self.rank, self.size = together, rank, together.size

    def allreduce(self, buffer):
        assert buffer.flags.c_contiguous
        assert buffer.dtype in (np.float32, np.float64)
        self.together.slots[self.rank] = buffer.copy()
        self.together.barrier.wait()
        first, *others = self.together.slots
        total = first.copy()
        for other in others:
            assert other.shape == total.shape
            assert other.dtype == total.dtype
            total += other
        self.together.barrier.wait()
        buffer[...] = total

    def abort(self):
        self.together.barrier.abort()


def on_ranks(size, work):
    """What ``work(comm)`` gives on each of so many ranks; an exception is its result."""
    together = Together(size)

    def run(rank):
        try:
            return work(ThreadRank(together, rank))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
