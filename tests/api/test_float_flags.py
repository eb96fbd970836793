"""One rule for floating-point flags: no operation warns or raises, whatever `numpy.errstate` says.

Pytest turns warnings into errors, so a call that warns fails here, too.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv as fc
from fastconv import nn, reference
from fastconv.plans import fourier

X, W, Y, POOLED = (2, 6, 7, 4), (3, 2, 4, 6), (2, 4, 6, 6), (2, 3, 3, 4)
CF = {"data_format": "channels_first"}


def signalling(dtype):
    """A NaN that sets the flag for invalid values wherever it is converted."""
    bits = {"float16": 0x7D00, "float32": 0x7FA00000, "float64": 0x7FF4000000000000}[dtype]
    return np.array(bits, f"u{np.dtype(dtype).itemsize}").view(dtype)


def values(kind, dtype, shape):
    """Operands whose products and sums overflow, underflow or are invalid."""
    limits = np.finfo(dtype)
    drawn = {
        "overflow": [limits.max, -limits.max / 2, limits.max],
        "underflow": [limits.tiny, limits.smallest_subnormal, -limits.tiny],
        "invalid": [np.inf, -np.inf, np.nan, signalling(dtype), 0],
    }[kind]
    return np.random.default_rng(0).choice(np.array(drawn, dtype), shape)


def first(array):
    return np.moveaxis(array, -1, 1)


def calls(ops, of):
    """Every operation, in both layouts, on operands ``of(shape)``."""
    x, w, b, y, pooled = of(X), of(W), of(W[-1:]), of(Y), of(POOLED)
    winners = np.zeros(POOLED, np.int64)
    steps = {"stride": 2, "padding": "same"}
    yield "conv", lambda: ops.conv(x, w, b)
    yield "conv relu", lambda: ops.conv(first(x), w, b, activation="relu", **CF)
    yield "conv strided", lambda: ops.conv(x, w, **steps)
    yield "input_grad", lambda: ops.conv_input_grad(y, w, X)
    yield "kernel_grad", lambda: ops.conv_kernel_grad(x, y, W)
    yield "kernel_grad first", lambda: ops.conv_kernel_grad(first(x), first(y), W, **CF)
    yield "backward", lambda: ops.conv_backward(y, x, w)
    yield "bias", lambda: ops.conv_backward(y, x, w, need="b")
    yield "transpose", lambda: ops.conv_transpose(y, w, of(X[-1:]))
    yield "transpose gaps", lambda: ops.conv_transpose(y, w, of(X[-1:]), stride=4)
    yield "transpose_backward", lambda: ops.conv_transpose_backward(x, y, w)
    yield "max_pool", lambda: ops.max_pool(x, 2, return_argmax=True)
    yield "max_pool first", lambda: ops.max_pool(first(x), 2, stride=1, padding=1, **CF)
    yield "max_pool_backward", lambda: ops.max_pool_backward(pooled, winners, X, 2)
    yield (
        "max_pool_backward first",
        lambda: ops.max_pool_backward(first(pooled), first(winners), first(x).shape, 2, **CF),
    )
    yield "avg_pool", lambda: ops.avg_pool(x, 2)
    yield "avg_pool first", lambda: ops.avg_pool(first(x), 2, stride=1, padding=1, **CF)
    yield "avg_pool_backward", lambda: ops.avg_pool_backward(pooled, X, 2)
    yield (
        "avg_pool_backward overlap",
        lambda: ops.avg_pool_backward(of((2, 5, 6, 4)), X, 2, stride=1),
    )
    yield "im2col", lambda: ops.im2col(x, 2)
    yield "col2im", lambda: ops.col2im(of((2, 5, 6, 16)), X, 2)
    yield "relu_backward", lambda: ops.relu_backward(y, of(Y))
    yield "relu_backward strided", lambda: ops.relu_backward(first(y), first(of(Y)))
    if ops is fc:
        plan = fc.plan_conv(X, W, x.dtype)
        yield "plan", lambda: plan.forward(x, w, b)
        yield "plan input_grad", lambda: plan.input_grad(y, w)
        yield "plan kernel_grad", lambda: plan.kernel_grad(x, y)
        yield "plan backward", lambda: plan.backward(y, x, w)


@pytest.mark.parametrize("ops", [fc, reference], ids=["fastconv", "reference"])
@pytest.mark.parametrize("order", ["=", "S"], ids=["native", "swapped"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("kind", ["overflow", "underflow", "invalid"])
def test_no_operation_raises_or_warns(kind, dtype, order, ops):
    with np.errstate(all="ignore"):

        def of(shape):
            return values(kind, dtype, shape).astype(np.dtype(dtype).newbyteorder(order))

        cases = list(calls(ops, of))
    for name, call in cases:
        for setting in ("raise", "warn"):
            with np.errstate(all=setting):
                before = np.geterr()
                call()
                assert np.geterr() == before, name


# What minimal filtering takes, and (where all costs say so) Fourier transforms.
FAST = {
    "minimal": ((1, 9, 9, 32), (3, 3, 32, 32), {"padding": 1}),
    "transforms": ((1, 12, 11, 2), (5, 5, 2, 3), {}),
}


@pytest.fixture
def transforms(monkeypatch):
    values = {"LEAST_NS": 0, "LEAST_TAPS": 10, "direct_ns": lambda *_: 1e9}
    for name, value in values.items():
        monkeypatch.setattr(fourier, name, value)


@pytest.mark.parametrize("way", FAST)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("kind", ["overflow", "underflow", "invalid"])
def test_the_fast_ways_neither_raise_nor_warn(kind, dtype, way, transforms):
    x_shape, w_shape, options = FAST[way]
    plan = fc.plan_conv(x_shape, w_shape, dtype, algorithm="fast", activation="relu", **options)
    forward = plan._products.product("forward")
    assert forward.exact == (plan._products.transformed("forward") is not None)
    with np.errstate(all="ignore"):
        x, w, b, dy = (values(kind, dtype, s) for s in (x_shape, w_shape, w_shape[-1:],
                                                        plan.y_shape))  # fmt: skip
    model = nn.Sequential(nn.Conv(w_shape[-2], w_shape[-1], w_shape[:2], rng=0, **options))
    for setting in ("raise", "warn"):
        with np.errstate(all=setting):
            before = np.geterr()
            plan.forward(x, w, b)
            plan.backward(dy, x, w)
            fc.conv_transpose(dy, w, algorithm="fast", **options)
            fc.conv_transpose_backward(x, dy, w, algorithm="fast", **options)
            if dtype == "float32":
                model.plan_inference(x_shape, algorithm="fast")(x)
            assert np.geterr() == before


def test_the_cases_do_set_flags():
    """What the test above calls would raise, were it NumPy's own arithmetic."""
    for kind in ("overflow", "underflow", "invalid"):
        with np.errstate(all="ignore"):
            x = values(kind, "float16", X)
            wide = x.astype("float32")
        with pytest.raises(FloatingPointError), np.errstate(all="raise"):
            (wide * wide + wide.sum() * wide.sum()).astype("float16")


def test_results_overflow_to_infinity_and_underflow_to_zero():
    x, w = np.full((1, 4, 1), 300, "float16"), np.full((2, 1, 1), 200, "float16")
    with np.errstate(all="raise"):
        dw = fc.conv_kernel_grad(x, np.full((1, 3, 1), 200, "float16"), w.shape)
        db = fc.conv_backward(np.full((1, 3, 1), 6e4, "float16"), x, w, need="b").db
        small = fc.avg_pool(np.full((1, 8, 1), 6e-8, "float16"), 8)
    assert_array_equal(dw, np.full(w.shape, np.inf))
    assert_array_equal(db, [np.inf])
    assert small.item() == np.float16(6e-8)


def test_an_error_leaves_the_callers_state_as_it_is():
    with np.errstate(over="raise", under="warn", invalid="call", divide="print"):
        before = np.geterr()
        with pytest.raises(ValueError, match="window"):
            fc.max_pool(np.ones(X), 9)
        with pytest.raises(TypeError, match="dtype"):
            fc.plan_conv(X, W).forward(np.ones(X), np.ones(W))
        assert np.geterr() == before
