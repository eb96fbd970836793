"""The three products of a geometry, ready to run: what plans call.

Each is given its machine code: the addresses of its control loop and of its tile's sweep.

The engine of `fastconv`: implicit im2col (Georganas et al., "High-Performance Deep Learning via a
Single Building Block"; Dukhan, "The Indirect Convolution Algorithm") with one micro-kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.launch import start
from fastconv.engine.tables.conv import Choice, conv_table, forward_choice, input_choice
from fastconv.engine.tables.kernel_grad import KernelChoice, kernel_choice, kernel_table
from fastconv.engine.tables.table import Table
from fastconv.engine.tables.tiles import Tile
from fastconv.engine.tables.workspace import CACHE_LINE, address_of, plain_array, view, workspace
from fastconv.geometry import Geometry
from fastconv.operands import put, quiet
from fastconv.threads import building, parts

__all__ = ["Convolution", "KernelGradient", "Product", "Products"]

# Work of a thread, in flops: some 20 us, against 5 us to 30 us to start and join threads.
GRAIN = 1_000_000
# The micro-kernel's bias where there is none.
ZEROS = np.zeros(64)


class Prepared(NamedTuple):
    """A table and what is read from it at every call."""

    table: Table
    address: int
    units: int
    scratch_bytes: int


class Product:
    """One of the three products of a geometry.

    Parameters
    ----------
    choice : Choice or KernelChoice
        What the geometry decides.
    entry : int
        Address of the compiled control loop.
    sweep : int
        Address of the compiled sweep of the chosen tile.
    shared_nbytes : int
        Bytes of the scratch that threads share.
    """

    gathered: tuple[bool, ...] = (False,)  # the key of a table that reads nothing in place
    exact = True  # whether every product of the definition is added, in one order

    def __init__(
        self, choice: Choice | KernelChoice, entry: int, sweep: int, shared_nbytes: int
    ) -> None:
        self.dtype, self.size = choice.dtype, choice.dtype.itemsize
        self.flops = choice.g.flops
        self.entry, self.sweep = entry, sweep
        self.shared_nbytes = shared_nbytes
        self._prepared: dict[Any, Prepared] = {}

    @property
    def workspace_nbytes(self) -> int:
        """Bytes of scratch of a call."""
        count = parts(self.flops, GRAIN)
        prepared = self.prepared(*self.gathered, threads=count)
        threads = min(count, prepared.units)
        return self.shared_nbytes + threads * prepared.scratch_bytes + CACHE_LINE

    def scratch_nbytes(self, threads: int) -> int:
        """Bytes of scratch that so many threads need, whatever lies in place."""
        keys = itertools.product((False, True), repeat=len(self.gathered))
        count = self.share(threads)
        most = max(self.prepared(*key, threads=count).scratch_bytes for key in keys)
        return self.shared_nbytes + threads * most + CACHE_LINE

    def share(self, threads: int) -> int:
        """How many of so many threads the work is worth."""
        return max(1, min(threads, int(self.flops // GRAIN)))

    def prepared(self, *key: bool, threads: int = 1) -> Prepared:
        """The table for operands that are read in place, or gathered, and for so many threads.

        Boxes are cut so that all threads have some; no result depends on it.
        """
        whole = (threads, *key)
        found = self._prepared.get(whole)
        if found is None:
            table, units = self.build(threads, *key)
            scratch = int(table.words[s.SCRATCH_BYTES])
            made = Prepared(table, table.address, units, scratch)
            # of two threads' tables one is kept for good: programs know it by its address alone
            found = self._prepared.setdefault(whole, made)
        return found

    def build(self, threads: int, *key: bool) -> tuple[Table, int]:
        """Make a table, and say into how many units the work is cut."""
        raise NotImplementedError


class Convolution(Product):
    """``[pixels x K] @ [K x columns]``: the forward product, or an input gradient."""

    def __init__(self, choice: Choice, entry: int, sweep: int) -> None:
        _, self.prior_at, shared_nbytes = choice.shared
        super().__init__(choice, entry, sweep, shared_nbytes)
        self.choice = choice

    def build(self, threads: int, *key: bool) -> tuple[Table, int]:
        """The table, and its boxes."""
        (in_place,) = key
        table = conv_table(self.choice, in_place, threads)
        return table, int(table.words[s.ITEMS])

    def run(
        self, source: np.ndarray, w: np.ndarray, b: np.ndarray | None, relu: bool,
        target: np.ndarray,
    ) -> None:  # fmt: skip
        """Compute ``target = max(cols(source) @ w + b, low)``.

        Parameters
        ----------
        source : array (m, D, H, W, C), leading spatial axes left out
            x; or dy ``(m, OD, OH, OW, F)``, for an input gradient. Any strides, byte order and
            alignment; where the sums are float32 it may be float16.
        w : array (KD, KH, KW, C/G, F)
            The kernel, of any dtype that `source` may have.
        b : array (columns,), optional
            Bias of the result's channels.
        relu : bool
            Whether `low` is 0; else minus infinity.
        target : array
            y, or dx: takes the result. Must not overlap the others.

        Raises
        ------
        MemoryError
            If there is no room for the scratch. Nothing is validated.
        """
        choice, dtype = self.choice, self.dtype
        w = plain_array(w, dtype)
        if not choice.complete:
            _fill(target, b, relu)
            if not choice.lattice.phases:
                return
        if b is not None:
            b = plain_array(np.repeat(b, choice.columns) if choice.in_rows else b, dtype)
        count = parts(self.flops, GRAIN)
        prepared = self.prepared_for(source, count)
        threads = min(count, prepared.units)
        space = workspace()
        scratch = space.scratch(self.shared_nbytes + threads * prepared.scratch_bytes)
        words = self._words(prepared, source, w, b, relu, target, scratch)
        start(self.entry, space.write(s.CALL, words), threads)

    def call(
        self, scratch: int, source: np.ndarray, w: np.ndarray, b: np.ndarray | None, relu: bool,
        target: np.ndarray, threads: int, packed: int = 0,
    ) -> Call:  # fmt: skip
        """`run` as a call of at most so many threads, to make later.

        `scratch_nbytes` of scratch are at an address.

        The packed kernel may lie elsewhere: in `shared_nbytes` at the address `packed`, to be kept.

        All arrays are contiguous and of the computing dtype, and `b` has an element for each
        column of the tile where the choice is `in_rows`. Cells that meet no tap (see
        `Choice.complete`) are not written.
        """
        prepared = self.prepared_for(source, self.share(threads))
        words = self._words(prepared, source, w, b, relu, target, scratch, packed)
        first = self.choice.panels * self.choice.groups if packed else 0
        return Call(self.entry, words[s.TABLE :], prepared.units, self.flops, GRAIN, first)

    def prepared_for(self, source: np.ndarray, threads: int) -> Prepared:
        """`prepared`, for such a source."""
        plain = source.dtype == self.dtype and source.flags.c_contiguous
        return self.prepared(self.choice.may_read_in_place and plain, threads=threads)

    def _words(
        self, prepared: Prepared, source: np.ndarray, w: np.ndarray, b: np.ndarray | None,
        relu: bool, target: np.ndarray, scratch: int, packed: int = 0,
    ) -> tuple[int, ...]:  # fmt: skip
        choice, dtype = self.choice, self.dtype
        to = view(target, dtype)
        if choice.in_rows:
            to = (*to[:5], to[4], to[6])  # from column to column is from pixel to pixel along w
        single = target.shape[-1] == 1 and not choice.in_rows
        direct = target.dtype == dtype and (to[5] == self.size or single)
        return s.call_words(
            table=prepared.address,
            scratch=scratch + self.shared_nbytes,
            source=view(source, dtype),
            target=to,
            kernel=address_of(w),
            packed=packed or scratch,
            bias=0 if b is None else address_of(b),
            prior=(packed or scratch) + self.prior_at,
            relu=relu,
            direct=direct,
            sweep=self.sweep,
            in_line=not direct or target.flags.c_contiguous,
        )


@quiet
def _fill(target: np.ndarray, b: np.ndarray | None, relu: bool) -> None:
    """The result where it meets no tap."""
    target[...] = 0 if b is None else np.maximum(b, 0) if relu else b


class KernelGradient(Product):
    """``[K x pixels] @ [pixels x F]``."""

    gathered = (False, False)

    def __init__(self, choice: KernelChoice, entry: int, sweep: int) -> None:
        super().__init__(choice, entry, sweep, choice.shared_nbytes)
        self.choice = choice

    def prepared(self, *key: bool, threads: int = 1) -> Prepared:
        """The table; the shape alone decides it, whatever the threads."""
        return super().prepared(*key)

    def build(self, threads: int, *key: bool) -> tuple[Table, int]:
        """The table, and its parts, times the groups of columns and rows."""
        table = kernel_table(self.choice, *key)
        return table, int(table.words[[s.PARTS, s.COLUMN_GROUPS, s.ROW_GROUPS]].prod())

    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> None:
        """Compute ``dw = cols.T @ dy``, the sum over all pixels of all images.

        Parameters
        ----------
        x : array (m, D, H, W, C), leading spatial axes left out
            Any strides, byte order and alignment; where the sums are float32 it may be float16.
        dy : array (m, OD, OH, OW, F)
            Likewise.
        dw : array (KD, KH, KW, C/G, F)
            Takes the result. Must not overlap the others.

        Raises
        ------
        MemoryError
            If there is no room for the scratch. Nothing is validated.
        """
        dtype = self.dtype
        plain = dw.dtype == dtype and dw.flags.c_contiguous
        result = dw if plain else np.empty(dw.shape, dtype)
        prepared = self.prepared_for(x, dy)
        threads = min(parts(self.flops, GRAIN), prepared.units)
        space = workspace()
        scratch = space.scratch(self.shared_nbytes + threads * prepared.scratch_bytes)
        words = self._words(prepared, x, dy, result, scratch)
        start(self.entry, space.write(s.CALL, words), threads)
        if result is not dw:
            put(dw, result)

    def call(self, scratch: int, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> Call:
        """`run` as a call to make later, with `scratch_nbytes` of scratch at an address.

        All arrays are contiguous and of the computing dtype.
        """
        prepared = self.prepared_for(x, dy)
        words = self._words(prepared, x, dy, dw, scratch)
        return Call(self.entry, words[s.TABLE :], prepared.units, self.flops, GRAIN)

    def prepared_for(self, x: np.ndarray, dy: np.ndarray) -> Prepared:
        """`prepared`, for such operands."""
        x_in_place = self.choice.x_in_place and x.dtype == self.dtype and x.flags.c_contiguous
        dy_in_place = self.choice.dy_in_place and dy.dtype == self.dtype and dy.flags.c_contiguous
        return self.prepared(x_in_place, dy_in_place)

    def _words(
        self, prepared: Prepared, x: np.ndarray, dy: np.ndarray, result: np.ndarray, scratch: int
    ) -> tuple[int, ...]:
        to = address_of(result)
        return s.call_words(
            table=prepared.address,
            scratch=scratch + self.shared_nbytes,
            source=view(x, self.dtype),
            target=view(dy, self.dtype),
            prior=address_of(ZEROS),
            partial=scratch if self.choice.parts > 1 else to,
            result=to,
            sweep=self.sweep,
        )


class Products:
    """Forward product and both gradients of one geometry.

    Parameters
    ----------
    g : Geometry
    dtype : numpy.dtype
        The dtype of the sums: float32 or float64.
    entry_of : callable
        Gives the address of a compiled control loop, "convolve" or "kernel_gradient".
    sweep_of : callable
        Gives the address of the compiled sweep of a tile.

    Notes
    -----
    Arrays are channels-last views of any strides, byte order and alignment; where the sums are
    float32 they may be float16. Nothing is validated. Calls may overlap in time.

    Examples
    --------
    >>> from fastconv.geometry.resolve import conv_geometry
    >>> from fastconv.plans.compiled import new_products
    >>> products = new_products(conv_geometry((2, 8, 8, 3), (3, 3, 3, 4)), np.dtype("float32"))
    >>> x, w = np.ones((2, 8, 8, 3), "f4"), np.ones((3, 3, 3, 4), "f4")
    >>> y = np.empty((2, 6, 6, 4), "f4")
    >>> products.forward(x, w, None, False, y)
    >>> float(y.max())
    27.0
    """

    def __init__(
        self,
        g: Geometry,
        dtype: np.dtype,
        entry_of: Callable[[str], int],
        sweep_of: Callable[[Tile], int],
    ) -> None:
        self.g = g
        self.dtype = np.dtype(dtype)
        self._entry_of, self._sweep_of = entry_of, sweep_of
        self._products: dict[str, Any] = {}

    def forward(self, x: Any, w: Any, b: Any, relu: bool, y: Any) -> None:
        """``y = conv(x, w) + b``, then ``max(y, 0)`` with `relu`."""
        if y.size:
            self.product("forward").run(x, w, b, relu, y)

    def input_grad(self, dy: Any, w: Any, b: Any, relu: bool, dx: Any) -> None:
        """``dx = col2im(dy @ w.T) + b``, then ``max(dx, 0)`` with `relu`."""
        if dx.size:
            self.product("input_grad").run(dy, w, b, relu, dx)

    def kernel_grad(self, x: Any, dy: Any, dw: Any) -> None:
        """``dw = cols.T @ dy``; exactly 0 for an empty batch."""
        if self.g.m == 0:
            dw[...] = 0
        else:
            self.product("kernel_grad").run(x, dy, dw)

    @property
    def workspace_nbytes(self) -> int:
        """Bytes of scratch that a call of the hungriest product uses."""
        if self.g.m == 0:
            return 0
        return max(self.product(name).workspace_nbytes for name in PRODUCTS)

    def product(self, name: str) -> Any:
        """A key of `PRODUCTS`, made when it is first wanted."""
        product = self._products.get(name)
        if product is None:
            with building:
                product = self._products.get(name)
                if product is None:
                    kind, choose, loop = PRODUCTS[name]
                    choice = choose(self.g, self.dtype)
                    sweep = self._sweep_of(choice.tile)  # first: the loop's proof then uses it
                    product = kind(choice, self._entry_of(loop), sweep)
                    self._products[name] = product
        return product


# Of each product: its class, what chooses, and its control loop.
PRODUCTS: dict[str, tuple[Any, Callable[[Geometry, np.dtype], Any], str]] = {
    "forward": (Convolution, forward_choice, "convolve"),
    "input_grad": (Convolution, input_choice, "convolve"),
    "kernel_grad": (KernelGradient, kernel_choice, "kernel_gradient"),
}
