"""Loop of the bias's gradient: sums of all pixels' errors, in float64."""

from __future__ import annotations

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import add_one, load_element, words
from fastconv.engine.loops.channels import add_to, column_sums, get, put, put_number, wide

__all__ = ["bias_grad"]


@inner
def bias_grad(call, thread, kind):
    """``db[f]`` = sum of ``dy[n, :, f]``: of every image, then over the images in their order.

    An item is a run of images. Who finishes last adds up the images' sums.
    """
    dy, sums, db, images, pixels, F, block, items = words(call, s.BIAS_DY, 8)
    lanes, size, doubles = kind[0], len(kind[2]), wide(kind)
    step = F * size
    while True:
        item = add_one(call, s.NEXT_ITEM)
        if item >= items:
            return
        for n in range(item * images // items, (item + 1) * images // items):
            for q in range(0, max(1, pixels), block):
                for f in range(0, F, len(lanes)):
                    at, left = dy + (n * pixels + q) * step + f * size, F - f
                    total = column_sums(at, step, min(block, pixels - q), left, kind)
                    add_to(sums + 8 * (n * F + f), left, total, q == 0, doubles)
        if add_one(call, s.DONE) == items - 1 and db != 0:
            _add_images(sums, images, F, db, kind)


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
