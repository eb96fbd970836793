"""A whole network as one program: a list of calls of compiled loops, made once and run many times.

The path of a layer's numbers, from a description to a result::

    lower   every layer, loss and optimizer of `nn` says what it does as operations on values, which
            are arrays that do not exist yet (`graph`), in the words of the package's functions
            (`layers`); one that does not know of programs becomes a call back into Python
    fuse    while it lowers, a layer takes a ReLU behind it into its own store, where no bit
            changes; a convolution also 2x2 maxima, and in inference a normalisation or a residual's
            sum, which are done to each box of its results (`finish`)
    place   every value gets an offset in one arena; values that never live at once share memory
    bind    operations with addresses become calls: a compiled loop and its words (`machine`)
    run     one launch: each thread walks all calls, takes pieces of each, and waits for the rest

What only networks need stands in `ops`, where the layers' own passes call it at once, and written
to be read in `naive`. Both ways call the same loops, and threads never choose the order of a sum:
a program gives the layers' own bits.
"""
