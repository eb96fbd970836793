"""How a product's pixels are cut into boxes: what a thread computes at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastconv.engine.tables.lattice import Lattice, Triple, triple

__all__ = ["BOX_BYTES", "choose_box", "cut", "region"]

# What a box's source, results and tables may take: a quarter of the second-level cache of the
# smallest machines of today (512 KiB to 2 MiB a core), which they share with the packed kernel.
BOX_BYTES = 256 * 1024
BOX_PIXELS = 2048
# Pixels that a box keeps even if fewer boxes than wanted are left: some rows of tiles.
SMALLEST = 256


def region(lattice: Lattice, box: Sequence[int]) -> Triple:
    """``(d, h, w)``: source cells that the pixels of a box ``(n, d, h, w)`` read, padding too."""
    return triple([
        (n - 1) * step + reach + 1
        for n, step, reach in zip(box[1:], lattice.step, lattice.reach, strict=True)
    ])  # fmt: skip


def cut(m: int, lattice: Lattice, box: Sequence[int]) -> list[int]:
    """Into how many boxes the pixels of `m` images are cut, along n, d, h, w."""
    return [-(-n // b) for n, b in zip((m, *lattice.count), box, strict=True)]


def choose_box(
    m: int, lattice: Lattice, cell_bytes: int, pixel_bytes: int, boxes: int, limit: int = BOX_BYTES,
    threads: int = 1, unit: int = 1,
) -> tuple[int, ...]:  # fmt: skip
    """``(n, d, h, w)``: pixels of a box. Whole images, else whole rows, else a piece of one row.

    Parameters
    ----------
    m : int
        Images.
    lattice : Lattice
    cell_bytes, pixel_bytes : int
        Bytes of one source cell and, apart from that, of one pixel.
    boxes : int
        How many boxes are wanted, for balance between threads.
    limit : int
        Bytes of a box.
    threads : int
        Boxes are made smaller, down to half, where the busiest thread then computes less.
    unit : int
        Rows, and pixels of a row, that stay together; it divides all there are.

    Examples
    --------
    >>> from fastconv.engine.tables.lattice import Phase
    >>> phase = Phase((0, 0, 0), (1, 64, 64), (0, 0, 0), (0,), ((0, 0, 0),))
    >>> choose_box(8, Lattice((1, 64, 64), (1, 1, 1), (1, 1, 1), (phase,)), 4, 4, 16)
    (1, 1, 32, 64)
    """
    count = lattice.count
    wanted = max(SMALLEST, -(-m * math.prod(count) // boxes))

    def fits(box: Sequence[int]) -> bool:
        pixels = math.prod(box)
        nbytes = box[0] * math.prod(region(lattice, box)) * cell_bytes + pixels * pixel_bytes
        return nbytes <= limit and pixels <= min(BOX_PIXELS, wanted)

    box = [m, *count]
    for axis, apart in enumerate((1, 1, unit, unit)):
        low, high = 1, box[axis] // apart
        while low < high:  # the most that fits; 1 where nothing does, and the next axis is cut
            middle = (low + high + 1) // 2
            box[axis] = middle * apart
            low, high = (middle, high) if fits(box) else (low, middle - 1)
        box[axis] = low * apart
        if low > 1 or fits(box):
            break
    axis_length, outer = (m, *count)[axis] // apart, math.prod((m, *count)[:axis])

    def longest(n: int) -> int:
        """What the busiest thread computes, with boxes of `n`."""
        return -(-outer * -(-axis_length // n) // threads) * n

    if threads > 1:
        low = min(range(low, low // 2, -1), key=longest)
    # boxes of about equal size
    box[axis] = -(-axis_length // -(-axis_length // low)) * apart
    return tuple(box)
