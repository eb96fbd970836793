"""Convolution and pooling for NumPy arrays, forward and backward.

>>> import numpy as np
>>> import fastconv as fc
>>> fc.conv(np.ones((64, 28, 28, 1)), np.ones((3, 3, 1, 8)), padding="same").shape
(64, 28, 28, 8)
"""

import importlib
from typing import Any

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
from fastconv.plans.conv import ConvPlan, plan_conv
from fastconv.plans.gradients import ConvGrads
from fastconv.threads import get_num_threads, num_threads, set_num_threads

__all__ = [
    "ConvGrads",
    "ConvPlan",
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

# Loaded when they are first asked for, as fastconv.nn or `from fastconv import nn`.
_SUBMODULES = ("cache", "examples", "nn", "reference", "testing")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"fastconv.{name}")
    raise AttributeError(f"module 'fastconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])
