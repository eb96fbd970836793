"""Max pooling's rules where it is easy to go wrong: ties, NaN, padding, empty windows, threads."""

import itertools
import timeit

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv as fc
from fastconv import reference
from fastconv.engine import pools as pool

NAN, INF = np.nan, np.inf


@pytest.fixture(params=[1, 2, 3, 7])
def threads(request, monkeypatch):
    """Every part is worth a thread."""
    monkeypatch.setattr(pool, "GRAIN", 1)
    with fc.num_threads(request.param):
        yield request.param


def both(x, window, **options):
    y, argmax = fc.max_pool(x, window, return_argmax=True, **options)
    assert_array_equal(fc.max_pool(x, window, **options), y)
    expected, where = reference.max_pool(x, window, return_argmax=True, **options)
    assert_array_equal(y, expected, strict=True)
    assert_array_equal(argmax, where, strict=True)
    return y, argmax


@pytest.mark.parametrize("C", range(1, 34))
def test_values_that_mislead_comparisons(C, threads):
    """Vector body and tail, at any thread count, follow one rule."""
    rng = np.random.default_rng(C)
    values = np.array([NAN, -INF, INF, -0.0, 0.0, 1.0, -1.0], "float32")
    x = rng.choice(values, (3, 6, 5, C))
    for options in ({}, {"stride": 1, "padding": 1}, {"dilation": 2, "stride": 1}):
        _, argmax = both(x, 2, **options)
        assert argmax.min() >= 0
        assert argmax.max() < 30


def test_ties_go_to_the_first():
    _, argmax = both(np.zeros((1, 4, 4, 3), "float32"), 2)
    assert_array_equal(argmax[0, :, :, 0], [[0, 2], [8, 10]])


def test_negative_zero_ties_with_zero():
    x = np.array([-0.0, 0.0]).reshape(1, 2, 1)
    y, argmax = both(x, 2)
    assert argmax[0, 0, 0] == 0
    assert np.signbit(y[0, 0, 0])


def test_nan_is_chosen_first_nan_first():
    x = np.array([1.0, NAN, 5.0, NAN]).reshape(1, 4, 1)
    y, argmax = both(x, 4)
    assert np.isnan(y).all()
    assert argmax.item() == 1
    assert_array_equal(
        fc.max_pool_backward(np.ones((1, 1, 1)), argmax, x.shape, 4).ravel(), [0, 1, 0, 0]
    )


def test_padding_is_minus_infinity(threads):
    y, argmax = both(np.full((1, 3, 3, 2), -5.0), 3, stride=1, padding=1)
    assert (y == -5).all()
    assert argmax.min() >= 0
    y, _ = both(np.full((1, 3, 3, 2), -INF), 3, stride=1, padding=1)
    assert (y == -INF).all()


def test_window_without_a_cell():
    """Dilation with padding can make a window that lies in the padding altogether."""
    x = np.arange(1.0, 3.0).reshape(1, 2, 1)
    options = {"window": 3, "dilation": 3, "padding": 3, "stride": 2}
    y, argmax = both(x, **options)
    empty = argmax == -1
    y2 = fc.avg_pool(x, **options)
    assert_array_equal(y2, reference.avg_pool(x, **options))
    dx = fc.max_pool_backward(np.ones_like(y), argmax, x.shape, **options)
    assert dx.sum() == (~empty).sum()
    wide = {"window": 2, "dilation": 4, "padding": 2, "stride": 1}
    y, argmax = both(np.ones((1, 2, 1)), **wide)
    assert_array_equal(argmax.ravel(), [-1, -1])
    assert_array_equal(y.ravel(), [-INF, -INF])
    assert_array_equal(fc.avg_pool(np.ones((1, 2, 1)), **wide).ravel(), [0, 0])
    assert_array_equal(
        fc.max_pool_backward(np.ones((1, 2, 1)), argmax, (1, 2, 1), **wide), np.zeros((1, 2, 1))
    )


# Windows that share no cell: they cover the image, leave a border or gaps, or reach into padding.
APART = [
    ((4, 6), {"window": 2}),
    ((5, 7), {"window": 2}),
    ((7, 7), {"window": 2, "stride": 3}),
    ((7, 5), {"window": (3, 2), "padding": (1, 0)}),
    ((9, 5), {"window": 2, "dilation": 2, "stride": 3}),
    ((5, 5), {"window": 2, "ceil_mode": True}),
    ((3, 4), {"window": (3, 4)}),
]


@pytest.mark.parametrize(("size", "options"), APART, ids=str)
@pytest.mark.parametrize("C", [1, 3, 4, 7, 8, 9, 16, 21])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_errors_of_windows_that_share_no_cell(size, options, C, dtype, threads):
    """Every cell is written: by its window, or as zero; what was there before does not matter."""
    rng = np.random.default_rng(C)
    x = rng.permutation(3 * np.prod(size) * C).reshape(3, *size, C).astype(dtype)
    y, argmax = both(x, **options)
    dy = rng.integers(-8, 8, y.shape).astype(dtype)
    for data_format in ("channels_last", "channels_first"):
        last = data_format == "channels_last"
        order = (0, 1, 2, 3) if last else (0, 3, 1, 2)
        dy_f, argmax_f, shape = (
            np.ascontiguousarray(dy.transpose(order)),
            np.ascontiguousarray(argmax.transpose(order)),
            x.transpose(order).shape,
        )
        out = np.full(shape, NAN, dtype)
        fc.max_pool_backward(dy_f, argmax_f, shape, **options, data_format=data_format, out=out)
        expected = reference.max_pool_backward(dy, argmax, x.shape, **options)
        assert_array_equal(out, expected.transpose(order))
        out[...] = NAN
        fc.avg_pool_backward(dy_f, shape, **options, data_format=data_format, out=out)
        expected = reference.avg_pool_backward(dy, x.shape, **options)
        assert_array_equal(out, expected.transpose(order))


@pytest.mark.parametrize("C", [1, 8, 9])
def test_an_argmax_outside_its_window_takes_the_error_all_the_same(C, threads):
    """Any cell of the image is legal: the errors go where the caller says."""
    rng = np.random.default_rng(C)
    argmax = rng.integers(0, 24, (5, 2, 3, C))
    dy = rng.integers(1, 9, argmax.shape).astype("float32")
    dx = fc.max_pool_backward(dy, argmax, (5, 4, 6, C), 2)
    assert_array_equal(dx, reference.max_pool_backward(dy, argmax, (5, 4, 6, C), 2))
    expected = np.zeros((5, 24, C), "float32")
    for n, i, j, c in np.ndindex(argmax.shape):
        expected[n, argmax[n, i, j, c], c] += dy[n, i, j, c]
    assert_array_equal(dx.reshape(expected.shape), expected)


# Windows of the backward's two ways, apart and overlapping, and some that lie in the padding.
WITH_CELLS = [
    ((4, 6), {"window": 2}, (0, 0)),
    ((4, 6), {"window": 2, "stride": 1}, (2, 4)),
    ((5, 7), {"window": 3, "stride": 2, "padding": 1, "ceil_mode": True}, (2, 3)),
    ((2, 2), {"window": 3, "stride": 2, "ceil_mode": True}, (0, 0)),
    ((5, 6), {"window": 2, "stride": 1, "dilation": 3, "padding": 1}, (1, 1)),
    ((3, 3), {"window": 2, "stride": 1, "dilation": 4, "padding": 2}, (0, 2)),
]


@pytest.mark.parametrize(("size", "options", "at"), WITH_CELLS, ids=str)
@pytest.mark.parametrize("C", [1, 3, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first", "strided"])
def test_minus_one_is_for_windows_without_a_cell_alone(size, options, at, C, dtype, layout):
    x = np.random.default_rng(0).permutation(2 * np.prod(size) * C).reshape(2, *size, C)
    y, argmax = both(x.astype(dtype), **options)
    dy, x_shape = np.ones_like(y), x.shape
    expected = reference.max_pool_backward(dy, argmax, x_shape, **options)
    if layout == "channels_first":
        options = options | {"data_format": layout}
        dy, argmax, expected = (
            np.ascontiguousarray(np.moveaxis(a, -1, 1)) for a in (dy, argmax, expected)
        )
        x_shape, at = expected.shape, (1, C - 1, *at)
    else:
        at = (1, *at, C - 1)
    if layout == "strided":
        dy, argmax = (np.repeat(a, 2, axis=1)[:, ::2] for a in (dy, argmax))
    assert_array_equal(fc.max_pool_backward(dy, argmax, x_shape, **options), expected)
    out = np.full(x_shape, 7, dtype)
    assert argmax[at] >= 0
    argmax[at] = -1
    with pytest.raises(ValueError, match=r"argmax holds -1 .* without a cell alone"):
        fc.max_pool_backward(dy, argmax, x_shape, **options, out=out)
    assert (out == 7).all()
    with pytest.raises(ValueError, match="argmax is -1"):
        reference.max_pool_backward(dy, argmax, x_shape, **options)


@pytest.mark.parametrize("wrong", [48 * 48, -1])
@pytest.mark.parametrize("stride", [1, 2])
def test_no_thread_writes_before_all_have_checked(stride, wrong):
    """The one wrong argmax is the last that is looked at, by the slower thread."""
    options = {"x_shape": (16, 48, 48, 32), "window": 2, "stride": stride}
    _, argmax = fc.max_pool(np.zeros(options["x_shape"], "float32"), 2, stride=stride,
                            return_argmax=True)  # fmt: skip
    argmax[-1, -1, -1, -1] = wrong
    dy, out = np.ones(argmax.shape, "float32"), np.full(options["x_shape"], 7, "float32")
    with fc.num_threads(2):
        for _ in range(30):
            with pytest.raises(ValueError, match="argmax"):
                fc.max_pool_backward(dy, argmax, **options, out=out)
            assert (out == 7).all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("C", [3, 8])
def test_an_error_of_negative_zero_is_zero(stride, C):
    """The bits do not tell which kernel, of which layout, has brought it."""
    y, argmax = fc.max_pool(np.ones((2, 4, 4, C)), 2, stride=stride, return_argmax=True)
    dy = np.full_like(y, -0.0)
    options = {"x_shape": (2, 4, 4, C), "window": 2, "stride": stride}
    assert not np.signbit(fc.max_pool_backward(dy, argmax, **options)).any()
    assert not np.signbit(fc.avg_pool_backward(dy, **options)).any()


def test_ceil_mode_drops_a_window_that_starts_in_the_padding():
    x = np.ones((1, 5, 1))
    assert fc.max_pool(x, 2, ceil_mode=True).shape == (1, 3, 1)
    assert fc.max_pool(x, 2, stride=3, padding=1, ceil_mode=True).shape == (1, 2, 1)
    assert fc.max_pool(np.ones((1, 3, 1)), 2, padding=1, ceil_mode=True).shape == (1, 2, 1)


def test_divisor():
    x = np.ones((1, 5, 5, 1))
    inside = fc.avg_pool(x, 3, stride=2, padding=1, ceil_mode=True)
    assert (inside == 1).all()
    padded = fc.avg_pool(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=True)
    assert_array_equal(
        padded[0, :, :, 0],
        reference.avg_pool(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=True)[
            0, :, :, 0
        ],
    )
    assert padded[0, 0, 0, 0] == 4 / 9
    beyond = fc.avg_pool(np.ones((1, 4, 1)), 3, stride=3, ceil_mode=True, count_include_pad=True)
    assert_array_equal(beyond.ravel(), [1, 1])  # cells beyond the padded input do not count


@pytest.mark.parametrize("op", ["max", "avg"])
def test_bits_do_not_depend_on_threads_or_batch(op, threads):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 9, 8, 6)).astype("float32")
    options = {"stride": 1, "padding": 1}
    if op == "max":
        y, argmax = fc.max_pool(x, 3, return_argmax=True, **options)
        dy = rng.normal(size=y.shape).astype("float32")
        dx = fc.max_pool_backward(dy, argmax, x.shape, 3, **options)
    else:
        y = fc.avg_pool(x, 3, **options)
        dy = rng.normal(size=y.shape).astype("float32")
        dx = fc.avg_pool_backward(dy, x.shape, 3, **options)
    with fc.num_threads(1):
        for n in range(5):
            one = slice(n, n + 1)
            if op == "max":
                y1, a1 = fc.max_pool(x[one], 3, return_argmax=True, **options)
                dx1 = fc.max_pool_backward(dy[one], a1, x[one].shape, 3, **options)
                assert_array_equal(argmax[one], a1)
            else:
                y1 = fc.avg_pool(x[one], 3, **options)
                dx1 = fc.avg_pool_backward(dy[one], x[one].shape, 3, **options)
            assert_array_equal(y[one], y1)
            assert_array_equal(dx[one], dx1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_relu_backward_passes_where_y_is_positive_only(dtype, monkeypatch):
    """Flat at exactly 0, and zero, not NaN, where it is flat; any length, any thread count."""
    from fastconv.engine import deltas as delta

    monkeypatch.setattr(delta, "GRAIN", 1)
    values = np.array([0.0, -0.0, 1.0, -1.0, NAN, INF, -INF, 1e-7], dtype)
    rng = np.random.default_rng(0)
    for size in range(1, 40):
        y = rng.choice(values, size)
        dy = np.where(y > 0, np.arange(1, size + 1), NAN).astype(dtype)
        for threads in (1, 2, 3):
            with fc.num_threads(threads):
                expected = np.where(y > 0, np.arange(1, size + 1), 0).astype(dtype)
                assert_array_equal(fc.relu_backward(dy, y), expected, strict=True)


# Two arrays (2, 5, 7, 3) that hold the same numbers in another order of memory.
LAYOUTS = {
    "as it is": lambda a: a,
    "channels first": lambda a: np.ascontiguousarray(np.moveaxis(a, -1, 1)).transpose(0, 2, 3, 1),
    "reversed": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "inside": lambda a: np.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, 1:-1, 1:-1],
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
}


@pytest.mark.parametrize("block", [1, 20, 2**17])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_relu_backward_gives_the_same_bits_in_every_layout(dtype, block, monkeypatch):
    from fastconv.plans import deltas

    monkeypatch.setattr(deltas, "MASK_BLOCK", block)
    rng = np.random.default_rng(0)
    values = np.array([0.0, -0.0, 1.0, -1.0, NAN, INF, -INF, 1e-7, -1e-7], dtype)
    dy, y = rng.choice(values, (2, 2, 5, 7, 3))
    expected = np.where(y > 0, dy, np.zeros((), dtype))
    for of_dy, of_y in itertools.product(LAYOUTS.values(), repeat=2):
        got = fc.relu_backward(of_dy(dy), of_y(y))
        assert got.dtype == dtype  # in the machine's byte order
        assert got.tobytes() == expected.tobytes()
    for name, to in LAYOUTS.items():
        out = to(np.full_like(dy, 7))
        if name != "other byte order":
            assert fc.relu_backward(dy, y, out=out) is out
            assert out.tobytes() == expected.tobytes()
    assert fc.relu_backward(dy[0, 0, 0, 0].astype(">" + dy.dtype.str[1:]), y[0, 0, 0, 0]).ndim == 0
    wide = np.broadcast_to(dy[:1], dy.shape)
    assert_array_equal(fc.relu_backward(wide, y), np.where(y > 0, wide, np.zeros((), dtype)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_relu_backward_takes_the_same_time_on_any_mask(dtype):
    """A loop with a branch takes 20 times as long where half of the ReLUs are off, at random."""
    y = np.random.default_rng(0).standard_normal(2**17).astype(dtype)
    dy, out = y[::-1].copy(), np.empty_like(y)

    def best(outputs):
        return min(timeit.repeat(lambda: fc.relu_backward(dy, outputs, out=out), number=1,
                                 repeat=50))  # fmt: skip

    with fc.num_threads(1):
        assert best(y) < 4 * best(np.ones_like(y))
