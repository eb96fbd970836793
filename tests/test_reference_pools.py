"""The naive loops of pooling, the example networks of their prose, and what they refuse."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
from numpy.testing import assert_allclose, assert_array_equal

from fastconv import reference as ref
from fastconv.testing import assert_adjoint, gradcheck, untied

CF = "channels_first"
NAN, INF = np.nan, np.inf


def integers(shape, seed=0):
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(float)


def row(*values):
    """One image, one channel, 1-D."""
    return np.array(values, float).reshape(1, -1, 1)


def max_row(x, window, **options):
    y, argmax = ref.max_pool(x, window, return_argmax=True, **options)
    return y[0, :, 0].tolist(), argmax[0, :, 0].tolist()


# ---- max pool: the rules one by one


def test_ties_go_to_the_first():
    assert max_row(row(5, 5, 1, 3, 3, 3), 3) == ([5, 3], [0, 3])
    x = np.zeros((1, 4, 4, 1))
    _, argmax = ref.max_pool(x, 2, return_argmax=True)
    assert_array_equal(argmax[0, :, :, 0], [[0, 2], [8, 10]])


def test_first_nan_wins():
    y, argmax = max_row(row(1, NAN, 9, NAN, NAN, INF), 3)
    assert np.isnan(y).all()
    assert argmax == [1, 3]


def test_infinities():
    assert max_row(row(-INF, -INF, -INF, INF), 2) == ([-INF, INF], [0, 3])


def test_padding_never_wins():
    assert max_row(row(-5, -7, -3), 3, stride=1, padding=1) == ([-5, -3, -3], [0, 2, 2])
    assert max_row(row(-INF, -INF), 2, padding=1) == ([-INF, -INF], [0, 1])


def test_window_without_a_cell():
    """Two taps 4 apart over a padded input of 5 cells, of which only one is real."""
    x = row(7)
    y, argmax = max_row(x, 2, stride=1, dilation=4, padding=2)
    assert (y, argmax) == ([-INF], [-1])
    dx = ref.max_pool_backward(
        row(3), np.array(argmax).reshape(1, 1, 1), (1, 1, 1), 2, stride=1, dilation=4, padding=2
    )
    assert_array_equal(dx, row(0))
    for include in (False, True):
        options = {"stride": 1, "dilation": 4, "padding": 2, "count_include_pad": include}
        assert_array_equal(ref.avg_pool(x, 2, **options), row(0))
        assert_array_equal(ref.avg_pool_backward(row(3), (1, 1, 1), 2, **options), row(0))


def test_ceil_mode_drops_a_window_that_starts_in_the_high_padding():
    assert max_row(row(1, 2, 3, 4, 5), 2, ceil_mode=True) == ([2, 4, 5], [1, 3, 4])
    # Padded: _ 1 2 _ ; a window at 0, one at 2, none at 3 or later.
    assert max_row(row(1, 2), 2, padding=1, ceil_mode=True) == ([1, 2], [0, 1])
    # Without the rule there would be a third window, at cell 4, behind the input's last, 3.
    assert max_row(row(1, 2, 3), 2, padding=((1, 1),), ceil_mode=True) == ([1, 3], [0, 2])
    assert max_row(row(1, 2, 3, 4), 2, padding=1, ceil_mode=True) == ([1, 3, 4], [0, 2, 3])


def test_error_goes_to_the_winner_and_the_other_three_get_zero():
    x = np.array([[1, 2, 8, 7], [4, 3, 5, 6]], float)[None, :, :, None]
    _, argmax = ref.max_pool(x, 2, return_argmax=True)
    dx = ref.max_pool_backward(np.array([10.0, 20.0]).reshape(1, 1, 2, 1), argmax, x.shape, 2)
    assert_array_equal(dx[0, :, :, 0], [[0, 0, 20, 0], [10, 0, 0, 0]])


def test_winner_of_several_windows_collects_their_errors():
    x = row(1, 9, 2)
    y, argmax = ref.max_pool(x, 2, stride=1, return_argmax=True)
    assert_array_equal(y, row(9, 9))
    dx = ref.max_pool_backward(row(3, 4), argmax, x.shape, 2, stride=1)
    assert_array_equal(dx, row(0, 7, 0))


POOLS = [
    ((2, 7, 3), 3, {}),
    ((2, 6, 7, 3), (2, 3), {"stride": (2, 1)}),
    ((1, 7, 8, 2), 3, {"stride": 2, "padding": ((1, 0), (0, 1)), "ceil_mode": True}),
    ((1, 8, 7, 2), 2, {"stride": 1, "dilation": (3, 2), "padding": 1}),
    ((1, 7, 5, 2), 3, {"stride": 2, "padding": "same"}),
    ((1, 4, 5, 4, 2), (2, 3, 2), {"stride": (1, 2, 2)}),
    ((0, 4, 4, 2), 2, {}),
]


@pytest.mark.parametrize(("shape", "window", "options"), POOLS)
def test_max_pool(shape, window, options):
    x = integers(shape)
    y, argmax = ref.max_pool(x, window, return_argmax=True, **options)
    assert argmax.dtype == np.int64
    for at in np.ndindex(y.shape):  # the winner is where argmax says
        assert x[at[0], ..., at[-1]].ravel()[argmax[at]] == y[at]
    dy = integers(y.shape, 2)
    assert_adjoint((y, dy), (x, ref.max_pool_backward(dy, argmax, shape, window, **options)))
    assert_array_equal(ref.max_pool(x, window, **options), y)
    first = np.moveaxis(x, -1, 1)
    turned = ref.max_pool(first, window, return_argmax=True, data_format=CF, **options)
    for got, want in zip(turned, (y, argmax), strict=True):
        assert_array_equal(np.moveaxis(got, 1, -1), want)
    dx = ref.max_pool_backward(
        np.moveaxis(dy, -1, 1), turned[1], first.shape, window, data_format=CF, **options
    )
    assert_array_equal(
        np.moveaxis(dx, 1, -1), ref.max_pool_backward(dy, argmax, shape, window, **options)
    )


@pytest.mark.parametrize(
    ("shape", "window", "options"),
    [
        ((2, 5, 2), 3, {"stride": 1, "padding": 1}),
        ((1, 4, 5, 1), (2, 3), {"stride": (1, 2), "ceil_mode": True, "padding": ((1, 0), (0, 1))}),
        ((1, 5, 4, 1), 2, {"stride": 1, "dilation": (3, 2), "padding": 1}),
        ((1, 2, 3, 3, 1), 2, {"stride": 1}),
    ],
)
def test_pools_numerically(shape, window, options):
    x = untied(shape)
    _, argmax = ref.max_pool(x, window, return_argmax=True, **options)
    gradcheck(
        lambda x: ref.max_pool(x, window, **options),
        lambda dy, x: ref.max_pool_backward(dy, argmax, shape, window, **options),
        x,
    )
    for include in (False, True):
        avg = options | {"count_include_pad": include}
        gradcheck(
            lambda x: ref.avg_pool(x, window, **avg),  # noqa: B023
            lambda dy, x: ref.avg_pool_backward(dy, shape, window, **avg),  # noqa: B023
            x,
        )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pools_are_scipys_filters(rank):
    x = integers((1, *(6, 5, 4)[:rank], 1))
    image = x[0, ..., 0]
    y = ref.max_pool(x, 3, stride=1, padding=1)
    expected = scipy.ndimage.maximum_filter(image, 3, mode="constant", cval=-INF)
    assert_array_equal(y[0, ..., 0], expected)
    sums = scipy.ndimage.correlate(image, np.ones((3,) * rank), mode="constant")
    counts = scipy.ndimage.correlate(np.ones_like(image), np.ones((3,) * rank), mode="constant")
    y = ref.avg_pool(x, 3, stride=1, padding=1)
    assert_array_equal(y[0, ..., 0], sums / counts)
    y = ref.avg_pool(x, 3, stride=1, padding=1, count_include_pad=True)
    assert_array_equal(y[0, ..., 0], sums / 3**rank)


def test_divisors_by_hand():
    # Padded: _ 6 12 18 _ ; windows [_ 6 12], [12 18 _].
    x, options = row(6, 12, 18), {"stride": 2, "padding": 1}
    assert_array_equal(ref.avg_pool(x, 3, **options), row(9, 15))
    assert_array_equal(ref.avg_pool(x, 3, count_include_pad=True, **options), row(6, 10))
    # A window that sticks out, [18 _ .], counts the padding, not what lies beyond it.
    x, options = row(6, 12, 18), {"stride": 3, "padding": 1, "ceil_mode": True}
    assert_array_equal(ref.avg_pool(x, 3, **options), row(9, 18))
    assert_array_equal(ref.avg_pool(x, 3, count_include_pad=True, **options), row(6, 9))
    dx = ref.avg_pool_backward(row(6, 8), x.shape, 3, count_include_pad=True, **options)
    assert_array_equal(dx, row(2, 2, 4))
    # Padding on one side only: [6 12], [18 _].
    options = {"padding": ((0, 1),), "count_include_pad": True}
    assert_array_equal(ref.avg_pool(row(6, 12, 18), 2, **options), row(9, 9))


@pytest.mark.parametrize("data_format", ["channels_last", CF])
def test_avg_pool_is_linear_and_adjoint(data_format):
    """Windows of 2 x 2 with the padding counted: every divisor is 4, nothing rounds."""
    shape = (2, 5, 6, 3) if data_format != CF else (2, 3, 5, 6)
    options = {"stride": (1, 2), "padding": 1, "count_include_pad": True}
    options["data_format"] = data_format
    x = 4 * integers(shape)
    y = ref.avg_pool(x, 2, **options)
    dy = 4 * integers(y.shape, 1)
    assert_adjoint((y, dy), (x, ref.avg_pool_backward(dy, shape, 2, **options)))


# ---- the two networks of the module's docstring


def test_equations_1_to_11():
    """Every gradient of the one-convolution network equals a difference of its loss."""
    rng = np.random.default_rng(0)
    x, label = rng.standard_normal((1, 8, 8, 1)), 1.0

    def forward(w1, b1, w3, b3):
        z1 = ref.conv(x, w1, b1)
        a2, winners = ref.max_pool(np.maximum(z1, 0), 2, return_argmax=True)
        a3 = 1 / (1 + np.exp(-(a2.reshape(1, 9) @ w3 + b3)))
        return z1, winners, a2, a3

    def loss(*parameters):
        a3 = forward(*parameters)[-1]
        return np.array(-label * np.log(a3) - (1 - label) * np.log(1 - a3))

    def backward(dy, w1, b1, w3, b3):
        z1, winners, a2, a3 = forward(w1, b1, w3, b3)
        dz3 = a3 - label  # (7)
        da2 = dz3 @ w3.T  # (8)
        da1 = ref.max_pool_backward(da2.reshape(a2.shape), winners, z1.shape, 2)  # (9)
        assert np.count_nonzero(da1) == 9
        delta1 = ref.relu_backward(da1, z1)  # (10)
        dw1 = np.zeros_like(w1)
        for u, v in itertools.product(range(3), range(3)):  # (11)
            dw1[u, v] = np.sum(delta1[0, ..., 0] * x[0, u : u + 6, v : v + 6, 0])
        assert_allclose(ref.conv_kernel_grad(x, delta1, w1.shape), dw1, rtol=1e-12)
        scale = dy.item()
        return [scale * g for g in (dw1, delta1.sum(axis=(0, 1, 2)), a2.reshape(9, 1) @ dz3, dz3)]

    w1, b1 = rng.standard_normal((3, 3, 1, 1)), np.array([0.1])
    gradcheck(loss, backward, w1, b1, rng.standard_normal((9, 1)), np.array([[0.2]]))


def test_relu_is_flat_at_zero():
    y = np.array([-1.0, 0.0, 2.0, NAN])
    assert_array_equal(ref.relu_backward(np.full(4, 5.0), y), [0, 0, 5, 0])


@pytest.mark.parametrize("subsampling", ["max", "mean"])
def test_delta_of_the_first_of_two_convolutions(subsampling):
    """upsample(full convolution with the flipped kernel) * f'(z), f the sigmoid."""
    rng = np.random.default_rng(1)
    z1, w2 = rng.standard_normal((1, 8, 8, 2)), rng.standard_normal((3, 3, 2, 3))

    def through(z1):
        a1 = 1 / (1 + np.exp(-z1))
        return ref.conv((ref.max_pool if subsampling == "max" else ref.avg_pool)(a1, 2), w2)

    def delta1(delta2, z1):
        a1 = 1 / (1 + np.exp(-z1))
        error = ref.conv(delta2, w2[::-1, ::-1].swapaxes(-1, -2), padding="full")
        if subsampling == "max":
            upsampled = np.zeros_like(a1)
            for i, j, c in np.ndindex(error.shape[1:]):
                window = a1[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
                di, dj = np.unravel_index(window.argmax(), (2, 2))
                upsampled[0, 2 * i + di, 2 * j + dj, c] = error[0, i, j, c]
        else:
            upsampled = np.kron(error, np.full((1, 2, 2, 1), 0.25))
        return upsampled * a1 * (1 - a1)

    gradcheck(through, delta1, z1)


# ---- dtypes, memory, refusals


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_results_have_the_inputs_dtype(dtype):
    x, w = np.ones((1, 4, 4, 2), dtype), np.ones((3, 3, 2, 3), dtype)
    y, argmax = ref.max_pool(x, 2, return_argmax=True)
    results = [
        ref.conv(x, w, w[0, 0, 0]),
        *ref.conv_backward(np.ones((1, 2, 2, 3), dtype), x, w),
        ref.conv_transpose(x, w.swapaxes(-1, -2)),
        y,
        ref.max_pool_backward(y, argmax, x.shape, 2),
        ref.avg_pool(x, 2),
        ref.avg_pool_backward(y, x.shape, 2),
        ref.im2col(x, 2),
        ref.col2im(ref.im2col(x, 2), x.shape, 2),
        ref.relu_backward(x, x),
    ]
    assert {r.dtype.name for r in results} == {dtype}


def test_float16_is_summed_in_float32():
    """2048 + 1 + 1 is 2050; in float16, 2048 + 1 is 2048."""
    x, w = np.ones((1, 3, 1), np.float16), np.array([2048, 1, 1], np.float16).reshape(3, 1, 1)
    assert ref.conv(x, w).item() == 2050
    large = np.full((3, 1, 1), 30000, np.float16)
    assert ref.conv(x, large).item() == INF  # without a warning


def test_any_memory_gives_the_same_bits():
    x, w = np.random.default_rng(0).standard_normal((2, 2, 6, 6, 3))[0], np.ones((3, 3, 3, 2))
    expected = ref.conv(x.copy(), w)
    for same in (np.asfortranarray(x), x.astype(">f8"), x[::-1].copy()[::-1]):
        y = ref.conv(same, w)
        assert_array_equal(y, expected, strict=True)
        assert y.dtype == np.float64


def test_empty_batch_gives_exact_zeros():
    x, w = np.empty((0, 5, 5, 2)), np.ones((3, 3, 2, 4))
    dx, dw, db = ref.conv_backward(ref.conv(x, w), x, w)
    assert dx.shape == x.shape
    assert_array_equal(dw, np.zeros(w.shape), strict=True)
    assert_array_equal(db, np.zeros(4), strict=True)


def test_need():
    x, w, dy = np.ones((1, 4, 1)), np.ones((2, 1, 1)), np.ones((1, 3, 1))
    grads = ref.conv_backward(dy, x, w, need="b")
    assert (grads.dx, grads.dw, grads.db.item()) == (None, None, 3)
    grads = ref.conv_transpose_backward(np.ones((1, 5, 1)), x, w, need=["x", "w"])
    assert grads.db is None
    assert (grads.dx.shape, grads.dw.shape) == (x.shape, w.shape)
    with pytest.raises(ValueError, match="need"):
        ref.conv_backward(dy, x, w, need=("x", "q"))


def test_out():
    x, w = integers((1, 5, 5, 2)), integers((3, 3, 2, 4))
    out = np.full((1, 4, 3, 3), NAN)
    expected = ref.conv(np.moveaxis(x, -1, 1), w, data_format=CF)
    assert ref.conv(np.moveaxis(x, -1, 1), w, data_format=CF, out=out) is out
    assert_array_equal(out, expected)
    frozen = np.full((1, 3, 3, 4), NAN)
    frozen.flags.writeable = False
    for bad in (np.full((1, 3, 3, 5), NAN), np.full((1, 3, 3, 4), NAN, np.float32), frozen):
        with pytest.raises(ValueError, match="out must be"):
            ref.conv(x, w, out=bad)
        assert np.isnan(bad).all()
    before = x.copy()
    with pytest.raises(ValueError, match="overlaps"):
        ref.conv(x, np.ones((1, 1, 2, 2)), out=x)
    assert_array_equal(x, before)
    dx, db = np.empty_like(x), np.empty(4)
    grads = ref.conv_backward(np.ones((1, 3, 3, 4)), x, w, out=(dx, None, db))
    assert grads.dx is dx
    assert grads.db is db
    assert_array_equal(grads.dw, ref.conv_kernel_grad(x, np.ones((1, 3, 3, 4)), w.shape))


X, W = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 4))
REFUSED = {
    "stride 0": (ValueError, lambda: ref.conv(X, W, stride=0)),
    "stride 1.5": (TypeError, lambda: ref.conv(X, W, stride=1.5)),
    "stride True": (TypeError, lambda: ref.conv(X, W, stride=True)),
    "three strides": (ValueError, lambda: ref.conv(X, W, stride=(1, 1, 1))),
    "padding -1": (ValueError, lambda: ref.conv(X, W, padding=-1)),
    "padding word": (ValueError, lambda: ref.conv(X, W, padding="foo")),
    "padding triple": (ValueError, lambda: ref.conv(X, W, padding=((1, 1, 1), (0, 0, 0)))),
    "dilation": (ValueError, lambda: ref.conv(X, W, dilation=2)),
    "groups 0": (ValueError, lambda: ref.conv(X, W, groups=0)),
    "groups 3": (ValueError, lambda: ref.conv(X, W, groups=3)),
    "channels": (ValueError, lambda: ref.conv(X, np.ones((3, 3, 1, 4)))),
    "empty kernel": (ValueError, lambda: ref.conv(X, np.ones((3, 0, 2, 4)))),
    "rank of w": (ValueError, lambda: ref.conv(X, np.ones((3, 2, 4)))),
    "rank 4": (ValueError, lambda: ref.avg_pool(np.ones((1, 2, 2, 2, 2, 1)), 1)),
    "bias": (ValueError, lambda: ref.conv(X, W, np.ones(3))),
    "activation": (ValueError, lambda: ref.conv(X, W, activation="tanh")),
    "data_format": (ValueError, lambda: ref.conv(X, W, data_format="NHWC")),
    "H = 0": (ValueError, lambda: ref.conv(np.ones((1, 0, 4, 2)), W, padding=3)),
    "integers": (TypeError, lambda: ref.conv(X.astype(int), W.astype(int))),
    "mixed": (TypeError, lambda: ref.conv(X, W.astype(np.float32))),
    "masked": (TypeError, lambda: ref.conv(np.ma.masked_array(X), W)),
    "dy": (ValueError, lambda: ref.conv_input_grad(np.ones((1, 3, 2, 4)), W, X.shape)),
    "x_shape": (ValueError, lambda: ref.conv_input_grad(np.ones((1, 2, 2, 4)), W, 4)),
    "w_shape": (ValueError, lambda: ref.conv_kernel_grad(X, np.ones((1, 2, 2, 4)), (3, 3, 4))),
    "output_padding": (ValueError, lambda: ref.conv_transpose(X, W.swapaxes(2, 3)[..., :2],
                                                              output_padding=1)),
    "nothing left": (ValueError, lambda: ref.conv_transpose(X, np.ones((1, 1, 1, 2)), padding=2)),
    "pool window": (ValueError, lambda: ref.max_pool(X, 5)),
    "pool window, ceil": (ValueError, lambda: ref.max_pool(X, 5, stride=1, ceil_mode=True)),
    "pool padding": (ValueError, lambda: ref.avg_pool(X, 3, padding=2)),
    "argmax range": (ValueError, lambda: ref.max_pool_backward(
        np.ones((1, 2, 2, 2)), np.full((1, 2, 2, 2), 16), X.shape, 2)),
    "argmax -1": (ValueError, lambda: ref.max_pool_backward(
        np.ones((1, 2, 2, 2)), np.full((1, 2, 2, 2), -1), X.shape, 2)),
    "argmax dtype": (ValueError, lambda: ref.max_pool_backward(
        np.ones((1, 2, 2, 2)), np.ones((1, 2, 2, 2)), X.shape, 2)),
    "argmax shape": (ValueError, lambda: ref.max_pool_backward(
        np.ones((1, 2, 2, 2)), np.ones((1, 2, 2, 1), int), X.shape, 2)),
    "cols": (ValueError, lambda: ref.col2im(np.ones((1, 2, 2, 17)), X.shape, 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_nonsense_is_refused(case):
    error, call = REFUSED[case]
    with pytest.raises(error, match=r"^argmax (must|is -1)" if "argmax" in case else None):
        call()


def test_huge_stride_with_a_legal_window_has_one_output():
    assert ref.conv(X, W, stride=2**62).shape == (1, 1, 1, 4)
