"""Loops of the optimizers: every element of a parameter moves by itself.

A thread takes items until none is left; an item is some pieces of parameters. The roundings are
those of NumPy's expressions in the elements' dtype, one operation at a time, with the step's
doubles rounded to that dtype first (`program.naive.optimizers`).
"""

from __future__ import annotations

from typing import Any

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, load_element, word, words
from fastconv.engine.emit.vectors import load, narrow, root, spread, store

__all__ = ["adam", "rmsprop", "sgd"]

ONE_LANE = (0,)


def step(move: Any) -> Any:
    """The loop over all elements of ``move(value, grad, slot0, slot1, numbers, lanes, like)``.

    `move` is given addresses of `lanes` elements, and the doubles of the step.
    """

    @inner
    def loop(call, thread, kind):
        lanes, like, _ = kind
        size, table, items, scalars = words(call, aw.OPTIMIZER_ELEMENT, 4)
        numbers = (
            load_element(scalars, 0.0),
            load_element(scalars + 8, 0.0),
            load_element(scalars + 16, 0.0),
            load_element(scalars + 24, 0.0),
            load_element(scalars + 32, 0.0),
            load_element(scalars + 40, 0.0),
            load_element(scalars + 48, 0.0),
            load_element(scalars + 56, 0.0),
        )
        pieces, step = table + 8 * (items + 1), len(lanes) * size
        while True:
            item = add_one(call, s.NEXT_ITEM)
            if item >= items:
                return
            for p in range(word(table, item), word(table, item + 1)):
                piece = pieces + 8 * aw.PIECE_WORDS * p
                value, grad, slot0, slot1, end = words(piece, aw.PIECE_VALUE, 5)
                i = 0
                while i + step <= end:
                    move(value + i, grad + i, slot0 + i, slot1 + i, numbers, lanes, like)
                    i += step
                while i < end:
                    move(value + i, grad + i, slot0 + i, slot1 + i, numbers, ONE_LANE, like)
                    i += size

    return loop


@step
@inner
def sgd(value, grad, slot, unused, numbers, lanes, like):
    """Stochastic gradient descent."""
    lr, momentum, lr_momentum, decay, nesterov, _, _, _ = numbers
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


@step
@inner
def adam(value, grad, mean, square, numbers, lanes, like):
    """Adam with decoupled weight decay.

    Of step t, `correction` is ``1 / sqrt(1 - beta2**t)``, `size` ``lr / (1 - beta1**t)``, and
    `decay` one less the learning rate times the weight decay.
    """
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


@step
@inner
def rmsprop(value, grad, square, velocity, numbers, lanes, like):
    """RMSprop, with or without momentum."""
    lr, keep, new, epsilon, momentum, decay, _, _ = numbers
    w, g = load(value, lanes, like), load(grad, lanes, like)
    if decay != 0.0:
        g = g + narrow(spread(decay, lanes), like) * w
    q = load(square, lanes, like) * narrow(spread(keep, lanes), like)
    q = q + g * g * narrow(spread(new, lanes), like)
    store(square, q)
    move = g / (root(q) + narrow(spread(epsilon, lanes), like))
    if momentum != 0.0:  # without, there is no memory for velocities
        move = load(velocity, lanes, like) * narrow(spread(momentum, lanes), like) + move
        store(velocity, move)
    store(value, w - move * narrow(spread(lr, lanes), like))
