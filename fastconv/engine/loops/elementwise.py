"""Loops over elements that have nothing to do with each other: activations, sums, products."""

from __future__ import annotations

from typing import Any

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.emit.exponential import exp
from fastconv.engine.emit.exponential import tanh as tanh_of
from fastconv.engine.emit.memory import add_one, load_element, words
from fastconv.engine.emit.vectors import (
    choose,
    fma,
    load,
    load_first,
    magnitude,
    narrow,
    spread,
    store,
    store_first,
)

__all__ = ["BLOCK", "add", "add_relu", "multiply", "relu", "sigmoid", "sigmoid_delta",
           "tanh", "tanh_delta"]  # fmt: skip

# Elements of an item: 64 KiB in float32, some microseconds.
BLOCK = 2**14


def each(function: Any) -> Any:
    """The loop ``y[i] = function(a[i], b[i], 0, 1, p, kind)``, of vectors.

    p is a number of the call's, in all lanes; `kind` as in `loops.channels`.
    """

    @inner
    def loop(call, thread, kind):
        lanes, like, element = kind
        size = len(element)
        a, b, y, total, items = words(call, aw.EACH_A, 5)
        zero, one = spread(like, lanes), narrow(spread(1.0, lanes), like)
        p = narrow(spread(load_element(call + 8 * aw.EACH_NUMBER, 0.0), lanes), like)
        while True:
            item = add_one(call, s.NEXT_ITEM)
            if item >= items:
                return
            i, end = item * BLOCK, min((item + 1) * BLOCK, total)
            while i + len(lanes) <= end:
                at = i * size
                first, second = load(a + at, lanes, like), load(b + at, lanes, like)
                store(y + at, function(first, second, zero, one, p, kind))
                i += len(lanes)
            if i < end:
                at, left = i * size, end - i
                first, second = load_first(a + at, left, zero), load_first(b + at, left, zero)
                store_first(y + at, left, function(first, second, zero, one, p, kind))

    return loop


@each
@inner
def relu(x, _, zero, one, p, kind):
    """The larger of an element and 0; NaN stays."""
    return choose(x <= zero, zero, x)


@each
@inner
def add(a, b, zero, one, p, kind):
    """Sums."""
    return a + b


@each
@inner
def add_relu(a, b, zero, one, p, kind):
    """Sums where they are positive, else 0; NaN stays."""
    total = a + b
    return choose(total <= zero, zero, total)


@each
@inner
def multiply(a, b, zero, one, p, kind):
    """Products."""
    return a * b


@each
@inner
def sigmoid(x, _, zero, one, p, kind):
    """``1 / (1 + exp(-x))`` by ``exp(-|x|)``, which cannot overflow; NaN stays.

    What rounding ``1 + exp(-|x|)`` loses is taken into account: 1.6 instead of 2.1 ulp.
    """
    small = exp(zero - magnitude(x))
    above, below = choose(x >= zero, one, small), one + small
    lost, inverse = small - (below - one), one / below
    y = above * inverse
    left = fma(zero - y, below, above) - y * lost
    return fma(left, inverse, y)


@each
@inner
def sigmoid_delta(dy, y, zero, one, p, kind):
    """The error before a sigmoid that gave y."""
    return dy * (y * (one - y))


@each
@inner
def tanh(x, _, zero, one, p, kind):
    """Hyperbolic tangents."""
    return tanh_of(x)


@each
@inner
def tanh_delta(dy, y, zero, one, p, kind):
    """The error before a tanh that gave y."""
    return dy * (one - y * y)
