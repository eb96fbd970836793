"""padding_mode: NumPy's words for what stands in the padding of a convolution."""

import itertools
import tracemalloc

import numpy as np
import pytest
from strategies import integers

import fastconv as fc
from fastconv import nn, reference
from fastconv.testing import gradcheck

MODES = ("reflect", "symmetric", "edge", "wrap")
# x, w, options: plain, strided, depthwise, one channel and filter, more padding than cells, ranks
PROBLEMS = {
    "plain": ((2, 6, 7, 3), (3, 3, 3, 4), {"padding": 1}),
    "same, strided": ((2, 6, 7, 3), (3, 3, 3, 4), {"padding": "same", "stride": 2}),
    "one side": ((2, 5, 4, 2), (3, 3, 2, 3), {"padding": ((2, 0), (0, 1))}),
    "depthwise": ((2, 5, 4, 8), (3, 3, 1, 8), {"padding": ((2, 1), (0, 3)), "groups": 8}),
    "depthwise, strided": ((1, 9, 9, 4), (3, 3, 1, 4), {"padding": 1, "groups": 4, "stride": 2}),
    "single": ((1, 9, 37, 1), (3, 5, 1, 1), {"padding": ((1, 1), (2, 2))}),
    "wide": ((2, 4, 4, 4), (3, 2, 2, 6), {"padding": ((9, 4), (1, 7)), "groups": 2, "dilation": 2}),
    "full": ((1, 3, 3, 2), (3, 3, 2, 2), {"padding": "full"}),
    "one cell": ((3, 1, 1, 2), (3, 3, 2, 2), {"padding": 1}),
    "1-D": ((2, 7, 2), (3, 2, 3), {"padding": 2}),
    "3-D": ((1, 3, 4, 3, 2), (2, 3, 2, 2, 3), {"padding": ((1, 0), (2, 1), (0, 2))}),
    "boxes": ((1, 70, 80, 16), (3, 3, 16, 17), {"padding": 1}),
}


def operands(name, dtype=np.float32):
    x_shape, w_shape, options = PROBLEMS[name]
    return integers(0, *x_shape, dtype=dtype), integers(1, *w_shape, dtype=dtype), dict(options)


def by_hand(x, w, options, mode):
    """The same convolution of an input that NumPy has padded."""
    pads = fc.plan_conv(x.shape, w.shape, x.dtype, **options).geometry.pads
    options = {**options, "padding": 0}
    return np.pad(x, ((0, 0), *pads, (0, 0)), mode), options


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_forward_is_that_of_a_padded_input(name, mode):
    x, w, options = operands(name)
    padded, plain = by_hand(x, w, options, mode)
    right = fc.conv(padded, w, **plain)
    np.testing.assert_array_equal(fc.conv(x, w, padding_mode=mode, **options), right)
    dy = integers(2, *right.shape, dtype=np.float32)
    found = fc.conv_kernel_grad(x, dy, w.shape, padding_mode=mode, **options)
    np.testing.assert_array_equal(found, fc.conv_kernel_grad(padded, dy, w.shape, **plain))


# the naive loops take long: the other dtypes by one problem
LOOPED = [(name, np.float32) for name in PROBLEMS if name != "boxes"]
LOOPED += [("one side", np.float64), ("one side", np.float16)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "dtype"), LOOPED)
def test_all_as_the_naive_loops(name, mode, dtype):
    x, w, options = operands(name, dtype)
    options["padding_mode"] = mode
    b = integers(3, w.shape[-1], dtype=dtype)
    for data_format in ("channels_last", "channels_first"):
        options["data_format"] = data_format
        images = x if data_format == "channels_last" else np.moveaxis(x, -1, 1).copy()
        y = fc.conv(images, w, b, activation="relu", **options)
        right = reference.conv(images, w, b, activation="relu", **options)
        np.testing.assert_array_equal(y, right)
        dy = integers(2, *y.shape, dtype=dtype)
        found = fc.conv_backward(dy, images, w, **options)
        for a, c in zip(found, reference.conv_backward(dy, images, w, **options), strict=True):
            np.testing.assert_array_equal(a, c)
        dx = fc.conv_input_grad(dy, w, images.shape, **options)
        np.testing.assert_array_equal(dx, found.dx)
        dw = fc.conv_kernel_grad(images, dy, w.shape, **options)
        np.testing.assert_array_equal(dw, found.dw)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_input_gradient_is_the_adjoint(name, mode):
    """``<conv(x), dy> = <x, input_grad(dy)>``, exactly: integers."""
    x, w, options = operands(name, np.float64)
    y = fc.conv(x, w, padding_mode=mode, **options)
    dy = integers(2, *y.shape, dtype=np.float64)
    dx = fc.conv_input_grad(dy, w, x.shape, padding_mode=mode, **options)
    assert (y * dy).sum() == (x * dx).sum()


def test_finite_differences():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 4, 5, 2)), rng.normal(size=(3, 3, 2, 3))
    for mode in MODES:
        options = {"padding": ((2, 1), (1, 2)), "padding_mode": mode}
        gradcheck(
            lambda x, w, options=options: fc.conv(x, w, **options),
            lambda dy, x, w, options=options: fc.conv_backward(dy, x, w, **options)[:2],
            x,
            w,
        )


@pytest.mark.parametrize("mode", MODES)
def test_bits_do_not_depend_on_threads_batch_or_layout(mode):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 33, 30, 5)).astype(np.float32)
    w = rng.normal(size=(3, 3, 5, 7)).astype(np.float32)
    options = {"padding": 1, "padding_mode": mode}
    y = fc.conv(x, w, **options)
    dy = rng.normal(size=y.shape).astype(np.float32)
    right = [y, *fc.conv_backward(dy, x, w, **options)]
    for threads in (1, 2, 3):
        with fc.num_threads(threads):
            found = [fc.conv(x, w, **options), *fc.conv_backward(dy, x, w, **options)]
        for a, c in zip(found, right, strict=True):
            np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(np.concatenate([fc.conv(x[i : i + 1], w, **options)
                                                  for i in range(6)]), y)  # fmt: skip
    parts = [fc.conv_input_grad(dy[i : i + 2], w, (2, *x.shape[1:]), **options) for i in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), right[1])
    for other in (np.asfortranarray(x), x.astype(">f4"), np.repeat(x, 2, 2)[:, :, ::2]):
        np.testing.assert_array_equal(fc.conv(other, w, **options), y)
    assert fc.conv(x[:0], w, **options).shape == (0, *y.shape[1:])
    assert not fc.conv_kernel_grad(x[:0], dy[:0], w.shape, **options).any()


def test_a_plan_and_out():
    x, w, options = operands("plain")
    plan = fc.plan_conv(x.shape, w.shape, padding_mode="edge", activation="relu", **options)
    y, dx = np.empty(plan.y_shape, np.float32), np.empty(plan.x_shape, np.float32)
    assert plan.forward(x, w, out=y) is y
    np.testing.assert_array_equal(y, np.maximum(fc.conv(x, w, padding_mode="edge", **options), 0))
    assert plan.input_grad(y, w, out=dx) is dx
    right = fc.conv_input_grad(y, w, x.shape, padding_mode="edge", **options)
    np.testing.assert_array_equal(dx, right)
    padded = 8 * 9 * 2 * 3 * 4
    plain = fc.plan_conv(x.shape, w.shape, **options)
    assert plan.workspace_nbytes >= plain.workspace_nbytes // 2 + padded


def test_no_copy_of_the_input_is_made():
    x, w = np.ones((64, 60, 60, 8), np.float32), np.ones((3, 3, 8, 8), np.float32)
    y, dw, options = np.empty_like(x), np.empty_like(w), {"padding": 1, "padding_mode": "reflect"}
    fc.conv(x, w, out=y, **options)
    fc.conv_kernel_grad(x, y, w.shape, out=dw, **options)
    tracemalloc.start()
    fc.conv(x, w, out=y, **options)
    fc.conv_kernel_grad(x, y, w.shape, out=dw, **options)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < x.nbytes // 50
    plan = fc.plan_conv(x.shape, w.shape, padding=1)
    mode = fc.plan_conv(x.shape, w.shape, **options)
    forward = [p._products.product("forward").workspace_nbytes for p in (plan, mode)]
    assert forward[1] < max(forward[0], x.nbytes // 4)


def test_constant_is_what_there_is_without_the_word():
    x, w, options = operands("same, strided")
    np.testing.assert_array_equal(fc.conv(x, w, padding_mode="constant", **options),
                                  fc.conv(x, w, **options))  # fmt: skip
    unpadded = fc.conv(x, w, padding_mode="wrap")
    np.testing.assert_array_equal(unpadded, fc.conv(x, w))


@pytest.mark.parametrize("ops", [fc, reference])
def test_wrong_modes(ops):
    x, w, _ = operands("plain")
    dy = np.ones((2, 4, 5, 4), np.float32)
    calls = [
        lambda **o: ops.conv(x, w, **o),
        lambda **o: ops.conv_input_grad(dy, w, x.shape, **o),
        lambda **o: ops.conv_kernel_grad(x, dy, w.shape, **o),
        lambda **o: ops.conv_backward(dy, x, w, **o),
    ]
    for call, mode in itertools.product(calls, ("mirror", "Edge", "", "zeros")):
        with pytest.raises(ValueError, match=r"padding_mode.* must be one of .*'reflect'"):
            call(padding_mode=mode)
    with pytest.raises(ValueError, match="did you mean 'edge'"):
        fc.conv(x, w, padding_mode="Edge")
    for mode in (None, 3, ["edge"]):
        with pytest.raises(TypeError, match=r"padding_mode=.* must be a string"):
            fc.conv(x, w, padding_mode=mode)
    with pytest.raises(ValueError, match=r"padding_mode: must be one of .* got 'zeros'"):
        nn.Conv(1, 1, 3, padding_mode="zeros")


def test_files_and_settings_of_a_layer_hold_the_mode_where_it_is_another(tmp_path):
    assert "padding_mode" not in nn.Conv(1, 1, 3).config()
    model = nn.Sequential(nn.Conv(1, 2, 3, padding=1, padding_mode="reflect", rng=0))
    model.save(tmp_path / "model.npz")
    again = nn.Sequential.load(tmp_path / "model.npz")
    assert again[0].config()["padding_mode"] == "reflect"
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 1)).astype(np.float32)
    right = fc.conv(x, model[0].w.value, padding=1, padding_mode="reflect")
    np.testing.assert_array_equal(again.predict(x), right)
