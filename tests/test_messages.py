"""Errors that show the cure, in the caller's own names; and foreign arrays."""

import re

import dask.array
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv as fc

CF = {"data_format": "channels_first"}


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


def message(call, error=ValueError):
    with pytest.raises(error) as raised:
        call()
    return str(raised.value)


# Shapes of x and w that lack axes, and the index that adds them. Each cure is tried.
LACKING = [
    ((8, 8), (3, 3), {}, "x[None, :, :, None], w[:, :, None, None]"),
    ((8, 8), (3, 3), CF, "x[None, None], w[:, :, None, None]"),
    ((8,), (3,), {}, "x[None, :, None], w[:, None, None]"),
    ((8, 8), (3, 3, 1, 5), {}, "x[None, :, :, None]"),
    ((8, 8, 3), (3, 3, 3, 5), {}, "x[None]"),
    ((3, 8, 8), (3, 3, 3, 5), CF, "x[None]"),
    ((7, 8, 8), (3, 3, 1, 5), {}, "x[..., None]"),
    ((7, 8, 8), (3, 3, 1, 5), CF, "x[:, None]"),
    ((7, 8, 9), (3, 3), {}, "x[..., None], w[:, :, None, None]"),
    ((7, 8, 8, 1), (3, 3), {}, "w[:, :, None, None]"),
    ((7, 8, 8, 2), (3, 3, 2), {}, "w[..., None]"),
    ((7, 8, 8, 1), (3, 3, 5), {}, "w[:, :, None]"),
    ((8, 3), (3, 3, 5), {}, "x[None]"),
    ((9, 8), (3, 1, 5), {}, "x[..., None]"),
    ((8, 8, 8), (3, 3, 3), {}, "x[None, :, :, :, None], w[:, :, :, None, None]"),
    ((8, 8, 8), (3, 3, 3, 1, 2), {}, "x[None, :, :, :, None]"),
    ((2, 8, 8, 8), (3, 3, 3, 1, 2), {}, "x[..., None]"),
    ((2, 8, 8, 8, 1), (3, 3, 3), {}, "w[:, :, :, None, None]"),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options", "cure"), LACKING, ids=str)
def test_missing_axes(x_shape, w_shape, options, cure):
    x, w = ones(*x_shape), ones(*w_shape)
    said = message(lambda: fc.conv(x, w, **options)).splitlines()[0]
    assert re.search(rf"{re.escape(cure)}$", said), said
    scope = {"x": x, "w": w}
    for part in re.findall(r"[xw]\[[^]]*\]", cure):
        scope[part[0]] = eval(part, {}, {"x": x, "w": w})
    assert fc.conv(scope["x"], scope["w"], **options).size


def test_missing_axes_of_shapes_and_of_transposed_convolutions():
    said = message(lambda: fc.plan_conv((8, 8), (3, 3)))
    assert "try x_shape=(1, 8, 8, 1), w_shape=(3, 3, 1, 1)" in said
    said = message(lambda: fc.conv_input_grad(ones(1, 6, 6, 1), ones(3, 3, 1, 1), (8, 8)))
    assert "try x_shape=(1, 8, 8, 1)" in said
    said = message(lambda: fc.conv_transpose(ones(8, 8, 5), ones(3, 3, 2, 5)))
    assert "try x[None]" in said
    for shape in ((), (1,) * 6):
        assert "try" not in message(lambda: fc.conv(ones(*shape), ones(3, 3, 1, 1)))  # noqa: B023


@pytest.mark.parametrize(
    ("x_shape", "window", "options", "cure"),
    [
        ((8, 8), 2, {}, "x[None, :, :, None]"),
        ((8, 8), 2, CF, "x[None, None]"),
        ((8,), 2, {}, "x[None, :, None]"),
        ((8, 8, 3), (2, 2), {}, "x[None]"),
        ((3, 8, 8), (2, 2), CF, "x[None]"),
        ((7, 8, 8), (2, 2), {}, "x[..., None]"),
        ((2, 8, 8, 8), (2, 2, 2), {}, "x[..., None]"),
    ],
)
def test_missing_axes_of_pools_and_windows(x_shape, window, options, cure):
    x = ones(*x_shape)
    for call in (fc.max_pool, fc.avg_pool, fc.im2col):
        said = message(lambda: call(x, window, **options)).splitlines()[0]  # noqa: B023
        assert said.endswith(f"; try {cure}")
        assert call(eval(cure), window, **options).size


ORDERS = [
    ((1, 32, 32, 3), (16, 3, 5, 5), {}, "w.transpose(2, 3, 1, 0)"),
    ((1, 8, 8, 3), (64, 3, 3, 3), {}, "w.transpose(2, 3, 1, 0)"),
    ((1, 8, 8, 3), (8, 3, 1, 1), {}, "w.transpose(2, 3, 1, 0)"),
    ((1, 8, 8, 8), (8, 1, 3, 3), {"groups": 8}, "w.transpose(2, 3, 1, 0)"),
    ((1, 12, 3), (16, 3, 5), {}, "w.transpose(2, 1, 0)"),
    ((1, 9, 9, 9, 2), (6, 2, 3, 3, 3), {}, "w.transpose(2, 3, 4, 1, 0)"),
    ((1, 3, 32, 32), (16, 3, 5, 5), CF, "w.transpose(2, 3, 1, 0)"),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options", "cure"), ORDERS, ids=str)
def test_a_kernel_in_pytorchs_order(x_shape, w_shape, options, cure):
    x, w = ones(*x_shape), ones(*w_shape)
    said = message(lambda: fc.conv(x, w, **options)).splitlines()[0]
    assert said.endswith(f"PyTorch's order is {cure}")
    assert fc.conv(x, eval(cure), **options).size


@pytest.mark.parametrize(("size", "w_shape"), [((2, 2), (3, 3, 3, 8)), ((4,), (5, 3, 8))])
def test_a_window_that_is_too_large_is_not_taken_for_another_order(size, w_shape):
    said = message(lambda: fc.conv(ones(1, *size, 3), ones(*w_shape))).splitlines()[0]
    assert said.endswith(f"larger than the padded input, {size[0]}")


def test_other_orders():
    said = message(lambda: fc.conv(ones(1, 3, 32, 32), ones(16, 3, 5, 5)))
    assert 'data_format="channels_first" and w.transpose(2, 3, 1, 0)' in said
    said = message(lambda: fc.conv(ones(1, 3, 32, 32), ones(5, 5, 3, 16)))
    assert 'data_format="channels_first"\n' in said
    said = message(lambda: fc.conv(ones(1, 32, 32, 3), ones(5, 5, 3, 16), **CF))
    assert 'data_format="channels_last"\n' in said
    said = message(lambda: fc.conv_transpose(ones(1, 8, 8, 4), ones(4, 6, 3, 3)))
    assert "PyTorch's order is w.transpose(2, 3, 1, 0)\n" in said
    said = message(lambda: fc.conv_transpose(ones(1, 8, 8, 4), ones(3, 3, 4, 6)))
    assert "conv's order is w.swapaxes(-1, -2)\n" in said
    said = message(lambda: fc.plan_conv((1, 32, 32, 3), (16, 3, 5, 5)))
    assert "w_shape=(5, 5, 3, 16)" in said


def test_a_kernel_of_one_channel():
    x, w = ones(1, 8, 8, 3), ones(3, 3, 1, 1)
    said = message(lambda: fc.conv(x, w))
    assert "groups=3 and a kernel (3, 3, 1, 3), np.repeat(w, 3, axis=-1)\n" in said
    assert fc.conv(x, np.repeat(w, 3, axis=-1), groups=3).shape == (1, 6, 6, 3)
    said = message(lambda: fc.conv(x, ones(3, 3, 1, 6)))
    assert "filters of one channel each are groups=3\n" in said
    assert fc.conv(x, ones(3, 3, 1, 6), groups=3).shape == (1, 6, 6, 6)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"padding": "SAME"}, "did you mean 'same'?"),
        ({"padding": "Valid"}, "did you mean 'valid'?"),
        ({"data_format": "NHWC"}, "NHWC is 'channels_last'"),
        ({"data_format": "NDHWC"}, "NDHWC is 'channels_last'"),
        ({"data_format": "NCHW"}, "NCHW is 'channels_first'"),
        ({"data_format": "ncw"}, "ncw is 'channels_first'"),
        ({"data_format": "Channels_First"}, "Channels_First is 'channels_first'"),
    ],
)
def test_names_of_other_libraries(options, cure):
    for call in (
        lambda: fc.conv(ones(1, 8, 8, 3), ones(3, 3, 3, 2), **options),
        lambda: fc.max_pool(ones(1, 8, 8, 3), 2, **options),
        lambda: fc.conv_transpose(ones(1, 8, 8, 3), ones(3, 3, 2, 3), **options),
    ):
        assert message(call).splitlines()[0].endswith(f"; {cure}")


@pytest.mark.parametrize(
    ("b", "error", "says"),
    [
        (
            0.5,
            ValueError,
            "b has shape (), but one number per filter is needed: np.full(2, b, np.f",
        ),
        (1, ValueError, "np.full(2, b, np.float32)"),
        (np.float32(1), ValueError, "np.full(2, b, np.float32)"),
        ([0.1, 0.2], TypeError, "b has dtype float64, but x has float32: np.array(b, np.float32)"),
        ((1, 2), TypeError, "b has dtype int64, but x has float32: np.array(b, np.float32)"),
        (
            np.ones(2),
            TypeError,
            "b has dtype float64, but x has float32: convert one, such as b.as",
        ),
        (np.ones(2, int), TypeError, "use float32, float64 or float16: b.astype(np.float32)"),
        (np.ones(3, "f4"), ValueError, "b has shape (3,), but the shape for one number per filter"),
    ],
)
def test_bias(b, error, says):
    said = message(lambda: fc.conv(ones(1, 8, 8, 3), ones(3, 3, 3, 2), b), error)
    assert says in said
    assert says in message(lambda: fc.conv_transpose(ones(1, 8, 8, 3), ones(3, 3, 2, 3), b), error)
    plan = fc.plan_conv((1, 8, 8, 3), (3, 3, 3, 2))
    said = message(lambda: plan.forward(ones(1, 8, 8, 3), ones(3, 3, 3, 2), b), error)
    assert says.replace("but x has", "but the plan has") in said


def test_a_bias_of_the_right_dtype_may_be_a_list():
    x, w = ones(1, 4, 1, dtype="float64"), ones(2, 1, 2, dtype="float64")
    assert_array_equal(fc.conv(x, w, [1.0, 2.0])[0, 0], [3, 4])


def test_integers():
    image, w = np.ones((1, 8, 8, 3), np.uint8), ones(3, 3, 3, 2)
    assert message(lambda: fc.conv(image, w), TypeError).endswith("float16: x.astype(np.float32)")
    said = message(lambda: fc.conv(image.tolist(), w), TypeError)
    assert said.endswith(
        "x has dtype int64; use float32, float64 or float16: np.array(x, np.float32)"
    )
    said = message(lambda: fc.conv(ones(1, 8, 8, 3, dtype="float64"), w), TypeError)
    assert said.endswith("convert one, such as w.astype(np.float64)")


def test_no_message_of_a_function_speaks_of_a_plan():
    x, w, dy = ones(1, 8, 8, 3), ones(3, 3, 3, 2), ones(1, 5, 6, 2)
    for call in (
        lambda: fc.conv_input_grad(dy, w, x.shape),
        lambda: fc.conv_kernel_grad(x, dy, w.shape),
        lambda: fc.conv_backward(dy, x, w),
    ):
        assert message(call) == (
            "dy has shape (1, 5, 6, 2), but the shape of the forward output is (1, 6, 6, 2)"
        )
    plan = fc.plan_conv(x.shape, w.shape)
    said = message(lambda: plan.forward(x[:, 1:], w))
    assert said == "x has shape (1, 7, 8, 3), but the plan's x_shape is (1, 8, 8, 3)"


# ------------------------------------------------------------------------- foreign arrays


class Tensor:
    """What a tensor of PyTorch is to NumPy."""

    def __init__(self, requires_grad):
        self.requires_grad = requires_grad

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return ones(1, 8, 8, 3)


def test_a_tensor_that_requires_a_gradient():
    w = ones(3, 3, 3, 2)
    with pytest.raises(TypeError, match=r"^x is a tensor .* gradient: pass x\.detach\(\)\.numpy"):
        fc.conv(Tensor(True), w)
    with pytest.raises(TypeError, match=r"^w is a tensor"):
        fc.conv(ones(1, 8, 8, 3), Tensor(True))
    with pytest.raises(TypeError, match=r"^dy is a tensor"):
        fc.relu_backward(Tensor(True), ones(1, 8, 8, 3))
    with pytest.raises(TypeError, match=r"^b is a tensor"):
        fc.conv(ones(1, 8, 8, 3), w, Tensor(True))
    assert_array_equal(fc.conv(Tensor(False), w), fc.conv(ones(1, 8, 8, 3), w))


def test_what_an_array_says_of_itself_names_the_argument():
    class Foreign:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("on another device")

    with pytest.raises(TypeError, match=r"^x cannot be made an array: on another device"):
        fc.max_pool(Foreign(), 2)


def test_dask_is_not_computed_silently():
    x = dask.array.ones((1, 8, 8, 3), dtype="float32")
    calls = (
        lambda: fc.conv(x, ones(3, 3, 3, 2)),
        lambda: fc.max_pool(x, 2),
        lambda: fc.avg_pool(x, 2),
        lambda: fc.im2col(x, 2),
        lambda: fc.conv_transpose(x, ones(3, 3, 2, 3)),
    )
    for call in calls:
        with pytest.raises(
            TypeError, match=r"^x is of dask.*adapter.*compute it first, x\.compute"
        ):
            call()
    with pytest.raises(TypeError, match=r"^argmax is of dask"):
        fc.max_pool_backward(ones(1, 4, 4, 3), dask.array.zeros((1, 4, 4, 3), int), x.shape, 2)
    assert fc.conv(x.compute(), ones(3, 3, 3, 2)).shape == (1, 6, 6, 2)


def test_xarray_is_not_stripped_silently():
    """Its module's name is all that is looked at: xarray need not be there."""

    class DataArray:
        values = ones(1, 8, 8, 3)

        def __array__(self, dtype=None, copy=None):
            return self.values

    DataArray.__module__ = "xarray.core.dataarray"
    with pytest.raises(TypeError, match=r"^x is of xarray.*adapter.*x\.values"):
        fc.avg_pool(DataArray(), 2)
    assert fc.avg_pool(DataArray().values, 2).shape == (1, 4, 4, 3)
