"""exp and tanh of a vector, element by element: the same bits in every lane, tail and entry.

Method
------
Cody and Waite 1980: ``n = round(x / ln 2)`` and ``r = x - n ln 2``, with ln 2 in two pieces and
fused multiply-adds, so that ``|r| <= ln(2) / 2`` is right to a rounding. Then ``exp(r) - 1 = r +
r**2 q(r)``, where q is the polynomial of least largest relative error (by Remez's exchange, in 60
digits: 0.05 ulp with degree 4 in float32, 0.03 ulp with degree 9 in float64), and
``exp(x) = 2**n * exp(r)``. The power is multiplied in two halves: a result that is subnormal or
too large comes out rounded once, 0 or infinity.

``tanh |x| = E / (E + 2)`` with ``E = exp(2 |x|) - 1 = 2**n (exp(r) - 1) + (2**n - 1)``, in which
nothing cancels; for a small x, E is 2 |x| and the quotient x. What the roundings on the way lose is
kept and added to the quotient: without it tanh is 2.5 ulp off near 0.2.

``exp(x) - 1`` is that E for an x of at most 0, above which it is 0.

All are within 2 ulp everywhere; measured: exp 1.02, tanh 1.23, exp - 1 1.14.
NaN stays NaN; exp of minus infinity is 0, tanh of infinities is 1 and -1, tanh of -0 is -0.

    exp(v)          e to the power of each element
    exp_less_1(v)   e to the power of each negative element, less 1; 0 for the others
    tanh(v)         hyperbolic tangent of each element

The argument is a vector of `emit.vectors`; it may have one lane.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llvmlite import ir
from numba.extending import intrinsic

from fastconv.engine.emit.vectors import call_overloaded, plain

__all__ = ["Arithmetic", "emit_exp", "exp", "exp_less_1", "tanh"]


class _Format(NamedTuple):
    """Numbers of a floating-point format."""

    integer: Any  # LLVM's integers of the same width
    fraction: int  # bits of the fraction
    bias: int
    magic: float  # adding it rounds to integers, which the low bits then hold
    largest: float  # above this exp overflows, below `least` it is 0
    least: float
    one: float  # from here on tanh is 1
    ln2: tuple[float, float]
    q: tuple[float, ...]


FORMATS = {
    ir.FloatType(): _Format(
        ir.IntType(32), 23, 127, 1.5 * 2.0**23, 89.0, -104.0, 10.0,
        (0.6931471824645996, -1.9046542121259336e-09),
        (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.008368716575205326,
         0.001381459878757596),
    ),
    ir.DoubleType(): _Format(
        ir.IntType(64), 52, 1023, 1.5 * 2.0**52, 710.0, -746.0, 20.0,
        (0.6931471805599453, 2.3190468138462996e-17),
        (0.5000000000000011, 0.16666666666666413, 0.041666666666530155, 0.008333333333494463,
         0.001388888894363038, 0.00019841269506575744, 2.480149309863533e-05,
         2.7557586375678646e-06, 2.763024847316803e-07, 2.5000061183251388e-08),
    ),
}  # fmt: skip


class Arithmetic:
    """Vectors of one type, at a builder's position; every operation is rounded as it is written."""

    def __init__(self, builder: Any, vector: Any) -> None:
        self.builder, self.vector = builder, vector
        self.format = FORMATS[vector.element]

    def spread(self, value: float) -> Any:
        """A number in all lanes."""
        return ir.Constant(self.vector, [value] * self.vector.count)

    def integers(self, value: int) -> Any:
        """An integer in all lanes."""
        kind = ir.VectorType(self.format.integer, self.vector.count)
        return ir.Constant(kind, [value] * kind.count)

    def add(self, a: Any, b: Any) -> Any:
        """``a + b``."""
        return plain(self.builder.fadd(a, b))

    def sub(self, a: Any, b: Any) -> Any:
        """``a - b``."""
        return plain(self.builder.fsub(a, b))

    def mul(self, a: Any, b: Any) -> Any:
        """``a * b``."""
        return plain(self.builder.fmul(a, b))

    def div(self, a: Any, b: Any) -> Any:
        """``a / b``."""
        return plain(self.builder.fdiv(a, b))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``, rounded once."""
        return call_overloaded(self.builder, "fma", a, b, c)

    def at_most(self, bound: float, a: Any) -> Any:
        """The lesser of `a` and a bound; NaN stays."""
        limit = self.spread(bound)
        return self.builder.select(self.builder.fcmp_ordered(">", a, limit), limit, a)

    def at_least(self, bound: float, a: Any) -> Any:
        """The larger of `a` and a bound; NaN stays."""
        limit = self.spread(bound)
        return self.builder.select(self.builder.fcmp_ordered("<", a, limit), limit, a)

    def reduced(self, a: Any) -> tuple[Any, Any, Any]:
        """``(n, p, rest)`` of ``exp(a) = 2**n (1 + p + rest)``; n as integers, any if `a` is NaN.

        The rest is what rounding p to the format has lost.
        """
        f, builder = self.format, self.builder
        shifted = self.fma(a, self.spread(1 / math.log(2)), self.spread(f.magic))
        n = self.sub(shifted, self.spread(f.magic))
        high, low = f.ln2
        r = self.fma(n, self.spread(-low), self.fma(n, self.spread(-high), a))
        q = self.spread(f.q[-1])
        for coefficient in f.q[-2::-1]:
            q = self.fma(q, r, self.spread(coefficient))
        square = self.mul(r, r)
        p = self.fma(square, q, r)
        rest = self.fma(square, q, self.sub(r, p))
        bits = self.integers(0).type
        magic = builder.bitcast(self.spread(f.magic), bits)
        return builder.sub(builder.bitcast(shifted, bits), magic), p, rest

    def power(self, n: Any) -> Any:
        """``2**n`` for an n whose power is a normal number."""
        biased = self.builder.add(n, self.integers(self.format.bias))
        bits = self.builder.shl(biased, self.integers(self.format.fraction))
        return self.builder.bitcast(bits, self.vector)


def emit_exp(builder: Any, a: Any) -> Any:
    """Emit exp of a vector."""
    math_of = Arithmetic(builder, a.type)
    f = math_of.format
    n, p, _ = math_of.reduced(math_of.at_least(f.least, math_of.at_most(f.largest, a)))
    half = builder.ashr(n, math_of.integers(1))
    result = math_of.add(p, math_of.spread(1.0))
    for exponent in (half, builder.sub(n, half)):
        result = math_of.mul(result, math_of.power(exponent))
    return result


def emit_exp_less_1(builder: Any, a: Any) -> Any:
    """Emit exp - 1 of a vector's negative elements."""
    math_of = Arithmetic(builder, a.type)
    # twice the size from which tanh is 1 is more than enough for -1
    n, p, _ = math_of.reduced(math_of.at_least(-2 * math_of.format.one, math_of.at_most(0.0, a)))
    power = math_of.power(n)
    return math_of.fma(p, power, math_of.sub(power, math_of.spread(1.0)))


def emit_tanh(builder: Any, a: Any) -> Any:
    """Emit tanh of a vector."""
    math_of = Arithmetic(builder, a.type)
    size = math_of.at_most(math_of.format.one, call_overloaded(builder, "fabs", a))
    n, p, rest = math_of.reduced(math_of.add(size, size))
    power, one, two = math_of.power(n), math_of.spread(1.0), math_of.spread(2.0)
    whole = math_of.sub(power, one)
    e = math_of.fma(p, power, whole)
    lost = math_of.sub(math_of.mul(p, power), math_of.sub(e, whole))
    lost = math_of.fma(rest, power, lost)
    below = math_of.add(e, two)
    lost_below = math_of.add(math_of.sub(e, math_of.sub(below, two)), lost)
    inverse = math_of.div(one, below)
    result = math_of.mul(e, inverse)
    # what is left of E - result * (E + 2), with what the roundings above have lost
    left = math_of.add(math_of.fma(builder.fneg(result), below, e), lost)
    left = math_of.sub(left, math_of.mul(result, lost_below))
    result = math_of.fma(left, inverse, result)
    return call_overloaded(builder, "copysign", result, a)


@intrinsic
def exp(typingctx, a):
    """E to the power of each element."""

    def codegen(context, builder, signature, args):
        return emit_exp(builder, args[0])

    return a(a), codegen


@intrinsic
def exp_less_1(typingctx, a):
    """E to the power of each negative element, less 1; 0 for the others."""

    def codegen(context, builder, signature, args):
        return emit_exp_less_1(builder, args[0])

    return a(a), codegen


@intrinsic
def tanh(typingctx, a):
    """Hyperbolic tangent of each element."""

    def codegen(context, builder, signature, args):
        return emit_tanh(builder, args[0])

    return a(a), codegen
