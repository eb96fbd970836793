"""Loop of the global average pooling."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, words
from fastconv.engine.emit.vectors import narrow, spread
from fastconv.engine.loops.channels import get, put

__all__ = ["image_means"]


@inner
def image_means(call, thread, kind):
    """``y[n, c]`` = mean of ``x[n, :, c]``, bit for bit that of `loops.pool` with one window.

    Pixels are added one after another. Four vectors of channels hide each other's latency.
    """
    x, y, images, pixels, C, items = words(call, aw.MEANS_X, 6)
    lanes, like, element = kind
    size = len(element)
    step, vector = C * size, len(lanes) * size
    zero, count = spread(like, lanes), narrow(spread(float(pixels), lanes), like)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        for n in range(item * images // items, (item + 1) * images // items):
            f = 0
            while f + 4 * len(lanes) <= C:
                at = x + n * pixels * step + f * size
                a, b, c, d = zero, zero, zero, zero
                for _ in range(pixels):
                    a = a + get(at, C, kind)
                    b = b + get(at + vector, C, kind)
                    c = c + get(at + 2 * vector, C, kind)
                    d = d + get(at + 3 * vector, C, kind)
                    at += step
                to = y + n * step + f * size
                put(to, C, a / count, kind)
                put(to + vector, C, b / count, kind)
                put(to + 2 * vector, C, c / count, kind)
                put(to + 3 * vector, C, d / count, kind)
                f += 4 * len(lanes)
            while f < C:
                at = x + n * pixels * step + f * size
                a = zero
                for _ in range(pixels):
                    a = a + get(at, C - f, kind)
                    at += step
                put(y + n * step + f * size, C - f, a / count, kind)
                f += len(lanes)
