"""Minimal filtering and Fourier transforms: exact where they can be, else within their bounds."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.ndimage import maximum_filter
from strategies import integers

import fastconv as fc
from fastconv.engine import minimal, words
from fastconv.engine.tables import winograd
from fastconv.geometry.resolve import conv_geometry
from fastconv.plans import conv as plans_conv
from fastconv.plans import fast, fourier
from fastconv.plans.compiled import new_products, products
from fastconv.plans.fast import FastProducts

functional_conv = importlib.import_module("fastconv.functional.conv")
DTYPES = [np.dtype(name) for name in ("f4", "f8")]
# Of minimal filtering, in eps of the smeared G (see `smeared`), by R.
BOUNDS = {2: 4, 4: 8}


def forget(monkeypatch):
    """Nothing is planned yet, and the functions keep no plan."""
    products.cache_clear()
    fast._fast.cache_clear()
    for module in (plans_conv, functional_conv):
        plan = getattr(module.planned, "__wrapped__", module.planned)
        monkeypatch.setattr(module, "planned", plan)


@pytest.fixture
def edge(monkeypatch):
    """A function that has all 3x3 windows computed by tiles of R results."""

    def force(R):
        forget(monkeypatch)

        def found(name, g, dtype):
            return R * (name != "kernel_grad" and winograd.is_minimal(g))

        monkeypatch.setattr(minimal, "edge_of", found)

    yield force
    products.cache_clear()
    fast._fast.cache_clear()


def made(x_shape, w_shape, dtype, **options):
    """The exact products and the fast ones of a geometry, new."""
    g = conv_geometry(x_shape, w_shape, **options)
    return g, new_products(g, dtype), FastProducts(g, dtype)


SHAPES = [
    ((2, 8, 8, 16), 32, {"padding": 1}),
    ((3, 9, 10, 17), 70, {}),
    ((1, 5, 6, 3), 5, {"padding": 2}),
    ((2, 13, 7, 64), 64, {"padding": ((0, 1), (2, 1))}),
    ((1, 3, 3, 1), 1, {}),
    ((1, 40, 3, 2), 130, {"padding": ((0, 0), (1, 1))}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_two_by_two_results_are_exact_on_integers(edge, shape, dtype):
    x_shape, F, options = shape
    edge(2)
    g, exact, fast_one = made(x_shape, (3, 3, x_shape[-1], F), dtype, **options)
    x, w, dy = (
        integers(i, *s, dtype=dtype) for i, s in enumerate((g.x_shape, g.w_shape, g.y_shape))
    )
    b, c = integers(3, F, dtype=dtype), integers(4, g.C, dtype=dtype)
    for relu in (False, True):
        for name, source, bias, to in (
            ("forward", x, b, g.y_shape),
            ("input_grad", dy, c, g.x_shape),
        ):
            assert isinstance(fast_one.product(name), minimal.MinimalConvolution)
            want, got = (np.full(to, np.nan, dtype) for _ in range(2))
            getattr(exact, name)(source, w, bias, relu, want)
            getattr(fast_one, name)(source, w, bias, relu, got)
            np.testing.assert_array_equal(got, want)


def smeared(name, x, w, g):
    """G of the largest |x| within 5 cells and the largest |w| of a window, for every result."""
    low = 5
    x = maximum_filter(np.abs(x.astype("f8")), (1, 2 * low + 1, 2 * low + 1, 1), mode="constant")
    w = np.abs(w.astype("f8")).max((0, 1))
    w = w.T if name == "input_grad" else w
    size = g.x_size if name == "input_grad" else g.y_size
    pads = [(lo, hi) for lo, hi in g.pads]
    if name == "input_grad":
        pads = [(2 - lo, 2 - hi) for lo, hi in pads]
    x = np.pad(x, ((0, 0), *pads, (0, 0)), mode="edge")
    return 9 * x[:, 1 : 1 + size[0], 1 : 1 + size[1]] @ w


def numbers(rng, kind, shape, dtype):
    """Random operands of a kind."""
    x = rng.standard_normal(shape)
    if kind == "scales":  # cells, channels and windows of very different sizes
        x *= 10.0 ** rng.uniform(-8, 8, shape)
    elif kind == "channels":
        x *= 10.0 ** rng.uniform(-6, 6, shape[-1])
    elif kind == "positive":
        x = np.abs(x)
    elif kind == "outlier":
        x.flat[rng.integers(x.size)] = 1e12
    elif kind == "tiny":
        x *= np.finfo(dtype).tiny ** 0.5
    return x.astype(dtype)


KINDS = ["normal", "positive", "scales", "channels", "outlier", "tiny"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("R", [2, 4])
def test_minimal_filtering_rounds_within_its_bound(edge, R, kind):
    edge(R)
    rng = np.random.default_rng(5)
    for dtype, C in itertools.product(DTYPES, (8, 64, 200)):
        g, _, fast_one = made((2, 10, 11, C), (3, 3, C, 24), dtype, padding=1)
        x, w, dy = (numbers(rng, kind, s, dtype) for s in (g.x_shape, g.w_shape, g.y_shape))
        exact = new_products(g, np.dtype("f8"))
        for name, source, to in (("forward", x, g.y_shape), ("input_grad", dy, g.x_shape)):
            got, want = np.empty(to, dtype), np.empty(to)
            getattr(fast_one, name)(source, w, None, False, got)
            if dtype == np.float64:  # the exact way's own error is 16 eps G, at most
                getattr(exact, name)(source, w, None, False, want)
            else:
                getattr(exact, name)(source.astype("f8"), w.astype("f8"), None, False, want)
            bound = (BOUNDS[R] + (dtype == np.float64)) * np.finfo(dtype).eps
            bound = bound * smeared(name, source, w, g) + np.finfo(dtype).tiny
            assert (np.abs(got - want) <= bound).all(), (np.abs(got - want) / bound).max()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("R", [2, 4])
def test_bits_of_minimal_filtering_depend_on_the_numbers_alone(edge, R, dtype):
    """Neither on threads, nor on slices of the batch, layout, byte order, or `out`."""
    edge(R)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((5, 11, 9, 33)).astype(dtype)
    w, dy = (rng.standard_normal(s).astype(dtype) for s in ((3, 3, 33, 40), (5, 11, 9, 40)))
    same = {"padding": 1, "algorithm": "fast"}
    y = fc.conv(x, w, **same)
    dx = fc.conv_input_grad(dy, w, x.shape, **same)
    if dtype != "f2":
        assert not np.array_equal(y, fc.conv(x, w, padding=1))
    for threads in (1, 2, 3, 7):
        with fc.num_threads(threads):
            np.testing.assert_array_equal(fc.conv(x, w, **same), y)
            np.testing.assert_array_equal(fc.conv_input_grad(dy, w, x.shape, **same), dx)
    np.testing.assert_array_equal(fc.conv(x[1:3], w, **same), y[1:3])
    np.testing.assert_array_equal(fc.conv_input_grad(dy[4:], w, x[4:].shape, **same), dx[4:])
    for change in (
        np.asfortranarray,
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: np.repeat(a, 2, -1)[..., ::2],
        lambda a: a[::-1].copy()[::-1],
    ):
        np.testing.assert_array_equal(fc.conv(change(x), change(w), **same), y)
        np.testing.assert_array_equal(fc.conv_input_grad(change(dy), w, x.shape, **same), dx)
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    found = fc.conv(first, w, data_format="channels_first", **same)
    np.testing.assert_array_equal(np.moveaxis(found, 1, -1), y)
    out = np.full((*y.shape[:-1], 2 * y.shape[-1]), np.nan, dtype)
    fc.conv(x, w, out=out[..., ::2], **same)
    np.testing.assert_array_equal(out[..., ::2], y)
    assert np.isnan(out[..., 1::2]).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("R", [2, 4])
def test_what_is_no_number_spreads_as_in_the_exact_way(edge, R, bad):
    edge(R)
    x, w = integers(0, 2, 12, 12, 20, dtype="f4"), integers(1, 3, 3, 20, 20, dtype="f4")
    x[0, 6, 5, 3] = x[1, 0, 11, 19] = bad
    for relu in (None, "relu"):
        want = fc.conv(x, w, padding=1, activation=relu)
        got = fc.conv(x, w, padding=1, activation=relu, algorithm="fast")
        near = np.isfinite(want)
        np.testing.assert_array_equal(got[~near], want[~near])
        np.testing.assert_allclose(got[near], want[near], atol=1e-2)
    w[1, 1, 2, 3] = bad
    want, got = fc.conv(x, w), fc.conv(x, w, algorithm="fast")
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))


@pytest.mark.parametrize("R", [2, 4])
def test_an_overflow_within_is_not_seen(edge, R):
    """Points of numbers near the largest are too large, though no result is."""
    edge(R)
    x = np.full((1, 6, 6, 2), 2e38, "f4")
    w = np.zeros((3, 3, 2, 2), "f4")
    w[1, 1] = np.eye(2)
    np.testing.assert_array_equal(fc.conv(x, w, padding=1, algorithm="fast"), x)


def test_which_where():
    """Wide 3x3 windows of stride 1, whatever the batch; all else is the exact way."""
    wide = ((2, 32, 32, 128), (3, 3, 128, 128))
    assert winograd.edge_of("forward", conv_geometry(*wide, padding=1), DTYPES[0]) == 4
    for m in (1, 7, 500):
        g = conv_geometry((m, *wide[0][1:]), wide[1], padding=1)
        assert winograd.edge_of("input_grad", g, DTYPES[0]) == 4
    for x, w, options in [
        (*wide, {"stride": 2}), (*wide, {"dilation": 2}), (*wide, {"padding": 3}),
        ((2, 32, 32, 4), (3, 3, 4, 4), {}), ((2, 32, 32, 128), (3, 3, 2, 128), {"groups": 64}),
        ((2, 32, 32, 128), (3, 1, 128, 128), {}), ((2, 32, 128), (3, 128, 128), {}),
    ]:  # fmt: skip
        g = conv_geometry(x, w, **options)
        assert not any(winograd.edge_of(n, g, DTYPES[0]) for n in ("forward", "input_grad"))
        assert not any(fourier.tiling(n, g) for n in ("forward", "input_grad", "kernel_grad"))
    assert not winograd.edge_of("kernel_grad", conv_geometry(*wide), DTYPES[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [32, 128, 512, 900, 2048])
def test_a_thread_has_four_mebibytes(C, dtype):
    """Beside the packed window, which is as large as its 9 + (R + 2)**2 panels of channels."""
    g = conv_geometry((4, 14, 14, C), (3, 3, C, C), padding=1)
    for name in ("forward", "input_grad"):
        R = winograd.edge_of(name, g, dtype)
        if R:
            choice = winograd.minimal_choice(name, g, dtype, R)
            table = winograd.minimal_table(choice, 1)
            assert table.words[words.SCRATCH_BYTES] <= 4 * 2**20
            assert choice.shared[-1] <= 1.01 * (9 + (R + 2) ** 2) * C * (C + 64) * dtype.itemsize


def test_several_python_threads_share_a_plan(edge):
    edge(4)
    plan = fc.plan_conv((3, 12, 12, 40), (3, 3, 40, 40), padding=1, algorithm="fast")
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype("f4") for s in (plan.x_shape, plan.w_shape))
    want = plan.forward(x, w)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: plan.forward(x, w), range(20)):
            np.testing.assert_array_equal(got, want)


# ---- Fourier transforms


@pytest.fixture
def transforms(monkeypatch):
    """Have everything go through transforms, small tiles too."""
    forget(monkeypatch)
    for name, value in {"LEAST_NS": 0, "LEAST_TAPS": 0, "direct_ns": lambda *_: 1e9}.items():
        monkeypatch.setattr(fourier, name, value)
    yield
    fast._fast.cache_clear()


LARGE = [
    ((2, 40, 37, 1), (9, 11, 1, 1), {}),
    ((2, 40, 37, 4), (9, 11, 2, 6), {"groups": 2, "padding": (3, (2, 5)), "stride": (2, 3)}),
    ((1, 100, 3), (17, 3, 2), {"dilation": 3, "padding": 20, "stride": 2}),
    ((1, 14, 15, 16, 2), (5, 5, 5, 2, 3), {"padding": 2}),
    ((2, 40, 37, 1), (5, 5, 1, 2), {"padding": 4, "dilation": 2}),
    ((2, 2, 41, 37), (5, 5, 2, 2), {"padding": 9, "data_format": "channels_first"}),
    ((0, 9, 9, 1), (9, 9, 1, 1), {}),
]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("problem", LARGE)
def test_transforms_give_the_three_products(transforms, problem, dtype):
    x_shape, w_shape, options = problem
    x, w = integers(0, *x_shape, dtype=dtype), integers(1, *w_shape, dtype=dtype)
    b = integers(2, w_shape[-1], dtype=dtype)
    want = fc.conv(x, w, b, activation="relu", **options)
    dy = integers(3, *want.shape, dtype=dtype)
    options = {**options, "algorithm": "fast"}
    plan = fc.plan_conv(x_shape, w_shape, dtype, **options)
    names = ("forward", "input_grad", "kernel_grad")
    if len(x):
        assert all(plan._products.transformed(name) for name in names)
    got = fc.conv(x, w, b, activation="relu", **options)
    # sums of these integers are found to 1e-10, which float16 rounds away
    close = 0 if dtype == "f2" else 1e-9
    np.testing.assert_allclose(got, want, rtol=0, atol=close)
    options["algorithm"] = "exact"
    exact = fc.conv_backward(dy, x, w, **options)
    for a, c in zip(plan.backward(dy, x, w), exact, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-9 if close else 0, atol=close)


@pytest.mark.parametrize("kind", KINDS)
def test_transforms_round_within_their_bound(transforms, kind):
    """eps, of float32 the result's and of float64 30 transforms', of G with |x| smeared."""
    rng = np.random.default_rng(1)
    for dtype in DTYPES:
        x, w = (numbers(rng, kind, s, dtype) for s in ((1, 60, 50, 2), (15, 13, 2, 3)))
        exact = fc.conv(x.astype("f8"), w.astype("f8"))
        got = fc.conv(x, w, algorithm="fast")
        # a tile reads no cell farther away than the image is wide
        most = np.abs(x.astype("f8")).max((1, 2)) @ np.abs(w.astype("f8")).max((0, 1)) * 15 * 13
        bound = np.finfo(dtype).eps * np.abs(exact) + 8 * 2.0**-52 * most
        assert (np.abs(got - exact) <= bound + np.finfo(dtype).tiny).all()


def test_bits_of_transforms_depend_on_the_numbers_alone(transforms):
    rng = np.random.default_rng(2)
    x, w = (rng.standard_normal(s).astype("f4") for s in ((3, 70, 60, 2), (15, 13, 2, 2)))
    y = fc.conv(x, w, algorithm="fast")
    dw = fc.conv_kernel_grad(x, y, w.shape, algorithm="fast")
    for threads in (1, 2, 5):
        with fc.num_threads(threads):
            np.testing.assert_array_equal(fc.conv(x, w, algorithm="fast"), y)
            np.testing.assert_array_equal(fc.conv_kernel_grad(x, y, w.shape, algorithm="fast"), dw)
    np.testing.assert_array_equal(fc.conv(x[1:2], w, algorithm="fast"), y[1:2])
    for change in (np.asfortranarray, lambda a: a.astype(">f4"), lambda a: a[::-1].copy()[::-1]):
        np.testing.assert_array_equal(fc.conv(change(x), change(w), algorithm="fast"), y)
    first = np.moveaxis(x, -1, 1)
    found = fc.conv(first, w, algorithm="fast", data_format="channels_first")
    np.testing.assert_array_equal(found, np.moveaxis(y, -1, 1))


def test_images_that_hold_what_is_no_number_go_the_exact_way(transforms):
    rng = np.random.default_rng(4)
    x, w = (rng.standard_normal(s).astype("f4") for s in ((3, 40, 40, 1), (11, 11, 1, 1)))
    clean = fc.conv(x, w, algorithm="fast")
    x[1, 20, 20] = np.nan
    y = fc.conv(x, w, algorithm="fast")
    np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])
    np.testing.assert_array_equal(y[1], fc.conv(x, w)[1])
    x[1, 20, 20] = np.inf
    dw = fc.conv_kernel_grad(x, clean, w.shape, algorithm="fast")
    np.testing.assert_array_equal(dw, fc.conv_kernel_grad(x, clean, w.shape))


def test_memory_is_bounded_whatever_the_image():
    """A 4096x4096 image with a 127x127 window, which the exact way takes half an hour for."""
    g = conv_geometry((1, 4096, 4096, 1), (127, 127, 1, 1))
    for name in ("forward", "input_grad", "kernel_grad"):
        assert fourier.tiling(name, g).nbytes <= fourier.MOST_NBYTES
    larger = conv_geometry((1, 40960, 40960, 1), (127, 127, 1, 1))
    assert fourier.tiling("forward", larger).nbytes <= fourier.MOST_NBYTES
    many = conv_geometry((1, 512, 512, 256), (31, 31, 256, 256))
    found = fourier.tiling("forward", many)
    assert found is None or found.nbytes <= fourier.MOST_NBYTES


def test_transforms_are_part_of_a_program(transforms):
    model = fc.nn.Sequential(fc.nn.Conv(1, 2, 9, rng=0, activation="relu"), fc.nn.Flatten())
    x = np.random.default_rng(0).standard_normal((2, 30, 30, 1)).astype("f4")
    with fc.algorithm("fast"):
        want = model.infer(x)
    run = model.plan_inference(x.shape, algorithm="fast")
    np.testing.assert_array_equal(run(x), want)
    assert not np.array_equal(want, model.infer(x))


def test_nothing_is_compiled_or_loaded_unless_it_is_used():
    code = """
import numpy as np, fastconv as fc, sys
x, w = np.ones((2, 16, 16, 64), "f4"), np.ones((3, 3, 64, 64), "f4")
fc.conv(x, w)
from fastconv.engine import entries
print(any(name.startswith("minimal") for name in entries._others), "scipy.fft" in sys.modules)
fc.conv(x, w, algorithm="fast")
print(any(name.startswith("minimal") for name in entries._others))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False", "True"]
