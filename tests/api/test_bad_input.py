"""Bad input: a clear error that names the argument, `out` untouched; odd but legal input: right."""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv as fc
from fastconv import reference

HUGE = (2**62, 2**63 - 1)
X, W = (2, 6, 7, 4), (3, 2, 4, 6)  # y is (2, 4, 6, 6)
Y = (2, 4, 6, 6)


def ones(shape, dtype="float32"):
    return np.ones(shape, dtype)


def call_conv(**options):
    return fc.conv(ones(X), ones(W), out=options.pop("out", None), **options)


def call_input_grad(**options):
    return fc.conv_input_grad(ones(Y), ones(W), X, **options)


def call_kernel_grad(**options):
    return fc.conv_kernel_grad(ones(X), ones(Y), W, **options)


def call_backward(**options):
    return fc.conv_backward(ones(Y), ones(X), ones(W), **options)


def call_transpose(**options):
    return fc.conv_transpose(ones(Y), ones(W), **options)


def call_transpose_backward(**options):
    return fc.conv_transpose_backward(ones(X), ones(Y), ones(W), **options)


def call_plan(**options):
    return fc.plan_conv(X, W, **options)


def call_max_pool(**options):
    return fc.max_pool(ones(X), options.pop("window", 2), **options)


def call_max_pool_backward(**options):
    y = (2, 3, 3, 4)
    return fc.max_pool_backward(
        ones(y), np.zeros(y, np.int64), X, options.pop("window", 2), **options
    )


def call_avg_pool(**options):
    return fc.avg_pool(ones(X), options.pop("window", 2), **options)


def call_avg_pool_backward(**options):
    return fc.avg_pool_backward(ones((2, 3, 3, 4)), X, options.pop("window", 2), **options)


def call_im2col(**options):
    return fc.im2col(ones(X), options.pop("window", 2), **options)


def call_col2im(**options):
    return fc.col2im(ones((2, 5, 6, 16)), X, options.pop("window", 2), **options)


CONVS = [call_conv, call_input_grad, call_kernel_grad, call_backward, call_plan]
TRANSPOSED = [call_transpose, call_transpose_backward]
POOLS = [call_max_pool, call_max_pool_backward, call_avg_pool, call_avg_pool_backward]
WINDOWS = [*POOLS, call_im2col, call_col2im]
EVERYTHING = [*CONVS, *TRANSPOSED, *WINDOWS]
TAKES_OUT = [
    call_conv,
    call_input_grad,
    call_kernel_grad,
    call_transpose,
    *POOLS,
]

each = pytest.mark.parametrize("call", EVERYTHING)


@each
def test_the_good_call_is_good(call):
    """What the others below change one argument of."""
    result = call()
    arrays = result if isinstance(result, tuple) else [result] if call is not call_plan else []
    assert all(array.size and np.isfinite(array).all() for array in arrays)
    assert arrays or result.y_shape == Y


@each
@pytest.mark.parametrize("value", [0, -1, (1, 0), (1, -3), (1,), (1, 1, 1), ()])
@pytest.mark.parametrize("argument", ["stride", "dilation"])
def test_stride_and_dilation(call, argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}: ") as error:
        call(**{argument: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize("call", [call for call in EVERYTHING if call not in POOLS])
def test_stride_none_is_for_pools(call):
    with pytest.raises(TypeError, match="stride=None must be an integer"):
        call(stride=None)


@pytest.mark.parametrize("call", WINDOWS)
@pytest.mark.parametrize("value", [0, -1, (2, 0), (2,), (2, 2, 2), ()])
def test_window(call, value):
    with pytest.raises(ValueError, match=r"^window: "):
        call(window=value)


@each
@pytest.mark.parametrize("value", [1.5, 1.0, True, "2", math.nan, (1, 1.0), (1, True)])
@pytest.mark.parametrize("argument", ["stride", "dilation", "padding"])
def test_not_integers(call, argument, value):
    wrong = ValueError if argument == "padding" and value == "2" else TypeError
    with pytest.raises(wrong, match=argument):
        call(**{argument: value})


@each
@pytest.mark.parametrize(
    "value", [-1, (0, -1), ((0, 0), (0, -1)), (0,), ((0, 0),), ((0, 0, 0), (0, 0)), "foo", "SAME"]
)
def test_padding(call, value):
    with pytest.raises(ValueError, match=r"^padding: "):
        call(padding=value)


def test_unknown_padding_lists_the_legal_names():
    with pytest.raises(ValueError, match="'valid', 'same', 'full'"):
        call_conv(padding="foo")


@pytest.mark.parametrize("call", POOLS)
@pytest.mark.parametrize("value", [2, ((0, 2), (0, 0)), (0, 2)])
def test_pool_padding_beyond_half_the_window(call, value):
    with pytest.raises(ValueError, match=r"^padding: .* half the effective window"):
        call(padding=value)


@pytest.mark.parametrize(
    "options", [{"dilation": 3}, {"dilation": (1, 7)}, {"dilation": 100, "stride": 100}]
)
def test_window_larger_than_the_input(options):
    # floor((6 - 7) / 100) is -1, but truncation towards zero would make one output of it
    for call in CONVS:
        with pytest.raises(ValueError, match="larger than the padded input"):
            call(**options)
    for call in WINDOWS:
        with pytest.raises(ValueError, match="larger than the padded input"):
            call(window=8, **options)


@pytest.mark.parametrize("call", [*CONVS, *TRANSPOSED])
@pytest.mark.parametrize("groups", [0, -1, 4, 5, 2**63])
def test_groups(call, groups):
    with pytest.raises(ValueError, match=r"^(groups|w|w_shape): "):
        call(groups=groups)


@pytest.mark.parametrize("groups", [1.0, True, "1", None])
def test_groups_type(groups):
    with pytest.raises(TypeError, match="groups"):
        call_conv(groups=groups)


def test_kernel_channels():
    with pytest.raises(ValueError, match=r"^w: .*C/G = 4 channels"):
        fc.conv(ones(X), ones((3, 2, 3, 6)))
    with pytest.raises(ValueError, match=r"^w: .*C/G = 2 channels"):
        fc.conv(ones(X), ones(W), groups=2)
    with pytest.raises(ValueError, match=r"^w: .*C = 6 channels"):
        fc.conv_transpose(ones(Y), ones((3, 2, 4, 5)))


@pytest.mark.parametrize("axis", range(4))
def test_empty_kernel(axis):
    shape = tuple(0 if i == axis else n for i, n in enumerate(W))
    with pytest.raises(ValueError, match=r"^(w|groups): "):
        fc.conv(ones(X), ones(shape))
    with pytest.raises(ValueError, match=r"^w_shape: "):
        fc.conv_kernel_grad(ones(X), ones(Y), shape)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_empty_image(axis):
    shape = tuple(0 if i == axis else n for i, n in enumerate(X))
    x = ones(shape)
    for call in (
        lambda: fc.conv(x, ones(W)),
        lambda: fc.max_pool(x, 1),
        lambda: fc.avg_pool(x, 1),
        lambda: fc.im2col(x, 1),
        lambda: fc.conv_transpose(x, ones((3, 2, 6, 4))),
    ):
        with pytest.raises(ValueError, match=r"^x: "):
            call()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 3, 4, 5, 6)])
def test_number_of_axes(shape):
    for call in (
        lambda x: fc.conv(x, ones(W)),
        lambda x: fc.max_pool(x, 2),
        lambda x: fc.avg_pool(x, 2),
        lambda x: fc.im2col(x, 2),
    ):
        with pytest.raises(ValueError, match=r"^x: .*3 to 5 axes"):
            call(ones(shape))


def test_axes_of_the_kernel():
    with pytest.raises(ValueError, match=r"^w: .*must have 4 axes"):
        fc.conv(ones(X), ones((3, 4, 6)))


@pytest.mark.parametrize(
    "x_shape",
    [5, (), (6, 7, 4), (-1, 6, 7, 4), (2, 6, -7, 4), (2, 6, 7, 3), (2, 2**40, 2**40, 4), "ab"],
)
def test_x_shape(x_shape):
    for call in (
        lambda: fc.conv_input_grad(ones(Y), ones(W), x_shape),
        lambda: fc.max_pool_backward(ones(Y), np.zeros(Y, np.int64), x_shape, 2),
        lambda: fc.avg_pool_backward(ones(Y), x_shape, 2),
        lambda: fc.col2im(ones((2, 5, 6, 16)), x_shape, 2),
    ):
        with pytest.raises(ValueError, match=r"^(x_shape|w|dy|cols|window)\b"):
            call()
    with pytest.raises(TypeError, match="x_shape"):
        fc.conv_input_grad(ones(Y), ones(W), (2, 6.0, 7, 4))


@pytest.mark.parametrize("w_shape", [5, (), (3, 2, 4), (3, 2, -4, 6), (3, 2, 4, 5), (2**62,) * 4])
def test_w_shape(w_shape):
    with pytest.raises(ValueError, match=r"^(w_shape|dy)\b"):
        fc.conv_kernel_grad(ones(X), ones(Y), w_shape)


@pytest.mark.parametrize(
    "shape", [(2, 4, 6, 5), (2, 4, 5, 6), (1, 4, 6, 6), (2, 4, 6), (0, 4, 6, 6)]
)
def test_dy_shape(shape):
    dy = ones(shape)
    for call in (
        lambda: fc.conv_input_grad(dy, ones(W), X),
        lambda: fc.conv_kernel_grad(ones(X), dy, W),
        lambda: fc.conv_backward(dy, ones(X), ones(W)),
        lambda: fc.conv_transpose_backward(dy, ones(Y), ones(W)),
        lambda: fc.max_pool_backward(dy, np.zeros(shape, np.int64), X, 2),
        lambda: fc.avg_pool_backward(dy, X, 2),
    ):
        with pytest.raises(ValueError, match=r"^dy has shape"):
            call()


@pytest.mark.parametrize("bad", [-1, -2, 42, 2**62])
def test_argmax_out_of_range(bad):
    y = (2, 3, 3, 4)
    argmax = np.zeros(y, np.int64)
    argmax[1, 2, 1, 3] = bad
    out = np.full(X, 7, np.float32)
    with pytest.raises(ValueError, match=rf"argmax holds .*{bad}"):
        fc.max_pool_backward(ones(y), argmax, X, 2, out=out)
    assert (out == 7).all()


def test_argmax_shape_and_dtype():
    y = (2, 3, 3, 4)
    with pytest.raises(ValueError, match="argmax has shape"):
        fc.max_pool_backward(ones(y), np.zeros((2, 3, 3, 5), np.int64), X, 2)
    for dtype in ("int32", "float64", "uint64", "bool"):
        with pytest.raises(ValueError, match=f"argmax has dtype {dtype}"):
            fc.max_pool_backward(ones(y), np.zeros(y, dtype), X, 2)


@pytest.mark.parametrize("shape", [(5,), (7,), (1, 6), (6, 1), (), (1,)])
def test_bias_shape(shape):
    with pytest.raises(ValueError, match=r"^b has shape"):
        fc.conv(ones(X), ones(W), ones(shape))
    if shape != (4,):
        with pytest.raises(ValueError, match=r"^b has shape"):
            fc.conv_transpose(ones(Y), ones(W), ones(shape))


# ------------------------------------------------------------------------------ huge numbers


@each
@pytest.mark.parametrize("value", HUGE)
def test_huge_padding_dilation_window(call, value):
    for argument in ("padding", "dilation") + (("window",) if call in WINDOWS else ()):
        with pytest.raises(ValueError, match=r"padding|stride|larger than the padded input"):
            call(**{argument: value})


@pytest.mark.parametrize("value", HUGE)
def test_huge_stride_makes_one_output(value):
    x, w = np.arange(168, dtype="float32").reshape(1, 6, 7, 4), ones((3, 2, 4, 6))
    y = fc.conv(x, w, stride=value)
    assert_array_equal(y, fc.conv(x[:, :3, :2], w))
    assert fc.conv_input_grad(y, w, x.shape, stride=value).shape == x.shape
    assert fc.conv_kernel_grad(x, y, w.shape, stride=value).shape == w.shape
    assert_array_equal(fc.max_pool(x, 2, stride=value), x[:, 1:2, 1:2])
    assert fc.avg_pool(x, 2, stride=value).shape == (1, 1, 1, 4)
    with pytest.raises(ValueError, match="stride"):
        fc.conv_transpose(x, ones((3, 2, 6, 4)), stride=value)


@pytest.mark.parametrize("value", HUGE)
def test_huge_dilation_of_a_window_of_one_is_never_taken(value):
    x, w = np.arange(168, dtype="float32").reshape(1, 6, 7, 4), ones((1, 1, 4, 6))
    assert_array_equal(fc.conv(x, w, dilation=value), fc.conv(x, w))
    assert_array_equal(fc.max_pool(x, 1, dilation=value), x)


def test_impossible_results_fail_before_any_work():
    with pytest.raises((ValueError, MemoryError)):
        fc.conv(ones(X), ones(W), padding=2**31)
    with pytest.raises(ValueError, match="too large to address"):
        fc.plan_conv((2**40, 2**20, 2**20, 4), W)


# ------------------------------------------------------------------------------------ dtypes

BAD_DTYPES = ["int64", "int8", "bool", "complex64", "object", "longdouble", "U1", "uint8"]
POOLED = {"int64", "int8", "bool", "uint8"}  # max_pool alone takes these


@pytest.mark.parametrize("dtype", BAD_DTYPES)
def test_dtypes(dtype):
    bad_x, bad_w = np.ones(X, dtype), np.ones(W, dtype)
    for name, call in (
        ("x", lambda: fc.conv(bad_x, ones(W))),
        ("w", lambda: fc.conv(ones(X), bad_w)),
        ("b", lambda: fc.conv(ones(X), ones(W), np.ones(6, dtype))),
        ("w", lambda: fc.conv_input_grad(ones(Y), bad_w, X)),
        ("x", lambda: fc.conv_kernel_grad(bad_x, ones(Y), W)),
        ("x", lambda: fc.conv_transpose(bad_x, ones(W))),
        *[("x", lambda: fc.max_pool(bad_x, 2))] * (dtype not in POOLED),
        ("x", lambda: fc.avg_pool(bad_x, 2)),
        ("dy", lambda: fc.avg_pool_backward(bad_x, X, 1)),
        ("dy", lambda: fc.max_pool_backward(bad_x, np.zeros(X, np.int64), X, 1)),
        ("x", lambda: fc.im2col(bad_x, 2)),
        ("cols", lambda: fc.col2im(np.ones((2, 5, 6, 16), dtype), X, 2)),
        ("dtype", lambda: fc.plan_conv(X, W, dtype)),
    ):
        with pytest.raises(TypeError, match=name) as error:
            call()
        assert str(np.dtype(dtype)) in str(error.value)


def test_mixed_dtypes():
    with pytest.raises(TypeError, match="w has dtype float64, but x has float32"):
        fc.conv(ones(X), ones(W, "float64"))
    with pytest.raises(TypeError, match="b has dtype float64"):
        fc.conv(ones(X), ones(W), ones(6, "float64"))
    with pytest.raises(TypeError, match="dy has dtype float64, but x has float32"):
        fc.conv_backward(ones(Y, "float64"), ones(X), ones(W))
    with pytest.raises(TypeError, match="dtype float64"):
        fc.plan_conv(X, W).forward(ones(X, "float64"), ones(W, "float64"))
    with pytest.raises(TypeError, match="dtype"):
        fc.relu_backward(ones(X), ones(X, "float64"))


def test_masked_matrix_and_other_subclasses():
    masked = np.ma.masked_array(ones(X), mask=False)
    with pytest.raises(TypeError, match="x is a masked array"):
        fc.conv(masked, ones(W))
    with pytest.raises(TypeError, match="x is a masked array"):
        fc.max_pool(masked, 2)
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"x is a numpy\.matrix"):
        fc.conv(matrix, ones(W))

    class Tagged(np.ndarray):
        pass

    y = fc.conv(ones(X).view(Tagged), ones(W))
    assert type(y) is np.ndarray
    assert_array_equal(y, fc.conv(ones(X), ones(W)))


def test_other_arguments():
    with pytest.raises(ValueError, match=r"data_format.*channels_first"):
        call_conv(data_format="NCHW")
    with pytest.raises(TypeError, match="data_format"):
        call_conv(data_format=None)
    with pytest.raises(ValueError, match="activation='tanh'"):
        call_conv(activation="tanh")
    with pytest.raises(TypeError, match="activation=3"):
        call_conv(activation=3)
    with pytest.raises(TypeError, match="ceil_mode=1"):
        call_max_pool(ceil_mode=1)
    with pytest.raises(TypeError, match="count_include_pad='yes'"):
        call_avg_pool(count_include_pad="yes")
    with pytest.raises(TypeError, match="return_argmax=None"):
        call_max_pool(return_argmax=None)
    with pytest.raises(ValueError, match="need="):
        call_backward(need=("x", "z"))
    with pytest.raises(ValueError, match="output_padding"):
        call_transpose(output_padding=1)
    with pytest.raises(ValueError, match="output_padding"):
        call_transpose(output_padding=1, stride=2, padding="same")
    with pytest.raises(ValueError, match="padding"):
        call_transpose(padding=9)
    for n in (0, -1):
        with pytest.raises(ValueError, match="n="):
            fc.set_num_threads(n)
    for n in (1.0, True, "2", None):
        with pytest.raises(TypeError, match="n="):
            fc.set_num_threads(n)


def test_the_error_lists_the_whole_geometry():
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is what this looks at
        fc.conv(ones(X), ones(W), stride=(0, 1), padding=((0, 1), (2, 3)), dilation=2)
    lines = str(error.value).splitlines()
    assert lines[0] == "stride: (0, 1) must be at least 1 on every axis"
    assert [line.strip() for line in lines[1:]] == [
        f"x = {X}",
        f"w = {W}",
        "stride = (0, 1)",
        "padding = ((0, 1), (2, 3))",
        "dilation = 2",
        "groups = 1",
        "data_format = 'channels_last'",
    ]


# --------------------------------------------------------------------------------------- out


@pytest.mark.parametrize("call", TAKES_OUT)
def test_out(call):
    expected = call()
    out = np.full(expected.shape, np.nan, np.float32)
    assert call(out=out) is out
    assert_array_equal(out, expected)

    def refused(bad, match, error=ValueError):
        before = np.array(bad)
        with pytest.raises(error, match=match):
            call(out=bad)
        assert_array_equal(bad, before)

    refused(np.full((*expected.shape[:-1], 9), 7, np.float32), "out has shape")
    refused(np.full(expected.shape, 7, np.float64), "out has dtype")
    refused(np.full(expected.shape, 7, np.float32).astype(">f4"), "out has dtype")
    refused([1, 2], "out must be a numpy array", TypeError)
    read_only = np.full(expected.shape, 7, np.float32)
    read_only.flags.writeable = False
    refused(read_only, "out is read-only")
    line = np.full(expected.shape[-1], 7, np.float32)
    itself = np.lib.stride_tricks.as_strided(line, expected.shape, (0, 0, 0, 4))
    refused(itself, "out overlaps itself")


def test_out_overlaps_an_input():
    memory = np.ones(2000, np.float32)
    x = memory[:336].reshape(X)
    y = memory[300:588].reshape(Y)
    with pytest.raises(ValueError, match="out overlaps the input x"):
        fc.conv(x, ones(W), out=y)
    with pytest.raises(ValueError, match="out overlaps the input x"):
        fc.max_pool(x, 1, out=x)
    with pytest.raises(ValueError, match="out overlaps the input dy"):
        fc.relu_backward(x, ones(X), out=x)
    assert (memory == 1).all()
    beside = np.ones((2, 6, 7, 8), np.float32)  # interleaved, but no element in common
    fc.max_pool(beside[..., :4], 1, out=beside[..., 4:])


def test_out_of_any_layout():
    x, w = np.random.default_rng(0).integers(-8, 9, (2, 336)).astype("float32"), ones(W)
    x = x[0].reshape(X)
    expected = fc.conv(x, w)
    fortran = np.full(Y, np.nan, np.float32, order="F")
    assert_array_equal(fc.conv(x, w, out=fortran), expected)
    wide = np.full((4, 4, 12, 6), np.nan, np.float32)
    assert_array_equal(fc.conv(x, w, out=wide[::-2, :, ::2]), expected)
    assert np.isnan(wide[1::2][:, :, 1::2]).all()
    pooled = np.full((2, 3, 3, 8), np.nan, np.float32)
    fc.max_pool(x, 2, out=pooled[..., ::2])
    assert_array_equal(pooled[..., ::2], fc.max_pool(x, 2))
    assert np.isnan(pooled[..., 1::2]).all()


def test_backward_out():
    grads = call_backward()
    out = tuple(np.full(g.shape, np.nan, np.float32) for g in grads)
    assert all(got is given for got, given in zip(call_backward(out=out), out, strict=True))
    for got, expected in zip(out, grads, strict=True):
        assert_array_equal(got, expected)
    with pytest.raises(ValueError, match="three entries"):
        call_backward(out=(None,))
    same = np.empty(W, np.float32)
    with pytest.raises(ValueError, match="overlaps another entry"):
        fc.conv_backward(ones(W), ones(W), ones((1, 1, 6, 6)), out=(same, None, same[0, 0, 0]))


# ------------------------------------------------------------------- legal, and often wrong


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_empty_batch(threads, data_format):
    shape = {"channels_last": (0, 6, 7, 4), "channels_first": (0, 4, 6, 7)}[data_format]
    options = {"data_format": data_format}
    with fc.num_threads(threads):
        y = fc.conv(ones(shape), ones(W), ones(6), **options)
        assert y.size == 0
        assert y.shape[0] == 0
        grads = fc.conv_backward(y, ones(shape), ones(W), **options)
        assert grads.dx.shape == shape
        assert_array_equal(grads.dw, np.zeros(W))
        assert_array_equal(grads.db, np.zeros(6))
        pooled, argmax = fc.max_pool(ones(shape), 2, return_argmax=True, **options)
        assert pooled.size == argmax.size == 0
        assert fc.max_pool_backward(pooled, argmax, shape, 2, **options).shape == shape
        means = fc.avg_pool(ones(shape), 2, **options)
        assert fc.avg_pool_backward(means, shape, 2, **options).shape == shape
        cols = fc.im2col(ones(shape), 2, **options)
        assert fc.col2im(cols, shape, 2, **options).shape == shape
        backward = fc.conv_transpose_backward(
            np.ones((0, 6, 7, 4), "float32"), np.ones((0, 4, 6, 6), "float32"), ones(W)
        )
        assert_array_equal(backward.dw, np.zeros(W))


@pytest.mark.parametrize("padding", [3, 5, ((5, 0), (0, 0)), ((0, 0), (0, 4))])
@pytest.mark.parametrize("stride", [1, 2, 9])
def test_padding_as_large_as_the_kernel(padding, stride):
    rng = np.random.default_rng(0)
    x, w = rng.integers(-8, 9, X).astype("float32"), rng.integers(-8, 9, W).astype("float32")
    options = {"padding": padding, "stride": stride}
    y = reference.conv(x, w, **options)
    assert_array_equal(fc.conv(x, w, **options), y)
    for got, expected in zip(
        fc.conv_backward(y, x, w, **options),
        reference.conv_backward(y, x, w, **options),
        strict=True,
    ):
        assert_array_equal(got, expected)


def test_subnormals():
    x, w = np.full(X, 1e-41, "float32"), ones(W)
    y = fc.conv(x, w)
    assert (y > 0).all()
    assert_array_equal(y, reference.conv(x, w))


def test_numpy_integers_are_integers():
    for value in (np.int8(2), np.uint64(2), np.array(2), np.array([2, 2]), [2, 2]):
        assert fc.conv(ones(X), ones(W), stride=value).shape == (2, 2, 3, 6)


def test_lists_are_arrays():
    assert fc.conv([[[1.0], [2.0], [3.0]]], [[[1.0]], [[1.0]]]).tolist() == [[[3.0], [5.0]]]


def test_one_huge_window_in_bounded_memory():
    """The explicit im2col matrix of this problem would take 1.4 GB."""
    import tracemalloc

    x = np.ones((1, 200, 200, 1), np.float32)
    w = np.ones((101, 101, 1, 1), np.float32)
    tracemalloc.start()
    try:
        y = fc.conv(x, w)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (y == 101 * 101).all()
    assert peak < 16 * 2**20


def test_more_than_two_to_the_31_elements(tmp_path):
    """64-bit offsets: a sparse file of 11 GB, of which a few pages are touched."""
    shape = (1, 70000, 40000, 1)
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=shape)
    assert x.size > 2**31
    x[0, -2:, -2:, 0] = 1
    far = {"stride": (34999, 19999)}
    y = fc.conv(x, ones((2, 2, 1, 1)), **far)
    assert_array_equal(y.ravel(), [0] * 8 + [4])
    y, argmax = fc.max_pool(x, 2, return_argmax=True, **far)
    assert_array_equal(y.ravel(), [0] * 8 + [1])
    assert argmax.max() == 69998 * 40000 + 39998 > 2**31
    assert_array_equal(fc.avg_pool(x, 2, **far).ravel(), [0] * 8 + [1])
    del x
    (tmp_path / "x").unlink()


def test_an_im2col_matrix_of_more_than_two_to_the_31_elements():
    x, w = ones((1, 1000, 1000, 8)), ones((20, 20, 8, 1))
    assert fc.plan_conv(x.shape, w.shape).geometry.P * 3200 > 2**31
    assert (fc.conv(x, w) == 3200).all()
