"""The two transforms of minimal filtering, for a vector of channels of one tile at a time.

    points    B' d B     cells of the source, from their addresses, to points
    results   A' m A     the points' sums to results, with bias and ReLU

Along an axis, for the points 0, 1, -1 (2, -2) and infinity::

    R = 2   B' d = (a - c, b + c, c - b, b - d)           A' m = (a + b + c, b - c - d)
    R = 4   B' d = (4a - 5c + e, (e - 4c) +- (d - 4b),    A' m = (a + (b + c) + (d + e),
                    (e - c) +- 2(d - b), 4b - 5d + f)             (b - c) + 2(d - e),
                                                                  (b + c) + 4(d + e),
                                                                  (b - c) + 8(d - e) + f)
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine.emit.memory import word
from fastconv.engine.emit.vectors import choose, fma, load, number, step_of, store

__all__ = ["results_of", "source_points"]


@inner
def _points2(to, step, a, b, c, d):
    store(to, a - c)
    store(to + step, b + c)
    store(to + 2 * step, c - b)
    store(to + 3 * step, b - d)


@inner
def _points4(to, step, a, b, c, d, e, f):
    store(to, fma(number(a, 4), a, fma(number(a, -5), c, e)))
    u, v = fma(number(a, -4), c, e), fma(number(a, -4), b, d)
    store(to + step, u + v)
    store(to + 2 * step, u - v)
    u, v = e - c, d - b
    store(to + 3 * step, fma(number(a, 2), v, u))
    store(to + 4 * step, fma(number(a, -2), v, u))
    store(to + 5 * step, fma(number(a, 4), b, fma(number(a, -5), d, f)))


@inner
def source_points(cells, channel, vectors, to, step, lanes, zero, across):
    """The points of a tile's cells, whose addresses are a table, from byte `channel` on.

    They go to `to` and every `step` bytes; `vectors` is scratch for a vector of every point.
    """
    n, wide = len(across), step_of(lanes, zero)
    for j in range(n):  # down each column
        a, b = (
            load(word(cells, j) + channel, lanes, zero),
            load(word(cells, n + j) + channel, lanes, zero),
        )
        c = load(word(cells, 2 * n + j) + channel, lanes, zero)
        d = load(word(cells, 3 * n + j) + channel, lanes, zero)
        if n == 4:
            _points2(vectors + j * wide, n * wide, a, b, c, d)
        else:
            e = load(word(cells, 4 * n + j) + channel, lanes, zero)
            f = load(word(cells, 5 * n + j) + channel, lanes, zero)
            _points4(vectors + j * wide, n * wide, a, b, c, d, e, f)
    for i in range(n):  # along each row
        at = vectors + i * n * wide
        a, b = load(at, lanes, zero), load(at + wide, lanes, zero)
        c, d = load(at + 2 * wide, lanes, zero), load(at + 3 * wide, lanes, zero)
        if n == 4:
            _points2(to + i * n * step, step, a, b, c, d)
        else:
            e, f = load(at + 4 * wide, lanes, zero), load(at + 5 * wide, lanes, zero)
            _points4(to + i * n * step, step, a, b, c, d, e, f)


@inner
def results_of(sums, apart, vectors, target, prior, relu, lanes, zero, across):
    """The results of a tile from its points' sums, which lie `apart`.

    They go to `target`, ``(address, step_h, step_w)``. Returns a vector that is NaN where one of
    them was no finite number.
    """
    n, wide = len(across), step_of(lanes, zero)
    for j in range(n):  # down each column
        at = sums + j * apart
        a, b = load(at, lanes, zero), load(at + n * apart, lanes, zero)
        c, d = load(at + 2 * n * apart, lanes, zero), load(at + 3 * n * apart, lanes, zero)
        to, step = vectors + j * wide, n * wide
        if n == 4:
            store(to, a + b + c)
            store(to + step, b - c - d)
        else:
            e, f = load(at + 4 * n * apart, lanes, zero), load(at + 5 * n * apart, lanes, zero)
            u, v, x, y = b + c, b - c, d + e, d - e
            store(to, a + u + x)
            store(to + step, fma(number(a, 2), y, v))
            store(to + 2 * step, fma(number(a, 4), x, u))
            store(to + 3 * step, fma(number(a, 8), y, v) + f)
    wrong = prior - prior
    nothing = number(prior, 0)
    address, step_h, step_w = target
    for i in range(n - 2):  # along each row
        at, to = vectors + i * n * wide, address + i * step_h
        a, b = load(at, lanes, zero), load(at + wide, lanes, zero)
        c, d = load(at + 2 * wide, lanes, zero), load(at + 3 * wide, lanes, zero)
        if n == 4:
            wrong = wrong + _store(to, a + b + c + prior, relu, nothing)
            wrong = wrong + _store(to + step_w, b - c - d + prior, relu, nothing)
        else:
            e, f = load(at + 4 * wide, lanes, zero), load(at + 5 * wide, lanes, zero)
            u, v, x, y = b + c, b - c, d + e, d - e
            wrong = wrong + _store(to, a + u + x + prior, relu, nothing)
            wrong = wrong + _store(to + step_w, fma(number(a, 2), y, v) + prior, relu, nothing)
            wrong = wrong + _store(to + 2 * step_w, fma(number(a, 4), x, u) + prior, relu, nothing)
            last = fma(number(a, 8), y, v) + f + prior
            wrong = wrong + _store(to + 3 * step_w, last, relu, nothing)
    return wrong


@inner
def _store(to, value, relu, nothing):
    """Store a result after ReLU, if there is one; NaN where it was no finite number, else 0."""
    after = choose(value < nothing, nothing, value) if relu != 0 else value
    store(to, after)
    return value - value
