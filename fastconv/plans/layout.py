"""What the compiled loops can read in place, and blocks of what they cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastconv.geometry import Geometry
from fastconv.operands import computing_dtype, copied

__all__ = ["blocks", "contiguous", "in_place", "native"]

# Elements of a contiguous copy of part of an operand.
BLOCK = 2**18
IN_PLACE = frozenset(np.dtype(name) for name in ("float32", "float64", "int64"))


def in_place(*arrays: np.ndarray) -> bool:
    """Whether the compiled loops may read and write all of them where they lie."""
    for a in arrays:  # noqa: SIM110 - all() of a generator takes three times as long
        if not (a.dtype in IN_PLACE and a.flags.c_contiguous):
            return False
    return True


def native(array: np.ndarray) -> np.dtype:
    """The dtype that an array is computed in, in native byte order."""
    return computing_dtype(array.dtype.newbyteorder("="))


def blocks(g: Geometry, arrays: Sequence[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Index of every block of images and channels."""
    image = max(math.prod(a.shape[1:]) for a in arrays)
    images = max(1, BLOCK // image)
    channels = max(1, min(g.C, g.C * BLOCK // image))
    for n in range(0, g.m, images):
        for c in range(0, g.C, channels):
            yield slice(n, n + images), Ellipsis, slice(c, c + channels)


def contiguous(array: np.ndarray) -> np.ndarray:
    """A contiguous copy in the computing dtype."""
    return copied(array, native(array), order="C", subok=False)
