"""Calls from ``@njit`` code of problems that are known, alone and in a ``prange``."""

import numpy as np
from numba import njit, prange

import fastconv as fc

from .common import require_equal


@njit
def conv_and_pool(x, w):
    return fc.max_pool(fc.conv(x, w, padding="same"), 2)


@njit(parallel=True)
def each(x, w):
    found = np.zeros((len(x), x.shape[1] // 2, x.shape[2] // 2, w.shape[3]), x.dtype)
    for n in prange(len(x)):
        found[n] = conv_and_pool(x[n : n + 1], w)[0]
    return found


class Njit:
    params = ("1x4x4x1, 1", "32x12x12x6, 16", "16x32x32x32, 32")
    param_names = ("images, filters",)

    def setup(self, name):
        shape, F = name.split(", ")
        m, H, W, C = map(int, shape.split("x"))
        rng = np.random.default_rng(0)
        self.x = rng.integers(-9, 10, (m, H, W, C)).astype(np.float32)
        self.w = rng.integers(-9, 10, (3, 3, C, int(F))).astype(np.float32)
        expected = fc.max_pool(fc.conv(self.x, self.w, padding="same"), 2)
        for _ in range(2):  # through Python, and without
            require_equal(conv_and_pool(self.x, self.w), expected, "conv_and_pool")
            require_equal(each(self.x, self.w), expected, "each")

    def time_known(self, name):
        conv_and_pool(self.x, self.w)

    def time_each(self, name):
        each(self.x, self.w)
