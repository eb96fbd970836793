"""Names of the int64 words that a plan and a call hand to the compiled loops.

A plan's table is written once; a call's table once a call. Steps and offsets are in bytes. Triples
(d, h, w) and views take consecutive words: ``SIZE + 1`` is the word of axis h.
"""

from __future__ import annotations

# A view: address, steps of n, d, h, w, c, kind (see gather).
VIEW_WORDS = 7

# ------------------------------------------------------------------------- a call
(
    NEXT_FIRST,  # counters: what must be done before all else, how much of it is, and items
    DONE,
    NEXT_ITEM,
    PLAN,  # address of the plan's table
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
    CALL_WORDS,
) = (SOURCE + VIEW_WORDS, *range(SOURCE + 2 * VIEW_WORDS, SOURCE + 2 * VIEW_WORDS + 11))

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

# ------------------------------------------------------------------------- a plan: boxes
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
PLAN_WORDS = _words()

# ------------------------------------------------------------------------- a pooling plan
(
    POOL_AXES,  # (N, k, s, d, lo, O, hi) of D, H and W
    POOL_C,  # channels; bytes of a pixel, and of an element
    POOL_PIXEL,
    POOL_ELEMENT,
    POOL_TAPS,  # cells of a window
    POOL_CELLS,  # cells of an image
    POOL_ROWS,  # output rows of an image
    POOL_PADDED,  # 1: means count the padding
    POOL_FAR,  # 1: an image has 2**31 cells or more
    POOL_RUN_END,  # end of the pixels of a row whose windows reach no high padding
    POOL_COVERED,  # 1: every cell is in one window
    POOL_SCRATCH,  # bytes of scratch of one thread
    POOL_WORDS,
) = (0, *range(21, 33))

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
) = range(PLAN, PLAN + 9)

# ------------------------------------------------------------------------- a call of a loss
(
    LOSS_ELEMENT,  # bytes of an element
    LOSS_Z,  # addresses of z, the labels and dz
    LOSS_Y,
    LOSS_DZ,
    LOSS_ROWS,  # z is (rows, width)
    LOSS_WIDTH,
    LOSS_COUNT,  # the mean is over so many: rows, or elements
    LOSS_BLOCK,  # an item is so many rows, or one of so many pieces of a row
    LOSS_CUTS,
    LOSS_ITEMS,
    LOSS_PARTS,  # address of LOSS_RESULTS doubles for each item, and for all
    LOSS_RESULT,
    LOSS_CALL_WORDS,
) = range(PLAN, PLAN + 13)

# The doubles: the mean (of an item the sum) of the losses, NaN if a label is bad; how many rows are
# predicted right; the first row (binary: element) whose label is bad, or -1.
LOSS_VALUE, LOSS_CORRECT, LOSS_BAD, LOSS_RESULTS = range(4)

# ------------------------------------------------------------------------- a call of an optimizer
(
    OPTIMIZER_ELEMENT,  # bytes of an element
    OPTIMIZER_TABLE,  # address: the first piece of every item, their end, and the pieces
    OPTIMIZER_ITEMS,
    OPTIMIZER_SCALARS,  # address of the step's doubles
    OPTIMIZER_CALL_WORDS,
) = range(PLAN, PLAN + 5)

# A piece of a parameter: addresses of its value, gradient and running averages (0: none), bytes.
PIECE_VALUE, PIECE_GRAD, PIECE_SLOT0, PIECE_SLOT1, PIECE_BYTES, PIECE_WORDS = range(6)

# The doubles of a step.
SGD_LR, SGD_MOMENTUM, SGD_LR_MOMENTUM, SGD_DECAY, SGD_NESTEROV, SGD_SCALARS = range(6)
(
    ADAM_KEEP1,  # beta1, 1 - beta1, and so for beta2
    ADAM_NEW1,
    ADAM_KEEP2,
    ADAM_NEW2,
    ADAM_ROOT,  # 1 / sqrt(1 - beta2**t)
    ADAM_EPSILON,
    ADAM_SIZE,  # lr / (1 - beta1**t)
    ADAM_DECAY,  # 1 - lr * weight_decay
    ADAM_SCALARS,
) = range(9)

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

# ------------------------------------------------------------------------- a packed run of taps
# Of each tap, PACK_TABLE has its number in w, where an earlier run has it packed for the first
# panel, and the bytes from panel to panel there; 0 bytes if none has it.
PACK_AT, PACK_TAPS, PACK_TABLE, PACK_WORDS = range(4)
