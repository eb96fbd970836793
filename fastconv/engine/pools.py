"""Pooling of one geometry, ready to run: what plans call.

Arrays are contiguous, in the machine's byte order, of the plan's dtype; nothing is validated
but the argmax of a gradient, whose every element would be an address.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.launch import start
from fastconv.engine.tables.pool import PoolChoice, pool_table
from fastconv.engine.tables.workspace import address_of, workspace
from fastconv.geometry import Geometry
from fastconv.threads import parts

__all__ = ["Pools"]

# Elements, read or written, that are worth a thread; blocks of a thread, at least.
GRAIN = 100_000
BLOCKS = 8


class Pools:
    """Max and average pooling, and their gradients, of one geometry and dtype.

    Of float16, which is computed in float32, only what adds nothing up: `reduce`, and where no two
    windows share a cell (`apart`) `spread` and `place`.

    Parameters
    ----------
    g : Geometry
    dtype : numpy.dtype
    include_pad : bool
        Whether means count the padding.
    entry_of : callable
        ``entry_of(name, lanes, spacing, dtype)``: the address of a compiled loop, a key of
        `entries.POOLS`.

    Examples
    --------
    >>> from fastconv.geometry.resolve import pool_geometry
    >>> from fastconv.plans.compiled import pools
    >>> pool = pools(pool_geometry((1, 4, 4, 1), 2), np.dtype("float32"), False)
    >>> y = np.empty((1, 2, 2, 1), "float32")
    >>> pool.reduce("max", np.arange(16, dtype="float32"), y, None)
    >>> y.ravel()
    array([ 5.,  7., 13., 15.], dtype=float32)
    """

    def __init__(
        self,
        g: Geometry,
        dtype: np.dtype,
        include_pad: bool,
        entry_of: Callable[[str, int, int, np.dtype], int],
    ) -> None:
        choice = PoolChoice(g, dtype, include_pad)
        self.dtype, self.m, self.rows = dtype, g.m, choice.rows
        self.lanes, self.spacing, self.pairs = choice.lanes, choice.spacing, choice.pairs
        self.most = choice.most
        self.work, self.scratch_bytes = choice.work, choice.scratch_bytes
        self.apart, self.vectors = choice.apart, choice.vectors
        self._entry_of = entry_of
        self._table = pool_table(choice)
        self._address = self._table.address

    def reduce(self, name: str, x: np.ndarray, y: np.ndarray, argmax: np.ndarray | None) -> None:
        """``y``, and `argmax` with "argmax", by "max", "argmax" or "mean"."""
        self.call(self._entry(name), self.m * self.rows, x, y, argmax)

    def spread(self, dy: np.ndarray, dx: np.ndarray) -> None:
        """The gradient of "mean"."""
        self.call(self._entry("fill" if self.apart else "spread"), self.m, dx, dy, None)

    def scatter(self, dy: np.ndarray, argmax: np.ndarray, dx: np.ndarray) -> bool:
        """The gradient of "max"; False, and `dx` untouched, if an argmax is outside the image."""
        if self.apart and self.vectors:
            placed = self.place(dy, argmax, dx)
            if placed is not None:
                return placed
        return not self.call(self._entry("scatter"), self.m, dx, dy, argmax)

    def place(self, dy: np.ndarray, argmax: np.ndarray, dx: np.ndarray) -> bool | None:
        """`scatter` where windows are `apart` and winners come in `vectors`.

        None, and `dx` undefined, if a winner is in another window: only `scatter` finds the cell.
        """
        bad = self.call(self._entry("place"), self.m, dx, dy, argmax)
        return None if bad == s.ELSEWHERE else not bad

    def _entry(self, name: str) -> int:
        if name == "scatter":
            return self._entry_of(name, 1, 0, self.dtype)
        if self.spacing and (self.pairs or name in ("max", "argmax", "mean")):
            return self._entry_of(name, self.most, self.spacing, self.dtype)
        return self._entry_of(name, self.lanes, 0, self.dtype)

    def call(self, entry: int, total: int, x: np.ndarray, y: np.ndarray,
             argmax: np.ndarray | None) -> int:  # fmt: skip
        """Call a compiled loop.

        Parameters
        ----------
        entry : int
            Its address.
        total : int
            Output rows of all images, for a reduction; images, for a gradient.
        x : array (m, D, H, W, C)
            x, or dx: takes the result of a gradient.
        y : array (m, OD, OH, OW, C)
            y: takes the result of a reduction; or dy.
        argmax : int64 array like `y`, optional
            Winners as flat cells of an image, -1 for none: written by "argmax", read by "scatter"
            and "place".

        Returns
        -------
        bad : int
            What it says of argmax: `words.OUTSIDE` or `words.ELSEWHERE`, or 0.

        Raises
        ------
        MemoryError
            If there is no room for the scratch.
        """
        threads = min(parts(self.work, GRAIN), total) or 1
        space = workspace()
        scratch = space.scratch(threads * self.scratch_bytes)
        words = self._words(total, x, y, argmax, scratch, threads)
        start(entry, space.write(s.POOL_CALL, words), threads)
        return int(space.words[s.POOL_BAD])

    def later(
        self, scratch: int, threads: int, name: str, x: np.ndarray, y: np.ndarray,
        argmax: np.ndarray | None,
    ) -> Call:  # fmt: skip
        """A call to make later, of contiguous arrays, with scratch for so many threads.

        `name` is what `reduce` takes, or "spread" or "scatter"; of winners, which are right.
        """
        if name in ("spread", "scatter") and self.apart and (name == "spread" or self.vectors):
            name = "fill" if name == "spread" else "place"
        total = self.m * self.rows if name in ("max", "argmax", "mean") else self.m
        words = self._words(total, x, y, argmax, scratch, threads)
        items = min(total, BLOCKS * threads)
        return Call(self._entry(name), words[s.TABLE :], items, self.work, GRAIN)

    def _words(
        self, total: int, x: np.ndarray, y: np.ndarray, argmax: np.ndarray | None, scratch: int,
        threads: int,
    ) -> tuple[int, ...]:  # fmt: skip
        return s.pool_words(
            table=self._address,
            scratch=scratch,
            x=address_of(x),
            y=address_of(y),
            argmax=0 if argmax is None else address_of(argmax),
            total=total,
            items=min(total, BLOCKS * threads),
        )
