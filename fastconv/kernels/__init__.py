"""Compiled loops over channels-last arrays. Importing a module here imports Numba.

Each kernel is one serial body over a range of rows (or images), called directly for one thread
and by a parallel driver, a few lines long, for several: so all thread counts run the same code.
Bodies receive C-contiguous arrays that were checked above; nothing here checks bounds.
"""
