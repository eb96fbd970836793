"""Any layout, byte order and dtype of the operands gives the bits of a contiguous copy."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv as fc
from fastconv import reference

RNG = np.random.default_rng(7)
X, W = (3, 8, 6, 4), (3, 2, 2, 6)
OPTIONS = {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "groups": 2}
POOL = {"window": (3, 2), "stride": 2, "padding": 1, "ceil_mode": True}


def strided(a):
    wide = np.full(tuple(2 * n for n in a.shape), 77, a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    assert not raw.flags.aligned
    return raw


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def size_one_axis_with_odd_stride(a):
    return np.lib.stride_tricks.as_strided(
        a, a.shape, [12345 if n == 1 else s for n, s in zip(a.shape, a.strides, strict=True)]
    )


LAYOUTS = {
    "strided": strided,
    "reversed": lambda a: a[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
    "transposed": lambda a: np.ascontiguousarray(a.transpose(3, 1, 0, 2)).transpose(2, 1, 3, 0),
    "fortran": np.asfortranarray,
    "read-only": read_only,
    "unaligned": unaligned,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "odd strides": size_one_axis_with_odd_stride,
}


def results(x, w, b, dy, y_pool, argmax):
    grads = fc.conv_backward(dy, x, w, **OPTIONS)
    pooled, winners = fc.max_pool(x, return_argmax=True, **POOL)
    transposed = fc.conv_transpose_backward(x, dy, w, **OPTIONS)
    return [
        fc.conv(x, w, b, activation="relu", **OPTIONS),
        fc.conv_input_grad(dy, w, x.shape, **OPTIONS),
        fc.conv_kernel_grad(x, dy, w.shape, **OPTIONS),
        *grads,
        fc.conv_transpose(dy, w, **OPTIONS),
        *transposed,
        pooled,
        winners,
        fc.max_pool_backward(y_pool, argmax, x.shape, **POOL),
        fc.avg_pool(x, **POOL),
        fc.avg_pool_backward(y_pool, x.shape, **POOL),
        fc.im2col(x, 3),
        fc.col2im(fc.im2col(x, 3), x.shape, 3),
        fc.relu_backward(x, x),
    ]


def operands(dtype, x_shape=X):
    x = RNG.normal(size=x_shape).astype(dtype)
    w, b = RNG.normal(size=W).astype(dtype), RNG.normal(size=6).astype(dtype)
    dy = RNG.normal(size=fc.conv(x, w, **OPTIONS).shape).astype(dtype)
    y_pool, argmax = fc.max_pool(x, return_argmax=True, **POOL)
    return x, w, b, dy, y_pool, argmax


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name, dtype, m):
    arrays = operands(dtype, (m, *X[1:]))
    originals = [a.copy() for a in arrays]
    odd = [LAYOUTS[name](a) if a.ndim == 4 else a for a in arrays]
    for got, expected in zip(results(*odd), results(*arrays), strict=True):
        assert_array_equal(got, expected, strict=True)
    for now, before in zip(odd, originals, strict=True):
        assert_array_equal(now, before)  # inputs are untouched


def test_broadcast():
    x = np.broadcast_to(np.float32(3), X)
    w = np.broadcast_to(np.float32(2), W)
    assert_array_equal(fc.conv(x, w, **OPTIONS), fc.conv(x.copy(), w.copy(), **OPTIONS))
    assert_array_equal(fc.max_pool(x, **POOL), fc.max_pool(x.copy(), **POOL))


@pytest.mark.parametrize("name", ["strided", "transposed", "fortran", "unaligned"])
def test_layout_of_out(name):
    x, w, b, dy, y_pool, argmax = operands("float32")
    for call in (
        lambda out: fc.conv(x, w, b, **OPTIONS, out=out),
        lambda out: fc.conv_input_grad(dy, w, x.shape, **OPTIONS, out=out),
        lambda out: fc.conv_kernel_grad(x, dy, w.shape, **OPTIONS, out=out),
        lambda out: fc.max_pool(x, **POOL, out=out),
        lambda out: fc.max_pool_backward(y_pool, argmax, x.shape, **POOL, out=out),
        lambda out: fc.avg_pool(x, **POOL, out=out),
        lambda out: fc.avg_pool_backward(y_pool, x.shape, **POOL, out=out),
        lambda out: fc.relu_backward(x, x, out=out),
    ):
        expected = call(None)
        out = LAYOUTS[name](np.full(expected.shape, np.nan, np.float32))
        assert_array_equal(call(out), expected)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_float16_is_float32_rounded(data_format):
    x = RNG.normal(size=(2, 8, 9, 8)).astype("float16")
    w = RNG.normal(size=(3, 3, 8, 8)).astype("float16")
    options = {"data_format": data_format, "padding": 1}
    y32 = fc.conv(x.astype("float32"), w[..., :9].astype("float32"), data_format="channels_last")
    y16 = fc.conv(x, w)
    assert y16.dtype == np.float16
    assert_array_equal(y16, y32.astype("float16"))
    square = np.moveaxis(x, -1, 1) if data_format == "channels_first" else x
    got = fc.conv_backward(square, square, w, **options)
    wide = fc.conv_backward(
        square.astype("float32"), square.astype("float32"), w.astype("float32"), **options
    )
    for a, b in zip(got, wide, strict=True):
        assert_array_equal(a, b.astype("float16"), strict=True)
    assert fc.max_pool(x, 2).dtype == fc.avg_pool(x, 2).dtype == np.float16
    assert_array_equal(fc.avg_pool(x, 2), fc.avg_pool(x.astype("float32"), 2).astype("float16"))


def test_float16_overflow_is_infinite_and_silent():
    x, w = np.full((1, 4, 4, 64), 200, "float16"), np.full((1, 1, 64, 1), 200, "float16")
    assert np.isinf(fc.conv(x, w)).all()


def test_blocks_agree_with_the_whole():
    """Problems larger than a box: the output is cut over images, then rows, then pixels."""
    rng = np.random.default_rng(0)
    for x_shape, w_shape in (
        ((40, 20, 20, 16), (3, 3, 16, 8)),
        ((2, 150, 150, 32), (3, 3, 32, 4)),
        ((1, 6, 1200, 3), (5, 301, 3, 2)),
    ):
        x = rng.integers(-4, 5, x_shape).astype("float32")
        w = rng.integers(-4, 5, w_shape).astype("float32")
        y = fc.conv(x, w)
        taps = np.lib.stride_tricks.sliding_window_view(x, w_shape[:2], axis=(1, 2))
        assert_array_equal(y, np.tensordot(taps, w, axes=([4, 5, 3], [0, 1, 2])))
        dy = rng.integers(-2, 3, y.shape).astype("float32")
        dx, dw, _ = fc.conv_backward(dy, x, w)
        exact = [(a.astype("float64") * b).sum() for a, b in ((y, dy), (x, dx), (w, dw))]
        assert exact[0] == exact[1] == exact[2]
    x = rng.normal(size=(3, 200, 210, 8)).astype("float32")
    cols = fc.im2col(x, 3)
    taps = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    assert_array_equal(cols, np.moveaxis(taps, 3, -1).reshape(cols.shape))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_channels_first_copies_no_input(data_format):
    """Beyond its result, a call on a large input needs a few MiB at most."""
    import tracemalloc

    shape = {"channels_last": (64, 64, 64, 16), "channels_first": (64, 16, 64, 64)}[data_format]
    x, w = np.ones(shape, np.float32), np.ones((3, 3, 16, 4), np.float32)
    y = fc.conv(x, w, data_format=data_format)
    dx = fc.conv_input_grad(y, w, shape, data_format=data_format)
    pooled = fc.max_pool(x, 2, data_format=data_format)
    calls = [
        lambda: fc.conv(x, w, data_format=data_format, out=y),
        lambda: fc.conv_input_grad(y, w, shape, data_format=data_format, out=dx),
        lambda: fc.conv_kernel_grad(x, y, w.shape, data_format=data_format),
        lambda: fc.max_pool(x, 2, data_format=data_format, out=pooled),
        lambda: fc.avg_pool(x, 2, data_format=data_format, out=pooled),
        lambda: fc.avg_pool_backward(pooled, shape, 2, data_format=data_format, out=dx),
    ]
    for call in calls:
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 * 2**20 < x.nbytes


def test_reference_agrees_on_float16():
    x = RNG.integers(-4, 5, (2, 5, 5, 3)).astype("float16")
    w = RNG.integers(-4, 5, (3, 3, 3, 2)).astype("float16")
    assert_array_equal(fc.conv(x, w), reference.conv(x, w), strict=True)
