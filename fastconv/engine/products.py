"""Plans: one convolution's three products, with every table made once.

The engine of `fastconv`: implicit im2col (Georganas et al., "High-Performance Deep Learning via a
Single Building Block"; Dukhan, "The Indirect Convolution Algorithm") with one micro-kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.engine.tables.conv import Convolution, InputGradient
from fastconv.engine.tables.kernel_grad import KernelGradient
from fastconv.engine.tables.product import Product
from fastconv.geometry import Geometry
from fastconv.threads import building

__all__ = ["EnginePlan"]

PRODUCTS: dict[str, type[Product]] = {
    "forward": Convolution,
    "input_grad": InputGradient,
    "kernel_grad": KernelGradient,
}


class EnginePlan:
    """Forward product and both gradients of one geometry.

    Parameters
    ----------
    g : Geometry
    dtype : numpy.dtype
        The dtype of the sums: float32 or float64.

    Notes
    -----
    Arrays are channels-last views of any strides, byte order and alignment; where the sums are
    float32 they may be float16. Nothing is validated. Calls may overlap in time.

    Examples
    --------
    >>> from fastconv.geometry.resolve import conv_geometry
    >>> plan = EnginePlan(conv_geometry((2, 8, 8, 3), (3, 3, 3, 4)), np.dtype("float32"))
    >>> x, w = np.ones((2, 8, 8, 3), "f4"), np.ones((3, 3, 3, 4), "f4")
    >>> y = np.empty((2, 6, 6, 4), "f4")
    >>> plan.forward(x, w, None, False, y)
    >>> float(y.max())
    27.0
    """

    def __init__(self, g: Geometry, dtype: np.dtype) -> None:
        self.g = g
        self.dtype = np.dtype(dtype)
        self._products: dict[str, Product] = {}

    def forward(self, x: Any, w: Any, b: Any, relu: bool, y: Any) -> None:
        """``y = conv(x, w) + b``, then ``max(y, 0)`` with `relu`."""
        if y.size:
            self._product("forward").run(x, w, b, relu, y)

    def input_grad(self, dy: Any, w: Any, b: Any, relu: bool, dx: Any) -> None:
        """``dx = col2im(dy @ w.T) + b``, then ``max(dx, 0)`` with `relu`."""
        if dx.size:
            self._product("input_grad").run(dy, w, b, relu, dx)

    def kernel_grad(self, x: Any, dy: Any, dw: Any) -> None:
        """``dw = cols.T @ dy``; exactly 0 for an empty batch."""
        if self.g.m == 0:
            dw[...] = 0
        else:
            self._product("kernel_grad").run(x, dy, dw)

    @property
    def workspace_nbytes(self) -> int:
        """Bytes of scratch that a call of the hungriest product uses."""
        if self.g.m == 0:
            return 0
        names = ("forward", "input_grad", "kernel_grad")
        return max(self._product(name).workspace_nbytes for name in names)

    def _product(self, name: str) -> Product:
        product = self._products.get(name)
        if product is None:
            with building:
                product = self._products.get(name)
                if product is None:
                    product = self._products[name] = PRODUCTS[name](self.g, self.dtype)
        return product
