"""The three products of a convolution over the small-image tables."""

import statistics
import timeit

import numpy as np

import fastconv as fc
from fastconv import reference

from .common import check_products, require_equal, small_image_problems

PROBLEMS = small_image_problems()
ROUNDS = 15


class Products:
    """Plans with outputs given: the products themselves."""

    params = (list(PROBLEMS),)
    param_names = ("problem",)

    def setup(self, name):
        problem = PROBLEMS[name]
        check_products(problem)
        self.x, self.w, self.b, self.dy = problem.operands()
        self.plan = fc.plan_conv(problem.x_shape, problem.w_shape, **problem.kwargs)
        self.y, self.dx, self.dw = map(np.empty_like, (self.dy, self.x, self.w))
        self.time_forward(name)
        self.time_kernel_grad(name)
        self.time_input_grad(name)

    def time_forward(self, name):
        self.plan.forward(self.x, self.w, self.b, out=self.y)

    def time_kernel_grad(self, name):
        self.plan.kernel_grad(self.x, self.dy, out=self.dw)

    def time_input_grad(self, name):
        self.plan.input_grad(self.dy, self.w, out=self.dx)

    def track_rate(self, name):
        """Of the three products together: what a training step gets."""
        products = (self.time_forward, self.time_kernel_grad, self.time_input_grad)
        seconds = [timeit.repeat(lambda f=f: f(name), number=1, repeat=ROUNDS) for f in products]
        return 3 * PROBLEMS[name].flops / sum(map(statistics.median, seconds)) / 1e9

    track_rate.unit = "GFLOP/s"


class Functions:
    """The functions that plan, allocate and compute, on the same operands."""

    params = (list(PROBLEMS),)
    param_names = ("problem",)

    def setup(self, name):
        problem = PROBLEMS[name]
        check_products(problem)
        self.x, self.w, self.b, self.dy = problem.operands()
        self.options = problem.kwargs
        # of a transposed convolution: x and dy have changed places
        self.transposed = (
            problem.x_shape == fc.conv_transpose(self.dy, self.w, **self.options).shape
        )
        self.time_conv_backward(name)

    def time_conv(self, name):
        fc.conv(self.x, self.w, self.b, activation="relu", **self.options)

    def time_conv_backward(self, name):
        fc.conv_backward(self.dy, self.x, self.w, **self.options)

    def time_conv_transpose(self, name):
        fc.conv_transpose(self.dy, self.w, **self.options)

    def time_conv_transpose_backward(self, name):
        if self.transposed:
            fc.conv_transpose_backward(self.x, self.dy, self.w, **self.options)


class Call:
    """What a call costs around the product: one tiny image."""

    def setup(self):
        rng = np.random.default_rng(0)
        self.x = rng.integers(-9, 10, (1, 8, 8, 1)).astype(np.float32)
        self.w = rng.integers(-9, 10, (3, 3, 1, 1)).astype(np.float32)
        self.y = np.maximum(self.x, 0)
        require_equal(fc.conv(self.x, self.w), reference.conv(self.x, self.w), "a tiny conv")
        self.time_tiny_max_pool()  # kernels are loaded here, not under the clock
        self.time_tiny_relu_backward()

    def time_tiny_conv(self):
        fc.conv(self.x, self.w)

    def time_tiny_max_pool(self):
        fc.max_pool(self.x, 2)

    def time_tiny_relu_backward(self):
        fc.relu_backward(self.x, self.y)
