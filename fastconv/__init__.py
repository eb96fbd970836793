"""Convolution and pooling for NumPy arrays, forward and backward.

>>> import numpy as np
>>> import fastconv as fc
>>> fc.conv(np.ones((64, 28, 28, 1)), np.ones((3, 3, 1, 8)), padding="same").shape
(64, 28, 28, 8)

What is where, a floor a line, from the top; each uses lower ones only:

========== ======================================================================================
cli        the command line: a module for each command, tables
guide      pages to read, and the reference of all public names as HTML
selfcheck  whether everything is right on this machine: what ``fastconv check`` runs
explain    images through a small network and back, number by number
sklearn    estimators for scikit-learn
adapters   fastconv as the backend of other projects, a module for each
examples   four small networks, their data and their recipes
nn         layers, losses, optimizers, training, files
testing    checks for an implementation of one's own
program    a whole network as one table of engine calls
problems   convolution problems in one line each, tables of them, and their timing
config     `warmup` and `show_config`
functional the public functions: they check, plan and call
lowering   the same products as explicit im2col, for reading
plans      for each operation how it is done, and the only door into the engine
engine     instructions, loops that read tables, and the tables
cache      the compiled kernels on disk: where they are, and their removal
compiler   making and keeping machine code
threads    how many threads are used
processors how many there are
operands   arrays and `out`, checked
geometry   shapes, sizes and options, checked once; the vocabulary
reference  naive loops under the same names, and how backpropagation works
typing     types of public arguments and results
========== ======================================================================================
"""

from typing import TYPE_CHECKING

from fastconv._version import __version__ as __version__
from fastconv.config import show_config, warmup
from fastconv.functional import (
    avg_pool,
    avg_pool_backward,
    col2im,
    conv,
    conv_backward,
    conv_input_grad,
    conv_kernel_grad,
    conv_transpose,
    conv_transpose_backward,
    im2col,
    max_pool,
    max_pool_backward,
    relu_backward,
)
from fastconv.plans.algorithm import algorithm
from fastconv.plans.conv import ConvPlan, plan_conv
from fastconv.plans.gradients import ConvGrads
from fastconv.threads import get_num_threads, num_threads, set_num_threads

__all__ = [
    "ConvGrads",
    "ConvPlan",
    "algorithm",
    "avg_pool",
    "avg_pool_backward",
    "col2im",
    "conv",
    "conv_backward",
    "conv_input_grad",
    "conv_kernel_grad",
    "conv_transpose",
    "conv_transpose_backward",
    "get_num_threads",
    "im2col",
    "max_pool",
    "max_pool_backward",
    "num_threads",
    "plan_conv",
    "relu_backward",
    "set_num_threads",
    "show_config",
    "warmup",
]

# Loaded when they are first asked for, as fastconv.nn or `from fastconv import nn`. Type checkers
# see plain imports, so that they know what is in them and report names that do not exist.
if TYPE_CHECKING:
    from fastconv import cache as cache
    from fastconv import examples as examples
    from fastconv import explain as explain
    from fastconv import nn as nn
    from fastconv import reference as reference
    from fastconv import testing as testing
    from fastconv import typing as typing
else:
    _SUBMODULES = ("cache", "examples", "explain", "nn", "reference", "testing", "typing")

    def __getattr__(name):
        if name in _SUBMODULES:
            import importlib

            return importlib.import_module(f"fastconv.{name}")
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}")

    def __dir__():
        return sorted([*globals(), *_SUBMODULES])
