"""Calls of a problem that is known: made by compiled code itself, with the bits of Python's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from functools import partial

import numpy as np
import pytest
import strategies
from numba import njit, prange

import fastconv as fc
from fastconv import reference
from fastconv.engine import requests as r
from fastconv.plans import calls
from fastconv.plans.conv import ConvPlan
from fastconv.plans.pool import Pooling

integers = partial(strategies.integers, dtype=np.float32)


@pytest.fixture
def no_python(monkeypatch):
    """A function after which Python's way raises."""

    def broken(*_, **__):
        raise ValueError("this call went through Python")

    def close():
        for name in ("forward", "input_grad", "kernel_grad"):
            monkeypatch.setattr(ConvPlan, name, broken)
        for name in ("max_pool", "max_pool_backward", "avg_pool", "avg_pool_backward"):
            monkeypatch.setattr(Pooling, name, broken)

    return close


def same_bits(found, expected):
    found = found if isinstance(found, tuple) else (found,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def conv(x, w, b, stride, padding, dilation, groups, data_format, activation):
    return fc.conv(
        x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups,
        data_format=data_format, activation=activation,
    )  # fmt: skip


def gradients(dy, x, w, x_shape, w_shape, stride, padding, dilation, groups, data_format):
    dx = fc.conv_input_grad(
        dy, w, x_shape, stride=stride, padding=padding, dilation=dilation, groups=groups,
        data_format=data_format,
    )  # fmt: skip
    dw = fc.conv_kernel_grad(
        x, dy, w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups,
        data_format=data_format,
    )  # fmt: skip
    return dx, dw


def pools(x, dy, x_shape, window, stride, padding, ceil_mode, data_format):
    y, argmax = fc.max_pool(
        x, window, stride=stride, padding=padding, ceil_mode=ceil_mode, return_argmax=True,
        data_format=data_format,
    )  # fmt: skip
    alone = fc.max_pool(
        x, window, stride=stride, padding=padding, ceil_mode=ceil_mode, data_format=data_format
    )
    back = fc.max_pool_backward(
        dy, argmax, x_shape, window, stride=stride, padding=padding, ceil_mode=ceil_mode,
        data_format=data_format,
    )  # fmt: skip
    mean = fc.avg_pool(
        x, window, stride=stride, padding=padding, ceil_mode=ceil_mode, data_format=data_format
    )
    spread = fc.avg_pool_backward(
        dy, x_shape, window, stride=stride, padding=padding, ceil_mode=ceil_mode,
        count_include_pad=True, data_format=data_format,
    )  # fmt: skip
    return y, argmax, alone, back, mean, spread


compiled_conv, compiled_gradients, compiled_pools = njit(conv), njit(gradients), njit(pools)

# x, w, and stride, padding, dilation, groups, data format.
PRODUCTS = {
    "one vector and a tail": ((2, 7, 9, 3), (3, 3, 3, 17), 1, "same", 1, 1, "channels_last"),
    "steps": ((1, 9, 8, 4), (2, 3, 4, 33), (2, 1), ((1, 0), (1, 1)), (1, 2), 1, "channels_last"),
    "depthwise": ((2, 8, 8, 19), (3, 3, 1, 19), 1, 1, 1, 19, "channels_last"),
    "groups": ((1, 6, 6, 6), (3, 3, 3, 10), 1, 1, 1, 2, "channels_last"),
    "one filter": ((1, 24, 40, 1), (3, 3, 1, 1), 1, 0, 1, 1, "channels_last"),
    "images of planes": ((2, 5, 9, 7), (3, 3, 5, 8), 1, (1, 1), 1, 1, "channels_first"),
    "cells in no window": ((2, 9, 9, 5), (1, 1, 5, 16), 2, 0, 1, 1, "channels_last"),
    "lines": ((3, 20, 4), (5, 4, 6), 1, 2, 1, 1, "channels_last"),
    "volumes": ((1, 4, 5, 6, 2), (2, 2, 2, 2, 3), 1, 0, 1, 1, "channels_last"),
    "parts": ((9, 30, 31, 8), (3, 3, 8, 24), 1, 1, 1, 1, "channels_last"),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "f") for name in PRODUCTS), ("steps", "d"), ("one filter", "d"), ("parts", "d")],
)
def test_products_of_a_known_problem(name, dtype, no_python):
    x_shape, w_shape, *steps = PRODUCTS[name]
    x, w, b = (integers(i, *n, dtype=dtype) for i, n in enumerate([x_shape, w_shape, w_shape[-1:]]))
    options = dict(zip(("stride", "padding", "dilation", "groups", "data_format"), steps,
                       strict=True))  # fmt: skip
    cases = [(x, w, b, *steps, "relu"), (x, w, None, *steps, None), (x, w, b, *steps, None)]
    expected = [conv(*case) for case in cases]
    np.testing.assert_array_equal(expected[1], reference.conv(x, w, **options))
    dy = integers(3, *expected[0].shape, dtype=dtype)
    back = dy, x, w, x_shape, w_shape, *steps
    expected_back = gradients(*back)
    for case, right in zip(cases, expected, strict=True):
        same_bits(compiled_conv(*case), right)
    same_bits(compiled_gradients(*back), expected_back)
    no_python()
    for case, right in zip(cases, expected, strict=True):
        same_bits(compiled_conv(*case), right)
    same_bits(compiled_gradients(*back), expected_back)
    with fc.num_threads(2):  # a call stays on its thread, whatever it says here
        same_bits(compiled_conv(*cases[0]), expected[0])


# x, and window, stride, padding, whether an overhanging window is kept, data format.
POOLS = {
    "halves": ((2, 8, 6, 19), 2, None, 0, False, "channels_last"),
    "one channel": ((1, 12, 70, 1), (2, 2), None, 0, False, "channels_last"),
    "overlapping": ((2, 7, 9, 3), 3, 2, 1, True, "channels_last"),
    "planes": ((2, 3, 9, 18), 3, (2, 1), (1, 0), False, "channels_first"),
    "lines": ((2, 30, 5), 3, None, 0, False, "channels_last"),
    "with a row in no window": ((1, 9, 9, 4), 2, 2, 0, False, "channels_last"),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "f") for name in POOLS), ("halves", "d"), ("planes", "d")]
)
def test_pools_of_a_known_problem(name, dtype, no_python):
    x_shape, *options = POOLS[name]
    x = integers(0, *x_shape, dtype=dtype)
    window, stride, padding, ceil_mode, data_format = options
    dy = integers(1, *fc.max_pool(x, window, stride=stride, padding=padding, ceil_mode=ceil_mode,
                                  data_format=data_format).shape, dtype=dtype)  # fmt: skip
    expected = pools(x, dy, x_shape, *options)
    same_bits(compiled_pools(x, dy, x_shape, *options), expected)
    no_python()
    same_bits(compiled_pools(x, dy, x_shape, *options), expected)


@njit
def into(x, w, b, out):
    return fc.conv(x, w, b, padding=1, out=out)


def test_views_and_results_of_the_callers(no_python):
    """Other steps are another problem; an `out` too."""
    x, w, b = integers(0, 4, 6, 7, 3), integers(1, 3, 3, 3, 5), integers(2, 5)
    turned = x.transpose(0, 2, 1, 3)[::-1]
    outs = np.full((4, 6, 7, 5), np.nan, "f"), np.full((2, 7, 4, 6, 5), np.nan, "f")
    cases = [(x, w, b, None), (x[1:3], w, None, None), (turned, w, b, None), (x, w, b, outs[0]),
             (x, w, b, outs[1][0].transpose(1, 2, 0, 3))]  # fmt: skip
    expected = [fc.conv(np.ascontiguousarray(c[0]), w, c[2], padding=1) for c in cases]
    for _ in range(2):
        for case, right in zip(cases, expected, strict=True):
            if case[3] is not None:
                case[3][...] = np.nan
            found = into(*case)
            np.testing.assert_array_equal(found, right)
            assert case[3] is None or np.shares_memory(found, case[3])
        no_python()


def test_what_is_wrong_is_said_as_before():
    """Also where the same problem, without what is wrong, is known."""
    memory = np.zeros((3, 6, 7, 3), "f")
    x, w, out = memory[:1], integers(1, 3, 3, 3, 3), memory[2:]
    for _ in range(2):
        into(x, w, None, out)
        with pytest.raises(ValueError, match="out overlaps the input x"):
            into(x, w, None, memory[:1])
        flat = memory.reshape(-1)
        shifted = flat[30 : 30 + out.size].reshape(out.shape)
        with pytest.raises(ValueError, match="out overlaps the input x"):
            into(x, w, None, shifted)
        with pytest.raises(ValueError, match=r"b has shape \(2,\), but .* \(3,\)"):
            into(x, w, np.zeros(2, "f"), None)


@njit
def winners_back(dy, argmax, shape, stride):
    return fc.max_pool_backward(dy, argmax, shape, 2, stride=stride)


@pytest.mark.parametrize(("side", "stride"), [(2, 2), (3, 1)])
@pytest.mark.parametrize("channels", [3, 16, 1])
def test_winners_that_are_none(side, stride, channels):
    x = integers(0, 2, 4, 4, channels)
    y, argmax = fc.max_pool(x, 2, stride=stride, return_argmax=True)
    right = fc.max_pool_backward(y, argmax, x.shape, 2, stride=stride)
    bad, elsewhere = argmax.copy(), argmax.copy()
    bad[1, -1, -1, -1] = 16
    elsewhere[0, 0, 0, 0] = 15  # a cell, but of another window
    other = fc.max_pool_backward(y, elsewhere, x.shape, 2, stride=stride)
    for _ in range(3):
        same_bits(winners_back(y, argmax, x.shape, stride), right)
        same_bits(winners_back(y, elsewhere, x.shape, stride), other)
        with pytest.raises(ValueError, match=r"argmax holds 0 to 16"):
            winners_back(y, bad, x.shape, stride)
    assert not calls.shelf().words[r.SHELF_RECORDS + r.RECORD_READERS :: r.RECORD_WORDS].any()


@njit
def padded(x, w, padding):
    return fc.conv(x, w, padding=padding)


def test_keys_tell_forms_apart():
    """Numbers, pairs and names of one value; texts that are long, or none that is known."""
    x, w = integers(0, 1, 6, 6, 2), integers(1, 3, 3, 2, 4)
    for _ in range(3):
        for padding in (1, (1, 1), (2, 0), ((1, 1), (0, 2)), ((2, 2), (0, 0)), "same", "valid",
                        ((1, 1), (1, 1))):  # fmt: skip
            same_bits(padded(x, w, padding), fc.conv(x, w, padding=padding))
        for wrong in ("samé", "same" + "e" * 20, "same\0", "", -1, (-1, 1), ((1, -1), (0, 0)),
                      np.uint64(2**64 - 1)):  # fmt: skip
            with pytest.raises(ValueError, match="padding"):
                padded(x, w, wrong)


def test_fast_is_seen_by_compiled_code():
    """Known problems are exact ones: a block that asks for another way gets it, in any thread."""
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=n).astype("f") for n in [(2, 16, 16, 64), (3, 3, 64, 64)])
    exact = padded(x, w, 1)
    same_bits(padded(x, w, 1), exact)
    with fc.algorithm("fast"):
        fast = fc.conv(x, w, padding=1)
        same_bits(padded(x, w, 1), fast)
        with fc.algorithm("exact"):
            same_bits(padded(x, w, 1), exact)
    same_bits(padded(x, w, 1), exact)
    assert not np.array_equal(exact, fast)


@njit(nogil=True)
def conv_and_pool(x, w):
    return fc.max_pool(fc.conv(x, w, padding="same"), 2)


@njit(parallel=True)
def each(x, w):
    found = np.zeros((len(x), x.shape[1] // 2, x.shape[2] // 2, w.shape[3]), x.dtype)
    for n in prange(len(x)):
        found[n] = conv_and_pool(x[n : n + 1], w)[0]
    return found


@pytest.mark.parametrize("threads", [1, 2])
def test_inside_prange(threads, no_python):
    import numba

    x, w = integers(0, 32, 9, 10, 3), integers(1, 3, 3, 3, 9)
    expected = fc.max_pool(fc.conv(x, w, padding="same"), 2)
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        same_bits(each(x, w), expected)
        no_python()
        for _ in range(10):
            same_bits(each(x, w), expected)
    finally:
        numba.set_num_threads(before)


def in_threads(work, count):
    failures = []

    def guarded(i):
        try:
            work(i)
        except BaseException as error:
            failures.append(error)

    others = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert not failures, failures[0]


def test_threads_with_shapes_of_their_own():
    w = integers(1, 3, 3, 2, 5)

    def work(i):
        x = integers(i, 2, 6 + i, 7, 2)
        expected = fc.max_pool(fc.conv(x, w, padding="same"), 2)
        for _ in range(200):
            same_bits(conv_and_pool(x, w), expected)

    in_threads(work, 4)


def test_more_problems_than_there_is_room_for():
    """Calls give way to others while threads make them; each call is its own problem's."""
    shapes = [(1, h, width) for h in range(2, 40) for width in range(1, 40)]
    assert len(shapes) > r.RECORDS
    w = integers(1, 1, 1, 1, 3)

    def work(i):
        order = np.random.default_rng(i).permutation(len(shapes))
        for n in order:
            m, h, width = shapes[n]
            x = np.full((m, h, width, 1), n % 7, "f")
            for _ in range(2):
                y = padded(x, w, 0)
                assert y.shape == (m, h, width, 3)
                assert (y == n % 7 * w[0, 0]).all()

    in_threads(work, 3)
    shelf = calls.shelf()
    assert len(shelf._alive) <= r.RECORDS
    assert not shelf.words[r.SHELF_RECORDS + r.RECORD_READERS :: r.RECORD_WORDS].any()


def test_other_threads_run_during_a_long_call():
    """As during one from Python: compiled code that has the GIL lets it go."""
    x, w = np.zeros((16, 64, 64, 32), "f"), np.zeros((3, 3, 32, 64), "f")
    padded(x, w, 1)
    done, ticks = threading.Event(), []

    def work():
        for _ in range(3):
            padded(x, w, 1)
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody is asked to let it go
    try:
        thread = threading.Thread(target=work)
        thread.start()
        while not done.wait(1e-4):
            ticks.append(0)
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(ticks) > 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_has_what_its_parent_had(tmp_path):
    code = """
        import os, threading
        import numpy as np
        from numba import njit
        import fastconv as fc

        @njit(nogil=True)
        def conv(x, w):
            return fc.conv(x, w, padding=1)

        def check(n):
            x = np.full((1, n, 5, 2), 3, "f")
            assert conv(x, w)[0, n // 2, 2, 0] == 54, n

        w = np.ones((3, 3, 2, 4), "f")
        check(5), check(5)
        stop = False
        def many():
            while not stop:
                for n in range(4, 40):
                    check(n)
        thread = threading.Thread(target=many)
        thread.start()
        children = []
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                for n in range(4, 60):
                    check(n), check(n)
                os._exit(0)
            children.append(os.waitpid(pid, 0)[1])
        stop = True
        thread.join()
        print(set(children))
    """
    assert run(code, tmp_path) == ["{0}"]


def run(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


def test_code_from_disk_finds_calls_of_its_own_process(tmp_path):
    """And code that was compiled for other sources finds none."""
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
        import sys
        import numpy as np
        import mine
        import fastconv as fc
        from fastconv.adapters.numba import calls
        from fastconv.plans.conv import ConvPlan

        if "other" in sys.argv:
            calls.form_of_sources.cache_clear()
            calls.import_module("fastconv.compiler.sources").number_of = lambda *files: 77
        x, w, out = np.ones((6, 5, 5, 2), "f"), np.ones((3, 3, 2, 3), "f"), np.zeros(6)
        filler = [np.zeros(int(n)) for n in np.random.default_rng().integers(1, 10**6, 50)]
        expected = fc.conv(x, w, stride=2)

        def check():
            assert (mine.one(x, w) == expected).all()
            mine.sums(x, w, out)
            assert (out == 18 * 9 * 3).all()

        check(), check()
        hits = sum(mine.one.stats.cache_hits.values()), sum(mine.sums.stats.cache_hits.values())
        def broken(*args, **options):
            raise ValueError("through Python")
        ConvPlan.forward = broken
        try:
            check()
            print(*hits, "known")
        except ValueError as error:
            print(*hits, error)
    """
    assert run(code, tmp_path) == ["0", "0", "known"]
    assert run(code, tmp_path) == ["1", "1", "known"]
    other = code.replace('"other" in sys.argv', "True")
    assert run(other, tmp_path) == ["1", "1", "through", "Python"]
