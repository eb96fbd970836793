"""Where a program's values lie in its arena: what is never alive at once may share memory.

Largest first, each at the lowest offset at which no value that is alive at the same time lies: the
greedy rule of TensorFlow Lite's and XNNPACK's memory planners (Pisarchyk and Lee 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastconv.program.graph import Operation, Value

__all__ = ["Placement", "place"]

ALIGNMENT = 64  # bytes: a cache line, and the longest vector


@dataclass(frozen=True)
class Placement:
    """Offsets of values (by their root) in an arena of `nbytes` bytes."""

    offsets: dict[Value, int]
    nbytes: int


@dataclass
class _Life:
    """From the operation that first touches a piece of memory to the last one."""

    begin: int
    end: int
    nbytes: int


def place(operations: Sequence[Operation]) -> Placement:
    """Offsets for all values that have no array of their own.

    Examples
    --------
    >>> a, b, c = (Value((16,), "f4") for _ in range(3))
    >>> one = Operation("one", None, None, (a,), (b,))
    >>> two = Operation("two", None, None, (b,), (c,))
    >>> found = place([one, two])  # c lies where a did
    >>> found.offsets[a], found.offsets[b], found.offsets[c], found.nbytes
    (0, 64, 0, 128)
    """
    lives = _lives(operations)
    shared = _shared(operations, lives)
    pieces: dict[Value, _Life] = {}
    for value, life in lives.items():
        owner = _owner(shared, value)
        piece = pieces.setdefault(owner, _Life(life.begin, life.end, 0))
        piece.begin, piece.end = min(piece.begin, life.begin), max(piece.end, life.end)
        piece.nbytes = max(piece.nbytes, life.nbytes)
    offsets: dict[Value, int] = {}
    order = sorted(pieces, key=lambda value: -pieces[value].nbytes)
    for value in order:
        offsets[value] = _lowest(pieces[value], [(offsets[o], pieces[o]) for o in offsets])
    ends = [offsets[value] + _rounded(pieces[value].nbytes) for value in pieces]
    return Placement(
        {value: offsets[_owner(shared, value)] for value in lives}, max(ends, default=0)
    )


def _lives(operations: Sequence[Operation]) -> dict[Value, _Life]:
    lives: dict[Value, _Life] = {}
    kept: list[_Life] = []
    for i, operation in enumerate(operations):
        for value in operation.values:
            root = value.root
            if root.array is not None:
                continue
            life = lives.setdefault(root, _Life(i, i, root.nbytes))
            life.end = i
            if root.kept or value.kept:
                kept.append(life)
    for life in kept:
        life.begin, life.end = 0, len(operations)
    return lives


def _shared(operations: Sequence[Operation], lives: dict[Value, _Life]) -> dict[Value, Value]:
    """Values that are written over another, which dies with the operation that does it."""
    found: dict[Value, Value] = {}
    for i, operation in enumerate(operations):
        if operation.over is None:
            continue
        written, read = (value.root for value in operation.over)
        if written.array is None and read.array is None and written is not read:
            ends = lives[_owner(found, read)].end if read in lives else -1
            dies = lives[read].end == i and ends <= i and not read.kept
            new = lives[written].begin == i and lives[written].end < len(operations)  # not kept
            if dies and new and written.nbytes <= read.nbytes:
                found[written] = read
    return found


def _owner(shared: dict[Value, Value], value: Value) -> Value:
    while value in shared:
        value = shared[value]
    return value


def _lowest(piece: _Life, placed: Sequence[tuple[int, _Life]]) -> int:
    """The lowest offset that is free for as long as the piece lives."""
    at = 0
    size = _rounded(piece.nbytes)
    for begin, other in sorted(placed, key=lambda pair: pair[0]):
        if other.begin > piece.end or other.end < piece.begin:
            continue
        if at + size <= begin:
            break
        at = max(at, begin + _rounded(other.nbytes))
    return at


def _rounded(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
