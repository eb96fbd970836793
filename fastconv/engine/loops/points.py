"""The three transforms of minimal filtering, for a vector of channels or columns at a time.

    window    G g G'     the nine taps to points
    points    B' x B     cells of the source, from their addresses, to points
    results   A' m A     the points' sums to results, with bias and ReLU

Along an axis, for the points 0, 1, -1 and infinity::

    R = 2   B' x = (x0 - x2, x1 + x2, x2 - x1, x1 - x3)     A' m = (m0 + m1 + m2, m1 - m2 - m3)
            G g = (g0, (g0 + g2)/2 +- g1/2, g2)

and for 0, a, -a, b, -b and infinity, where a = 5/8 and b = 3/2, with s and d the sum and the
difference of m1 and m2, and t and e those of m3 and m4::

    R = 4   B' x = (aabb x0 - (aa + bb) x2 + x4,            A' m = (m0 + s + t,
                    (x4 - bb x2) +- a (x3 - bb x1),                 a d + b e,
                    (x4 - aa x2) +- b (x3 - aa x1),                 aa s + bb t,
                    aabb x1 - (aa + bb) x3 + x5)                    aaa d + bbb e + m5)
            G g = (g0/aabb, (g0 + aa g2 +- a g1)/(2aa (aa - bb)),
                    (g0 + bb g2 +- b g1)/(2bb (bb - aa)), g2)

These are the points of R = 4 that oneDNN took: with 1 and 2 the root-mean-square error is 2.3 times
as large, the largest error 6 times. Their powers are exact.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine.emit.memory import word
from fastconv.engine.emit.vectors import choose, fma, load, number, step_of, store

__all__ = ["results_of", "source_points", "window_points"]


@inner
def _points2(to, step, a, b, c, d):
    store(to, a - c)
    store(to + step, b + c)
    store(to + 2 * step, c - b)
    store(to + 3 * step, b - d)


@inner
def _points4(to, step, a, b, c, d, e, f):
    store(to, fma(number(a, 225, 256), a, fma(number(a, -169, 64), c, e)))
    u, v = fma(number(a, -9, 4), c, e), fma(number(a, -9, 4), b, d)
    store(to + step, fma(number(a, 5, 8), v, u))
    store(to + 2 * step, fma(number(a, -5, 8), v, u))
    u, v = fma(number(a, -25, 64), c, e), fma(number(a, -25, 64), b, d)
    store(to + 3 * step, fma(number(a, 3, 2), v, u))
    store(to + 4 * step, fma(number(a, -3, 2), v, u))
    store(to + 5 * step, fma(number(a, 225, 256), b, fma(number(a, -169, 64), d, f)))


@inner
def _window2(to, step, a, b, c):
    u, v = number(a, 1, 2) * (a + c), number(a, 1, 2) * b
    store(to, a)
    store(to + step, u + v)
    store(to + 2 * step, u - v)
    store(to + 3 * step, c)


@inner
def _window4(to, step, a, b, c):
    store(to, number(a, 256, 225) * a)
    u = number(a, -2048, 2975) * fma(number(a, 25, 64), c, a)
    store(to + step, fma(number(a, -256, 595), b, u))
    store(to + 2 * step, fma(number(a, 256, 595), b, u))
    u = number(a, 128, 1071) * fma(number(a, 9, 4), c, a)
    store(to + 3 * step, fma(number(a, 64, 357), b, u))
    store(to + 4 * step, fma(number(a, -64, 357), b, u))
    store(to + 5 * step, c)


@inner
def window_points(taps, apart, vectors, to, step, lanes, zero, across):
    """The points of a window whose nine taps lie `apart`, to `to` and every `step` bytes."""
    n, wide = len(across), step_of(lanes, zero)
    for j in range(3):  # down each column
        at = taps + j * apart
        a, b = load(at, lanes, zero), load(at + 3 * apart, lanes, zero)
        c = load(at + 6 * apart, lanes, zero)
        if n == 4:
            _window2(vectors + j * wide, 3 * wide, a, b, c)
        else:
            _window4(vectors + j * wide, 3 * wide, a, b, c)
    for i in range(n):  # along each row
        at = vectors + 3 * i * wide
        a, b = load(at, lanes, zero), load(at + wide, lanes, zero)
        c = load(at + 2 * wide, lanes, zero)
        if n == 4:
            _window2(to + i * n * step, step, a, b, c)
        else:
            _window4(to + i * n * step, step, a, b, c)


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
            store(to + step, fma(number(a, 3, 2), y, number(a, 5, 8) * v))
            store(to + 2 * step, fma(number(a, 9, 4), x, number(a, 25, 64) * u))
            store(to + 3 * step, fma(number(a, 27, 8), y, fma(number(a, 125, 512), v, f)))
    wrong = prior - prior
    nothing = number(prior, 0, 1)
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
            second = fma(number(a, 3, 2), y, number(a, 5, 8) * v)
            third = fma(number(a, 9, 4), x, number(a, 25, 64) * u)
            last = fma(number(a, 27, 8), y, fma(number(a, 125, 512), v, f))
            wrong = wrong + _store(to + step_w, second + prior, relu, nothing)
            wrong = wrong + _store(to + 2 * step_w, third + prior, relu, nothing)
            wrong = wrong + _store(to + 3 * step_w, last + prior, relu, nothing)
    return wrong


@inner
def _store(to, value, relu, nothing):
    """Store a result after ReLU, if there is one; NaN where it was no finite number, else 0."""
    after = choose(value < nothing, nothing, value) if relu != 0 else value
    store(to, after)
    return value - value
