"""Loops of the activations that are nearly ReLU, and of their errors by what went in.

Where a logarithm or the normal distribution is needed they compute in float64 and round once.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine.emit.exponential import exp, exp_less_1
from fastconv.engine.emit.normal import density, upper_tail
from fastconv.engine.emit.vectors import choose, magnitude, narrow, widen
from fastconv.engine.loops.elementwise import each
from fastconv.engine.loops.logarithm import log_of_1_plus

__all__ = ["elu", "elu_delta", "gelu", "gelu_delta", "hardswish", "hardswish_delta", "leaky_relu",
           "leaky_relu_delta", "silu", "silu_delta", "softplus", "softplus_delta"]  # fmt: skip


@each
@inner
def leaky_relu(x, _, zero, one, slope, kind):
    """X where it is positive, else a share of it."""
    return choose(x > zero, x, x * slope)


@each
@inner
def leaky_relu_delta(dy, x, zero, one, slope, kind):
    """The error before a leaky ReLU of x."""
    return choose(x > zero, dy, dy * slope)


@each
@inner
def elu(x, _, zero, one, alpha, kind):
    """X where it is positive, else ``alpha (exp(x) - 1)``."""
    return choose(x > zero, x, alpha * exp_less_1(x))


@each
@inner
def elu_delta(dy, x, zero, one, alpha, kind):
    """The error before an ELU of x."""
    return choose(x > zero, dy, dy * (alpha * exp(choose(x > zero, zero, x))))


@inner
def _sigmoid(x, zero, one):
    small = exp(zero - magnitude(x))
    return choose(x >= zero, one, small) / (one + small)


@each
@inner
def silu(x, _, zero, one, p, kind):
    """``x sigmoid(x)``."""
    return x * _sigmoid(x, zero, one)


@each
@inner
def silu_delta(dy, x, zero, one, p, kind):
    """The error before a SiLU of x."""
    y = _sigmoid(x, zero, one)
    return dy * (y * (one + x * (one - y)))


@each
@inner
def softplus(x, _, zero, one, p, kind):
    """``log(1 + exp(x))``, without overflow."""
    lanes, like, _ = kind
    v, nothing = widen(x), widen(zero)
    rest = log_of_1_plus(exp(nothing - magnitude(v)), lanes)
    return narrow(choose(v > nothing, v, nothing) + rest, like)


@each
@inner
def softplus_delta(dy, x, zero, one, p, kind):
    """The error before a softplus of x."""
    return dy * _sigmoid(x, zero, one)


@each
@inner
def hardswish(x, _, zero, one, p, kind):
    """``x min(max(x + 3, 0), 6) / 6``."""
    three = one + one + one
    six, t = three + three, x + three
    t = choose(t < zero, zero, t)
    t = choose(t > six, six, t)
    return x * t / six


@each
@inner
def hardswish_delta(dy, x, zero, one, p, kind):
    """The error before a hard swish of x."""
    three = one + one + one
    inside = dy * (x / three + one / (one + one))
    return choose(x <= zero - three, zero, choose(x >= three, dy, inside))


@inner
def _below(v, nothing, unit):
    """The normal distribution's share below each element."""
    tail = upper_tail(v)
    return choose(v > nothing, unit - tail, tail)


@each
@inner
def gelu(x, _, zero, one, p, kind):
    """X times the normal distribution's share below x."""
    _, like, _ = kind
    v = widen(x)
    return narrow(v * _below(v, widen(zero), widen(one)), like)


@each
@inner
def gelu_delta(dy, x, zero, one, p, kind):
    """The error before a GELU of x."""
    _, like, _ = kind
    v = widen(x)
    slope = _below(v, widen(zero), widen(one)) + v * density(v)
    return narrow(widen(dy) * slope, like)
