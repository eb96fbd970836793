"""A rank's part of random numbers that are drawn for a whole batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.nn.checks import Array

__all__ = ["uniform"]


def uniform(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: Any,
    part: tuple[int, int] | None = None,
) -> Array:  # fmt: skip
    """Numbers in [0, 1) for images ``(m, ...)``.

    Parameters
    ----------
    generator : numpy.random.Generator
    shape : tuple of int
    dtype
        float32 or float64.
    part : (int, int), optional
        How many images of a larger batch come before these, and how many it has: the numbers are
        those that a generator for all of it gives these images, and it ends as that would.

    Examples
    --------
    >>> whole = uniform(np.random.default_rng(0), (5, 3), np.float32)
    >>> some = uniform(np.random.default_rng(0), (2, 3), np.float32, part=(1, 5))
    >>> np.array_equal(some, whole[1:3])
    True
    """
    if part is None:
        return generator.random(shape, dtype=dtype)
    before, total = part
    each = math.prod(shape[1:])
    _skip(generator, before * each, dtype)
    found = generator.random(shape, dtype=dtype)
    _skip(generator, (total - before - shape[0]) * each, dtype)
    return found


def _skip(generator: np.random.Generator, count: int, dtype: Any) -> None:
    """Have a generator pass over numbers.

    PCG64, which layers have, gives one float64 for each of its steps, and two float32, of which it
    keeps the second: that much is arithmetic, whatever the count. Others draw.
    """
    bits = generator.bit_generator
    if not isinstance(bits, np.random.PCG64):
        for start in range(0, count, 2**20):
            generator.random(min(2**20, count - start), dtype=dtype)
        return
    single = np.dtype(dtype) == np.float32
    if single and count and bits.state["has_uint32"]:
        generator.random(dtype=np.float32)
        count -= 1
    steps, odd = divmod(count, 2) if single else (count, 0)
    if steps:
        before: Any = bits.state
        bits.advance(steps)  # which forgets the half that is kept
        moved: Any = bits.state
        before["state"] = moved["state"]
        bits.state = before
    if odd:
        generator.random(dtype=np.float32)
