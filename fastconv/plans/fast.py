"""The three products of ``algorithm="fast"``: each in the way that takes least time.

Which way is decided in one place for each: for the Fourier transform in `fourier.tiling`, for
Winograd's minimal filtering in `engine.tables.winograd`, both by measured costs and by the shape
of one image. Everything else is the exact way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.geometry import Geometry
from fastconv.plans.compiled import CACHED, products
from fastconv.plans.fourier import Tiling, correlate, kernel_gradient, tiling
from fastconv.typing import Algorithm

if TYPE_CHECKING:
    from fastconv.engine.products import Products

__all__ = ["FastProducts", "is_exact", "products_of"]


class FastProducts:
    """Forward product and both gradients of one geometry, with the methods of `engine.Products`.

    Parameters
    ----------
    g : Geometry
    dtype : numpy.dtype
        The dtype that the engine's sums have.
    """

    def __init__(self, g: Geometry, dtype: np.dtype) -> None:
        self.g, self.dtype = g, dtype
        self._direct = products(g, dtype, "fast")
        self._tilings: dict[str, Tiling | None] = {}

    def product(self, name: str) -> Any:
        """The engine's product, where no transform is taken."""
        return self._direct.product(name)

    def tiling(self, name: str) -> Tiling | None:
        """How the product "forward", "input_grad" or "kernel_grad" is cut for transforms, if so."""
        if name not in self._tilings:
            self._tilings[name] = tiling(name, self.g)
        return self._tilings[name]

    def transformed(self, name: str) -> Callable[..., None] | None:
        """The method that computes a product through transforms; None where the engine does."""
        return None if self.tiling(name) is None else getattr(self, name)

    @property
    def workspace_nbytes(self) -> int:
        """Bytes of scratch that a call of the hungriest product uses."""
        if self.g.m == 0:
            return 0
        names = ("forward", "input_grad", "kernel_grad")
        tilings = [(name, self.tiling(name)) for name in names]
        return max(
            self.product(name).workspace_nbytes if way is None else way.nbytes
            for name, way in tilings
        )

    def forward(self, x: Any, w: Any, b: Any, relu: bool, y: Any) -> None:
        """``y = conv(x, w) + b``, then ``max(y, 0)`` with `relu`."""
        way, g = self.tiling("forward"), self.g
        if way is None:
            self._direct.forward(x, w, b, relu, y)
            return
        ones, low = (1,) * g.rank, tuple(lo for lo, _ in g.pads)
        c, f = g.C // g.G, g.F // g.G
        wrong = set()
        for i in range(g.G):
            to = slice(i * f, (i + 1) * f)
            bias = None if b is None else b[to]
            wrong |= set(correlate(way, x[..., i * c : (i + 1) * c], ones, low, w[..., to],
                                   g.dilation, y[..., to], g.stride, bias, relu))  # fmt: skip
        self._again("forward", wrong, x, w, b, relu, y)

    def input_grad(self, dy: Any, w: Any, b: Any, relu: bool, dx: Any) -> None:
        """``dx = col2im(dy @ w.T) + b``, then ``max(dx, 0)`` with `relu`."""
        way, g = self.tiling("input_grad"), self.g
        if way is None:
            self._direct.input_grad(dy, w, b, relu, dx)
            return
        ones = (1,) * g.rank
        low = tuple(e - 1 - lo for e, (lo, _) in zip(way.window, g.pads, strict=True))
        flipped = np.swapaxes(w[(slice(None, None, -1),) * g.rank], -1, -2)
        c, f = g.C // g.G, g.F // g.G
        wrong = set()
        for i in range(g.G):
            at, to = slice(i * f, (i + 1) * f), slice(i * c, (i + 1) * c)
            bias = None if b is None else b[to]
            wrong |= set(correlate(way, dy[..., at], g.stride, low, flipped[..., at, :],
                                   g.dilation, dx[..., to], ones, bias, relu))  # fmt: skip
        self._again("input_grad", wrong, dy, w, b, relu, dx)

    def kernel_grad(self, x: Any, dy: Any, dw: Any) -> None:
        """``dw = cols.T @ dy``; exactly 0 for an empty batch."""
        way, g = self.tiling("kernel_grad"), self.g
        if way is None or not g.m:
            self._direct.kernel_grad(x, dy, dw)
            return
        low = tuple(lo for lo, _ in g.pads)
        c, f = g.C // g.G, g.F // g.G
        finite = True
        for i in range(g.G):
            at, to = slice(i * c, (i + 1) * c), slice(i * f, (i + 1) * f)
            finite &= kernel_gradient(way, x[..., at], low, dy[..., to], g.stride, g.dilation,
                                      dw[..., to])  # fmt: skip
        if not finite:
            products(g, self.dtype).kernel_grad(x, dy, dw)

    def _again(
        self, name: str, images: set[int], source: Any, w: Any, b: Any, relu: bool, target: Any
    ) -> None:
        """The exact way, for images in which an infinity or a NaN has spread, or an overflow."""
        if images:
            one = products(dataclasses.replace(self.g, m=1), self.dtype)
            for n in sorted(images):
                getattr(one, name)(source[n : n + 1], w, b, relu, target[n : n + 1])


@lru_cache(CACHED)
def _fast(g: Geometry, dtype: np.dtype) -> FastProducts:
    return FastProducts(g, dtype)


def products_of(g: Geometry, dtype: np.dtype, algorithm: Algorithm) -> Products | FastProducts:
    """The three products of `g` by an algorithm, kept for the next call.

    Where copies of cells stand in the padding, they are the exact ones.
    """
    exact = algorithm == "exact" or g.padding_mode != "constant"
    return products(g, dtype) if exact else _fast(g, dtype)


def is_exact(name: str, g: Geometry, dtype: np.dtype, algorithm: Algorithm) -> bool:
    """Whether an algorithm computes the product "forward", "input_grad" or "kernel_grad" exactly.

    That is: in the order, and with the rounding, of the exact way.
    """
    found = products_of(g, dtype, algorithm)
    if not isinstance(found, FastProducts):
        return True
    return found.tiling(name) is None and found.product(name).exact
