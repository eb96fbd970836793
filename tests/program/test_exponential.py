"""exp and tanh of vectors: against wider arithmetic, at the ends of the range, in every lane."""

import ctypes
from functools import cache

import numpy as np
import pytest
from numba.core import types
from numba.core.ccallback import CFunc

from fastconv.compiler.inner import OPTIONS
from fastconv.engine.emit.exponential import exp, tanh
from fastconv.engine.emit.vectors import load, load_first, spread, store, store_first
from fastconv.engine.tables.tiles import cpu_lanes

FUNCTIONS = {"exp": (exp, np.exp), "tanh": (tanh, np.tanh)}
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
EACH = pytest.mark.parametrize("name", FUNCTIONS)


@cache
def compiled(name, dtype):
    function, _ = FUNCTIONS[name]
    size, like = np.dtype(dtype).itemsize, dtype(0)
    lanes = (0,) * cpu_lanes(np.dtype(dtype))

    def entry(x, y, count):
        i = 0
        while i + len(lanes) <= count:
            store(y + i * size, function(load(x + i * size, lanes, like)))
            i += len(lanes)
        if i < count:
            value = load_first(x + i * size, count - i, spread(like, lanes))
            store_first(y + i * size, count - i, function(value))

    function_of = CFunc(entry, ((types.int64,) * 3, types.void), {}, {**OPTIONS, "nopython": True})
    function_of.compile()
    return function_of


def apply(name, x):
    y = np.full_like(x, -77)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(compiled(name, x.dtype.type).address)
    call(x.ctypes.data, y.ctypes.data, x.size)
    return y


@EACH
@BOTH
def test_within_two_ulp(name, dtype):
    if np.finfo(WIDER[dtype]).nmant == np.finfo(dtype).nmant:
        pytest.skip("no wider arithmetic here")
    rng = np.random.default_rng(3)
    low, high = (-104.5, 89.5) if dtype is np.float32 else (-746, 710)
    small = np.array(10.0) ** rng.uniform(-300 if dtype is np.float64 else -45, 0, 30_000)
    draws = [rng.uniform(low, high, 300_000), rng.uniform(-1, 1, 300_000),
             rng.uniform(-25, 25, 300_000), small, -small]  # fmt: skip
    x = np.concatenate(draws).astype(dtype)
    with np.errstate(all="ignore"):
        right = FUNCTIONS[name][1](x.astype(WIDER[dtype]))
        finite = right <= np.finfo(dtype).max
        step = np.spacing(np.abs(right[finite].astype(dtype))).astype(WIDER[dtype])
    y = apply(name, x)
    assert (np.abs(y[finite] - right[finite]) / step).max() < 1.5
    assert (y[~finite] == np.inf).all()


@BOTH
def test_ends_of_the_range(dtype):
    tiny, info = np.finfo(dtype).smallest_subnormal, np.finfo(dtype)
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, info.max, -info.max], dtype)
    np.testing.assert_array_equal(apply("exp", x), [np.nan, np.inf, 0, 1, 1, 1, 1, np.inf, 0])
    y = apply("tanh", x)
    np.testing.assert_array_equal(y, [np.nan, 1, -1, 0, -0.0, tiny, -tiny, 1, -1])
    np.testing.assert_array_equal(np.signbit(y[1:]), np.signbit(x[1:]))


@BOTH
def test_exp_is_subnormal_where_it_should_be(dtype):
    x = np.linspace(np.log(np.finfo(dtype).tiny), np.log(np.finfo(dtype).smallest_subnormal), 99)
    x = x.astype(dtype)
    right = np.exp(x.astype(WIDER[dtype]))
    error = np.abs(apply("exp", x).astype(WIDER[dtype]) - right)
    assert (error <= np.maximum(1.1 * np.finfo(dtype).smallest_subnormal, 0)).all()


@EACH
@BOTH
def test_every_lane_and_tail_gives_the_same_bits(name, dtype):
    x = np.random.default_rng(5).normal(size=40).astype(dtype) * dtype(4)
    one_by_one = np.concatenate([apply(name, x[i : i + 1]) for i in range(len(x))])
    for count in range(1, len(x) + 1):
        np.testing.assert_array_equal(apply(name, x[:count]), one_by_one[:count])
        guarded = np.full(count + 2, -77, dtype)
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(compiled(name, dtype).address)
        call(x.ctypes.data, guarded[1:].ctypes.data, count)
        assert guarded[0] == guarded[-1] == -77
