"""What follows a product, done to each box of its results while they are in the cache.

Normalisation, a sum with another array and ReLU, in this order, or a 2x2 maximum; so that what lies
between is never written to memory. Each operation is rounded as in the loops that do it alone.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import word, words
from fastconv.engine.emit.vectors import choose, load, spread, store, store_first

__all__ = ["finish"]


@inner
def finish(call, box, kind):
    """One box of results, from scratch to where they belong.

    Parameters
    ----------
    call : int
        Address of the words ``words.FINISH_TARGET``, ..., the same for all boxes.
    box : int
        Address of the words ``words.BOX_FIRST``, ...: which pixels they are, and where they lie.
    kind : tuple
        A vector of zeros, a zero, and as many zeros as it has bytes. Where vectors do not divide
        the channels, the last one overlaps the one before; and where there are fewer channels than
        lanes, what is written behind a pixel is written again with the next.
    """
    n0, _, h0, w0 = words(box, s.BOX_FIRST, 4)
    images, _, height, width = words(box, s.BOX_EXTENT, 4)
    at, sn, sh, sw = words(box, s.BOX_RESULT, 4)
    target, tn, th, tw = words(call, s.FINISH_TARGET, 4)
    pool, added = word(call, s.FINISH_POOL), word(call, s.FINISH_ADDED)
    step = 1 + pool  # rows and columns of the product that one of the result has
    rows, pixels = height // step, width // step
    to = target + n0 * tn + h0 // step * th + w0 // step * tw
    for n in range(images):
        for h in range(rows):
            source, result = at + n * sn + h * step * sh, to + n * tn + h * th
            if pool != 0:
                last = (n == images - 1 and h == rows - 1) or pixels * tw != th
                _largest(call, (source, sh, sw), (result, tw), pixels, last, kind)
            else:
                other = result - target + added if added != 0 else 0
                _elements(call, (source, sw), (result, tw), other, pixels, kind)


@inner
def _numbers(call, c, kind):
    """The rows of the table of a normalisation, of a vector of channels from c on."""
    at, row = words(call, s.FINISH_TABLE, 2)
    at += c * len(kind[2])
    return (
        load(at, kind[0], kind[1]),
        load(at + row, kind[0], kind[1]),
        load(at + 2 * row, kind[0], kind[1]),
        load(at + 3 * row, kind[0], kind[1]),
    )


@inner
def _elements(call, source, result, other, pixels, kind):
    """A row of pixels, each for itself; `other` is the row that is added, or 0."""
    lanes, like, element = kind
    C, normal, relu = (
        word(call, s.FINISH_C),
        word(call, s.FINISH_TABLE),
        word(call, s.FINISH_RELU),
    )
    zero = spread(like, lanes)
    for chunk in range(0, C, len(lanes)):
        c = min(chunk, C - len(lanes))
        numbers = (zero, zero, zero, zero)
        if normal != 0:
            numbers = _numbers(call, c, kind)
        at, to, plus = (source[0] + c * len(element), result[0] + c * len(element),
                        other + c * len(element))  # fmt: skip
        for _ in range(pixels):
            y = load(at, lanes, like)
            if normal != 0:
                y = (y - numbers[0]) * numbers[1] * numbers[2] + numbers[3]
            if other != 0:
                y = y + load(plus, lanes, like)
                plus += result[1]
            if relu != 0:
                y = choose(y <= zero, zero, y)
            store(to, y)
            at += source[1]
            to += result[1]


@inner
def _larger(best, new):
    """The larger of two, the first of equals; the first NaN, if there is one."""
    return choose(best >= new, best, choose(best == best, new, best))


@inner
def _largest(call, source, result, pixels, last, kind):
    """A row of maxima of 2x2 pixels; `last`: what lies behind it is not written again."""
    lanes, like, element = kind
    C, normal, relu = (
        word(call, s.FINISH_C),
        word(call, s.FINISH_TABLE),
        word(call, s.FINISH_RELU),
    )
    zero = spread(like, lanes)
    # pixels that must be written as wide as they are
    exact = pixels - (len(lanes) - 1) // C if last and len(lanes) > C else pixels
    for chunk in range(0, C, len(lanes)):
        c = max(0, min(chunk, C - len(lanes)))
        numbers = (zero, zero, zero, zero)
        if normal != 0:
            numbers = _numbers(call, c, kind)
        at, to = source[0] + c * len(element), result[0] + c * len(element)
        below, step = source[1], source[2]
        for i in range(pixels):
            a, b = load(at, lanes, like), load(at + step, lanes, like)
            d, e = load(at + below, lanes, like), load(at + below + step, lanes, like)
            if normal != 0:
                a = (a - numbers[0]) * numbers[1] * numbers[2] + numbers[3]
                b = (b - numbers[0]) * numbers[1] * numbers[2] + numbers[3]
                d = (d - numbers[0]) * numbers[1] * numbers[2] + numbers[3]
                e = (e - numbers[0]) * numbers[1] * numbers[2] + numbers[3]
            if relu != 0:
                a = choose(a <= zero, zero, a)
                b = choose(b <= zero, zero, b)
                d = choose(d <= zero, zero, d)
                e = choose(e <= zero, zero, e)
            y = _larger(_larger(_larger(a, b), d), e)
            if i < exact:
                store(to, y)
            else:
                store_first(to, C, y)
            at += 2 * step
            to += result[1]
