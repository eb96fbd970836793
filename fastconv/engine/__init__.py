"""The engine: implicit im2col by one register-blocked micro-kernel. Nothing here validates.

*Tables* write int64 words, the *loop* of the same name reads them, *emit* gives the instructions,
*products*, *pools*, *finished*, and of loops over arrays *channels*, *deltas*, *elementwise*,
*losses* and *optimizers*, are what plans and programs call.

The im2col matrix is never written down. Its element for a pixel and a tap lies at the sum of two
offsets, so two short lists stand for it::

    a gathered box of the source,          2x2 window, stride 1
    padding included: 3 rows of 5 cells
                                           rows  0 1 2 3   5 6 7 8     a pixel's first cell
         0    1    2    3    4             taps  0 1 5 6               a tap's cell from there
         5    6    7   [8]   9
        10   11   12   13   14             pixel 2 meets tap 3 at cell 2 + 6 = 8

    A: [pixels x K] by offsets         B: a packed panel, NR columns      C: [pixels x NR]

                 tap 0   tap 1  ...         f0  f1  f2  ...  f(NR-1)
                 c0 c1   c0 c1      tap 0   .   .   .        .    c0  <- a line  \
      pixel 0  [  .  .    .  .  ]           .   .   .        .    c1              |  K
      pixel 1  [  .  .    .  .  ]   tap 1   .   .   .        .    c0              |  lines
      ...                           ...                                          /

A tile is MR rows of A and of C, in registers; a sweep takes a panel's tiles one after the other.

========  ======================================================================================
noun      meaning
========  ======================================================================================
cell      a position of the source, with all its channels
pixel     a position of the result, of one image
lattice   which source cells meet which result pixels, on three axes
segment   neighbouring pixels of one axis with the same taps
phase     pixels with the same taps: a segment on each axis; each has its own list of taps
box       pixels that a thread computes at once: some images, or rows of one, or a piece of a row
item      the number of a box; in pooling and deltas, of some rows, images or elements
plane     some channels of all cells of a gathered box, cell behind cell
tile      MR rows by NR columns of a result, in registers
panel     NR columns; the right operand is packed, and the result computed, panel by panel
line      the right operand of one step of the reduction: NR elements, or NR vectors or pairs
block     what is summed, packed or copied before the next: steps of K, or channels of a plane
run       taps that are packed one behind the other; a phase's taps are a piece of one
stretch   pooling: neighbouring pixels whose windows hold the same cells
part      kernel gradient: the sum over some boxes; parts are added in their order
unit      kernel gradient: what a thread takes: a part, of some columns and some rows
point     minimal filtering: a tile's cells, and a window, as numbers whose products are few
prior     what a sum is added to when it is stored: the bias, or the result so far
spill     rows stored NR wide though they have fewer columns: what lies behind is stored later
sweep     the compiled function of a tile: all rows of a panel, one block of K
task      the words of a call of a sweep
finish    what follows a product, done to a box of results in scratch: normalisation, sum, maxima
entry     a compiled function that is called by its address: a sweep, or a loop
table     the words of a geometry, written once, and the lists that they point to
view      an array as seven words: address, steps of n, d, h, w, c in bytes, kind of element
request   what other people's compiled code asks for: a key, and the operands' addresses
record    a call that answers all requests of one key; records lie in a shelf
word      an int64 of a table, a call, a phase or a task, by its name in `words`
========  ======================================================================================
"""
