"""Random geometries, 1-D to 3-D: everything equals the naive loops exactly on small integers.

2,400 convolutions (three products each), 1,200 transposed convolutions and 1,200 poolings; both
data formats, groups, dilation, every form of padding, float32 and float64, one and more threads.
"""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from strategies import integers, layout, random_conv, random_pool, random_transpose

import fastconv as fc
from fastconv import reference

CHUNKS = range(24)
CONVS, TRANSPOSES, POOLS = 100, 50, 50


def variants(seed, count):
    """A generator of numbers, a data format, a dtype and a thread count for each problem."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        data_format = ("channels_last", "channels_first")[i % 2]
        yield rng, data_format, ("float32", "float64")[i // 2 % 2], (1, 2, 3)[i % 3]


def described(problem):
    """For the message of a failed comparison."""
    return f"x, w or window, options: {problem}"


@pytest.mark.parametrize("chunk", CHUNKS)
def test_conv(chunk):
    for rng, data_format, dtype, threads in variants((1, chunk), CONVS):
        x_shape, w_shape, options = problem = random_conv(rng)
        options["data_format"] = data_format
        x = integers(rng, *layout(x_shape, data_format), dtype=dtype)
        w, b = integers(rng, *w_shape, dtype=dtype), integers(rng, *w_shape[-1:], dtype=dtype)
        y = reference.conv(x, w, b, **options)
        dy = integers(rng, *y.shape, dtype=dtype)
        dx, dw, db = reference.conv_backward(dy, x, w, **options)
        note = described(problem)
        with fc.num_threads(threads):
            assert_array_equal(fc.conv(x, w, b, **options), y, note, strict=True)
            got = fc.conv_input_grad(dy, w, x.shape, **options)
            assert_array_equal(got, dx, note, strict=True)
            got = fc.conv_kernel_grad(x, dy, w.shape, **options)
            assert_array_equal(got, dw, note, strict=True)
            for got, expected in zip(
                fc.conv_backward(dy, x, w, **options), (dx, dw, db), strict=True
            ):
                assert_array_equal(got, expected, note, strict=True)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_conv_transpose(chunk):
    for rng, data_format, dtype, threads in variants((2, chunk), TRANSPOSES):
        x_shape, w_shape, options = problem = random_transpose(rng)
        options["data_format"] = data_format
        x = integers(rng, *layout(x_shape, data_format), dtype=dtype)
        w = integers(rng, *w_shape, dtype=dtype)
        b = integers(rng, w_shape[-2] * options["groups"], dtype=dtype)
        y = reference.conv_transpose(x, w, b, **options)
        dy = integers(rng, *y.shape, dtype=dtype)
        grads = reference.conv_transpose_backward(dy, x, w, **options)
        with fc.num_threads(threads):
            note = described(problem)
            assert_array_equal(fc.conv_transpose(x, w, b, **options), y, note, strict=True)
            for got, expected in zip(
                fc.conv_transpose_backward(dy, x, w, **options), grads, strict=True
            ):
                assert_array_equal(got, expected, note, strict=True)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_pools(chunk):
    for rng, data_format, dtype, threads in variants((3, chunk), POOLS):
        x_shape, window, options = problem = random_pool(rng)
        options["data_format"] = data_format
        note = described(problem)
        # Few values, so windows have ties; multiples of every divisor, so means are exact.
        x = rng.integers(-2, 3, layout(x_shape, data_format)).astype(dtype) * 6 ** len(window)
        y, argmax = reference.max_pool(x, window, return_argmax=True, **options)
        dy = integers(rng, *y.shape, dtype=dtype) * 6 ** len(window)
        dx = reference.max_pool_backward(dy, argmax, x.shape, window, **options)
        with fc.num_threads(threads):
            got, where = fc.max_pool(x, window, return_argmax=True, **options)
            assert_array_equal(got, y, note, strict=True)
            assert_array_equal(where, argmax, note, strict=True)
            assert_array_equal(fc.max_pool(x, window, **options), y, note, strict=True)
            got = fc.max_pool_backward(dy, argmax, x.shape, window, **options)
            assert_array_equal(got, dx, note, strict=True)
            for include in (False, True):
                options["count_include_pad"] = include
                expected = reference.avg_pool(x, window, **options)
                got = fc.avg_pool(x, window, **options)
                assert_array_equal(got, expected, note, strict=True)
                expected = reference.avg_pool_backward(dy, x.shape, window, **options)
                got = fc.avg_pool_backward(dy, x.shape, window, **options)
                assert_array_equal(got, expected, note, strict=True)


@pytest.mark.parametrize("chunk", range(4))
def test_columns(chunk):
    for rng, data_format, dtype, threads in variants((4, chunk), 50):
        x_shape, w_shape, options = problem = random_conv(rng)
        del options["groups"]
        options["data_format"] = data_format
        window = w_shape[:-2]
        x = integers(rng, *layout(x_shape, data_format), dtype=dtype)
        cols = reference.im2col(x, window, **options)
        other = integers(rng, *cols.shape, dtype=dtype)
        back = reference.col2im(other, x.shape, window, **options)
        with fc.num_threads(threads):
            note = described(problem)
            got = fc.im2col(x, window, **options)
            assert_array_equal(got, cols, note, strict=True)
            again = fc.col2im(other, x.shape, window, **options)
            assert_array_equal(again, back, note, strict=True)
        assert math.fsum((got * other).flat) == math.fsum((x * again).flat), note  # adjoint
