"""Loops of the optimizers: every element of a parameter moves by itself.

A thread takes items until none is left; an item is some pieces of parameters. The roundings are
those of NumPy's expressions in the elements' dtype, one operation at a time, with the step's
doubles rounded to that dtype first (`program.naive.optimizers`).
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, load_element, word
from fastconv.engine.emit.vectors import load, narrow, root, spread, store

__all__ = ["adam", "sgd"]

ONE_LANE = (0,)


@inner
def pieces_of(call, item):
    """First piece of an item, the end of its pieces, and where they are described."""
    table = word(call, s.OPTIMIZER_TABLE)
    pieces = table + 8 * (word(call, s.OPTIMIZER_ITEMS) + 1)
    return word(table, item), word(table, item + 1), pieces


@inner
def scalar(call, i):
    """The i-th double of the step."""
    return load_element(word(call, s.OPTIMIZER_SCALARS) + 8 * i, 0.0)


@inner
def sgd(call, thread, kind):
    """Stochastic gradient descent; `kind` as in `loops.channels`."""
    lanes, like, _ = kind
    size = word(call, s.OPTIMIZER_ELEMENT)
    numbers = (
        scalar(call, s.SGD_LR),
        scalar(call, s.SGD_MOMENTUM),
        scalar(call, s.SGD_LR_MOMENTUM),
        scalar(call, s.SGD_DECAY),
        scalar(call, s.SGD_NESTEROV),
    )
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, s.OPTIMIZER_ITEMS):
            return
        first, end, pieces = pieces_of(call, item)
        for p in range(first, end):
            piece = pieces + 8 * s.PIECE_WORDS * p
            value, grad = word(piece, s.PIECE_VALUE), word(piece, s.PIECE_GRAD)
            slot, total = word(piece, s.PIECE_SLOT0), word(piece, s.PIECE_BYTES)
            i, step = 0, len(lanes) * size
            while i + step <= total:
                _sgd(value + i, grad + i, slot + i, numbers, lanes, like)
                i += step
            while i < total:
                _sgd(value + i, grad + i, slot + i, numbers, ONE_LANE, like)
                i += size


@inner
def _sgd(value, grad, slot, numbers, lanes, like):
    lr, momentum, lr_momentum, decay, nesterov = numbers
    w, g = load(value, lanes, like), load(grad, lanes, like)
    if decay != 0.0:
        g = g + narrow(spread(decay, lanes), like) * w
    if momentum == 0.0:
        store(value, w - g * narrow(spread(lr, lanes), like))
        return
    velocity = load(slot, lanes, like) * narrow(spread(momentum, lanes), like) + g
    store(slot, velocity)
    if nesterov == 0.0:
        store(value, w - velocity * narrow(spread(lr, lanes), like))
    else:
        w = w - g * narrow(spread(lr, lanes), like)
        store(value, w - velocity * narrow(spread(lr_momentum, lanes), like))


@inner
def adam(call, thread, kind):
    """Adam with decoupled weight decay; `kind` as in `loops.channels`."""
    lanes, like, _ = kind
    size = word(call, s.OPTIMIZER_ELEMENT)
    numbers = (
        scalar(call, s.ADAM_KEEP1),
        scalar(call, s.ADAM_NEW1),
        scalar(call, s.ADAM_KEEP2),
        scalar(call, s.ADAM_NEW2),
        scalar(call, s.ADAM_ROOT),
        scalar(call, s.ADAM_EPSILON),
        scalar(call, s.ADAM_SIZE),
        scalar(call, s.ADAM_DECAY),
    )
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, s.OPTIMIZER_ITEMS):
            return
        first, end, pieces = pieces_of(call, item)
        for p in range(first, end):
            piece = pieces + 8 * s.PIECE_WORDS * p
            value, grad = word(piece, s.PIECE_VALUE), word(piece, s.PIECE_GRAD)
            mean, square = word(piece, s.PIECE_SLOT0), word(piece, s.PIECE_SLOT1)
            i, step, total = 0, len(lanes) * size, word(piece, s.PIECE_BYTES)
            while i + step <= total:
                _adam(value + i, grad + i, mean + i, square + i, numbers, lanes, like)
                i += step
            while i < total:
                _adam(value + i, grad + i, mean + i, square + i, numbers, ONE_LANE, like)
                i += size


@inner
def _adam(value, grad, mean, square, numbers, lanes, like):
    keep1, new1, keep2, new2, correction, epsilon, size, decay = numbers
    g = load(grad, lanes, like)
    m = load(mean, lanes, like) * narrow(spread(keep1, lanes), like)
    m = m + g * narrow(spread(new1, lanes), like)
    q = load(square, lanes, like) * narrow(spread(keep2, lanes), like)
    q = q + g * g * narrow(spread(new2, lanes), like)
    store(mean, m)
    store(square, q)
    divisor = root(q) * narrow(spread(correction, lanes), like)
    move = m / (divisor + narrow(spread(epsilon, lanes), like))
    move = move * narrow(spread(size, lanes), like)
    w = load(value, lanes, like) * narrow(spread(decay, lanes), like)  # by 1 where there is none
    store(value, w - move)
