"""Plans: the functions' results, no allocation, shared between threads."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv as fc

RNG = np.random.default_rng(3)
X, W = (16, 20, 18, 8), (3, 3, 4, 12)
OPTIONS = {"stride": (2, 1), "padding": 1, "groups": 2}


def operands(data_format="channels_last", dtype="float32"):
    plan = fc.plan_conv(
        X if data_format == "channels_last" else (16, 8, 20, 18),
        W,
        dtype,
        data_format=data_format,
        activation="relu",
        **OPTIONS,
    )
    x, w = RNG.normal(size=plan.x_shape).astype(dtype), RNG.normal(size=W).astype(dtype)
    b, dy = RNG.normal(size=12).astype(dtype), RNG.normal(size=plan.y_shape).astype(dtype)
    return plan, x, w, b, dy


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_plan_gives_what_the_functions_give(data_format, dtype):
    plan, x, w, b, dy = operands(data_format, dtype)
    options = {"data_format": data_format, **OPTIONS}
    assert_array_equal(plan.forward(x, w, b), fc.conv(x, w, b, activation="relu", **options))
    assert_array_equal(plan.input_grad(dy, w), fc.conv_input_grad(dy, w, x.shape, **options))
    assert_array_equal(plan.kernel_grad(x, dy), fc.conv_kernel_grad(x, dy, W, **options))
    for got, expected in zip(
        plan.backward(dy, x, w), fc.conv_backward(dy, x, w, **options), strict=True
    ):
        assert_array_equal(got, expected)
    only = plan.backward(dy, x, w, need="b")
    assert only.dx is None
    assert only.dw is None
    assert_array_equal(only.db, fc.conv_backward(dy, x, w, **options).db)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_plan_allocates_nothing_once_out_is_given(data_format):
    plan, x, w, b, dy = operands(data_format)
    y, dx = np.empty(plan.y_shape, "float32"), np.empty(plan.x_shape, "float32")
    dw = np.empty(plan.w_shape, "float32")
    calls = {
        "forward": lambda: plan.forward(x, w, b, out=y),
        "input_grad": lambda: plan.input_grad(dy, w, out=dx),
        "kernel_grad": lambda: plan.kernel_grad(x, dy, out=dw),
    }
    for call in calls.values():
        call()
    for name, call in calls.items():
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 48 * 1024 < x.nbytes, name  # views, and NumPy's own 32 kB buffer


def test_workspace_is_bounded_whatever_the_batch():
    small = fc.plan_conv((64, 32, 32, 32), (3, 3, 32, 32))
    large = fc.plan_conv((65536, 32, 32, 32), (3, 3, 32, 32))
    assert 0 < small.workspace_nbytes == large.workspace_nbytes < 8 * 2**20
    assert large.flops == 1024 * small.flops == 2 * 65536 * 30 * 30 * 9 * 32 * 32


def test_one_plan_in_many_threads():
    plan, x, w, b, dy = operands()
    expected = plan.forward(x, w, b), plan.input_grad(dy, w), plan.kernel_grad(x, dy)

    def work(_):
        return plan.forward(x, w, b), plan.input_grad(dy, w), plan.kernel_grad(x, dy)

    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(work, range(64)):
            for a, b_ in zip(got, expected, strict=True):
                assert_array_equal(a, b_)


def test_wrong_operands():
    plan, x, w, b, dy = operands()
    with pytest.raises(ValueError, match=r"^x has shape \(15, 20, 18, 8\)"):
        plan.forward(x[1:], w, b)
    with pytest.raises(ValueError, match=r"^w has shape"):
        plan.forward(x, w[1:], b)
    with pytest.raises(ValueError, match=r"^b has shape"):
        plan.forward(x, w, b[1:])
    with pytest.raises(ValueError, match=r"^dy has shape"):
        plan.kernel_grad(x, dy[1:])
    with pytest.raises(TypeError, match="the plan is for float32"):
        plan.forward(x.astype("float64"), w.astype("float64"))
    with pytest.raises(ValueError, match="need='xyz'"):
        plan.backward(dy, x, w, need="xyz")
    with pytest.raises(TypeError, match="need=3"):
        plan.backward(dy, x, w, need=3)
    assert "x=(16, 20, 18, 8)" in repr(plan)
