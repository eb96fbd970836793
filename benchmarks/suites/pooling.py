"""Pooling and the batched deltas on the activations of small CNNs."""

import numpy as np

import fastconv as fc
from fastconv import reference

from .common import inner, require_equal

SHAPES = {"lenet5": (64, 28, 28, 6), "mnist": (128, 26, 26, 32), "resnet8": (32, 32, 32, 16)}


class Pooling:
    params = (list(SHAPES), ["channels_last", "channels_first"])
    param_names = ("activations", "data_format")

    def setup(self, name, data_format):
        m, H, W, C = SHAPES[name]
        shape = (m, H, W, C) if data_format == "channels_last" else (m, C, H, W)
        rng = np.random.default_rng(0)
        self.x = rng.integers(-50, 50, shape).astype(np.float32)
        self.options = {"data_format": data_format}
        self.y, self.argmax = fc.max_pool(self.x, 2, return_argmax=True, **self.options)
        expected = reference.max_pool(self.x[:1], 2, return_argmax=True, **self.options)
        require_equal(self.y[:1], expected[0], "max_pool")
        require_equal(self.argmax[:1], expected[1], "argmax")
        dx = fc.max_pool_backward(self.y, self.argmax, shape, 2, **self.options)
        require_equal(inner(dx, self.x), inner(self.y, self.y), "max_pool_backward")
        means = fc.avg_pool(self.x, 2, **self.options)
        require_equal(means[:1], reference.avg_pool(self.x[:1], 2, **self.options), "avg_pool")
        dx = fc.avg_pool_backward(self.y, shape, 2, **self.options)
        require_equal(inner(dx, self.x), inner(self.y, means), "avg_pool_backward")

    def time_max_pool(self, name, data_format):
        fc.max_pool(self.x, 2, **self.options)

    def time_max_pool_argmax(self, name, data_format):
        fc.max_pool(self.x, 2, return_argmax=True, **self.options)

    def time_max_pool_backward(self, name, data_format):
        fc.max_pool_backward(self.y, self.argmax, self.x.shape, 2, **self.options)

    def time_avg_pool(self, name, data_format):
        fc.avg_pool(self.x, 2, **self.options)

    def time_avg_pool_backward(self, name, data_format):
        fc.avg_pool_backward(self.y, self.x.shape, 2, **self.options)


class Deltas:
    def setup(self):
        rng = np.random.default_rng(0)
        self.y = np.maximum(rng.integers(-9, 9, (128, 26, 26, 32)), 0).astype(np.float32)
        self.dy = rng.integers(-9, 9, self.y.shape).astype(np.float32)
        got = fc.relu_backward(self.dy, self.y)
        require_equal(got, self.dy * (self.y > 0), "relu_backward")

    def time_relu_backward(self):
        fc.relu_backward(self.dy, self.y)
