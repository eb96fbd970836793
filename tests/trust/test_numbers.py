"""Rounding within the bound, exact adjoints, and results that follow from one another."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from geometries import integers, layout, random_conv, random_pool, random_transpose
from numpy.testing import assert_array_equal

import fastconv as fc
from fastconv.cli.deep.chain import chain_errors
from fastconv.cli.deep.numbers import BOUND, RMS, check_numbers, rounding_errors, table_problems
from fastconv.problems import parse_problem
from fastconv.testing import assert_adjoint


def quiet(done, total):
    pass


@pytest.mark.parametrize("part", range(4))
def test_problems_of_the_tables_round_within_the_bound(part):
    """At most 16 eps G, and a root-mean-square error of at most 1.5 times that of one chain."""
    compared = 0
    for number, problem in enumerate(table_problems()[part::8]):
        for dtype in ("float32", "float64"):
            for product, bound, rms in rounding_errors(fc, problem, number, dtype):
                compared += rms > 0
                assert bound <= BOUND, f"{product} of {problem} in {dtype}: {bound} eps G"
                assert rms <= RMS, f"{product} of {problem} in {dtype}: {rms} times one chain's"
    assert compared > 10


def test_random_geometries_round_within_the_bound():
    bound, _ = check_numbers(fc, 1, 30, quiet)
    assert bound.failures == 0, bound.first_failure
    assert bound.cases > 300


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_chain_to_compare_with_is_one_chain(dtype, fused):
    """Step by step in rational numbers; a float64 holds the product of two float32."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal(s).astype(dtype) for s in ((2, 3, 40), (2, 40, 5)))
    results = left @ right
    ours, chains = chain_errors(left, right, results, fused)
    for g, i, j in np.ndindex(results.shape):
        exact, chain = Fraction(0), Fraction(0)
        for a, b in zip(left[g, i], right[g, :, j], strict=True):
            product = Fraction(float(a)) * Fraction(float(b))
            exact += product
            step = product if fused else Fraction(float(results.dtype.type(float(product))))
            chain = Fraction(float(results.dtype.type(float(chain + step))))
        for got, value in ((ours, float(results[g, i, j])), (chains, chain)):
            assert abs(got[g, i, j] - float(Fraction(value) - exact)) <= 2.0**-80


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_many_geometries_round_within_the_bound(seed):
    for score in check_numbers(fc, 100 + seed, 500, quiet):
        print(f"\n{score.op}: {score.cases} cases, at most {score.worst:.2f}")
        assert score.failures == 0, score.first_failure


def test_sums_of_zeros_alone_are_exact():
    """Every window lies in the padding: there is nothing to round, and no error to compare."""
    problem = parse_problem("m30 h4w2c7 f30 k2x1 s1x3 p1:1x1:2")

    def wrong(x, w, **options):
        return fc.conv(x, w, **options) + np.float32(1e-30)

    assert not fc.conv(np.ones((30, 4, 2, 7)), np.ones((2, 1, 7, 30)), **problem.kwargs).any()
    for ops, bound in ((fc, 0), (SimpleNamespace(**{**vars(fc), "conv": wrong}), np.inf)):
        y, *_ = rounding_errors(ops, problem, 0, "float32")
        assert (y.bound, y.rms) == (bound, 0)


def test_a_long_sum_of_one_sign_rounds_within_the_bound():
    """Errors of a sum of positive terms do not cancel: the hardest case for the bound."""
    for words in ("m1 w40c5000 f3 k3", "m64 h20w20c2 f3 k3x3", "m1 h6w6c2 f2000 k5x5 p2"):
        problem = parse_problem(words)
        g = problem.geometry
        rng = np.random.default_rng(0)
        x, w, dy = (rng.random(s, np.float32) for s in (g.x_shape, g.w_shape, g.y_shape))
        options = problem.kwargs
        wide = [a.astype(np.float64) for a in (x, w, dy)]
        for got, exact in (
            (fc.conv(x, w, **options), fc.conv(wide[0], wide[1], **options)),
            (
                fc.conv_input_grad(dy, w, x.shape, **options),
                fc.conv_input_grad(wide[2], wide[1], x.shape, **options),
            ),
            (
                fc.conv_kernel_grad(x, dy, w.shape, **options),
                fc.conv_kernel_grad(wide[0], wide[2], w.shape, **options),
            ),
        ):
            assert (abs(got - exact) <= 16 * 2.0**-23 * exact).all()


# ------------------------------------------------------------------ adjoints, on integers


@pytest.mark.parametrize("seed", range(10))
def test_adjoints_are_exact(seed):
    """``<conv(x, w), dy> = <x, dx> = <w, dw>``, without any reference."""
    rng = np.random.default_rng(seed)
    for i in range(20):
        data_format = ("channels_last", "channels_first")[i % 2]
        x_shape, w_shape, options = random_conv(rng)
        options["data_format"] = data_format
        x, w = (
            integers(rng, layout(x_shape, data_format), "f4"),
            integers(rng, w_shape, "f4"),
        )
        y = fc.conv(x, w, **options)
        dy = integers(rng, y.shape, "f4")
        dx, dw, _ = fc.conv_backward(dy, x, w, **options)
        assert_adjoint((y, dy), (x, dx), (w, dw))
        del options["groups"]
        cols = fc.im2col(x, w_shape[:-2], **options)
        other = integers(rng, cols.shape, "f4")
        back = fc.col2im(other, x.shape, w_shape[:-2], **options)
        assert_adjoint((cols, other), (x, back))


@pytest.mark.parametrize("seed", range(5))
def test_adjoints_of_transposes_and_pools_are_exact(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        x_shape, w_shape, options = random_transpose(rng)
        x, w = integers(rng, x_shape, "f4"), integers(rng, w_shape, "f4")
        y = fc.conv_transpose(x, w, **options)
        dy = integers(rng, y.shape, "f4")
        dx, dw, _ = fc.conv_transpose_backward(dy, x, w, **options)
        assert_adjoint((y, dy), (x, dx), (w, dw))
        x_shape, window, options = random_pool(rng)
        x = integers(rng, x_shape, "f4") * 6 ** len(window)
        y, argmax = fc.max_pool(x, window, return_argmax=True, **options)
        y[argmax == -1] = 0  # minus infinity: a window without a cell
        dy = integers(rng, y.shape, "f4") * 6 ** len(window)
        dx = fc.max_pool_backward(dy, argmax, x.shape, window, **options)
        assert_adjoint((y, dy), (x, dx))
        y = fc.avg_pool(x, window, **options)
        assert_adjoint((y, dy), (x, fc.avg_pool_backward(dy, x.shape, window, **options)))


# ------------------------------------------------- results that follow from other results


@pytest.fixture(params=range(6))
def drawn(request):
    """x, w, dy of integers and what they are convolved with: no stride, dilation or groups."""
    rng = np.random.default_rng(request.param)
    rank = 1 + request.param % 3
    size = tuple(int(n) for n in rng.integers(7, 12, rank))
    window = tuple(int(k) for k in rng.integers(1, 4, rank))
    c, f = (int(n) for n in rng.choice([1, 3, 8, 17, 24], 2))
    x = integers(rng, (2, *size, c), "f4")
    return rng, x, integers(rng, (*window, c, f), "f4")


def test_groups_are_convolutions_side_by_side(drawn):
    rng, x, w = drawn
    G, f = 3, w.shape[-1]
    xs = [x, *(integers(rng, x.shape, "f4") for _ in range(G - 1))]
    ws = [w, *(integers(rng, w.shape, "f4") for _ in range(G - 1))]
    whole = [np.concatenate(parts, axis=-1) for parts in (xs, ws)]
    y = fc.conv(*whole, groups=G, padding=1)
    dy = integers(rng, y.shape, "f4")
    grads = fc.conv_backward(dy, *whole, groups=G, padding=1)
    parts = [fc.conv(a, b, padding=1) for a, b in zip(xs, ws, strict=True)]
    assert_array_equal(y, np.concatenate(parts, axis=-1))
    split = [dy[..., f * i : f * (i + 1)] for i in range(G)]
    each = [fc.conv_backward(d, a, b, padding=1) for d, a, b in zip(split, xs, ws, strict=True)]
    for name in ("dx", "dw", "db"):
        joined = np.concatenate([getattr(g, name) for g in each], axis=-1)
        assert_array_equal(getattr(grads, name), joined)


@pytest.mark.parametrize("s", [2, 3, 5])
def test_stride_s_is_stride_1_subsampled(drawn, s):
    rng, x, w = drawn
    rank = x.ndim - 2
    some = (slice(None), *(slice(None, None, s),) * rank)
    full = fc.conv(x, w, padding=1)
    y = fc.conv(x, w, padding=1, stride=s)
    assert_array_equal(y, full[some])
    dy = integers(rng, y.shape, "f4")
    stuffed = np.zeros_like(full)
    stuffed[some] = dy
    for a, b in zip(
        fc.conv_backward(dy, x, w, padding=1, stride=s),
        fc.conv_backward(stuffed, x, w, padding=1),
        strict=True,
    ):
        assert_array_equal(a, b)
    pooled = fc.max_pool(x, 2, stride=1)
    assert_array_equal(fc.max_pool(x, 2, stride=s), pooled[some])


@pytest.mark.parametrize("d", [2, 3])
def test_dilation_d_is_a_kernel_with_zeros_between_its_taps(drawn, d):
    rng, x, w = drawn
    rank = x.ndim - 2
    stuffed = np.zeros((*((k - 1) * d + 1 for k in w.shape[:-2]), *w.shape[-2:]), "f4")
    some = (slice(None, None, d),) * rank
    stuffed[some] = w
    y = fc.conv(x, w, padding=2, dilation=d)
    assert_array_equal(y, fc.conv(x, stuffed, padding=2))
    dy = integers(rng, y.shape, "f4")
    grads = fc.conv_backward(dy, x, w, padding=2, dilation=d)
    wide = fc.conv_backward(dy, x, stuffed, padding=2)
    assert_array_equal(grads.dx, wide.dx)
    assert_array_equal(grads.dw, wide.dw[some])


def test_powers_of_two_and_signs_scale_every_bit(drawn):
    rng, x, w = drawn
    x, w = (rng.standard_normal(a.shape).astype("f4") for a in (x, w))
    y = fc.conv(x, w, padding=1)
    for factor in (np.float32(-1), np.float32(2**20), np.float32(2**-30)):
        assert_array_equal(fc.conv(x * factor, w, padding=1), y * factor)
        assert_array_equal(fc.conv(x, w * factor, padding=1), y * factor)


def test_images_and_filters_in_another_order_are_results_in_another_order(drawn):
    rng, x, w = drawn
    x, w = (rng.standard_normal(a.shape).astype("f4") for a in (x, w))
    y = fc.conv(x, w)
    assert_array_equal(fc.conv(x[::-1], w), y[::-1])
    assert_array_equal(fc.conv(x, w[..., ::-1]), y[..., ::-1])


# --------------------------------------------------------------------- every vector width

# What NUMBA_CPU_NAME and NUMBA_CPU_FEATURES make of this host: SSE, AVX and AVX2 with FMA.
HOSTS = {
    "nehalem": "+cx16,+popcnt,+sse3,+sse4.1,+sse4.2,+ssse3",
    "sandybridge": "+avx,+cx16,+popcnt,+sse3,+sse4.1,+sse4.2,+ssse3,+xsave",
    "haswell": "+avx,+avx2,+bmi,+bmi2,+cx16,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse3,+sse4.1,"
    "+sse4.2,+ssse3,+xsave",
}


@pytest.mark.soak
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 hosts")
@pytest.mark.parametrize("host", HOSTS)
def test_the_same_on_smaller_hosts(host, tmp_path):
    """This file and the drawn calls again, on narrower vectors (in CI: tests/engine)."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": host,
        "NUMBA_CPU_FEATURES": HOSTS[host],
        "FASTCONV_CACHE_DIR": str(tmp_path),
    }
    here = os.path.dirname(__file__)
    files = [__file__, *(os.path.join(here, f) for f in ("test_fuzz.py", "test_fuzz_plans.py"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *files],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
