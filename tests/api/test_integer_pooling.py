"""Max pooling of integers and bool: exactly, and without a copy of the images."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv as fc
from fastconv import reference

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4"]


def images(dtype, *shape, seed=0):
    info = (0, 2) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    kind = "u8" if info[0] == 0 else "i8"
    found = np.random.default_rng(seed).integers(*info, shape, kind)
    found.flat[:2] = info[0], info[1] - (dtype == "bool")  # the ends, which no float64 holds
    return found.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {"window": 2},
        {"window": (3, 2), "stride": (2, 1), "padding": (1, 1), "ceil_mode": True},
        {"window": 3, "stride": 1, "padding": "same", "dilation": 2},
        {"window": (2, 2), "stride": 3, "padding": 1, "dilation": (5, 1)},
    ],
    ids=str,
)
def test_as_the_naive_loops(dtype, options):
    x = images(dtype, 2, 7, 8, 3)
    for data_format in ("channels_last", "channels_first"):
        given_x = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
        right = reference.max_pool(given_x, **options, return_argmax=True, data_format=data_format)
        y, argmax = fc.max_pool(given_x, **options, return_argmax=True, data_format=data_format)
        assert y.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(y, right[0])
        np.testing.assert_array_equal(argmax, right[1])
        out = np.empty(y.shape, y.dtype)
        assert fc.max_pool(given_x, **options, data_format=data_format, out=out) is out
        np.testing.assert_array_equal(out, y)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 1), st.booleans(), st.integers(0, 9),
)  # fmt: skip
def test_drawn_problems_as_those_of_floats(sizes, window, stride, padding, ceil_mode, seed):
    x = np.random.default_rng(seed).integers(-3, 4, (2, *sizes, 2), np.int8)
    options = {"stride": stride, "padding": min(padding, window // 2), "ceil_mode": ceil_mode}
    try:
        right = fc.max_pool(x.astype("f4"), window, **options, return_argmax=True)
    except ValueError:
        with pytest.raises(ValueError, match="window"):
            fc.max_pool(x, window, **options)
        return
    for a, b in zip(fc.max_pool(x, window, **options, return_argmax=True), right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_copy_is_made_and_nothing_changes():
    x = images("uint8", 4, 512, 512, 4)
    before, out = x.copy(), np.empty((4, 256, 256, 4), np.uint8)
    fc.max_pool(x[:1], 2)
    tracemalloc.start()
    fc.max_pool(x, 2, out=out)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < x.nbytes // 8
    np.testing.assert_array_equal(x, before)
    strided = np.repeat(x, 2, axis=2)[:, :, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(fc.max_pool(strided, 2), out)
    assert fc.max_pool(x[:0], 2).shape == (0, 256, 256, 4)


def test_the_argmax_is_for_the_backward():
    x = images("int16", 1, 4, 4, 2)
    y, argmax = fc.max_pool(x, 2, return_argmax=True)
    dx = fc.max_pool_backward(np.ones(y.shape, "f4"), argmax, x.shape, 2)
    assert (x[dx > 0] >= y.min()).all()
    assert dx.sum() == y.size


def test_what_is_refused():
    x = images("uint8", 1, 4, 4, 1)
    with pytest.raises(ValueError, match="out"):
        fc.max_pool(x, 2, out=np.empty((1, 2, 2, 1), np.int16))
    with pytest.raises(ValueError, match="out"):
        fc.max_pool(x, 2, stride=2, out=x[:, :2, :2])
    for function in (fc.avg_pool, lambda x, n: fc.im2col(x, n)):
        with pytest.raises(TypeError, match="x has dtype uint8"):
            function(x, 2)
    for kind in ("complex64", "U1", "O", "M8[s]"):
        with pytest.raises(TypeError, match="x"):
            fc.max_pool(np.zeros((1, 4, 4, 1), kind), 2)
