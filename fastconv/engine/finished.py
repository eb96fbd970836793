"""A forward product with what follows it: normalisation, a sum and ReLU, or 2x2 maxima."""

from __future__ import annotations

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.products import GRAIN, Convolution
from fastconv.engine.tables.finish import FinishedChoice, finish_words
from fastconv.engine.tables.tiles import cpu_lanes
from fastconv.engine.tables.workspace import address_of

__all__ = ["FinishedConvolution", "pool_winners_call", "winners_backward_call", "winners_lanes"]

# Elements that are worth another thread, and those of an item.
ELEMENTS = 100_000
ITEM = 2**14


class FinishedConvolution(Convolution):
    """``[pixels x K] @ [K x columns]``, whose results are finished while they are in the cache.

    Parameters
    ----------
    choice : FinishedChoice
    entry, sweep : int
        As of `Convolution`.
    finish : int
        Address of the compiled `loops.finish.finish`.
    """

    choice: FinishedChoice

    def __init__(self, choice: FinishedChoice, entry: int, sweep: int, finish: int) -> None:
        super().__init__(choice, entry, sweep)
        self.finish = finish

    def finished_call(
        self, scratch: int, source: np.ndarray, w: np.ndarray, b: np.ndarray | None, relu: bool,
        target: np.ndarray, threads: int, packed: int, memory: np.ndarray,
        table: np.ndarray | None = None, added: np.ndarray | None = None, relu_after: bool = False,
        winners: np.ndarray | None = None,
    ) -> Call:  # fmt: skip
        """`Convolution.call`, then what follows.

        Parameters
        ----------
        memory : ndarray of int64
            Room for words.FINISH_WORDS: written now, and read at every call.
        table : ndarray, optional
            Of a normalisation; see `engine.channels`.
        added : ndarray, optional
            Like `target`, and apart from it.
        relu, relu_after : bool
            Whether ReLU follows at once, or after normalisation and sum.
        winners : ndarray of uint8, optional
            Like `target`; for an entry `finish` that writes them.
        """
        memory[: s.FINISH_WORDS] = finish_words(
            target, table=table, added=added, relu=relu_after, pool=self.choice.pool,
            winners=winners,
        )  # fmt: skip
        prepared = self.prepared_for(source, self.share(threads))
        words = self._words(prepared, source, w, b, relu, target, scratch, packed)
        words = (*words[: s.FINISH], self.finish, address_of(memory))
        first = self.choice.panels * self.choice.groups if packed else 0
        return Call(self.entry, words[s.TABLE :], prepared.units, self.flops, GRAIN, first)


def winners_lanes(channels: int, dtype: np.dtype) -> int:
    """Channels that `loops.winners` takes together where arrays end behind the last one."""
    lanes = cpu_lanes(dtype)
    while lanes > channels:
        lanes //= 2
    return lanes


def pool_winners_call(entry: int, x: np.ndarray, y: np.ndarray, winners: np.ndarray) -> Call:
    """2x2 maxima of an array, and which of the four each is.

    Parameters
    ----------
    entry : int
        Address of `loops.winners.pool_winners` for `winners_lanes`.
    x : ndarray (m, H, W, C)
    y, winners : ndarray (m, H // 2, W // 2, C)
        Take the results; the second of uint8.
    """
    return _winners_call(entry, 0, y, winners, x, False)


def winners_backward_call(
    entry: int, dy: np.ndarray, y: np.ndarray, winners: np.ndarray, dx: np.ndarray, relu: bool
) -> Call:
    """The error before 2x2 maxima, and before the ReLU before them.

    Parameters
    ----------
    entry : int
        Address of `loops.winners.winners_backward` for `winners_lanes`.
    dy, y : ndarray (m, H // 2, W // 2, C)
        The error of the maxima, and they themselves.
    winners : ndarray of uint8
        Like them, as `loops.winners` writes them.
    dx : ndarray (m, H, W, C)
        Takes the result.
    relu : bool
        Whether there was a ReLU.
    """
    return _winners_call(entry, address_of(dy), y, winners, dx, relu)


def _winners_call(
    entry: int, dy: int, y: np.ndarray, winners: np.ndarray, x: np.ndarray, relu: bool
) -> Call:
    m, H, W, C = y.shape
    items = max(1, min(m * H, x.size // ITEM))
    words = (dy, *map(address_of, (y, winners, x)), m * H, H, W, *x.shape[1:3], C, relu, items)
    return Call(entry, words, items, x.size, ELEMENTS)
