"""The upper tail of the normal distribution, for GELU: the same bits in every lane and entry.

Method
------
``Q(x) = erfc(x / sqrt(2)) / 2 = exp(-x**2 / 2) t g(t)`` with ``t = 5 / (5 + x)`` for x >= 0: g is
smooth in t from 1 (x = 0) to 0 (infinity), and its Chebyshev series falls by 5 and more a term: the
23 that are kept leave out less than 1e-16 of it (computed in 50 digits). They are summed by
Clenshaw's rule. What rounding ``x**2`` has lost is multiplied back. Measured: 4 ulp.
"""

from __future__ import annotations

import math
from typing import Any

from numba.extending import intrinsic

from fastconv.engine.emit.exponential import Arithmetic, emit_exp
from fastconv.engine.emit.vectors import call_overloaded

__all__ = ["density", "upper_tail"]

G = (
    0.21699948622563014, 0.18902424660470477, 0.06790856496794134, 0.02016022980025585,
    0.004868323478389638, 0.000915613550616753, 0.00011925269587745173, 6.006914480799665e-06,
    -1.3916416057946291e-06, -3.3232445501505915e-07, -8.581182555069986e-09,
    7.556945336815189e-09, 9.313110810874152e-10, -1.4534637962391662e-10,
    -3.752141912089576e-11, 2.709695071038887e-12, 1.3509670786842636e-12,
    -5.677954968791113e-14, -4.9410024856740004e-14, 1.809006309344839e-15,
    1.8902320940975687e-15, -9.649844146664992e-17, -7.490595420119912e-17,
)  # fmt: skip
FARTHEST = 40.0  # from here on it is 0


def emit_upper_tail(builder: Any, a: Any) -> tuple[Any, Any]:
    """Emit ``Q(|a|)`` and the density at `a` of a vector of doubles."""
    of = Arithmetic(builder, a.type)
    x = of.at_most(FARTHEST, call_overloaded(builder, "fabs", a))
    five = of.spread(5.0)
    t = of.div(five, of.add(five, x))
    u = of.fma(t, of.spread(4.0), of.spread(-2.0))  # twice 2 t - 1
    d, before = of.spread(G[-1]), of.spread(0.0)
    for coefficient in G[-2:0:-1]:
        d, before = of.add(of.fma(u, d, builder.fneg(before)), of.spread(coefficient)), d
    half = of.mul(u, of.spread(0.5))
    g = of.add(of.fma(half, d, builder.fneg(before)), of.spread(G[0]))
    square = of.mul(x, x)
    lost = of.fma(x, x, builder.fneg(square))
    density = emit_exp(builder, of.mul(square, of.spread(-0.5)))
    density = of.fma(of.mul(density, of.spread(-0.5)), lost, density)
    return of.mul(of.mul(t, g), density), of.mul(density, of.spread(1 / math.sqrt(2 * math.pi)))


@intrinsic
def upper_tail(typingctx, a):
    """``Q(|a|)`` of each element, a double; NaN stays NaN."""

    def codegen(context, builder, signature, args):
        return emit_upper_tail(builder, args[0])[0]

    return a(a), codegen


@intrinsic
def density(typingctx, a):
    """``exp(-a**2 / 2) / sqrt(2 pi)`` of each element, a double; NaN stays NaN."""

    def codegen(context, builder, signature, args):
        return emit_upper_tail(builder, args[0])[1]

    return a(a), codegen
