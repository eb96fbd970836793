"""Which arithmetic convolutions use: the exact one, or one that rounds more and takes less time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from fastconv.threads import building
from fastconv.typing import Algorithm

__all__ = ["algorithm", "chosen", "fast_blocks"]

ALGORITHMS = ("exact", "fast")

_surrounding: ContextVar[Algorithm] = ContextVar("fastconv_algorithm", default="exact")

# How many ``with`` blocks ask for "fast", in all threads: compiled code cannot see which it is in.
fast_blocks = np.zeros(1, np.int64)


def _checked(name: Any) -> Algorithm:
    if not isinstance(name, str):
        raise TypeError(f'algorithm={name!r} must be "exact" or "fast"')
    for known in ALGORITHMS:
        if name == known:
            return known  # type: ignore[return-value]
    raise ValueError(f'algorithm={name!r} must be "exact" or "fast"')


def chosen(name: Any) -> Algorithm:
    """The algorithm of a call: the one that is named, or for None that of the ``with`` around it.

    >>> chosen(None), chosen("fast")
    ('exact', 'fast')
    """
    return _surrounding.get() if name is None else _checked(name)


@contextmanager
def algorithm(name: Algorithm) -> Iterator[None]:
    """Compute convolutions by one algorithm inside the ``with`` block, in this Python thread.

    Where a function, a plan or a layer is given an `algorithm` of its own, that one counts.

    Parameters
    ----------
    name : {"exact", "fast"}
        "exact", the default outside of every block, adds every product of the definition, in one
        order. "fast" takes 3x3 windows of stride 1 through Winograd's minimal filtering and very
        large windows through the Fourier transform where that is measured to be faster, and is
        the exact way everywhere else, and with a `padding_mode` other than "constant" always. It
        rounds more: the page on speed has the bound. Tiles, or images, in which an infinity or a
        NaN of the input has spread are computed directly. In both, bits depend neither on threads,
        nor on the layout in memory, nor on the rest of the batch.

    Raises
    ------
    TypeError, ValueError
        If `name` is neither.

    Examples
    --------
    >>> from fastconv import conv
    >>> x, w = np.ones((1, 16, 16, 64)), np.ones((3, 3, 64, 64))
    >>> with algorithm("fast"):
    ...     conv(x, w, padding="same").shape
    (1, 16, 16, 64)
    """
    token = _surrounding.set(_checked(name))
    _count(name, 1)
    try:
        yield
    finally:
        _count(name, -1)
        _surrounding.reset(token)


def _count(name: Algorithm, one: int) -> None:
    if name == "fast":
        with building:
            fast_blocks[0] += one
