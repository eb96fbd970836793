"""Loop of the bias's gradient: sums of all pixels' errors, in float64."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import array_words as aw
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, load_element, words
from fastconv.engine.emit.vectors import spread, widen
from fastconv.engine.loops.channels import add_to, column_sums, get, put, put_number, wide

__all__ = ["CHAINS", "FEW", "bias_grad"]

# Chains of additions of `channels.column_sums`. With so few channels the pixels of all four lie in
# one or two vectors, which are added at once.
CHAINS = 4
FEW = 8


@inner
def bias_grad(call, thread, kind):
    """``db[f]`` = sum of ``dy[n, :, f]``: of every image, then over the images in their order.

    An item is a run of images. Who finishes last adds up the images' sums.
    """
    dy, sums, db, images, pixels, F, block, items = words(call, aw.BIAS_DY, 8)
    lanes, size, doubles = kind[0], len(kind[2]), wide(kind)
    step = F * size
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        chains = sums + 8 * (images * F + item * CHAINS * FEW)
        for n in range(item * images // items, (item + 1) * images // items):
            for q in range(0, max(1, pixels), block):
                at, count = dy + (n * pixels + q) * step, min(block, pixels - q)
                if F <= FEW:
                    _sum_chains(at, step, count // CHAINS, F, chains, kind)
                for f in range(0, F, len(lanes)):
                    if F <= FEW:
                        total = _joined(chains + 8 * f, at + f * size, step, count, F, F - f, kind)
                    else:
                        total = column_sums(at + f * size, step, count, F - f, kind)
                    add_to(sums + 8 * (n * F + f), F - f, total, q == 0, doubles)
        if add_one(call, s.DONE) == items - 1 and db != 0:
            _add_images(sums, images, F, db, kind)


@inner
def _sum_chains(at, step, rows, F, chains, kind):
    """The sums of every fourth pixel from pixel 0, 1, 2 and 3 on, F doubles each, to `chains`."""
    doubles, width, vector = wide(kind), CHAINS * F, len(kind[0])
    for f in range(0, width, 2 * vector):
        i = at + f * len(kind[2])
        a = spread(0.0, kind[0])
        b = a
        for _ in range(rows):
            a = a + widen(get(i, width - f, kind))
            b = b + widen(get(i + vector * len(kind[2]), width - f - vector, kind))
            i += CHAINS * step
        put(chains + 8 * f, width - f, a, doubles)
        put(chains + 8 * (f + vector), width - f - vector, b, doubles)


@inner
def _joined(chains, at, step, count, F, left, kind):
    """The sum of the chains; pixels that are left of four belong to the first."""
    doubles = wide(kind)
    a = get(chains, left, doubles)
    for i in range(count - count % CHAINS, count):
        a = a + widen(get(at + i * step, left, kind))
    b, c = get(chains + 8 * F, left, doubles), get(chains + 16 * F, left, doubles)
    return (a + b) + (c + get(chains + 24 * F, left, doubles))


@inner
def _add_images(sums, images, F, db, kind):
    """``db`` = the images' sums one after another, rounded once."""
    doubles = wide(kind)
    for f in range(0, F, len(kind[0])):
        total = get(sums + 8 * f, F - f, doubles)
        for n in range(1, images):
            total = total + get(sums + 8 * (n * F + f), F - f, doubles)
        put(sums + 8 * f, F - f, total, doubles)
    for f in range(F):
        put_number(db + f * len(kind[2]), load_element(sums + 8 * f, 0.0), kind)
