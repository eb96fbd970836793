"""Adapters read no array of dask, xarray or a gradient's tape in silence; the error names it."""

import importlib

import dask.array
import numpy as np
import pytest

X = dask.array.ones((1, 1, 4, 4), dtype="float32")
W = np.ones((1, 1, 2, 2), "float32")
STEPS = {"stride": 1, "pad": 0}
CALLS = {
    "autograd": lambda m: m.conv(X, W),
    "autograd pool": lambda m: m.max_pool(X, 1),
    "coursera": lambda m: m.conv_forward(X, W, W, STEPS),
    "cs231n": lambda m: m.conv_forward_fast(X, W, W, STEPS),
    "jax": lambda m: m.conv(X, W),
    "jax pool": lambda m: m.avg_pool(X, 1),
    "mygrad": lambda m: m.conv_nd(X, W, stride=1),
    "mygrad pool": lambda m: m.avg_pool(X, 2, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_dask(name):
    module = importlib.import_module(f"fastconv.adapters.{name.split()[0]}")
    with pytest.raises(TypeError, match=r"^(x|A_prev) is of dask.*compute it first, \w+\.compute"):
        CALLS[name](module)
