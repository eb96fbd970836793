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
        self.options = {"data_format": data_format}  # winners anywhere, errors of both signs
        self.y, self.argmax = fc.max_pool(self.x, 2, return_argmax=True, **self.options)
        expected = reference.max_pool(self.x[:1], 2, return_argmax=True, **self.options)
        require_equal(self.y[:1], expected[0], "max_pool")
        require_equal(self.argmax[:1], expected[1], "argmax")
        self.dy = rng.integers(-50, 50, self.y.shape).astype(np.float32)
        dx = fc.max_pool_backward(self.dy, self.argmax, shape, 2, **self.options)
        require_equal(inner(dx, self.x), inner(self.dy, self.y), "max_pool_backward")
        means = fc.avg_pool(self.x, 2, **self.options)
        require_equal(means[:1], reference.avg_pool(self.x[:1], 2, **self.options), "avg_pool")
        dx = fc.avg_pool_backward(self.dy, shape, 2, **self.options)
        require_equal(inner(dx, self.x), inner(self.dy, means), "avg_pool_backward")

    def time_max_pool(self, name, data_format):
        fc.max_pool(self.x, 2, **self.options)

    def time_max_pool_argmax(self, name, data_format):
        fc.max_pool(self.x, 2, return_argmax=True, **self.options)

    def time_max_pool_backward(self, name, data_format):
        fc.max_pool_backward(self.dy, self.argmax, self.x.shape, 2, **self.options)

    def time_avg_pool(self, name, data_format):
        fc.avg_pool(self.x, 2, **self.options)

    def time_avg_pool_backward(self, name, data_format):
        fc.avg_pool_backward(self.dy, self.x.shape, 2, **self.options)


class Deltas:
    """The ReLU's mask, half of it off at random, and the bias's gradient; NumPy's beside them."""

    params = (list(SHAPES), ["float32", "float64", "float16"])
    param_names = ("activations", "dtype")

    def setup(self, name, dtype):
        rng = np.random.default_rng(0)
        shape = SHAPES[name]
        self.y = np.maximum(rng.integers(-9, 10, shape), 0).astype(dtype)
        self.dy = rng.integers(-9, 10, shape).astype(dtype)
        self.x = np.zeros((*shape[:-1], 1), dtype)
        self.w = np.zeros((1, 1, 1, shape[-1]), dtype)
        got = fc.relu_backward(self.dy, self.y)
        require_equal(got, self.dy * (self.y > 0), "relu_backward")
        db = fc.conv_backward(self.dy, self.x, self.w, need=("b",)).db
        require_equal(db, self.dy.sum((0, 1, 2), np.float64).astype(dtype), "db")

    def time_relu_backward(self, name, dtype):
        fc.relu_backward(self.dy, self.y)

    def time_relu_backward_in_numpy(self, name, dtype):
        self.dy * (self.y > 0)

    def time_bias_grad(self, name, dtype):
        fc.conv_backward(self.dy, self.x, self.w, need=("b",))

    def time_bias_grad_in_numpy(self, name, dtype):
        self.dy.sum((0, 1, 2))


class Columns:
    """im2col and its adjoint."""

    params = (list(SHAPES),)
    param_names = ("activations",)

    def setup(self, name):
        rng = np.random.default_rng(0)
        self.x = rng.integers(-9, 10, SHAPES[name]).astype(np.float32)
        cols = fc.im2col(self.x, 3, padding=1)
        require_equal(cols[:1], reference.im2col(self.x[:1], 3, padding=1), "im2col")
        self.cols = rng.integers(-9, 10, cols.shape).astype(np.float32)
        back = fc.col2im(self.cols, self.x.shape, 3, padding=1)
        require_equal(inner(back, self.x), inner(self.cols, cols), "col2im")

    def time_im2col(self, name):
        fc.im2col(self.x, 3, padding=1)

    def time_col2im(self, name):
        fc.col2im(self.cols, self.x.shape, 3, padding=1)
