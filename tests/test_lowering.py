"""The readable im2col products, called directly: the second oracle next to the naive loops."""

import itertools
import math

import numpy as np
import pytest
from geometries import integers, random_conv
from numpy.testing import assert_array_equal

import fastconv as fc
from fastconv import reference
from fastconv.geometry.resolve import conv_geometry
from fastconv.lowering import Im2colPlan
from fastconv.plans import columns
from fastconv.plans.columns import boxes
from fastconv.problems import find_table, read_problems

TAILS = {problem.name: problem for problem in read_problems(find_table("tails"))}


def products(g, x, w, b, dy):
    """y, dx and dw, each written over NaN."""
    plan = Im2colPlan(g, x.dtype)
    y, dx, dw = (np.full(shape, np.nan, x.dtype) for shape in (g.y_shape, g.x_shape, g.w_shape))
    plan.forward(x, w, b, False, y)
    plan.input_grad(dy, w, None, False, dx)
    plan.kernel_grad(x, dy, dw)
    return y, dx, dw


@pytest.fixture(params=[columns.COLS_NBYTES, 2000, 1])
def cols_nbytes(request, monkeypatch):
    """The usual workspace, one of a few windows, and one window at a time."""
    monkeypatch.setattr(columns, "COLS_NBYTES", request.param)


@pytest.mark.parametrize("name", TAILS)
def test_tails(name, cols_nbytes):
    problem = TAILS[name]
    x, w, b, dy = problem.operands()
    y, dx, dw = products(problem.geometry, x, w, b, dy)
    assert_array_equal(y, reference.conv(x, w, b, **problem.kwargs))
    assert_array_equal(dx, reference.conv_input_grad(dy, w, x.shape, **problem.kwargs))
    assert_array_equal(dw, reference.conv_kernel_grad(x, dy, w.shape, **problem.kwargs))


def test_random_geometries(cols_nbytes):
    rng = np.random.default_rng(11)
    for _ in range(200):
        x_shape, w_shape, options = problem = random_conv(rng)
        g = conv_geometry(x_shape, w_shape, **options)
        x, w = integers(rng, x_shape, "float32"), integers(rng, w_shape, "float32")
        dy = integers(rng, g.y_shape, "float32")
        y, dx, dw = products(g, x, w, None, dy)
        assert_array_equal(y, reference.conv(x, w, **options), str(problem))
        grads = reference.conv_backward(dy, x, w, **options)
        assert_array_equal(dx, grads.dx, str(problem))
        assert_array_equal(dw, grads.dw, str(problem))


@pytest.mark.parametrize("seed", range(20))
def test_boxes_cover_every_output_once(seed, cols_nbytes):
    x_shape, w_shape, options = random_conv(np.random.default_rng(seed))
    g = conv_geometry(x_shape, w_shape, **options)
    count = np.zeros((g.m, *g.y_size), int)
    for box in boxes(g, 4):
        pixels = math.prod(s.stop - s.start for s in box)
        assert pixels == 1 or pixels * g.T * g.C * 4 <= columns.COLS_NBYTES
        count[box] += 1
    assert (count == 1).all()


def test_fast_products_stay_within_the_error_bound():
    """Of |y - y64| <= 16 eps (conv(|x|, |w|) + |b|), with y64 from the explicit im2col."""
    rng = np.random.default_rng(0)
    for problem in itertools.islice(TAILS.values(), 0, None, 3):
        g = problem.geometry
        x, w, dy = (rng.normal(size=s).astype("float32") for s in (g.x_shape, g.w_shape, g.y_shape))
        b = rng.normal(size=g.F).astype("float32")
        fast = (
            fc.conv(x, w, b, **problem.kwargs),
            fc.conv_input_grad(dy, w, x.shape, **problem.kwargs),
            fc.conv_kernel_grad(x, dy, w.shape, **problem.kwargs),
        )
        wide = [a.astype("float64") for a in (x, w, b, dy)]
        exact = products(g, *wide)
        size = products(g, *(np.abs(a) for a in wide))
        for got, expected, bound in zip(fast, exact, size, strict=True):
            assert (np.abs(got - expected) <= 16 * 2.0**-23 * bound).all(), problem
