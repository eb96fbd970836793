"""When fastconv is faster than SciPy: measured with two threads of a processor with AVX-512.

SciPy needs little for a call; its loops over a single axis, and its running sums and maxima, are
quick. So small arrays and long windows of a uniform filter or of a maximum stay with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["gains"]


class Range(NamedTuple):
    """Where fastconv gains: from so many cells, products and taps on; to windows so long."""

    cells: int
    products: int
    taps: int
    longest: float


RANGES = {
    "window": Range(2**9, 2**18, 0, math.inf),  # sums over several axes at once
    "line": Range(2**16, 0, 0, math.inf),  # over one axis after the other
    "uniform": Range(2**17, 0, 0, 32),
    "extreme": Range(2**15, 0, 0, 64),
    "plane": Range(2**9, 2**16, 0, math.inf),  # where SciPy's `signal` loops
    "transform": Range(2**12, 2**15, 0, 12),  # where it would take Fourier transforms
    "sequence": Range(2**13, 2**18, 16, 128),  # signals of one axis
}


def gains(kind: str, cells: int, window: Sequence[int]) -> bool:
    """Whether the result of so many `cells` comes sooner from fastconv.

    >>> gains("window", 512 * 512, (3, 3)), gains("window", 8 * 8, (3, 3))
    (True, False)
    """
    least, taps = RANGES[kind], math.prod(window)
    return (
        cells >= least.cells
        and cells * taps >= least.products
        and taps >= least.taps
        and max(window, default=1) <= least.longest
    )
