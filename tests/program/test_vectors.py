"""Vectors as values: every operation rounds by itself, in any number of lanes."""

import ctypes

import numpy as np
import pytest
from numba.core import types
from numba.core.ccallback import CFunc

from fastconv.compiler.inner import OPTIONS, inner
from fastconv.engine.emit.vectors import load, store


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_a_product_and_a_sum_are_two_roundings(lanes):
    zeros, like = (0,) * lanes, np.float32(0)

    @inner
    def arithmetic(at, to):
        a, b, c = (
            load(at, zeros, like),
            load(at + 4 * lanes, zeros, like),
            load(at + 8 * lanes, zeros, like),
        )
        store(to, a * b + c)

    def entry(at, to):
        arithmetic(at, to)

    compiled = CFunc(entry, ((types.int64,) * 2, types.void), {}, {**OPTIONS, "nopython": True})
    compiled.compile()
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(compiled.address)
    rng = np.random.default_rng(0)
    for _ in range(64):
        x, y = rng.standard_normal((3, lanes)).astype("f4"), np.empty(lanes, "f4")
        x[2] = -x[0] * x[1]  # one rounding would leave that of the product
        call(x.ctypes.data, y.ctypes.data)
        np.testing.assert_array_equal(y, 0)
        assert lanes == 1 or np.any(x[0].astype("f8") * x[1] + x[2])
