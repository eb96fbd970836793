"""The engine against sums over taps, exactly: integers small enough that no sum is rounded."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastconv as fc
from fastconv import conv_backward, reference
from fastconv.engine import words as slots
from fastconv.engine.emit.kinds import TWIN
from fastconv.engine.tables.tiles import dense_tile, depthwise_tile
from fastconv.geometry import Geometry
from fastconv.geometry.resolve import conv_geometry, transpose_geometry
from fastconv.plans.compiled import new_products
from fastconv.threads import num_threads

F4, F8 = np.dtype("float32"), np.dtype("float64")


def integers(rng, *shape, dtype=F4):
    return rng.integers(-4, 5, shape).astype(dtype)


def taps_of(g: Geometry):
    """For every tap: its index, and on each axis the (output pixel, input cell) pairs inside."""
    for tap in itertools.product(*(range(k) for k in g.window)):
        pairs = []
        for u, (n, _, s, d, lo, o) in zip(tap, g.axes, strict=True):
            out = np.arange(o)
            cell = out * s + u * d - lo
            inside = (cell >= 0) & (cell < n)
            pairs.append((out[inside], cell[inside]))
        outs = np.ix_(range(g.m), *(p[0] for p in pairs))
        cells = np.ix_(range(g.m), *(p[1] for p in pairs))
        yield tap, outs, cells


def oracle(g: Geometry, x, w, dy):
    """The three products in float64, tap by tap and group by group."""
    y, dx, dw = np.zeros(g.y_shape), np.zeros(g.x_shape), np.zeros(g.w_shape)
    c, f = g.C // g.G, g.F // g.G
    for tap, outs, cells in taps_of(g):
        for k in range(g.G):
            cs, fs = slice(k * c, k * c + c), slice(k * f, k * f + f)
            seen = x[cells][..., cs].astype(float)
            error = dy[outs][..., fs].astype(float)
            kernel = w[tap][:, fs].astype(float)
            y[(*outs, fs)] += seen @ kernel
            dx[(*cells, cs)] += error @ kernel.T
            dw[tap][:, fs] += seen.reshape(-1, c).T @ error.reshape(-1, f)
    return y, dx, dw


def run(plan, x, w, dy, b=None, relu=False, dtype=None):
    """The three products by the engine, into arrays full of NaN."""
    g = plan.g
    y, dx, dw = (np.full(s, np.nan, dtype or plan.dtype) for s in (g.y_shape, g.x_shape, g.w_shape))
    plan.forward(x, w, b, relu, y)
    plan.input_grad(dy, w, None, False, dx)
    plan.kernel_grad(x, dy, dw)
    return y, dx, dw


def check(g: Geometry, dtype=F4, seed=0):
    rng = np.random.default_rng(seed)
    x, w, dy = (integers(rng, *s, dtype=dtype) for s in (g.x_shape, g.w_shape, g.y_shape))
    b = integers(rng, g.F, dtype=dtype)
    before = [a.copy() for a in (x, w, dy, b)]
    y, dx, dw = run(new_products(g, dtype), x, w, dy, b)
    wanted = oracle(g, x, w, dy)
    for name, got, want in zip(("y", "dx", "dw"), (y - b, dx, dw), wanted, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=f"{name} of {g}")
    for a, old in zip((x, w, dy, b), before, strict=True):
        np.testing.assert_array_equal(a, old)


def random_geometry(rng) -> Geometry:
    rank = int(rng.integers(1, 4))
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    c, f = groups * int(rng.integers(1, 6)), groups * int(rng.integers(1, 6))
    if rng.random() < 0.2:
        groups, f = c, c
    window = [int(rng.integers(1, 5 if rank < 3 else 3)) for _ in range(rank)]
    stride = [int(rng.integers(1, 4)) for _ in range(rank)]
    dilation = [int(rng.integers(1, 3)) for _ in range(rank)]
    size = [int(rng.integers(1, 12 if rank < 3 else 7)) for _ in range(rank)]
    pads = [[int(p) for p in rng.integers(0, 4, 2)] for _ in range(rank)]
    for i in range(rank):
        lack = (window[i] - 1) * dilation[i] + 1 - size[i] - sum(pads[i])
        pads[i][1] += max(0, lack)
    return conv_geometry(
        (int(rng.integers(1, 4)), *size, c), (*window, c // groups, f), stride=tuple(stride),
        padding=tuple(map(tuple, pads)), dilation=tuple(dilation), groups=groups,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(120))
def test_random_geometries(seed):
    rng = np.random.default_rng(seed)
    check(random_geometry(rng), (F4, F8)[seed % 2], seed)


@pytest.mark.parametrize("seed", range(25))
def test_transposed_geometries_have_cells_that_no_window_reaches(seed):
    rng = np.random.default_rng(seed)
    s, k = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    g = transpose_geometry(
        (2, int(rng.integers(1, 6)), 3, 2), (k, 2, 3, 2), stride=(s, 2), padding=0,
        output_padding=(s - 1, 1),
    )  # fmt: skip
    check(g, seed=seed)


TAILS = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 19, 20, 21, 23, 24, 25, 27, 28, 29, 31, 32, 33, 65)


@pytest.mark.parametrize("channels", TAILS)
def test_channel_tails(channels):
    check(conv_geometry((2, 4, 5, channels), (3, 3, channels, 5), padding=1))
    check(conv_geometry((2, 4, 5, 3), (3, 2, 3, channels), padding=1, stride=2))
    check(conv_geometry((1, 4, 4, channels), (3, 3, 1, channels), padding=1, groups=channels))
    check(conv_geometry((1, 5, 4, channels), (1, 1, channels, channels), stride=2), F8)


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("channels", range(1, 10))
def test_few_channels(channels, dtype):
    """Pairs of the reduction, and twin rows, with and without a row of no element."""
    for filters in range(1, 10):
        check(conv_geometry((9, 5, 6, channels), (3, 3, channels, filters), padding=1), dtype)
        check(conv_geometry((9, 9, 7, channels), (2, 3, channels, filters), stride=2), dtype)
        g = conv_geometry((9, 9, 7, 2 * channels), (3, 2, channels, 2 * filters), groups=2)
        check(g, dtype)


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("width", [*range(1, 20), 31, 32, 33, 63, 64, 65, 130])
def test_one_channel_and_one_filter(width, dtype):
    """Neighbours along a row are the columns: every length of a row, whole and with a rest."""
    for k, pads in ((1, (0, 0)), (3, (1, 1)), (2, (3, 0)), (4, (0, 5))):
        if width + sum(pads) >= k:
            g = conv_geometry((3, 4, width, 1), (2, k, 1, 1), padding=((0, 1), pads))
            check(g, dtype)
            assert new_products(g, dtype).product("forward").choice.in_rows == (g.y_size[1] > 1)
    check(conv_geometry((2, 2, width + 4, 1), (2, 3, 1, 1), dilation=(1, 2)), dtype)
    check(conv_geometry((2, 5, width + 2, 1), (2, 3, 1, 1), stride=(2, 1), padding=1), dtype)
    check(conv_geometry((2, 3, 3, width + 2, 1), (2, 2, 3, 1, 1)), dtype)
    # sums in several blocks: the rest of a row is read back, and no more than that
    check(conv_geometry((2, 20, width, 1), (25, 25, 1, 1), padding=12), dtype)


def test_rows_of_one_channel_go_to_any_layout():
    """Boxes that cut long rows, results that do not follow each other, float16, relu and bias."""
    rng = np.random.default_rng(0)
    for shape in ((1, 3, 5000, 1), (9, 30, 21, 1)):
        x = integers(rng, *shape)
        w, b = integers(rng, 3, 3, 1, 1), np.array([-5], F4)
        want = np.maximum(oracle(conv_geometry(shape, w.shape, padding=1), x, w, x)[0] + b, 0)
        for dtype in ("float32", "float16", "float64"):
            out = np.full((*shape[:2], 2 * shape[2], 1), np.nan, dtype)
            for target in (out[:, :, ::2], out[:, ::-1, : shape[2]]):
                given = [a.astype(dtype) for a in (x, w, b)]
                fc.conv(*given, padding=1, activation="relu", out=target)
                np.testing.assert_array_equal(target, want)


LARGE_KERNELS = [
    conv_geometry((2, 7, 7, 512), (3, 3, 512, 512), padding=1),
    conv_geometry((2, 14, 14, 256), (3, 3, 256, 256), stride=2, padding=1),
    conv_geometry((3, 8, 8, 1024), (1, 1, 1024, 600), stride=2),
    conv_geometry((2, 5, 5, 320), (5, 5, 320, 300), padding=2),
    conv_geometry((1, 6, 6, 272), (3, 3, 272, 530)),
    conv_geometry((2, 6, 6, 500), (3, 3, 500, 300), padding=1),
]


@pytest.mark.parametrize("g", LARGE_KERNELS, ids=str)
def test_gradients_of_large_kernels(g):
    """Their rows are computed in groups, for which only some channels are gathered."""
    product = new_products(g, F4).product("kernel_grad")
    assert (product.choice.row_groups > 1) == (g.C % 16 == 0)
    rng = np.random.default_rng(0)
    x, dy = integers(rng, *g.x_shape), integers(rng, *g.y_shape)
    dw = np.full(g.w_shape, np.nan, F4)
    with num_threads(2):
        new_products(g, F4).kernel_grad(x, dy, dw)
    low, high = np.moveaxis(g.pads, -1, 0)
    padded = np.pad(x, [(0, 0), *zip(low, high, strict=True), (0, 0)])
    flat = dy.reshape(-1, g.F).astype(float)
    for u, v in np.ndindex(g.window):
        ends = [a + (o - 1) * s + 1 for a, o, s in zip((u, v), g.y_size, g.stride, strict=True)]
        cells = padded[:, u : ends[0] : g.stride[0], v : ends[1] : g.stride[1]]
        np.testing.assert_array_equal(dw[u, v], cells.reshape(-1, g.C).astype(float).T @ flat)


def test_twin_rows_lie_side_by_side():
    """27 rows of 9 taps x 3 channels: four twins and a single row of each of three kernel rows."""
    product = new_products(conv_geometry((32, 9, 9, 3), (3, 3, 3, 8)), F4).product("kernel_grad")
    assert product.choice.tile.kind is TWIN
    rows = product.prepared(False, True).table
    phase = np.ctypeslib.as_array(
        (ctypes.c_int64 * slots.PHASE_WORDS).from_address(int(rows.words[slots.PHASE_TABLE]))
    )
    assert phase[slots.PHASE_K] == 30
    assert not product.choice.x_in_place, "the second element of the last single row may not exist"
    even = new_products(conv_geometry((32, 9, 9, 4), (3, 3, 4, 8)), F4).product("kernel_grad")
    assert even.choice.x_in_place


def with_nan(rng, *shape, dtype=F4):
    x = integers(rng, *shape, dtype=dtype)
    x[rng.random(shape) < 0.05] = np.nan
    return x


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 33])
@pytest.mark.parametrize("dtype", [F4, F8])
def test_pooling_channel_tails(channels, dtype):
    """Ties, NaN and errors in every lane, every tail, and every rest of a run of pixels."""
    rng = np.random.default_rng(channels)
    for width in (3, 6, 8, 13):
        for window, options in ((2, {}), (3, {"stride": 2, "padding": 1}), ((5, 4), {"stride": 1})):
            x = with_nan(rng, 2, 6, width + 3, channels, dtype=dtype)
            y, argmax = fc.max_pool(x, window, return_argmax=True, **options)
            expected = reference.max_pool(x, window, return_argmax=True, **options)
            np.testing.assert_array_equal(y, expected[0])
            np.testing.assert_array_equal(argmax, expected[1])
            np.testing.assert_array_equal(fc.max_pool(x, window, **options), y)
            dy = integers(rng, *y.shape, dtype=dtype)
            for name, args in (("max_pool", (dy, argmax)), ("avg_pool", (dy,))):
                got, want = (
                    getattr(module, f"{name}_backward")(*args, x.shape, window, **options)
                    for module in (fc, reference)
                )
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(
                fc.avg_pool(dy, (1, 2), **{**options, "padding": 0}),
                reference.avg_pool(dy, (1, 2), **{**options, "padding": 0}),
            )


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("columns", [3, 11, 16, 24])
def test_tile_edges(columns, dtype):
    tile = dense_tile(4096, columns, dtype)
    for rows in range(1, 2 * tile.rows + 1):
        for f in (columns, min(columns + 1, 2 * tile.columns)):
            check(conv_geometry((1, rows, 2), (2, 2, f), padding=1), dtype)
    rows = depthwise_tile(columns, dtype).rows
    for n in range(1, 2 * rows + 1):
        check(conv_geometry((1, n, columns), (2, 1, columns), padding=1, groups=columns), dtype)


@pytest.mark.parametrize("size", range(1, 18))
def test_every_output_width(size):
    check(conv_geometry((3, 2, size, 3), (2, 3, 3, 6), padding=(1, 2)))
    check(conv_geometry((1, 3, size + 2, 2), (3, 3, 2, 17), dilation=1))


def test_large_reductions_and_many_boxes():
    check(conv_geometry((2, 9, 9, 130), (3, 3, 130, 70), padding=1))
    check(conv_geometry((40, 14, 14, 8), (3, 3, 8, 16), padding=1, stride=2))
    check(conv_geometry((1, 70, 300, 12), (3, 3, 12, 4), padding=1))
    check(conv_geometry((1, 3, 3000, 40), (3, 3, 40, 4), padding=1))
    check(conv_geometry((1, 4, 4, 300), (3, 3, 300, 300), padding=1))
    check(conv_geometry((2, 20, 20, 70), (3, 3, 1, 70), padding=1, groups=70))
    check(conv_geometry((2, 5, 6, 64), (3, 3, 32, 64), padding=1, groups=2))


def test_stride_far_larger_than_the_window():
    check(conv_geometry((1, 2003, 2), (1, 2, 3), stride=1000))
    check(conv_geometry((1, 2003, 2), (3, 2, 3), stride=1000, padding=2))


def layouts(a):
    """The same values as arrays that cannot be read as they lie."""
    yield "fortran", np.asfortranarray(a)
    yield "channels_first", np.moveaxis(np.moveaxis(a, -1, 1).copy(), 1, -1)
    yield "reversed", a[::-1, ..., ::-1].copy()[::-1, ..., ::-1]
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1] + 1), np.nan, a.dtype)
    wide[..., 1::2] = a
    yield "every_other", wide[..., 1::2]
    room = np.zeros(a.nbytes + 1, np.uint8)
    unaligned = room[1:].view(a.dtype).reshape(a.shape)
    unaligned[...] = a
    unaligned.flags.writeable = False
    yield "unaligned_read_only", unaligned
    yield "swapped", a.astype(a.dtype.newbyteorder())


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("kind", ["dense", "pointwise", "strided", "depthwise"])
def test_layouts_give_the_bits_of_a_contiguous_copy(kind, dtype):
    g = {
        "dense": conv_geometry((3, 6, 7, 5), (3, 3, 5, 19), padding=1),
        "pointwise": conv_geometry((3, 6, 7, 16), (1, 1, 16, 16)),
        "strided": conv_geometry((3, 6, 7, 16), (3, 3, 8, 16), stride=2, groups=2),
        "depthwise": conv_geometry((3, 6, 7, 16), (3, 3, 1, 16), padding=1, groups=16),
    }[kind]
    rng = np.random.default_rng(1)
    x, w, dy = (rng.standard_normal(s).astype(dtype) for s in (g.x_shape, g.w_shape, g.y_shape))
    b = rng.standard_normal(g.F).astype(dtype)
    plan = new_products(g, dtype)
    wanted = run(plan, x, w, dy, b)
    for (name, x2), (_, w2), (_, dy2) in zip(layouts(x), layouts(w), layouts(dy), strict=True):
        for got, want in zip(run(plan, x2, w2, dy2, b), wanted, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=name)
    broadcast = np.broadcast_to(x[:1], x.shape)
    for got, want in zip(run(plan, broadcast, w, dy, b), run(plan, broadcast.copy(), w, dy, b),
                         strict=True):  # fmt: skip
        np.testing.assert_array_equal(got, want)
    outs = [np.full(a.shape, np.nan, dtype) for a in wanted]
    for (name, y), (_, dx), (_, dw) in zip(*map(layouts, outs), strict=True):
        if name in ("unaligned_read_only", "swapped"):
            continue
        for target in (y, dx, dw):
            target[...] = np.nan
        plan.forward(x, w, b, False, y)
        plan.input_grad(dy, w, None, False, dx)
        plan.kernel_grad(x, dy, dw)
        for got, want in zip((y, dx, dw), wanted, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=name)


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 3), (2, 3)])
def test_axes_of_length_1_may_have_any_stride(size, stride, dtype):
    g = conv_geometry((2, 2, size, 2), (2, 1, 2, 4), stride=(stride, 1), padding="same")
    rng = np.random.default_rng(0)
    x, w, dy = (integers(rng, *s, dtype=dtype) for s in (g.x_shape, g.w_shape, g.y_shape))
    wanted = run(new_products(g, dtype), x, w, dy)

    def odd(a):
        strides = [8 if n == 1 else s for n, s in zip(a.shape, a.strides, strict=True)]
        return np.lib.stride_tricks.as_strided(a, a.shape, strides)

    got = run(new_products(g, dtype), odd(x), odd(w), odd(dy))
    for a, b, c in zip(got, wanted, oracle(g, x, w, dy), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("swapped", [False, True])
def test_float16_is_computed_in_float32(swapped):
    g = conv_geometry((2, 5, 6, 4), (3, 3, 4, 6), padding=1, stride=2)
    rng = np.random.default_rng(2)
    halves = [rng.standard_normal(s).astype("f2") for s in (g.x_shape, g.w_shape, g.y_shape)]
    halves[0].flat[:6] = [np.inf, -np.inf, 6e-8, -3e-5, 0.0, 65504]
    plan = new_products(g, F4)
    with np.errstate(all="ignore"):
        wanted = [a.astype("f2") for a in run(plan, *(a.astype(F4) for a in halves))]
        if swapped:
            halves = [a.astype(">f2") for a in halves]
        got = run(plan, *halves, dtype=np.dtype("f2"))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_float16_survives_both_conversions():
    bits = np.arange(65536, dtype=np.uint16)
    x = bits.view("f2").reshape(16, 4096, 1)
    g = conv_geometry(x.shape, (1, 1, 1))
    y = np.zeros(g.y_shape, "f2")
    new_products(g, F4).forward(x, np.ones((1, 1, 1), "f2"), None, False, y)
    np.testing.assert_array_equal(y, x)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 60000, dtype=np.uint32).view(F4)
    values[:30000] = rng.standard_normal(30000) * 10.0 ** rng.integers(-9, 6, 30000)
    g = conv_geometry((1, values.size, 1), (1, 1, 1))
    y = np.zeros(g.y_shape, "f2")
    new_products(g, F4).forward(values.reshape(g.x_shape), np.ones((1, 1, 1), F4), None, False, y)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(y.ravel(), values.astype("f2"))


@pytest.mark.parametrize("F", [1, 2, 3, 4, 7, 8, 12, 13, 16, 33, 2049])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_sums_of_the_bias(F, dtype, monkeypatch):
    """Every tail of channels and pixels, in blocks and whole, at any thread count and layout."""
    from fastconv.engine import deltas as delta

    monkeypatch.setattr(delta, "GRAIN", 1)
    rng = np.random.default_rng(F)
    for m, size in ((3, (5,)), (2, (37, 3)), (1, (9, 8, 7)), (5, (1, 1))):
        dy = rng.integers(-4, 5, (m, *size, F)).astype(dtype)
        w, x = np.zeros((1,) * len(size) + (1, F), dtype), np.zeros((m, *size, 1), dtype)
        for n in (1, 2, 3):
            with num_threads(n):
                db = conv_backward(dy, x, w, need=("b",)).db
                np.testing.assert_array_equal(db, dy.sum(tuple(range(dy.ndim - 1)), dtype))
                reals = (dy + 0.1).astype(dtype)
                bits = conv_backward(reals, x, w, need=("b",)).db
                planes = np.ascontiguousarray(np.moveaxis(reals, -1, 1))
                for other in (np.asfortranarray(reals), np.moveaxis(planes, 1, -1)):
                    np.testing.assert_array_equal(
                        conv_backward(other, x, w, need=("b",)).db, bits, strict=True
                    )


BITWISE = [
    conv_geometry((7, 9, 9, 6), (3, 3, 6, 20), padding=1),
    conv_geometry((7, 12, 12, 40), (3, 3, 40, 33), padding=1, stride=2),
    conv_geometry((5, 30, 30, 24), (3, 3, 1, 24), padding=1, groups=24),
    conv_geometry((16, 12, 12, 64), (3, 3, 64, 64)),
]


@pytest.mark.parametrize("g", BITWISE, ids=str)
def test_threads_do_not_change_a_bit(g, monkeypatch):
    monkeypatch.setattr("fastconv.engine.products.GRAIN", 1)
    rng = np.random.default_rng(3)
    x, w, dy = (rng.standard_normal(s).astype(F4) for s in (g.x_shape, g.w_shape, g.y_shape))
    results = []
    for n in (1, 2, 3, 7):
        with num_threads(n):
            results.append(run(new_products(g, F4), x, w, dy))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("g", BITWISE, ids=str)
def test_slices_of_the_batch_give_the_same_bits(g):
    rng = np.random.default_rng(4)
    x, w, dy = (rng.standard_normal(s).astype(F4) for s in (g.x_shape, g.w_shape, g.y_shape))
    y, dx, _ = run(new_products(g, F4), x, w, dy)
    one = new_products(dataclasses.replace(g, m=1), F4)
    for i in range(g.m):
        y1, dx1, _ = run(one, x[i : i + 1], w, dy[i : i + 1])
        np.testing.assert_array_equal(y[i], y1[0])
        np.testing.assert_array_equal(dx[i], dx1[0])


def test_eight_python_threads_may_call_one_plan():
    g = conv_geometry((6, 14, 14, 24), (3, 3, 24, 32), padding=1)
    rng = np.random.default_rng(6)
    x, w, dy = (rng.standard_normal(s).astype(F4) for s in (g.x_shape, g.w_shape, g.y_shape))
    plan = new_products(g, F4)
    wanted = run(plan, x, w, dy)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: run(plan, x, w, dy), range(32)):
            for got, want in zip(result, wanted, strict=True):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [F4, F8])
def test_errors_stay_below_the_bound(dtype):
    g = conv_geometry((2, 6, 6, 200), (3, 3, 200, 24), padding=1)
    rng = np.random.default_rng(7)
    x, w, dy = (rng.standard_normal(s).astype(dtype) for s in (g.x_shape, g.w_shape, g.y_shape))
    results = run(new_products(g, dtype), x, w, dy)
    for got, want, size in zip(
        results, oracle(g, x, w, dy), oracle(g, abs(x), abs(w), abs(dy)), strict=True
    ):
        assert (abs(got - want) <= 16 * np.finfo(dtype).eps * size).all()


def test_relu_bias_and_nan():
    g = conv_geometry((2, 6, 6, 3), (3, 3, 3, 10), padding=1)
    rng = np.random.default_rng(5)
    x, w, dy = (integers(rng, *s) for s in (g.x_shape, g.w_shape, g.y_shape))
    b, c = integers(rng, g.F), integers(rng, g.C)
    plan = new_products(g, F4)
    plain, _, _ = oracle(g, x, w, dy)
    y = np.full(g.y_shape, np.nan, F4)
    plan.forward(x, w, b, True, y)
    np.testing.assert_array_equal(y, np.maximum(plain + b, 0))
    dx = np.full(g.x_shape, np.nan, F4)
    plan.input_grad(dy, w, c, True, dx)
    np.testing.assert_array_equal(dx, np.maximum(oracle(g, x, w, dy)[1] + c, 0))
    x[0, 2, 3, 1] = np.nan
    plan.forward(x, w, b, True, y)
    hit = np.zeros(g.y_shape, bool)
    hit[0, 1:4, 2:5] = True
    np.testing.assert_array_equal(np.isnan(y), hit)


@pytest.mark.parametrize("columns", [8, 40])
def test_relu_comes_after_the_last_block_of_a_long_sum(columns):
    """1170 terms are summed in blocks, of which some are negative and the whole is not."""
    g = conv_geometry((2, 4, 5, 130), (3, 3, 130, columns), padding=1)
    rng = np.random.default_rng(8)
    x, w, dy, b = (integers(rng, *s) for s in (g.x_shape, g.w_shape, g.y_shape, (columns,)))
    plan = new_products(g, F4)
    blocks = len(plan.product("forward").choice.cuts(tuple(range(g.T)))) - 1
    assert blocks > 1
    y = np.full(g.y_shape, np.nan, F4)
    plan.forward(x, w, b, True, y)
    np.testing.assert_array_equal(y, np.maximum(oracle(g, x, w, dy)[0] + b, 0))


def test_empty_batch():
    g = conv_geometry((0, 6, 6, 3), (3, 3, 3, 10))
    x, w, dy = (np.ones(s, F4) for s in (g.x_shape, g.w_shape, g.y_shape))
    _, _, dw = run(new_products(g, F4), x, w, dy)
    np.testing.assert_array_equal(dw, np.zeros(g.w_shape))


def test_workspace_is_bounded_whatever_the_batch():
    for m in (1, 64, 4096):
        for size, c, f, k in [(56, 64, 64, 3), (7, 512, 512, 3), (7, 2048, 512, 1), (200, 3, 8, 5)]:
            g = conv_geometry((m, size, size, c), (k, k, c, f), padding=k // 2)
            with num_threads(2):
                packed = 6 * 4 * k * k * c * -(-f // 24) * 24
                assert new_products(g, F4).workspace_nbytes <= 2 * 4 * 2**20 + packed


GUARDED = """
import ctypes, mmap, sys
import numpy as np
from fastconv import conv_backward
from fastconv.geometry.resolve import conv_geometry
from fastconv.plans.compiled import new_products

libc = ctypes.CDLL(None, use_errno=True)
page = mmap.PAGESIZE

def guarded(shape, dtype, end, values=None):
    '''An array that touches an unreadable page at its start or at its end.'''
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = -(-nbytes // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for at in (address, address + page + room):
        assert libc.mprotect(ctypes.c_void_p(at), page, 0) == 0
    offset = page + (room - nbytes if end else 0)
    a = np.frombuffer(memory, dtype, nbytes // np.dtype(dtype).itemsize, offset).reshape(shape)
    a[...] = np.nan if values is None else values
    keep.append(memory)
    return a

keep = []
rng = np.random.default_rng(0)
plain = lambda *s: rng.integers(-3, 4, s).astype(dtype)
problems = [
    conv_geometry((2, 5, w_size, c), (k, k, c // groups, f), padding=pad, stride=stride,
                  groups=groups)
    for c, f, groups in [(1, 1, 1), (3, 5, 1), (6, 17, 1), (9, 9, 9), (8, 8, 8), (16, 16, 1),
                         (4, 33, 1), (13, 24, 1), (8, 6, 2)]
    for k, pad, stride in [(1, 0, 1), (3, 0, 1), (3, 1, 1), (3, 1, 2), (1, 0, 2)]
    for w_size in (3, 7, 10)
]
# pixels enough for the rows by twos of the kernel gradient
problems += [conv_geometry((32, 9, 9, c), (3, 3, c, f)) for c in (1, 2, 3, 4, 5) for f in (1, 3, 8)]
# rows of one channel, read in place where a vector ends where they do
problems += [conv_geometry((2, 3, w, 1), (k, k, 1, 1)) for k in (1, 3) for w in (4, 8, 10, 18, 34)]
for dtype in ("f4", "f8"):
    for g in problems:
        x, w, dy, b = plain(*g.x_shape), plain(*g.w_shape), plain(*g.y_shape), plain(g.F)
        want = [np.empty(s, dtype) for s in (g.y_shape, g.x_shape, g.w_shape)]
        plan = new_products(g, np.dtype(dtype))
        plan.forward(x, w, b, False, want[0])
        plan.input_grad(dy, w, None, False, want[1])
        plan.kernel_grad(x, dy, want[2])
        for end in (False, True):
            gx, gw, gdy, gb = (guarded(a.shape, dtype, end, a) for a in (x, w, dy, b))
            y, dx, dw = (guarded(a.shape, dtype, end) for a in want)
            plan.forward(gx, gw, gb, False, y)
            plan.input_grad(gdy, gw, None, False, dx)
            plan.kernel_grad(gx, gdy, dw)
            for got, wanted in zip((y, dx, dw), want):
                np.testing.assert_array_equal(got, wanted)
print("ok")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect by libc")
def test_arrays_between_unreadable_pages():
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["ok"]
