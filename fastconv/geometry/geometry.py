"""Geometry of convolution and pooling, once it has been checked.

The vocabulary, used everywhere:

============  ==================================================================
symbol        meaning
============  ==================================================================
m             images in the batch
H, W, C       input height, width, channels (1-D: W; 3-D: D, H, W)
KH, KW        window (kernel) height, width
OH, OW, F     output height, width, channels (filters)
G             groups
s, p, d       stride, padding (pairs lo, hi), dilation, one per spatial axis
P = m*OH*OW   output pixels: rows of the im2col matrix
T = KH*KW     taps
K = T*C/G     columns of the im2col matrix
x, w, b, y    input, kernel, bias, output
dx dw db dy   gradients of the loss with respect to those
============  ==================================================================

Channels last: ``x (m, H, W, C)``, ``w (KH, KW, C/G, F)``, ``b (F,)``, ``y (m, OH, OW, F)``.
The kernel keeps that order in both data formats.

A :class:`Geometry` is built once from the caller's arguments (`fastconv.geometry.resolve`), is
immutable and hashable, and is what everything below the public functions receives. Nothing below
checks a size again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fastconv.geometry.request import Pairs

__all__ = ["Geometry", "padding_sources", "windows_with_cells"]


@dataclass(frozen=True)
class Geometry:
    """One convolution or pooling problem, checked, in channels-last order.

    Attributes
    ----------
    m, C, F, G : int
        Images, input channels, filters, groups. Pooling has ``F = C`` and ``G = C``.
    x_size, window, y_size : tuple of int
        Input, window and output extents, one per spatial axis.
    stride, dilation : tuple of int
        One per spatial axis. A stride that is never taken (one output) and a dilation that is
        never taken (a window of one) are stored as 1, so that huge values do no harm.
    pads : tuple of (int, int)
        Padding (lo, hi), one pair per spatial axis. ``hi`` is negative where the windows stop
        short of the input's end (``output_padding`` of a transposed convolution).
    padding_mode : str
        What stands in the padding: "constant" for zeros, or where there is none.

    Examples
    --------
    >>> from fastconv.geometry.resolve import conv_geometry
    >>> g = conv_geometry((64, 32, 32, 3), (3, 3, 3, 16), padding="same")
    >>> g.y_shape, g.P, g.T, g.K
    ((64, 32, 32, 16), 65536, 9, 27)
    """

    m: int
    x_size: tuple[int, ...]
    C: int
    window: tuple[int, ...]
    F: int
    y_size: tuple[int, ...]
    stride: tuple[int, ...]
    pads: Pairs
    dilation: tuple[int, ...]
    G: int
    padding_mode: str = "constant"

    @property
    def padded(self) -> Geometry:
        """The same problem on an input that the padding is a part of."""
        x_size = (n + lo + hi for n, (lo, hi) in zip(self.x_size, self.pads, strict=True))
        none = ((0, 0),) * self.rank
        return replace(self, x_size=tuple(x_size), pads=none, padding_mode="constant")

    @property
    def rank(self) -> int:
        """Number of spatial axes: 1, 2 or 3."""
        return len(self.x_size)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """``(m, H, W, C)``."""
        return (self.m, *self.x_size, self.C)

    @property
    def w_shape(self) -> tuple[int, ...]:
        """``(KH, KW, C/G, F)``."""
        return (*self.window, self.C // self.G, self.F)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """``(m, OH, OW, F)``."""
        return (self.m, *self.y_size, self.F)

    @property
    def P(self) -> int:
        """Output pixels: rows of the im2col matrix."""
        return self.m * math.prod(self.y_size)

    @property
    def T(self) -> int:
        """Taps of the window."""
        return math.prod(self.window)

    @property
    def K(self) -> int:
        """Columns of one group's im2col matrix."""
        return self.T * self.C // self.G

    @property
    def flops(self) -> int:
        """Multiplications and additions of one product, ``2 * P * K * F``."""
        return 2 * self.P * self.K * self.F

    @property
    def axes(self) -> tuple[tuple[int, int, int, int, int, int], ...]:
        """``(N, k, s, d, lo, O)`` for each spatial axis."""
        rows = (self.x_size, self.window, self.stride, self.dilation, self.pads, self.y_size)
        return tuple((n, k, s, d, lo, o) for n, k, s, d, (lo, _), o in zip(*rows, strict=True))

    @property
    def axes3(self) -> tuple[tuple[int, int, int, int, int, int], ...]:
        """`axes` with unit axes in front, for kernels that always see D, H and W."""
        return ((1, 1, 1, 1, 0, 1),) * (3 - self.rank) + self.axes


def padding_sources(n: int, pair: tuple[int, int], mode: str) -> np.ndarray:
    """Of an axis of n cells that is padded: which cell each is a copy of; -1 for zeros.

    >>> padding_sources(3, (2, 1), "reflect").tolist()
    [2, 1, 0, 1, 2, 1]
    """
    if mode == "constant":
        return np.pad(np.arange(n), pair, constant_values=-1)
    sources: np.ndarray = np.pad(np.arange(n), pair, mode)  # type: ignore[call-overload]
    return sources


def windows_with_cells(g: Geometry) -> tuple[np.ndarray, ...]:
    """Which windows of each axis have a cell of the input: bool arrays of `y_size`.

    All have one unless padding lies in the gaps of a dilated window.

    >>> from fastconv.geometry.resolve import pool_geometry
    >>> windows_with_cells(pool_geometry((1, 3, 1), 2, stride=1, dilation=4, padding=2))
    (array([ True, False,  True]),)
    """
    found = []
    for (n, k, s, d, lo, o), (_, hi) in zip(g.axes, g.pads, strict=True):
        if d == 1 or not (lo or hi):
            found.append(np.ones(o, bool))
            continue
        start = np.arange(o) * s - lo
        first = -(np.minimum(start, 0) // d)  # the first tap at or behind cell 0
        found.append((first < k) & (start + first * d < n))
    return tuple(found)
