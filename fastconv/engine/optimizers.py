"""Calls of the optimizers' loops: one step for all parameters of a dtype.

Values, gradients and running averages are contiguous arrays in the machine's byte order, and stay
where they are: a table of their addresses is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastconv.engine.call import Call
from fastconv.engine.tables.workspace import address_of

__all__ = ["Pieces", "pieces", "update_call"]

# Elements of an item: memory that the second-level cache holds. Bytes that are worth a thread.
BLOCK = 8192
GRAIN = 1_000_000


class Pieces(NamedTuple):
    """Parameters cut into items; keep it as long as a call that was made of it."""

    table: np.ndarray
    items: int
    elements: int
    arrays: int  # of an element: value, gradient, running averages
    dtype: np.dtype


def pieces(
    values: Sequence[np.ndarray],
    grads: Sequence[np.ndarray],
    slots: Sequence[Sequence[np.ndarray]],
) -> Pieces:
    """Cut parameters of one dtype, each with as many running averages as `slots` has lists.

    The cuts depend on the sizes alone. Parameters that share memory are one item, so that they
    move one after another as they are listed.
    """
    size = values[0].dtype.itemsize
    rows: list[list[int]] = []
    starts, room = [0], BLOCK
    for i, value in enumerate(values):
        arrays = [value, grads[i], *(slot[i] for slot in slots)]
        addresses = [address_of(array) for array in arrays] + [0] * (2 - len(slots))
        at = 0
        while at < value.size:
            if room == 0:
                starts.append(len(rows))
                room = BLOCK
            count = min(room, value.size - at)
            rows.append([a + at * size if a else 0 for a in addresses] + [count * size])
            at, room = at + count, room - count
    if _share_memory([*values, *grads]):
        starts = [0]
    starts.append(len(rows))
    table = np.array(starts + [word for row in rows for word in row], np.int64)
    elements = sum(value.size for value in values)
    return Pieces(table, len(starts) - 1, elements, 2 + len(slots), values[0].dtype)


def _share_memory(arrays: Sequence[np.ndarray]) -> bool:
    spans = sorted((address_of(a), address_of(a) + a.nbytes) for a in arrays if a.size)
    return any(a[1] > b[0] for a, b in pairwise(spans))


def update_call(entry: int, of: Pieces, scalars: np.ndarray) -> Call:
    """A step, by the entry of "sgd", "adam" or "rmsprop".

    The eight doubles `scalars`, as `loops.optimizers` takes them, are read at each call.
    """
    size = of.dtype.itemsize
    words = (size, address_of(of.table), of.items, address_of(scalars))
    return Call(entry, words, of.items, of.elements * size * of.arrays, GRAIN)
