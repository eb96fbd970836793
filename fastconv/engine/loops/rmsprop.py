"""The loop of RMSprop: every element of a parameter moves by itself, as in `loops.optimizers`."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, word
from fastconv.engine.emit.vectors import load, narrow, root, spread, store
from fastconv.engine.loops.optimizers import ONE_LANE, pieces_of, scalar

__all__ = ["rmsprop"]


@inner
def rmsprop(call, thread, kind):
    """RMSprop, with or without momentum; `kind` as in `loops.channels`."""
    lanes, like, _ = kind
    size = word(call, s.OPTIMIZER_ELEMENT)
    numbers = (
        scalar(call, s.RMS_LR),
        scalar(call, s.RMS_KEEP),
        scalar(call, s.RMS_NEW),
        scalar(call, s.RMS_EPSILON),
        scalar(call, s.RMS_MOMENTUM),
        scalar(call, s.RMS_DECAY),
    )
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= word(call, s.OPTIMIZER_ITEMS):
            return
        first, end, pieces = pieces_of(call, item)
        for p in range(first, end):
            piece = pieces + 8 * s.PIECE_WORDS * p
            value, grad = word(piece, s.PIECE_VALUE), word(piece, s.PIECE_GRAD)
            square, velocity = word(piece, s.PIECE_SLOT0), word(piece, s.PIECE_SLOT1)
            i, step, total = 0, len(lanes) * size, word(piece, s.PIECE_BYTES)
            while i + step <= total:
                _rmsprop(value + i, grad + i, square + i, velocity + i, numbers, lanes, like)
                i += step
            while i < total:
                _rmsprop(value + i, grad + i, square + i, velocity + i, numbers, ONE_LANE, like)
                i += size


@inner
def _rmsprop(value, grad, square, velocity, numbers, lanes, like):
    lr, keep, new, epsilon, momentum, decay = numbers
    w, g = load(value, lanes, like), load(grad, lanes, like)
    if decay != 0.0:
        g = g + narrow(spread(decay, lanes), like) * w
    q = load(square, lanes, like) * narrow(spread(keep, lanes), like)
    q = q + g * g * narrow(spread(new, lanes), like)
    store(square, q)
    move = g / (root(q) + narrow(spread(epsilon, lanes), like))
    if momentum == 0.0:  # then there is no memory for velocities
        store(value, w - move * narrow(spread(lr, lanes), like))
        return
    move = load(velocity, lanes, like) * narrow(spread(momentum, lanes), like) + move
    store(velocity, move)
    store(value, w - move * narrow(spread(lr, lanes), like))
