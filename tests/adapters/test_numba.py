"""`fastconv` inside nopython code, registered by the entry point alone."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import numba
import numpy as np
import pytest
from numba import njit, prange
from numba.core.errors import TypingError

import fastconv as fc
from fastconv import reference, threads
from fastconv.engine import launch as launching

STEPS = {"stride": (2, 1), "padding": ((1, 0), (1, 1)), "dilation": (1, 2)}


def integers(seed, *shape, dtype="f"):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


@njit
def products(x, w, b, dy):
    y = fc.conv(x, w, b, stride=(2, 1), padding=((1, 0), (1, 1)), dilation=(1, 2))
    dx = fc.conv_input_grad(
        dy, w, x.shape, stride=(2, 1), padding=((1, 0), (1, 1)), dilation=(1, 2)
    )
    dw = fc.conv_kernel_grad(
        x, dy, w.shape, stride=(2, 1), padding=((1, 0), (1, 1)), dilation=(1, 2)
    )
    return y, dx, dw


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_products_equal_the_naive_loops(dtype):
    x, w, b = (
        integers(i, *n, dtype=dtype) for i, n in enumerate([(2, 7, 6, 2), (3, 2, 2, 3), (3,)])
    )
    y = reference.conv(x, w, b, **STEPS)
    dy = integers(3, *y.shape, dtype=dtype)
    dx, dw, _ = reference.conv_backward(dy, x, w, **STEPS)
    for found, expected in zip(products(x, w, b, dy), (y, dx, dw), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@njit
def configured(x, w, stride, padding, groups, data_format):
    return fc.conv(x, w, stride=stride, padding=padding, groups=groups, data_format=data_format)


@pytest.mark.parametrize("padding", [1, "same", (1, 0), ((0, 1), (1, 0))])
def test_arguments_known_only_at_run_time(padding):
    x, w = integers(0, 2, 4, 7, 6), integers(1, 3, 3, 2, 6)
    options = {"stride": 2, "padding": padding, "groups": 2, "data_format": "channels_first"}
    np.testing.assert_array_equal(configured(x, w, *options.values()), fc.conv(x, w, **options))


@njit
def pools(x, dy):
    y = fc.max_pool(x, 3, stride=2, padding=1)
    again, argmax = fc.max_pool(x, (3, 3), stride=2, padding=1, return_argmax=True)
    dx = fc.max_pool_backward(dy, argmax, x.shape, 3, stride=2, padding=1)
    mean = fc.avg_pool(x, 2, ceil_mode=True)
    spread = fc.avg_pool_backward(mean, x.shape, 2, ceil_mode=True)
    return y, again, argmax, dx, mean, spread


def test_pools_equal_the_naive_loops():
    x = integers(0, 2, 7, 8, 3)
    y, argmax = reference.max_pool(x, 3, stride=2, padding=1, return_argmax=True)
    dy = integers(1, *y.shape)
    dx = reference.max_pool_backward(dy, argmax, x.shape, 3, stride=2, padding=1)
    mean = reference.avg_pool(x, 2, ceil_mode=True)
    spread = reference.avg_pool_backward(mean, x.shape, 2, ceil_mode=True)
    for found, expected in zip(pools(x, dy), (y, y, argmax, dx, mean, spread), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found.dtype == expected.dtype


@njit
def into(x, w, out):
    return fc.conv(x, w, None, activation="relu", out=out)


def test_out_activation_and_layouts():
    """Arrays that are transposed and read-only; 1-D and 3-D; a result of the caller's."""
    w = integers(1, 2, 3, 4)
    x = integers(0, 8, 2, 3).transpose(1, 0, 2)
    x.flags.writeable = False
    out = np.full((7, 2, 4), np.nan, "f").transpose(1, 0, 2)
    found = into(x, w, out)
    np.testing.assert_array_equal(out, reference.conv(x, w, activation="relu"))
    assert np.shares_memory(found, out)
    x, w = integers(0, 1, 3, 4, 3, 2), integers(1, 2, 2, 2, 2, 1)
    np.testing.assert_array_equal(into(x, w, None), reference.conv(x, w, activation="relu"))


@njit
def optional(x, w, b, out, use):
    y = fc.conv(
        x, w, b if use else None, activation="relu" if use else None, out=out if use else None
    )
    return y, fc.max_pool(y, 2, stride=1 if use else None)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f", "d"])
def test_arguments_that_may_be_none(dtype, order):
    """``b if use else None`` has a type of its own in Numba: optional."""
    x, w, b = (
        integers(i, *n, dtype=dtype) for i, n in enumerate([(2, 6, 5, 2), (3, 2, 2, 3), (3,)])
    )
    out = np.full((2, 4, 4, 3), np.nan, dtype, order)
    y, pooled = optional(x, w, b, out, True)
    expected = reference.conv(x, w, b, activation="relu")
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(pooled, reference.max_pool(expected, 2, stride=1))
    out[...] = np.nan
    y, pooled = optional(x, w, b, out, False)
    expected = reference.conv(x, w)
    np.testing.assert_array_equal(y, expected)
    assert np.isnan(out).all()
    np.testing.assert_array_equal(pooled, reference.max_pool(expected, 2))


def test_arguments_that_may_not_be_none_or_have_another_type():
    x, w = integers(0, 1, 4, 4, 1), integers(1, 3, 3, 1, 1)
    for call, says in (
        (lambda x, w, use: fc.conv(x, w, w if use else None), "with one axis is needed"),
        (lambda x, w, use: fc.conv(x, w, out=w[0] if use else None), "with 4 axes is needed"),
        (lambda x, w, use: fc.conv(x, w, stride=1 if use else None), "stride is .*an integer is"),
        (
            lambda x, w, use: fc.max_pool(x, 2, stride=1.5 if use else None),
            "stride is .*an integer",
        ),
    ):
        with pytest.raises(TypingError, match=says):
            njit(call)(x, w, True)


@njit
def winners_back(dy, argmax, shape):
    return fc.max_pool_backward(dy, argmax, shape, 2)


def test_an_argmax_of_minus_one_is_a_value_error():
    dy, argmax = integers(0, 1, 2, 2, 3), np.zeros((1, 2, 2, 3), np.int64)
    assert winners_back(dy, argmax, (1, 4, 4, 3)).shape == (1, 4, 4, 3)
    argmax[0, 1, 1, 2] = -1
    with pytest.raises(ValueError, match="argmax holds -1"):
        winners_back(dy, argmax, (1, 4, 4, 3))


@njit
def overhanging(x):
    return fc.max_pool(x, 3, stride=2, ceil_mode=True), fc.avg_pool(x, 3, stride=2, ceil_mode=True)


def test_ceil_mode_of_a_window_that_overhangs():
    x = integers(0, 1, 2, 2, 3)
    for found, pool in zip(overhanging(x), (reference.max_pool, reference.avg_pool), strict=True):
        np.testing.assert_array_equal(found, pool(x, 3, stride=2, ceil_mode=True))


@njit(parallel=True)
def each(x, w):
    sums = np.zeros(len(x))
    for n in prange(len(x)):
        y = fc.conv(x[n : n + 1], w, padding="same")
        sums[n] = fc.max_pool(y, 2).sum()
    return sums


def test_inside_prange():
    """Workers that hold the GIL by turns: right results, and nobody waits for ever."""
    x, w = integers(0, 64, 8, 8, 3), integers(1, 3, 3, 3, 4)
    expected = fc.max_pool(fc.conv(x, w, padding="same"), 2).sum(axis=(1, 2, 3))
    for _ in range(10):
        np.testing.assert_array_equal(each(x, w), expected)
    assert fc.get_num_threads() >= 1


def test_a_call_stays_on_its_thread(monkeypatch):
    """Even where Python code would start others: it may be one of a prange already."""
    launched = []

    def launch(*args):
        launched.append(args)
        return threads.launch(*args)

    monkeypatch.setattr(launching, "launch", launch)
    x, w = integers(0, 8, 32, 32, 8), integers(1, 3, 3, 8, 8)
    with fc.num_threads(2):
        expected = fc.conv(x, w, activation="relu")
        assert len(launched) == 1
        np.testing.assert_array_equal(into(x, w, None), expected)
    assert len(launched) == 1


def test_prange_from_several_python_threads():
    if numba.threading_layer() == "workqueue":
        pytest.skip("Numba's workqueue layer aborts when two Python threads enter it")
    x, w = integers(0, 32, 8, 8, 3), integers(1, 3, 3, 3, 4)
    expected = each(x, w)
    right = []

    def many():
        right.extend(np.array_equal(each(x, w), expected) for _ in range(10))

    others = [threading.Thread(target=many) for _ in range(4)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert right == [True] * 40


@njit
def caught(x, w):
    try:
        return fc.conv(x, w).size
    except Exception:
        return -1


@njit
def keywords_in_a_try_block(x, w):
    try:
        return fc.conv(x, w, None, stride=2).size
    except Exception:
        return -1


def test_bad_sizes_are_the_same_value_errors():
    x, w = integers(0, 1, 4, 4, 1), integers(1, 3, 3, 1, 1)
    with pytest.raises(ValueError, match="stride: 0 must be at least 1 on every axis"):
        configured(x, w, 0, 0, 1, "channels_last")
    with pytest.raises(ValueError, match="padding: 'some' must be one of"):
        configured(x, w, 1, "some", 1, "channels_last")
    with pytest.raises(ValueError, match=r"w: .* larger than the padded input"):
        configured(x, integers(1, 5, 5, 1, 1), 1, 0, 1, "channels_last")
    assert caught(x, w) == 4
    assert caught(x, integers(1, 5, 5, 1, 1)) == -1


def test_keywords_that_numba_would_misplace_are_refused():
    with pytest.raises(TypingError, match="inside, Numba forgets their names"):
        keywords_in_a_try_block(integers(0, 1, 4, 4, 1), integers(1, 3, 3, 1, 1))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, w: fc.conv(x, w[0]), "w has 3 axes, but x has 4"),
        (lambda x, w: fc.conv(x[0, 0], w), "x has 2 axes; 3 to 5 are needed"),
        (lambda x, w: fc.conv(x.astype(np.int64), w), "x has dtype int64; use float32"),
        (lambda x, w: fc.conv(x, w.astype(np.float64)), "w has dtype float64, but x has float32"),
        (lambda x, w: fc.conv(x, w, stride=1.5), "stride is float64; an integer is needed"),
        (lambda x, w: fc.conv(x, w, padding=((1, 1.5),)), "padding is .*; integers, pairs"),
        (lambda x, w: fc.conv(x, w, w), "b is array.*with one axis is needed"),
        (lambda x, w: fc.conv(x, w, out=w[0]), "out is array.*with 4 axes is needed"),
        (lambda x, w: fc.conv(x, w, None, 2), "must be keywords"),
        (lambda x, w: fc.max_pool(x, 2, 2), "must be keywords"),
        (lambda x, w: fc.conv(3.0, w), "x is float64; an array is needed"),
        (lambda x, w: fc.conv_input_grad(x, w, 4), "x_shape is .*; a tuple of 4 integers"),
        (lambda x, w: fc.conv_kernel_grad(x, x, (1, 2)), "w_shape is .*; a tuple of 4 integers"),
        (lambda x, w: fc.max_pool_backward(x, x, x.shape, 2), "argmax is .*int64 is needed"),
        (lambda x, w: fc.max_pool(x, 2, return_argmax=x.size > 1), "must be written as True or"),
        (lambda x, w: fc.avg_pool(x, 2.0), "window is float64; an integer is needed"),
    ],
)
def test_wrong_types_are_typing_errors(call, says):
    with pytest.raises(TypingError, match=says):
        njit(call)(integers(0, 1, 4, 4, 1), integers(1, 3, 3, 1, 1))


def run(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


def test_functions_cached_on_disk(tmp_path):
    """A second process loads the compiled caller and gets the same."""
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
        import fastconv as fc
        from numba import njit, prange

        @njit(cache=True)
        def one(x, w):
            return fc.conv(x, w, stride=2)

        @njit(cache=True, parallel=True)
        def sums(x, w, out):
            for n in prange(len(x)):
                out[n] = fc.conv(x[n : n + 1], w).sum()
    """)
    )
    code = """
        import numpy as np
        import mine
        import fastconv as fc

        x, w, out = np.ones((6, 5, 5, 2), "f"), np.ones((3, 3, 2, 3), "f"), np.zeros(6)
        assert (mine.one(x, w) == fc.conv(x, w, stride=2)).all()
        mine.sums(x, w, out)
        assert (out == 18 * 9 * 3).all()
        print(sum(mine.one.stats.cache_hits.values()), sum(mine.sums.stats.cache_hits.values()))
    """
    assert run(code, tmp_path) == ["0", "0"]
    assert run(code, tmp_path) == ["1", "1"]


def test_numba_alone_stays_light(tmp_path):
    """The entry point brings neither the engine nor the networks, and nothing where unused."""
    code = """
        import sys
        import numba

        assert not any(name.startswith("fastconv") for name in sys.modules)
        assert numba.njit(lambda x: x + 1)(1) == 2
        loaded = [name for name in sys.modules if name.startswith("fastconv")]
        assert "fastconv.adapters.numba" in loaded
        heavy = ("engine", "compiler", "nn", "examples", "testing", "cli")
        print(*[name for name in loaded if name.split(".")[1:2] and name.split(".")[1] in heavy])
    """
    assert run(code, tmp_path) == []
