"""Parts of an axis: which cells must be read to make some of the results, and what else is made.

One object for each way in which results are made of neighbours. Its ``read(wanted, n)`` says which
of the axis' n cells the wanted results need, and how to call the operation on these cells alone:
with what padding, and how many of the results it then makes come before the wanted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastconv.geometry.request import Request
from fastconv.geometry.sizes import effective, resolved_pads

__all__ = ["Centred", "Part", "Parts", "Reading", "Repeated", "Spread", "Windows", "windows_of"]


class Part(NamedTuple):
    """Cells ``start`` to ``stop - 1`` of an axis."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many cells."""
        return self.stop - self.start

    def __or__(self, other: Part) -> Part:
        """The smallest part that holds both."""
        return Part(min(self.start, other.start), max(self.stop, other.stop))


Parts = tuple[Part, ...]  # of each spatial axis


class Reading(NamedTuple):
    """Cells to read, and how they give the wanted results.

    Attributes
    ----------
    part : Part
        Of the axis; never empty.
    padding : (int, int)
        That of the operation on these cells; of a transposed convolution the second number is what
        it is to add, its `output_padding`.
    skip : int
        Results to leave out before the wanted ones.
    """

    part: Part
    padding: tuple[int, int]
    skip: int


class Windows(NamedTuple):
    """Results of windows: of a convolution, a pooling, or (one tap) of padding alone.

    The windows of a pooling with `ceil_mode` may reach beyond the padding `hi`.

    >>> Windows(window=3, stride=1, dilation=1, lo=1, hi=1).read(Part(0, 4), n=100)
    Reading(part=Part(start=0, stop=5), padding=(1, 0), skip=0)
    >>> Windows(window=3, stride=2, dilation=1, lo=1, hi=1).read(Part(10, 12), n=100)
    Reading(part=Part(start=19, stop=24), padding=(0, 0), skip=0)
    """

    window: int
    stride: int
    dilation: int
    lo: int
    hi: int
    mode: str = "constant"

    def read(self, wanted: Part, n: int) -> Reading:
        """What the wanted windows need."""
        extent = effective(self.window, self.dilation)
        first = wanted.start * self.stride - self.lo  # of the padded axis, as cells
        last = (wanted.stop - 1) * self.stride - self.lo + extent
        skip = 0
        if least := self._steps_back(first, min(n, n - self._beyond(last, n))):
            skip = least
            first -= skip * self.stride
        last = max(last, 1, self._before(first))
        if last > n:  # a window more may fit then, behind those that are wanted
            last = min(last, n + self.hi)
        return Reading(Part(max(0, first), min(n, last)), (max(0, -first), max(0, last - n)), skip)

    def _steps_back(self, first: int, end: int) -> int:
        """Windows before the first wanted one, so that it begins before `end`."""
        return max(0, -(-(first - (end - 1)) // self.stride))

    def _before(self, first: int) -> int:
        """How many of the first cells the padding before them shows."""
        p = max(0, -first)
        return {"reflect": p + 1, "symmetric": p}.get(self.mode, 0) if p else 0

    def _beyond(self, last: int, n: int) -> int:
        """How many of the last cells, without the outermost, the padding behind them shows."""
        p = max(0, last - n)
        return {"reflect": p, "symmetric": p - 1}.get(self.mode, 0) if p else 0

    def makes(self, reading: Reading) -> int:
        """How many windows, of those that end in the padding, what was read has."""
        extent = effective(self.window, self.dilation)
        return (reading.part.size + sum(reading.padding) - extent) // self.stride + 1


def windows_of(
    sizes: Sequence[int],
    window: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    padding_mode: str = "constant",
    **others: Any,
) -> tuple[Windows, ...]:
    """The windows of a convolution or pooling on each spatial axis of an image.

    The arguments are the caller's, checked before; what others there are has no part in it.

    >>> windows_of((8, 8), 3, stride=1, padding="same")[0]
    Windows(window=3, stride=1, dilation=1, lo=1, hi=1, mode='constant')
    """
    ask = Request(
        "channels_last",
        window=window,
        stride=window if stride is None else stride,
        padding=padding,
        dilation=dilation,
    )
    taps = ask.positive("window", len(sizes))
    strides, dilations, form = ask.steps(len(sizes))
    pads = resolved_pads(form, sizes, taps, strides, dilations)
    return tuple(
        Windows(k, s, d, lo, hi, padding_mode)
        for k, s, d, (lo, hi) in zip(taps, strides, dilations, pads, strict=True)
    )


class Spread(NamedTuple):
    """Results to which each cell adds a window: of a transposed convolution, `lo` of them cut off.

    >>> Spread(window=2, stride=2, dilation=1, lo=0).read(Part(3, 6), n=100)
    Reading(part=Part(start=1, stop=3), padding=(0, 0), skip=1)
    """

    window: int
    stride: int
    dilation: int
    lo: int

    def read(self, wanted: Part, n: int) -> Reading:
        """What is added to the wanted results."""
        extent = effective(self.window, self.dilation)
        first, last = wanted.start + self.lo, wanted.stop - 1 + self.lo
        start = max(0, min(-(-(first - extent + 1) // self.stride), first // self.stride))
        start = min(start, n - 1)
        stop = max(start + 1, min(n, last // self.stride + 1))
        made = (stop - 1) * self.stride + extent
        return Reading(Part(start, stop), (0, max(0, last + 1 - made)), first - start * self.stride)


class Repeated(NamedTuple):
    """`factor` results of each cell alone.

    >>> Repeated(2).read(Part(3, 6), n=100)
    Reading(part=Part(start=1, stop=3), padding=(0, 0), skip=1)
    """

    factor: int

    def read(self, wanted: Part, n: int) -> Reading:
        """The cells of the wanted results."""
        start = wanted.start // self.factor
        stop = -(-wanted.stop // self.factor)
        return Reading(Part(start, stop), (0, 0), wanted.start - start * self.factor)


class Centred(NamedTuple):
    """`factor` results of each cell, between its centre and those of its neighbours.

    >>> Centred(2).read(Part(3, 6), n=100)
    Reading(part=Part(start=1, stop=4), padding=(0, 0), skip=1)
    """

    factor: int

    def read(self, wanted: Part, n: int) -> Reading:
        """Both neighbours of each wanted result."""
        start = max(0, self._left(wanted.start))
        stop = min(n, self._left(wanted.stop - 1) + 2)
        return Reading(Part(start, stop), (0, 0), wanted.start - start * self.factor)

    def _left(self, result: int) -> int:
        """The cell whose centre is the last one not behind the result's."""
        return (2 * result + 1 - self.factor) // (2 * self.factor)
