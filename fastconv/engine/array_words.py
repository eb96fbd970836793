"""Names of the words of calls that run over whole arrays, and of the programs that call them.

As `fastconv.engine.words`, whose first words every call has.
"""

from __future__ import annotations

from fastconv.engine.words import TABLE

# ------------------------------------------------------------------------- a program's call
(
    STEPS,  # address of the table of steps
    STEP_COUNT,
    PROGRAM_CALL_WORDS,
) = range(TABLE, TABLE + 3)

# ------------------------------------------------------------------------- a step of a program
(
    STEP_ENTERED,  # counters: threads that have entered it, and that have left it
    STEP_LEFT,
    STEP_ENTRY,  # address of the compiled entry, and of its call
    STEP_CALL,
    STEP_THREADS,  # how many threads take part
    STEP_CHECKED,  # address of a double that must be finite for the program to go on, or 0
    STEP_WORDS,
) = range(7)

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
) = range(TABLE, TABLE + 12)

# The doubles: the mean (of an item the sum) of the losses, NaN if a label is bad; how many rows are
# predicted right; the first row (binary: element) whose label is bad, or -1.
LOSS_VALUE, LOSS_CORRECT, LOSS_BAD, LOSS_RESULTS = range(4)

# ------------------------------------------------------------------------- a call of an optimizer
(
    OPTIMIZER_ELEMENT,  # bytes of an element
    OPTIMIZER_TABLE,  # address: the first piece of every item, their end, and the pieces
    OPTIMIZER_ITEMS,
    OPTIMIZER_SCALARS,  # address of the step's doubles
) = range(TABLE, TABLE + 4)

# A piece of a parameter: addresses of its value, gradient and running averages (0: none), bytes.
PIECE_VALUE, PIECE_GRAD, PIECE_SLOT0, PIECE_SLOT1, PIECE_BYTES, PIECE_WORDS = range(6)

# ------------------------------------------------------------------------- an elementwise call
(
    EACH_A,  # addresses of the operands (of one operand twice the same) and of the result
    EACH_B,
    EACH_RESULT,
    EACH_TOTAL,  # elements, and into how many items they are cut
    EACH_ITEMS,
    EACH_NUMBER,  # a double that the function takes, such as a slope
) = range(TABLE, TABLE + 6)

# ------------------------------------------------------------------------- a row in all rows
(
    FILL_RESULT,
    FILL_B,  # address of the row, or 0 for zeros
    FILL_ROWS,
    FILL_F,
    FILL_RELU,  # 1 if what is negative becomes 0
    FILL_ITEMS,
) = range(TABLE, TABLE + 6)

# ------------------------------------------------------------------------- a bias's gradient
(
    BIAS_DY,
    BIAS_SUMS,  # address of the images' sums
    BIAS_DB,  # address, or 0 where the images' sums are all
    BIAS_IMAGES,
    BIAS_PIXELS,  # of an image
    BIAS_F,
    BIAS_BLOCK,  # pixels that are taken together
    BIAS_ITEMS,
) = range(TABLE, TABLE + 8)

# ------------------------------------------------------------------------- means of images
(
    MEANS_X,
    MEANS_Y,
    MEANS_IMAGES,
    MEANS_PIXELS,  # of an image
    MEANS_C,
    MEANS_ITEMS,
) = range(TABLE, TABLE + 6)

# ------------------------------------------------------------------------- a call over channels
# See `loops.channels`: ROWS rows of WIDTH elements, and a rest of fewer elements.
(
    CHANNELS_A,  # addresses of the operands and of the result
    CHANNELS_B,
    CHANNELS_RESULT,
    CHANNELS_TABLE,  # address of the channels' numbers (TABLE_MEAN, ...)
    CHANNELS_PARTS,  # address of the items' sums
    CHANNELS_C,
    CHANNELS_WIDTH,
    CHANNELS_ROWS,
    CHANNELS_REST,
    CHANNELS_BLOCK,  # rows that are taken together
    CHANNELS_ITEMS,
    CHANNELS_SUM_GRADS,  # addresses of the gradients of shift and scale
    CHANNELS_PRODUCT_GRADS,
    CHANNELS_SCALE,
    CHANNELS_SHIFT,
    CHANNELS_RUNNING_MEAN,
    CHANNELS_RUNNING_VARIANCE,
    CHANNELS_MOMENTUM,  # doubles
    CHANNELS_EPSILON,
) = range(TABLE, TABLE + 19)

# Rows of the table of a batch normalisation, each WIDTH elements: one number of every channel, over
# and over again. The backward pass writes those from TABLE_FACTOR on.
(
    TABLE_MEAN,
    TABLE_INVERSE,
    TABLE_SCALE,
    TABLE_SHIFT,
    TABLE_FACTOR,
    TABLE_MEAN_DY,
    TABLE_MEAN_DY_NORMAL,
    TABLE_ROWS,
) = range(8)
