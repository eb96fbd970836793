"""2x2 maxima of a product's results with their winners, a byte each, and the errors' way back.

What a training step has of convolution, ReLU and maxima: the results before the maxima are never
written, and the error before them is written once, by its winner and by the sign of the maximum.
`pool_winners` takes the maxima of an array that is there.
"""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, word, words, zero_bytes
from fastconv.engine.emit.vectors import (
    choose,
    load,
    load_bytes,
    narrow,
    spread,
    store,
    store_bytes,
    store_first,
    store_first_bytes,
)

__all__ = ["finish_winners", "pool_winners", "winners_backward"]


@inner
def finish_winners(call, box, kind):
    """One box of results: the largest of each 2x2, and which it is, as `loops.finish` does.

    Winners are 0 to 3: two for the lower row, one for the right column.
    """
    n0, _, h0, w0 = words(box, s.BOX_FIRST, 4)
    images, _, height, width = words(box, s.BOX_EXTENT, 4)
    at, sn, sh, sw = words(box, s.BOX_RESULT, 4)
    target, tn, th, tw = words(call, s.FINISH_TARGET, 4)
    rows, pixels = height // 2, width // 2
    to = target + n0 * tn + h0 // 2 * th + w0 // 2 * tw
    winners, C = word(call, s.FINISH_WINNERS), word(call, s.FINISH_C)
    for n in range(images):
        for h in range(rows):
            source, result = at + n * sn + 2 * h * sh, to + n * tn + h * th
            last = (n == images - 1 and h == rows - 1) or pixels * tw != th
            where = winners + (result - target) // len(kind[2])
            _row(C, (source, sh, sw), (result, where, tw), pixels, last, kind)


@inner
def pool_winners(call, thread, kind):
    """Maxima of 2x2 and their winners, for blocks of rows; vectors as in `winners_backward`."""
    rows, items = word(call, s.WINNERS_ROWS), word(call, s.WINNERS_ITEMS)
    H, W, before_H, before_W, C = words(call, s.WINNERS_H, 5)
    pixel = C * len(kind[2])
    line = before_W * pixel
    y, winners, x = words(call, s.WINNERS_Y, 3)
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        for row in range(item * rows // items, (item + 1) * rows // items):
            source = x + (row // H * before_H + row % H * 2) * line
            result = (y + row * W * pixel, winners + row * W * C, pixel)
            _row(C, (source, line, pixel), result, W, False, kind)


@inner
def _better(best, winner, new, number):
    """The larger of two and its number, those of the first of equals; of the first NaN."""
    later = choose(best == best, number, winner)
    return (
        choose(best >= new, best, choose(best == best, new, best)),
        choose(best >= new, winner, later),
    )


@inner
def _row(C, source, result, pixels, last, kind):
    """A row of maxima; `last`: what lies behind it is not written again."""
    lanes, like, element = kind
    zero, one = spread(like, lanes), narrow(spread(1.0, lanes), like)
    two = one + one
    three = two + one
    # pixels whose vectors are written as wide as they are
    exact = pixels - (len(lanes) - 1) // C if last and len(lanes) > C else pixels
    for chunk in range(0, C, len(lanes)):
        c = max(0, min(chunk, C - len(lanes)))
        at, to, where = source[0] + c * len(element), result[0] + c * len(element), result[1] + c
        below, step = source[1], source[2]
        for i in range(pixels):
            y = load(at, lanes, like)
            y, winner = _better(y, zero, load(at + step, lanes, like), one)
            y, winner = _better(y, winner, load(at + below, lanes, like), two)
            y, winner = _better(y, winner, load(at + below + step, lanes, like), three)
            if i < exact:
                store(to, y)
                store_bytes(where, winner)
            else:
                store_first(to, C, y)
                store_first_bytes(where, C, winner)
            at += 2 * step
            to += result[2]
            where += C


@inner
def winners_backward(call, thread, kind):
    """The error of each maximum to its winner, 0 to all other cells, for blocks of rows.

    With ReLU, errors of maxima that are not positive are 0, too. Vectors have no more lanes than
    there are channels; where they do not divide these, the last one overlaps the one before.
    """
    rows, items, size = word(call, s.WINNERS_ROWS), word(call, s.WINNERS_ITEMS), len(kind[2])
    H, W, before_H, before_W, C = words(call, s.WINNERS_H, 5)
    line = before_W * C * size
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        for row in range(item * rows // items, (item + 1) * rows // items):
            n, h = row // H, row % H
            dx = word(call, s.WINNERS_X) + (n * before_H + 2 * h) * line
            _errors(call, row * W * C, dx, line, kind)
            if before_W > 2 * W:
                zero_bytes(dx + 2 * W * C * size, C * size)
                zero_bytes(dx + line + 2 * W * C * size, C * size)
            if h == H - 1 and before_H > 2 * H:
                zero_bytes(dx + 2 * line, line)


@inner
def _errors(call, first, dx, line, kind):
    """The errors of a row of maxima, whose elements begin with number `first`."""
    lanes, like, element = kind
    dy, y, winners = words(call, s.WINNERS_DY, 3)
    W, C, relu = word(call, s.WINNERS_W), word(call, s.WINNERS_C), word(call, s.WINNERS_RELU)
    size = len(element)
    zero, one = spread(like, lanes), narrow(spread(1.0, lanes), like)
    two = one + one
    three = two + one
    pixel = C * size
    for chunk in range(0, C, len(lanes)):
        c = min(chunk, C - len(lanes))
        i, to = first + c, dx + c * size
        for _ in range(W):
            error = load(dy + i * size, lanes, like) + zero  # as if added to zero: no -0.0
            if relu != 0:
                error = choose(load(y + i * size, lanes, like) > zero, error, zero)
            winner = load_bytes(winners + i, zero)
            store(to, choose(winner == zero, error, zero))
            store(to + pixel, choose(winner == one, error, zero))
            store(to + line, choose(winner == two, error, zero))
            store(to + line + pixel, choose(winner == three, error, zero))
            i += C
            to += 2 * pixel
