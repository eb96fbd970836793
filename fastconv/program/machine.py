"""Programs that can run: a graph whose values have addresses and whose operations are calls.

The calls between two operations of the interpreter are a segment: one launch, whose threads walk
them all (see `engine.loops.program`). A step copies a template of the calls' words, in which all
counters are zero, and launches; it allocates nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from fastconv import threads
from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.entries import program_address
from fastconv.engine.launch import start
from fastconv.engine.tables.workspace import address_of
from fastconv.program.graph import Graph, Operation, Timing, Value
from fastconv.program.place import ALIGNMENT, place

__all__ = ["Program"]

Step: TypeAlias = tuple[Call, np.ndarray | None]

# Words of a call or of the header begin on a cache line of their own.
LINE_WORDS = 8


class _Segment:
    """Calls that one launch makes; the words of all of them in one array.

    Parameters
    ----------
    steps : sequence of (Call, ndarray or None)
        Calls, and doubles that must be finite after them for the program to go on.
    most : int
        Threads, at most.
    """

    def __init__(self, steps: Sequence[Step], most: int) -> None:
        header = -(-aw.PROGRAM_CALL_WORDS // LINE_WORDS) * LINE_WORDS
        size = header + -(-len(steps) * aw.STEP_WORDS // LINE_WORDS) * LINE_WORDS
        starts = []
        for call, _ in steps:
            starts.append(size)
            size += -(-(len(call.words) + s.TABLE) // LINE_WORDS) * LINE_WORDS
        # one line more, so that the first word can be the first of a line
        self._memory = np.zeros(size + LINE_WORDS, np.int64)
        skipped = -(address_of(self._memory) // 8) % LINE_WORDS
        self.words = self._memory[skipped : skipped + size]
        self.template = np.zeros(size, np.int64)
        self.address = address_of(self.words)
        self.template[aw.STEPS] = self.address + 8 * header
        self.template[aw.STEP_COUNT] = len(steps)
        self.threads = 1
        # words that change when what is done once has been done: before, and after
        self._once: list[tuple[int, int, int]] = []
        self._checked = [checked for _, checked in steps if checked is not None]
        for i, ((call, checked), at) in enumerate(zip(steps, starts, strict=True)):
            limit = max(1, min(call.work // call.grain, call.items, most))
            self.threads = max(self.threads, limit)
            step = header + i * aw.STEP_WORDS
            self.template[step : step + aw.STEP_WORDS] = (
                0, 0, call.entry, self.address + 8 * at, limit,
                0 if checked is None else address_of(checked),
            )  # fmt: skip
            self.template[at + s.TABLE : at + s.TABLE + len(call.words)] = call.words
            if call.first:
                counters = at + s.NEXT_FIRST, at + s.DONE
                self._once += [(counter, 0, call.first) for counter in counters]
            if call.once:  # nobody takes part in it any more
                self._once.append((step + aw.STEP_THREADS, limit, 0))
        self._kept = not self._once
        self._entry = program_address()

    def __call__(self, most: int) -> bool:
        """Make all calls, on at most so many threads; whether all that was checked is finite."""
        np.copyto(self.words, self.template)
        start(self._entry, self.address, threads.allowed(min(self.threads, most)))
        if not self._kept:
            self.keep(True)
        return all(math.isfinite(number.flat[0]) for number in self._checked)

    def keep(self, done: bool) -> None:
        """Whether what must be done once has been done, and is not done again."""
        for at, before, after in self._once:
            self.template[at] = after if done else before
        self._kept = done


class Program:
    """A graph, placed in an arena and bound to it.

    Parameters
    ----------
    graph : Graph

    Attributes
    ----------
    nbytes : int
        Bytes of the arena and of the calls' scratch.
    flops : int
        Multiplications and additions of a run.

    Notes
    -----
    Nothing is validated, and two runs must not overlap in time.
    """

    def __init__(self, graph: Graph) -> None:
        self.operations = [*graph.first, *graph.operations]
        self.most = graph.most
        placement = place(self.operations)
        scratch = max((operation.scratch for operation in self.operations), default=0)
        self.nbytes = placement.nbytes + scratch + ALIGNMENT
        self.flops = sum(operation.flops for operation in self.operations)
        self._memory = np.empty(self.nbytes, np.uint8)
        skipped = -address_of(self._memory) % ALIGNMENT
        self._arena = self._memory[skipped : skipped + placement.nbytes]
        self._scratch = address_of(self._memory) + skipped + placement.nbytes
        self._offsets = placement.offsets
        self._loose: dict[Value, np.ndarray] = {}  # of values that no operation touches
        self._alive: list[Any] = []  # arrays that calls know by address only
        self._pieces = self._bound(self.operations)
        self._alone: list[list[Callable[[int], bool]]] = []  # each operation's, for a profile

    def array(self, value: Value) -> np.ndarray:
        """The array of a value."""
        if value.array is not None:
            return value.array
        root = value.root
        if root.array is not None:
            return root.array.reshape(value.shape)
        if root not in self._offsets:
            loose = self._loose.setdefault(root, np.empty(root.shape, root.dtype))
            return loose.reshape(value.shape)
        at = self._offsets[root]
        return self._arena[at : at + value.nbytes].view(value.dtype).reshape(value.shape)

    def run(self) -> bool:
        """Run all operations; False if a checked number was not finite, and the rest was left."""
        most = min(self.most, threads.get_num_threads())
        for piece in self._pieces:  # noqa: SIM110 - `all` with a generator takes twice as long
            if not piece(most):
                return False
        return True

    def pack_anew(self) -> None:
        """Have the next run pack kernels that are packed once: they have changed."""
        for piece in self._pieces:
            if isinstance(piece, _Segment):
                piece.keep(False)

    def profile(self) -> list[Timing]:
        """Run all operations one at a time, and measure them."""
        most = min(self.most, threads.get_num_threads())
        self._alone = self._alone or [self._bound([operation]) for operation in self.operations]
        found = []
        for operation, pieces in zip(self.operations, self._alone, strict=True):
            begin = time.perf_counter()
            for piece in pieces:
                piece(most)
            seconds = time.perf_counter() - begin
            found.append(Timing(operation.label, seconds, operation.flops, operation.nbytes))
        return found

    def _bound(self, operations: Sequence[Operation]) -> list[Callable[[int], bool]]:
        """Segments and functions that run the operations."""
        pieces: list[Callable[[int], bool]] = []
        steps: list[Step] = []
        for operation in operations:
            arrays = [self.array(value) for value in operation.values]
            self._alive.append(arrays)
            if operation.make is not None:
                calls = list(operation.make(self._scratch, *arrays))
                steps += [(call, None) for call in calls]
                if operation.checked:
                    steps[-1] = (calls[-1], arrays[-1])
                continue
            if steps:
                pieces.append(_Segment(steps, self.most))
                steps = []
            pieces.append(_function(operation, arrays))
        if steps:
            pieces.append(_Segment(steps, self.most))
        return pieces


def _function(operation: Operation, arrays: Sequence[np.ndarray]) -> Callable[[int], bool]:
    """An operation of the interpreter as a piece of a program."""
    function = operation.python or _nothing

    def work(most: int) -> bool:
        function(*arrays)
        return not operation.checked or math.isfinite(arrays[-1].flat[0])

    return work


def _nothing(*arrays: np.ndarray) -> None:
    """An operation that only moves the end of its values' lives."""
