"""A logarithm of vectors: what two loops need of it."""

from __future__ import annotations

import math

from fastconv.compiler.inner import inner
from fastconv.engine.emit.vectors import choose, fma, spread

__all__ = ["log_of_1_plus"]

LN2 = math.log(2)
ROOT2_LESS_1 = math.sqrt(2) - 1


@inner
def log_of_1_plus(t, lanes):
    """``log(1 + t)`` of doubles in 0 .. 1, within 2 ulp.

    ``log(1 + u) = 2 artanh(v)`` with ``v = u / (2 + u)``, by ten terms of its series; beyond
    ``sqrt(2) - 1`` it is ``log(2) + log((1 + t) / 2)``, so that v is at most 0.172 in size.
    """
    two = spread(2.0, lanes)
    far = t > spread(ROOT2_LESS_1, lanes)
    u = choose(far, (t - spread(1.0, lanes)) / two, t)
    v = u / (two + u)
    q = v * v
    p = spread(1 / 21, lanes)
    for k in range(9, 0, -1):
        p = fma(p, q, spread(1.0 / (2 * k + 1), lanes))
    result = fma(two * v * q, p, two * v)
    return choose(far, result + spread(LN2, lanes), result)
