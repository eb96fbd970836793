"""Names of the int64 words that a table and a call hand to the compiled loops.

A table is written once for a geometry; the words of a call once a call. Steps and offsets are in
bytes. Triples (d, h, w) and views take consecutive words: ``SIZE + 1`` is the word of axis h.

Both ends use the names: Python writes a call with `call_words`, `pool_words` or `delta_words` and a
phase with `phase_words`, by keyword; the loops read the words by their constants.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

# A view: address, steps of n, d, h, w, c in bytes, and a kind.
VIEW_WORDS = 7
# How elements become elements of the computing dtype: as they are (4 or 8 bytes), in the other
# byte order, or from float16.
PLAIN_4, PLAIN_8, SWAPPED_4, SWAPPED_8, HALF, HALF_SWAPPED = range(6)


def kind_of(dtype: Any, computing: np.dtype) -> int:
    """How elements of `dtype` become elements of the `computing` dtype."""
    if dtype.itemsize == computing.itemsize:
        return (PLAIN_4 if dtype.isnative else SWAPPED_4) + (dtype.itemsize == 8)
    return HALF if dtype.isnative else HALF_SWAPPED


# ------------------------------------------------------------------------- a call
(
    NEXT_FIRST,  # counters: what must be done before all else, how much of it is, and items
    DONE,
    NEXT_ITEM,
    TABLE,  # address of the geometry's table
    SCRATCH,  # address of thread 0's scratch
    SOURCE,  # view: x, or dy of an input gradient
) = range(6)
(
    TARGET,  # view: y or dx; dy of a kernel gradient
    KERNEL,  # address of w
    PACKED,  # address of the packed kernel
    BIAS,  # address of the caller's bias, or 0
    PRIOR,  # address of the padded bias (zeros where there is none)
    RELU,
    DIRECT,  # 1: results are stored to the target in place
    PARTIAL,  # kernel gradient: address of the first part
    RESULT,  # kernel gradient: address of dw
    SWEEP,  # address of the tile's sweep
    IN_LINE,  # 1: result pixels lie one behind the other
    FINISH,  # entry that takes every box of results from scratch, or 0; and its call
    FINISH_CALL,
    CALL_WORDS,
) = (SOURCE + VIEW_WORDS, *range(SOURCE + 2 * VIEW_WORDS, SOURCE + 2 * VIEW_WORDS + 13))

CALL = struct.Struct(f"{CALL_WORDS}q")


def call_words(
    *, table: int, scratch: int, source: Sequence[int], target: Sequence[int], sweep: int,
    kernel: int = 0, packed: int = 0, bias: int = 0, prior: int = 0, relu: int = 0,
    direct: int = 0, partial: int = 0, result: int = 0, in_line: int = 0, finish: int = 0,
    finish_call: int = 0,
) -> tuple[int, ...]:  # fmt: skip
    """The words of a call of a product; `source` and `target` are views."""
    return (0, 0, 0, table, scratch, *source, *target, kernel, packed, bias, prior, relu, direct,
            partial, result, sweep, in_line, finish, finish_call)  # fmt: skip


# ------------------------------------------------------------------------- a task of a sweep
(
    TASK_ROWS,  # rows of the result, any number
    TASK_K,  # length of the sums
    TASK_LEFT,  # a, row, red: see emit
    TASK_RIGHT,  # b, b_step
    TASK_RESULT,  # c, c_row, cols
    TASK_ENDING,  # bias, accumulate, relu
    TASK_WIDE,  # rows that may be stored NR wide
    TASK_WORDS,
) = (0, 1, 2, 5, 7, 10, 13, 14)

# ------------------------------------------------------------------------- a box to finish
(
    BOX_FIRST,  # n, d, h, w: the first pixel, and how many
    BOX_EXTENT,
    BOX_RESULT,  # address of the results; bytes from one to the next along n, h, w
    BOX_WORDS,
) = (0, 4, 8, 12)

# ------------------------------------------------------------------------- a call that finishes
(
    FINISH_TARGET,  # address of the result, contiguous; bytes from pixel to pixel along n, h, w
    FINISH_TABLE,  # address of a normalisation's table, or 0; bytes of a row
    FINISH_ADDED,  # address of what is added, like the result, or 0
    FINISH_RELU,  # 1: what is negative becomes 0
    FINISH_POOL,  # 1: of 2x2 pixels, which all exist, only the largest is wanted
    FINISH_C,
    FINISH_WINNERS,  # address of which of the four it is, a byte each, like the result; or 0
    FINISH_WORDS,
) = (0, 4, 6, 7, 8, 9, 10, 11)

# ------------------------------------------------------------------------- errors of 2x2 maxima
(
    WINNERS_DY,  # addresses: error, result and winners (m, H, W, C), and x or the error before
    WINNERS_Y,
    WINNERS_AT,
    WINNERS_X,
    WINNERS_ROWS,  # of all results, and of an image's; pixels of one
    WINNERS_H,
    WINNERS_W,
    WINNERS_BEFORE_H,  # rows and pixels of the error before: twice as many, or one more
    WINNERS_BEFORE_W,
    WINNERS_C,
    WINNERS_RELU,  # 1: a result that is not positive passes no error
    WINNERS_ITEMS,
    WINNERS_CALL_WORDS,
) = range(TABLE, TABLE + 13)

# ------------------------------------------------------------------------- a table: boxes
_next = iter(range(0, 1000))


def _words(n: int = 1) -> int:
    """The first of `n` consecutive words."""
    first = next(_next)
    for _ in range(n - 1):
        next(_next)
    return first


BYTES = _words()  # of an element
TILE_ROWS = _words()  # MR
TILE_COLUMNS = _words()  # NR
LINE = _words()  # bytes of the packed right operand in one step of the reduction
M = _words()
ITEMS = _words()  # boxes
BOX = _words(4)  # n, d, h, w: pixels of a box
BLOCKS = _words(4)  # boxes along each axis
COUNT = _words(3)  # pixels along d, h, w (of the largest phase)
STEP = _words(3)  # source cells from one pixel to the next
LOW = _words(3)  # the first source cell of pixel 0, negative where it is padding
REACH = _words(3)  # source cells that a pixel needs beyond its first
SIZE = _words(3)  # source extents
COPIED = _words(3)  # 0: zeros outside; else addresses, see `gather`
GROUPS = _words()
CHANNELS = _words()  # source channels of all groups
BLOCK = _words()  # channels of a plane of the gathered source
GATHERED = _words()  # channels that are gathered at once: all, or those of a row group
IN_PLACE = _words()  # 1: the source is read where it lies
PITCH = _words(5)  # n, d, h, w, plane: steps of the source as the micro-kernel sees it
A_GROUP = _words()  # from a group's, and (depthwise) a panel's, left operand to the next
A_PANEL = _words()
COLUMNS = _words()  # columns of a group
PANELS = _words()
REDUCTION = _words()  # longest sum before it is added to the result
SCRATCH_BYTES = _words()  # of one thread
AT_TASK = _words()  # where in the scratch: a task, offsets, gathered source, results, gathered dy
AT_ROWS = _words()
AT_TARGETS = _words()
AT_SOURCE = _words()
AT_RESULT = _words()
AT_DY = _words()
# ------------------------------------------------------------------------- forward, input gradient
PHASES = _words()
PHASE_TABLE = _words()
PACKS = _words()  # runs of taps that are packed; the taps of a phase are a part of one
PACK_TABLES = _words()
TAP_BYTES = _words()  # of a packed tap of one panel
OUT_STEP = _words(3)  # result cells from one pixel of a phase to the next
TAP_STEP = _words()  # kernel: from a tap, a reduction channel, a column, a group to the next
REDUCE_STEP = _words()
COLUMN_STEP = _words()
GROUP_STEP = _words()
REDUCE = _words()  # reduction channels of a tap
# Results of fewer than NR columns in line: a row may be stored NR wide if as many rows as this,
# that it spills into, follow in the same box and are stored later. 0: no row may.
SPILL = _words()
EVERY = _words()  # elements of the left operand in one step of the reduction
# ------------------------------------------------------------------------- kernel gradient
K = _words()
RESULT_ROWS = _words()  # table of K offsets of the rows of a part
DY_IN_PLACE = _words()  # 1: dy is read where it lies, where NR columns of every pixel do
DY_BYTES = _words()
PARTS = _words()
ZERO_FIRST = _words()  # 1: a part starts with zeros, else with the sums of its first box
PART_BYTES = _words()
PART_GROUP = _words()  # from one group's part of the result to the next
COLUMN_GROUPS = _words()
GROUP_PANELS = _words()  # panels of a column group
ROW_GROUPS = _words()
GROUP_ROWS = _words()  # rows of a row group
# ------------------------------------------------------------------------- minimal filtering
MINIMAL_BLOCK = _words()  # tiles of a block
MINIMAL_TILES = _words(2)  # tiles of an image along h, w
MINIMAL_CELL = _words()  # bytes of a source cell; from a point's cells, and sums, to the next's
MINIMAL_BETWEEN = _words()
MINIMAL_SUMS = _words()
MINIMAL_WINDOW = _words()  # packed: bytes from a point to the next, and from a panel
MINIMAL_PANEL = _words()
MINIMAL_ZEROS = _words()  # address of a cell of zeros
MINIMAL_ROWS = _words(3)  # tables of offsets: a tile's cell, its sums, a channel of a cell
MINIMAL_PIXELS = _words(2)  # and computed directly: a result's first cell, a tap's channel
# Where in the scratch: addresses of a tile's cells, offsets of its results, a vector of every
# point, all points of a block's cells, their sums, a gathered run of tiles, the results of a tile.
AT_ADDRESSES = _words()
AT_OFFSETS = _words()
AT_VECTORS = _words()
AT_POINTS = _words()
AT_SUMS = _words()
AT_RUN = _words()
AT_HELD = _words()
TABLE_WORDS = _words()

# ------------------------------------------------------------------------- a pooling table
# An axis of a pooling: N, k, s, d, lo, O, hi; there are three, D, H and W.
(
    AXIS_SIZE,
    AXIS_WINDOW,
    AXIS_STEP,
    AXIS_APART,
    AXIS_LOW,
    AXIS_OUT,
    AXIS_HIGH,
    AXIS_WORDS,
) = range(8)
D_AXIS, H_AXIS, W_AXIS = range(3)
(
    POOL_AXES,  # the three axes
    POOL_C,  # channels; bytes of a pixel, and of an element
    POOL_PIXEL,
    POOL_ELEMENT,
    POOL_TAPS,  # cells of a window
    POOL_CELLS,  # cells of an image
    POOL_ROWS,  # output rows of an image
    POOL_PADDED,  # 1: means count the padding
    POOL_FAR,  # 1: an image has 2**31 cells or more
    POOL_ROWS_END,  # end of the rows, and of a row's pixels, whose windows reach no high padding
    POOL_STRETCH_END,
    POOL_COVERED,  # 1: every cell is in one window
    POOL_SCRATCH,  # bytes of scratch of one thread
    POOL_LEAST,  # the least argmax: 0, or -1 where a window has no cell
    POOL_WORDS,
) = (0, *range(3 * AXIS_WORDS, 3 * AXIS_WORDS + 14))

# ------------------------------------------------------------------------- a pooling call
(
    POOL_X,  # addresses of x or dx, of y or dy, and of argmax
    POOL_Y,
    POOL_ARGMAX,
    POOL_TOTAL,  # output rows, or images, in all, and into how many blocks they are cut
    POOL_ITEMS,
    POOL_BAD,  # one of the following, or 0
    POOL_CALL_WORDS,
) = range(SOURCE, SOURCE + 7)

POOL_CALL = struct.Struct(f"{POOL_CALL_WORDS}q")


def pool_words(
    *, table: int, scratch: int, x: int, y: int, argmax: int, total: int, items: int
) -> tuple[int, ...]:
    """The words of a call of a pooling."""
    return 0, 0, 0, table, scratch, x, y, argmax, total, items, 0


# An argmax points outside the image; elsewhere in it than into its window, where that matters.
OUTSIDE, ELSEWHERE = 1, 2

# ------------------------------------------------------------------------- a call of deltas
(
    DELTA_ELEMENT,  # bytes of an element
    DELTA_DY,  # addresses of dy, y and the result
    DELTA_Y,
    DELTA_RESULT,
    DELTA_TOTAL,  # elements or images in all, and into how many blocks they are cut
    DELTA_ITEMS,
    DELTA_PIXELS,  # of an image
    DELTA_F,
    DELTA_CALL_WORDS,
) = range(TABLE, TABLE + 9)

DELTA_CALL = struct.Struct(f"{DELTA_CALL_WORDS}q")


def delta_words(
    *, element: int, dy: int, result: int, total: int, items: int, y: int = 0, pixels: int = 0,
    columns: int = 0,
) -> tuple[int, ...]:  # fmt: skip
    """The words of a call of deltas."""
    return 0, 0, 0, element, dy, y, result, total, items, pixels, columns


# ------------------------------------------------------------------------- a call of im2col
(
    COLUMNS_X,  # a view
    COLUMNS_COLS,  # address of cols
    COLUMNS_TOTAL,  # output rows in all, and into how many blocks they are cut
    COLUMNS_ITEMS,
    COLUMNS_CALL_WORDS,
) = (SCRATCH, *range(SCRATCH + VIEW_WORDS, SCRATCH + VIEW_WORDS + 4))


def columns_words(
    *, table: int, x: Sequence[int], cols: int, total: int, items: int
) -> tuple[int, ...]:
    """The words of a call of im2col; `x` is a view."""
    return 0, 0, 0, table, *x, cols, total, items


# ------------------------------------------------------------------------- a phase
(
    PHASE_K,
    PHASE_OFFSETS,  # table of K offsets of (tap, channel)
    PHASE_PACKED,  # where its packed kernel starts, and from a panel's to the next
    PHASE_PANEL,
    PHASE_BEGIN,  # d, h, w: its first pixel, the end of its pixels, and the result cell of pixel 0
    PHASE_END,
    PHASE_START,
    PHASE_BLOCKS,  # how its K is cut
    PHASE_BLOCK_TABLE,  # where the cuts are: 0, ..., K
    PHASE_ROWS,  # kernel gradient: offsets of its rows in a part of the result
    PHASE_COLUMNS,  # columns that are stored, of a group
    PHASE_WORDS,
) = (0, 1, 2, 3, 4, 7, 10, 13, 14, 15, 16, 17)


def phase_words(
    *, k: int, offsets: int, begin: Sequence[int], end: Sequence[int],
    start: Sequence[int] = (0, 0, 0), packed: int = 0, panel: int = 0, blocks: int = 0,
    block_table: int = 0, rows: int = 0, columns: int = 0,
) -> tuple[int, ...]:  # fmt: skip
    """The words of a phase."""
    return (k, offsets, packed, panel, *begin, *end, *start, blocks, block_table, rows, columns)


# ------------------------------------------------------------------------- a packed run of taps
# Of each tap, PACK_TABLE has its number in w, where an earlier run has it packed for the first
# panel, and the bytes from panel to panel there; 0 bytes if none has it.
PACK_AT, PACK_TAPS, PACK_TABLE, PACK_WORDS = range(4)
