"""Products by minimal filtering, and the three products of ``algorithm="fast"``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.products import Convolution, Products
from fastconv.engine.tables.table import Table
from fastconv.engine.tables.tiles import Tile
from fastconv.engine.tables.winograd import MinimalChoice, edge_of, minimal_choice, minimal_table
from fastconv.geometry import Geometry
from fastconv.threads import building

__all__ = ["MinimalConvolution", "MinimalProducts"]


class MinimalConvolution(Convolution):
    """A forward product or an input gradient of 3x3 windows, with the methods of `Convolution`."""

    exact = False

    def __init__(self, choice: MinimalChoice, entry: int, sweep: int) -> None:
        super().__init__(choice, entry, sweep)  # type: ignore[arg-type]
        self._minimal = choice

    def build(self, threads: int, *key: bool) -> tuple[Table, int]:
        """The table, and its blocks of tiles."""
        table = minimal_table(self._minimal, threads)
        return table, int(table.words[s.ITEMS])


class MinimalProducts(Products):
    """Forward product and both gradients, by minimal filtering where that is faster.

    Parameters
    ----------
    minimal_of : callable
        ``minimal_of(edge, dtype)``: the address of the compiled loop for tiles of R results.
    others
        As of `Products`.
    """

    def __init__(
        self,
        g: Geometry,
        dtype: np.dtype,
        entry_of: Callable[[str], int],
        sweep_of: Callable[[Tile], int],
        minimal_of: Callable[[int, np.dtype], int],
    ) -> None:
        super().__init__(g, dtype, entry_of, sweep_of)
        self._minimal_of = minimal_of

    def product(self, name: str) -> Any:
        """A key of `engine.products.PRODUCTS`, made when it is first wanted."""
        found = self._products.get(name)
        edge = 0 if found is not None else edge_of(name, self.g, self.dtype)
        if found is None and edge:
            with building:
                choice = minimal_choice(name, self.g, self.dtype, edge)
                sweep = self._sweep_of(choice.tile)
                found = MinimalConvolution(choice, self._minimal_of(edge, self.dtype), sweep)
                found = self._products.setdefault(name, found)
        return super().product(name) if found is None else found
