"""Chunks of a result, and what of the neighbours each of them needs.

The cells of a spatial axis are cut where the caller's chunks are, its results in the same
proportion. A chunk of results is made of a part of the image that reaches beyond its own cells, or
stays behind them; the farthest reach of all chunks is the depth in which neighbours overlap. From
what a task then gets it takes the part that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.array.overlap import overlap
from dask.base import tokenize
from dask.delayed import delayed

from fastconv.adapters.shared.operations import shared_threads, spatial_axes
from fastconv.geometry.parts import Part

__all__ = ["applied", "checked"]


class Cuts(NamedTuple):
    """How one spatial axis is cut.

    Attributes
    ----------
    cells, results : tuple of int
        Where the chunks begin, and the end.
    depth : (int, int)
        Cells of the chunks before and behind that a chunk may need.
    """

    cells: tuple[int, ...]
    results: tuple[int, ...]
    depth: tuple[int, int]

    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chunks of cells and of results."""
        return tuple(np.diff(self.cells).tolist()), tuple(np.diff(self.results).tolist())

    def wanted(self, i: int) -> Part:
        """Results of chunk `i`."""
        return Part(self.results[i], self.results[i + 1])

    def taken(self, i: int, part: Part) -> slice:
        """Where a part of the image lies in what chunk `i` got."""
        origin = max(0, self.cells[i] - self.depth[0])
        return slice(part.start - origin, part.stop - origin)


def cut(sizes: Sequence[int], results: int, read: Callable[[Part], Part]) -> Cuts:
    """Cut an axis where its chunks are, as far as each can be made with its neighbours.

    >>> cut((4, 4, 1), 7, lambda part: Part(part.start, part.stop + 2))
    Cuts(cells=(0, 4, 9), results=(0, 3, 7), depth=(1, 1))
    """
    cells = [0, *np.cumsum(sizes).tolist()]
    while True:
        ends = [edge * results // cells[-1] for edge in cells]
        reach = [0, 0]
        for i, wanted in enumerate(map(Part, ends, ends[1:])):
            if wanted.size:
                part = read(wanted)
                reach[0] = max(reach[0], cells[i] - part.start)
                reach[1] = max(reach[1], part.stop - cells[i + 1])
        lengths = np.diff(cells)
        least = int(lengths.argmin())
        empty = [i for i in range(len(lengths)) if ends[i] == ends[i + 1]]
        if len(lengths) == 1 or not (empty or lengths[least] < max(reach)):
            return Cuts(tuple(cells), tuple(ends), (reach[0], reach[1]))
        joined = empty[0] if empty else least
        right = joined + 1 < len(lengths)
        if right and joined:
            right = bool(lengths[joined + 1] <= lengths[joined - 1])
        del cells[joined + 1 if right else joined]


def checked(name: str, x: Any) -> None:
    """TypeError unless `x` is a dask array; ValueError unless its sizes are known."""
    if not isinstance(x, da.Array):
        raise TypeError(
            f"{name}: a dask array is needed, got {type(x).__name__}; "
            "the functions of fastconv itself take NumPy's"
        )
    if any(np.isnan(n) for n in x.shape):
        raise ValueError(f"{name}: its sizes must be known: {name}.compute_chunk_sizes()")


def applied(operation: Any, x: Any, data_format: str) -> Any:
    """The operation on all chunks of `x`: a dask array."""
    axes = spatial_axes(x.ndim, data_format)
    channels = x.ndim - 1 if data_format == "channels_last" else 1
    if len(x.chunks[channels]) > 1:
        raise ValueError(
            f"x: its channels are in chunks of {x.chunks[channels]}, and all are needed at once: "
            f"x.rechunk({{{channels}: -1}})"
        )
    chunks = [x.chunks[0], *((n,) for n in operation.y.shape[1:])]
    cuts = None
    if any(len(x.chunks[axis]) > 1 for axis in axes):
        cuts = _cuts(operation, x, axes)
        depth = dict.fromkeys(range(x.ndim), 0) | {
            axis: found.depth for axis, found in zip(axes, cuts, strict=True)
        }
        for axis, found in zip(axes, cuts, strict=True):
            cells, chunks[axis] = found.sizes()
            if cells != x.chunks[axis]:
                x = x.rechunk({axis: cells})
        x = overlap(x, depth, dict.fromkeys(range(x.ndim), "none"), allow_rechunk=False)
    return x.map_blocks(
        _run,
        operation=_once(operation),
        cuts=cuts,
        axes=tuple(axes),
        dtype=operation.y.dtype,
        chunks=tuple(chunks),
        drop_axis=list(range(operation.y.ndim, x.ndim)),
        meta=np.empty((0,) * operation.y.ndim, operation.y.dtype),
        name=f"fastconv-{tokenize(operation, x, cuts)}",
    )


def _once(operation: Any) -> Any:
    """The operation as one task of the graph, which all others refer to."""
    name = f"fastconv-operation-{tokenize(operation)}"
    return delayed(operation, name=name, traverse=False)


def _cuts(operation: Any, x: Any, axes: range) -> tuple[Cuts, ...]:
    """How each spatial axis is cut; an axis in one chunk stays whole."""

    def axis_read(k: int) -> Callable[[Part], Part]:
        def read(wanted: Part) -> Part:
            parts = [Part(0, 1) for _ in axes]
            parts[k] = wanted
            found: Part = operation.read(tuple(parts))[k]
            return found

        return read

    return tuple(
        cut(x.chunks[axis], operation.y.shape[axis], axis_read(k)) for k, axis in enumerate(axes)
    )


def _run(
    x: np.ndarray, operation: Any, cuts: Any, axes: tuple[int, ...], block_id: tuple[int, ...]
) -> np.ndarray:
    """One task."""
    with shared_threads():
        if cuts is None:
            whole = tuple(Part(0, operation.y.shape[axis]) for axis in axes[: operation.y.ndim - 2])
            return operation.run(x, whole)
        places = [block_id[axis] for axis in axes]
        wanted = tuple(c.wanted(i) for c, i in zip(cuts, places, strict=True))
        taken = [slice(None)] * x.ndim
        read = operation.read(wanted)
        for axis, c, i, part in zip(axes, cuts, places, read, strict=True):
            taken[axis] = c.taken(i, part)
        return operation.run(np.ascontiguousarray(x[tuple(taken)]), wanted)
