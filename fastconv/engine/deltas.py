"""Calls of the batched deltas' loops, on contiguous arrays in the machine's byte order.

A delta is a gradient with respect to an activation, as in books on backpropagation.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.launch import start
from fastconv.engine.tables.workspace import address_of, workspace
from fastconv.threads import parts

__all__ = ["bias_plane_sums", "relu_call", "relu_delta"]

# Elements that are worth another thread; blocks of a thread.
GRAIN = 100_000
BLOCKS = 4
# Elements of a block of a mask: what two threads share of a small one.
RELU_ELEMENTS = 16384


def bias_plane_sums(entry: int, dy: np.ndarray, sums: np.ndarray) -> None:
    """The images' sums of ``dy (m, F, ...)`` into ``sums (m, F)``, in float64.

    Channels are planes. The bits are those of `channels.bias_grad_call`.
    """
    m, F, *size = dy.shape
    threads = min(parts(dy.size, GRAIN), m) or 1
    words = s.delta_words(
        element=dy.dtype.itemsize,
        dy=address_of(dy),
        result=address_of(sums),
        total=m * F,
        items=max(1, min(BLOCKS * threads, m * F // 4)),
        pixels=math.prod(size),
        columns=F,
    )
    start(entry, workspace().write(s.DELTA_CALL, words), threads)


def relu_delta(entry: int, dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """``dx = dy`` where ``y > 0``, else 0, by a compiled loop; all of one shape.

    Float16 is given as int16.
    """
    words = _relu_words(dy, y, dx)
    threads = max(1, min(parts(dy.size, GRAIN), words[s.DELTA_ITEMS]))
    start(entry, workspace().write(s.DELTA_CALL, words), threads)


def relu_call(entry: int, dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> Call:
    """`relu_delta` as a call; `dx` may be `dy`."""
    words = _relu_words(dy, y, dx)
    return Call(entry, words[s.TABLE :], words[s.DELTA_ITEMS], dy.size, GRAIN)


def _relu_words(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> tuple[int, ...]:
    return s.delta_words(
        element=dy.dtype.itemsize,
        dy=address_of(dy),
        y=address_of(y),
        result=address_of(dx),
        total=dy.size,
        items=-(-dy.size // RELU_ELEMENTS),
    )
