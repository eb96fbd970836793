"""Convolution problems as one-line descriptors: one table drives tests, benchmarks and the CLI.

A descriptor is a name (optional, ends in a colon) and words in any order, separated by spaces::

    lenet5.c1: m64 h28w28c1 f6 k5x5 s1 p2

    m64         images in the batch (default 1)
    h28w28c1    input size and channels: w9c3 in 1-D, h28w28c1 in 2-D, d4h8w8c2 in 3-D
    f6          output channels (filters)
    k5x5        window, one number per axis; k5 means 5 on every axis
    s1, s2x1    stride (default 1)
    p2, p2x0    padding (default 0), one number or one lo:hi pair per axis (p0:1x0:1), or
                psame, pvalid, pfull
    d2, d2x1    dilation (default 1)
    g4          groups (default 1)
    float64     dtype: float16, float32 (default) or float64

The form follows the named one-line problems of oneDNN's benchdnn, in this package's vocabulary.
A table file holds one descriptor a line; ``#`` starts a comment.
"""

from fastconv.problems.grammar import EXAMPLE
from fastconv.problems.problem import Operands, Problem, parse_problem
from fastconv.problems.tables import find_table, parse_problems, read_problems, table_names

__all__ = [
    "EXAMPLE",
    "Operands",
    "Problem",
    "find_table",
    "parse_problem",
    "parse_problems",
    "read_problems",
    "table_names",
]
