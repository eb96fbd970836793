"""A forward product with what follows it: normalisation, a sum and ReLU, or 2x2 maxima."""

from __future__ import annotations

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.products import GRAIN, Convolution
from fastconv.engine.tables.finish import FinishedChoice, finish_words
from fastconv.engine.tables.workspace import address_of

__all__ = ["FinishedConvolution"]


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
        """
        memory[: s.FINISH_WORDS] = finish_words(
            target, table=table, added=added, relu=relu_after, pool=self.choice.pool
        )
        prepared = self._for(source, self.share(threads))
        words = self._words(prepared, source, w, b, relu, target, scratch, packed)
        words = (*words[: s.FINISH], self.finish, address_of(memory))
        first = self.choice.panels * self.choice.groups if packed else 0
        return Call(self.entry, words[s.TABLE :], prepared.units, self.flops, GRAIN, first)
