"""Convolution through the Fourier transform, tile by tile, for very large windows.

All three products are correlations, so that one transform back gives a whole tile of results:

    forward          y[o]  = sum of x[o + u - lo] w[u]             then every s-th
    input gradient   dx[h] = sum of dy[h + lo - (e - 1) + u] w'[u]  dy stuffed with s - 1 zeros
    kernel gradient  dw[u] = sum of x[o + u - lo] dy[o]            then every d-th u

with w, stuffed with d - 1 zeros, of e cells, and w' flipped. A tile of n cells gives n - e + 1
right results, the others wrap around (overlap-save: Stockham, "High-speed convolution and
correlation", 1966). Everything is computed in float64, one image at a time and on one thread: the
transforms are real, and their rounding is 2**-53 of the tile's largest numbers, which for float32
is less than the rounding of the result. Memory is a few transforms of a tile, whatever the image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.geometry import Geometry
from fastconv.operands import quiet

__all__ = ["MOST_NBYTES", "Tiling", "correlate", "kernel_gradient", "tiling"]

# Bytes of all transforms of a call, at most: where one tile takes more, the way is not taken.
MOST_NBYTES = 256 * 2**20
# Costs in nanoseconds, measured on an AMD EPYC (Zen 4), SciPy 1.17: of a transform per cell and
# factor of 2, and per call; of a complex multiply-add, and per call; of a direct multiply-add of
# many columns, and of one channel and filter, on two threads. Times faster than the direct product
# on one thread of a shared machine, medians, forward and (in brackets) kernel gradient:
#   1 channel, 256x256      9x9 0.1 (0.9)    15x15 0.4 (1.9)    25x25 1.2 (9.0)
#   4 channels, 128x128                      15x15 1.1 (1.2)    25x25 3.5 (2.8)
#   16 channels, 128x128                     15x15 0.5 (0.5)
#   1 channel, 40x40x40     7x7x7 0.6 (4.3)  11x11x11 1.3 (10)
TRANSFORM_NS, TRANSFORM_CALL_NS = 0.35, 12_000
MULTIPLY_NS, MULTIPLY_CALL_NS = 2.0, 5_000
WIDE_NS, WIDE_COLUMNS = 0.0045, 32
NARROW_NS = {"forward": 0.020, "input_grad": 0.020, "kernel_grad": 0.150}
# The transforms must promise to be so many times as fast; below so many taps, and where the direct
# product of an image takes so little, they never are.
MARGIN = 1.5
LEAST_TAPS = 64
LEAST_NS = 1e6


@dataclass(frozen=True)
class Tiling:
    """How a correlation is cut.

    Attributes
    ----------
    cells : tuple of int
        Of a tile's transform, on each axis.
    window : tuple of int
        Cells of the stuffed window, e.
    nbytes : int
        Of all transforms that are kept at once.
    nanoseconds : float
        What an image takes.
    """

    cells: tuple[int, ...]
    window: tuple[int, ...]
    nbytes: int
    nanoseconds: float

    @property
    def results(self) -> tuple[int, ...]:
        """Right results of a tile, on each axis."""
        return tuple(n - e + 1 for n, e in zip(self.cells, self.window, strict=True))


def direct_ns(kind: str, g: Geometry) -> float:
    """About what a multiply-add of the direct product takes."""
    c, f = g.C // g.G, g.F // g.G
    if c == f == 1:
        return NARROW_NS[kind]
    return WIDE_NS * max(1.0, WIDE_COLUMNS / (c if kind == "input_grad" else f))


def tiling(kind: str, g: Geometry) -> Tiling | None:
    """The cheapest tiling of a product ("forward", "input_grad", "kernel_grad").

    None where the direct product is expected to be faster, or no tile fits the memory. It depends
    on one image alone: a slice of a batch has the same bits.
    """
    direct = math.prod(g.y_size) * g.K * g.F * direct_ns(kind, g)
    if g.T < LEAST_TAPS or direct < MARGIN * LEAST_NS:
        return None
    window = tuple((k - 1) * d + 1 for _, k, _, d, _, _ in g.axes)
    made = [_tiling(kind, g, window, factor) for factor in (1.25, 1.5, 2, 3, 4, 6, 8, math.inf)]
    fits = [one for one in made if one.nbytes <= MOST_NBYTES]
    best = min(fits, key=lambda one: one.nanoseconds, default=None)
    return best if best is not None and best.nanoseconds * MARGIN < direct else None


def _tiling(kind: str, g: Geometry, window: tuple[int, ...], factor: float) -> Tiling:
    """Tiles of `factor` windows, or of everything."""
    from scipy.fft import next_fast_len

    cells, tiles = [], 1
    for (n, _, s, _, _, o), e in zip(g.axes, window, strict=True):
        length = n if kind == "input_grad" else (o - 1) * s + 1
        wanted = min(length + e - 1, max(math.ceil(factor * e), e + 15) if factor < 1e9 else 2**62)
        cells.append(int(next_fast_len(wanted, real=True)))
        tiles *= -(-length // (cells[-1] - e + 1))
    whole = math.prod(cells)
    half = whole // cells[-1] * (cells[-1] // 2 + 1)
    c, f = g.C // g.G, g.F // g.G
    if kind == "input_grad":
        c, f = f, c
    transform = TRANSFORM_NS * whole * math.log2(whole) + TRANSFORM_CALL_NS
    each = (c + f) * transform + c * f * (half * MULTIPLY_NS + MULTIPLY_CALL_NS)
    nbytes = (c * f + c + 3) * half * 16 + 2 * whole * 8
    # the window's transforms, or those of its gradient, come once a call
    return Tiling(tuple(cells), window, nbytes, g.G * (tiles * each + c * f * transform))


def _starts(length: tuple[int, ...], step: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(0, n, k) for n, k in zip(length, step, strict=True)))


def _stuffed(array: np.ndarray, every: tuple[int, ...], start: tuple[int, ...],
             cells: tuple[int, ...]) -> np.ndarray:  # fmt: skip
    """Cells of an array that has zeros between its elements, and all around it."""
    tile = np.zeros(cells)
    to, at = [], []
    for n, s, begin, count in zip(array.shape, every, start, cells, strict=True):
        first = max(0, -(-begin // s))
        last = min(n, max(first, -(-(begin + count) // s)))
        if first >= last:
            return tile
        to.append(slice(first * s - begin, (last - 1) * s - begin + 1, s))
        at.append(slice(first, last))
    tile[tuple(to)] = array[tuple(at)]
    return tile


@quiet
def correlate(
    plan: Tiling, source: np.ndarray, every: tuple[int, ...], low: tuple[int, ...], w: np.ndarray,
    apart: tuple[int, ...], target: np.ndarray, step: tuple[int, ...],
    b: np.ndarray | None, relu: bool,
) -> list[int]:  # fmt: skip
    """``target[o] = sum over c, u of source[c][o*step + u*apart - low] w[u, c] + b`` for one group.

    Parameters
    ----------
    plan : Tiling
    source : array (m, H, W, C), of any strides and dtype
    every : tuple of int
        The source is stuffed: its elements lie so far apart.
    low, apart, step : tuple of int
    w : array (KH, KW, C, F)
    target : array (m, OH, OW, F)
    b : array (F,), optional
    relu : bool

    Returns
    -------
    list of int
        Images with a result that is no finite number: they must be computed another way.
    """
    from scipy import fft

    axes = tuple(range(len(plan.cells)))
    *_, C, F = w.shape
    zero = (0,) * len(axes)
    spectra = [[fft.rfftn(_stuffed(w[..., c, f], apart, zero, plan.cells), axes=axes, workers=1)
                for c in range(C)] for f in range(F)]  # fmt: skip
    for row in spectra:
        for one in row:
            np.conjugate(one, out=one)
    size = target.shape[1:-1]
    length = tuple((n - 1) * s + 1 for n, s in zip(size, step, strict=True))
    wrong = []
    for image in range(len(source)):
        finite = True
        for start in _starts(length, plan.results):
            begin = tuple(o - lo for o, lo in zip(start, low, strict=True))
            seen = [fft.rfftn(_stuffed(source[image, ..., c], every, begin, plan.cells),
                              axes=axes, workers=1) for c in range(C)]  # fmt: skip
            to, at = [], []
            for o, s, n, k in zip(start, step, size, plan.results, strict=True):
                first, last = -(-o // s), min(n, -(-(o + k) // s))
                to.append(slice(first, last))
                at.append(slice(first * s - o, (last - 1) * s - o + 1, s))
            if any(part.start >= part.stop for part in to):
                continue
            for f in range(F):
                found = _sum_of_products(seen, spectra[f])
                part = fft.irfftn(found, plan.cells, axes=axes, workers=1)[tuple(at)]
                if b is not None:
                    part = part + np.float64(b[f])
                finite = finite and bool(np.isfinite(part).all())
                where: tuple[Any, ...] = (image, *to, f)
                target[where] = np.maximum(part, 0) if relu else part
        if not finite:
            wrong.append(image)
    return wrong


def _sum_of_products(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
    """The sum over channels, in their order."""
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total += x * y
    return total


@quiet
def kernel_gradient(
    plan: Tiling, x: np.ndarray, low: tuple[int, ...], dy: np.ndarray, every: tuple[int, ...],
    apart: tuple[int, ...], dw: np.ndarray,
) -> bool:  # fmt: skip
    """``dw[u, c, f] = sum over n, o of x[n, o*every + u*apart - low, c] dy[n, o, f]`` of a group.

    The products of all tiles and images are added as transforms, in their order, and only the sum
    is transformed back. False if it holds what is no finite number.
    """
    from scipy import fft

    axes = tuple(range(len(plan.cells)))
    C, F = x.shape[-1], dy.shape[-1]
    totals: list[list[np.ndarray | None]] = [[None] * F for _ in range(C)]
    length = tuple((n - 1) * s + 1 for n, s in zip(dy.shape[1:-1], every, strict=True))
    ones = (1,) * len(axes)
    for image in range(len(x)):
        for start in _starts(length, plan.results):
            begin = tuple(o - lo for o, lo in zip(start, low, strict=True))
            seen = [fft.rfftn(_stuffed(x[image, ..., c], ones, begin, plan.cells), axes=axes,
                              workers=1) for c in range(C)]  # fmt: skip
            for f in range(F):
                errors = _stuffed(dy[image, ..., f], every, start, plan.cells)
                for axis, n in enumerate(plan.results):  # the next tile's
                    errors[(slice(None),) * axis + (slice(n, None),)] = 0
                errors = np.conjugate(fft.rfftn(errors, axes=axes, workers=1))
                for c in range(C):
                    total = totals[c][f]
                    if total is None:
                        totals[c][f] = seen[c] * errors
                    else:
                        total += seen[c] * errors
    cut = tuple(slice(0, e, d) for e, d in zip(plan.window, apart, strict=True))
    finite = True
    for c, f in itertools.product(range(C), range(F)):
        part = fft.irfftn(totals[c][f], plan.cells, axes=axes, workers=1)[cut]
        finite = finite and bool(np.isfinite(part).all())
        dw[..., c, f] = part
    return finite
