"""Windows side by side as lanes, at every tail: channels first, and images of one channel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from strategies import integers

import fastconv as fc
from fastconv import reference
from fastconv.engine import pools
from fastconv.engine.tables import tiles
from fastconv.geometry.resolve import pool_geometry
from fastconv.plans import compiled

DTYPES = ("float16", "float32", "float64")
WIDTHS = range(1, 41)
IMAGES = 3


def geometries(stride, window):
    """Every width, with padding and without, cells apart and not: all four around whole vectors.

    Of other widths two of the four. There are 1 to 6 rows. Every width meets every dtype. With a
    width of 1, dilation and padding make windows without a cell.
    """
    for width, padded, dilation in itertools.product(WIDTHS, (False, True), (1, 2)):
        if min(width % 16, -width % 16) > 2 and (width + padded + dilation + stride) % 2:
            continue
        reach = (window - 1) * dilation + 1
        padding = reach // 2 if padded else 0
        height = max(1, reach - 2 * padding + (width % 6) * stride)
        if width + 2 * padding >= reach and height + 2 * padding >= reach:
            dtype = np.dtype(DTYPES[(width + 2 * padded + dilation + window) % 3])
            yield (height, width), dtype, {"padding": padding, "dilation": dilation}


def operand(rng, *shape, dtype):
    """Ties, zeros of both signs, infinities; NaN in the first image, whose rows go one by one."""
    x = integers(rng, *shape, dtype=dtype)
    x[rng.random(shape) < 0.1] = -0.0
    x[rng.random(shape) < 0.02] = -np.inf
    x[..., 0][rng.random(shape[:-1]) < 0.03] = np.nan
    return x


def same_bits(found, right, dtype):
    """Equal, in the sign of zero too."""
    assert found.dtype == dtype
    assert_array_equal(found, right)
    if dtype.kind == "f":
        assert_array_equal(np.signbit(found), np.signbit(right))


def in_both_formats(call, arrays, right, **options):
    """`call` on images of one channel, and on channels that come first.

    `arrays` and `right` are (1, H, W, images): images for `reference`, one by one.
    """
    planes = [np.ascontiguousarray(np.moveaxis(a, -1, 0)) for a in arrays]  # (images, 1, H, W)
    found = call(*(a.reshape(*a.shape[:1], *a.shape[2:], 1) for a in planes), **options)
    first = call(*(a.reshape(1, -1, *a.shape[2:]) for a in planes), **options,
                 data_format="channels_first")  # fmt: skip
    for results in (found, first):
        pairs = zip(results, right, strict=True) if type(right) is tuple else [(results, right)]
        for result, wanted in pairs:
            moved = np.moveaxis(wanted, -1, 0)
            same_bits(result.reshape(moved.shape), moved, wanted.dtype)


def shape_like(dy, size, data_format="channels_last"):
    """x's shape for a gradient of `in_both_formats`."""
    m, last = dy.shape[0], data_format == "channels_last"
    return (m, *size, dy.shape[-1]) if last else (m, dy.shape[1], *size)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_every_tail_is_the_naive_loops(stride, window):
    rng = np.random.default_rng(10 * stride + window)
    without_cells = 0
    for size, dtype, options in geometries(stride, window):
        options["stride"] = stride
        x = operand(rng, 1, *size, IMAGES, dtype=dtype)
        y, argmax = reference.max_pool(x, window, return_argmax=True, **options)
        without_cells += (argmax < 0).any()

        def both(x, **given):
            return fc.max_pool(x, window, return_argmax=True, **given)

        def backward(dy, argmax, size=size, **given):
            shape = shape_like(dy, size, given.get("data_format", "channels_last"))
            return fc.max_pool_backward(dy, argmax, shape, window, **given)

        in_both_formats(both, [x], (y, argmax), **options)
        in_both_formats(lambda x, **given: fc.max_pool(x, window, **given), [x], y, **options)
        dy = integers(rng, *y.shape, dtype=dtype)
        dx = reference.max_pool_backward(dy, argmax, x.shape, window, **options)
        in_both_formats(backward, [dy, argmax], dx, **options)
    assert (without_cells > 0) == (window in (2, 4))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_every_mean_is_the_naive_loops(stride, window):
    rng = np.random.default_rng(10 * stride + window)
    for number, (size, dtype, options) in enumerate(geometries(stride, window)):
        options |= {"stride": stride, "count_include_pad": number % 2 == 0}
        x = operand(rng, 1, *size, IMAGES, dtype=dtype)
        y = reference.avg_pool(x, window, **options)

        def backward(dy, size=size, **given):
            shape = shape_like(dy, size, given.get("data_format", "channels_last"))
            return fc.avg_pool_backward(dy, shape, window, **given)

        in_both_formats(lambda x, **given: fc.avg_pool(x, window, **given), [x], y, **options)
        dy = integers(rng, *y.shape, dtype=dtype)
        dx = reference.avg_pool_backward(dy, x.shape, window, **options)
        in_both_formats(backward, [dy], dx, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 3])
def test_lines_and_volumes(rank, dtype):
    """Of one row of windows, vectors are taken together."""
    rng = np.random.default_rng(rank)
    for width in (1, 2, 7, 64, 67, 131) if rank == 1 else (5, 18):
        x = operand(rng, 2, *(5,) * (rank - 1), width, 1, dtype=dtype)
        for window, options in ((2, {}), (3, {"stride": 2, "padding": 1}), (2, {"stride": 1})):
            if width + 2 * options.get("padding", 0) < window:
                continue
            y, argmax = fc.max_pool(x, window, return_argmax=True, **options)
            right = reference.max_pool(x, window, return_argmax=True, **options)
            same_bits(y, right[0], x.dtype)
            assert_array_equal(argmax, right[1])
            dx = fc.max_pool_backward(y, argmax, x.shape, window, **options)
            same_bits(dx, reference.max_pool_backward(y, *right[1:], x.shape, window, **options),
                      x.dtype)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [2, 9, 15, 33])
def test_nothing_is_written_beside_a_result(width, dtype):
    rng = np.random.default_rng(width)
    x = integers(rng, 3, 6, width, 1, dtype=dtype)
    y, argmax = fc.max_pool(x, 2, return_argmax=True)
    for call, result in (
        (lambda out: fc.max_pool(x, 2, out=out), y),
        (lambda out: fc.avg_pool(x, 2, out=out), y),
        (lambda out: fc.max_pool_backward(y, argmax, x.shape, 2, out=out), x),
        (lambda out: fc.avg_pool_backward(y, x.shape, 2, out=out), x),
    ):
        memory = np.full(result.size + 128, 77, dtype)
        call(memory[64:-64].reshape(result.shape))
        assert (memory[:64] == 77).all()
        assert (memory[-64:] == 77).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_winner_of_another_window_is_found_all_the_same(data_format, dtype):
    """As the naive loops have it; one outside the image is refused, and `out` untouched."""
    last = data_format == "channels_last"
    x_shape, shape = ((2, 4, 36, 3), (2, 2, 18, 3)) if last else ((2, 3, 4, 36), (2, 3, 2, 18))
    rng = np.random.default_rng(0)
    dy = integers(rng, *shape, dtype=dtype)
    argmax = rng.integers(0, 4 * 36, shape)
    found = fc.max_pool_backward(dy, argmax, x_shape, 2, data_format=data_format)
    right = reference.max_pool_backward(dy, argmax, x_shape, 2, data_format=data_format)
    assert_array_equal(found, right)
    argmax[-1, -1, -1, -1] = 4 * 36
    out = np.full(x_shape, 7, dtype)
    with pytest.raises(ValueError, match="argmax holds"):
        fc.max_pool_backward(dy, argmax, x_shape, 2, data_format=data_format, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("channels", [2, 3, 5, 7, 15])
def test_few_channels_at_stride_one_are_one_line(channels):
    """An image of one channel, that many times as wide; the winners' places need its pixels."""
    rng = np.random.default_rng(channels)
    for width, window, dilation, padded in itertools.product((2, 7, 12), (2, 3), (1, 2), (0, 1)):
        padding = padded * ((window - 1) * dilation + 1) // 2
        options = {"stride": (2, 1), "padding": padding, "dilation": dilation}
        if width + 2 * padding < (window - 1) * dilation + 1:
            continue
        x = operand(rng, 2, 7, width, channels, dtype=np.dtype("float32"))
        same_bits(fc.max_pool(x, window, **options), reference.max_pool(x, window, **options),
                  x.dtype)  # fmt: skip
        for options["count_include_pad"] in (False, True):
            y = fc.avg_pool(x, window, **options)
            same_bits(y, reference.avg_pool(x, window, **options), x.dtype)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_blocks_change_nothing(threads, monkeypatch):
    monkeypatch.setattr(pools, "GRAIN", 1)
    x = integers(np.random.default_rng(0), 5, 3, 11, 23, dtype="float32")
    options = {"stride": 2, "padding": 1, "data_format": "channels_first"}
    right = reference.max_pool(x, 3, return_argmax=True, **options)
    with fc.num_threads(threads):
        y, argmax = fc.max_pool(x, 3, return_argmax=True, **options)
        mean = fc.avg_pool(x, 3, **options)
    assert_array_equal(y, right[0])
    assert_array_equal(argmax, right[1])
    assert_array_equal(mean, reference.avg_pool(x, 3, **options))


def test_what_takes_windows_side_by_side():
    """One channel and a stride of 1 or 2; errors only where windows are pairs of cells."""

    def plan(shape, window, dtype="float32", **options):
        return compiled.pools(pool_geometry(shape, window, **options), np.dtype(dtype), False)

    assert [plan((4, 9, 9, 1), 3, stride=s).spacing for s in (1, 2, 3)] == [1, 2, 0]
    assert plan((4, 9, 9, 2), 2).spacing == 0
    assert plan((4, 9, 9, 1), 2).pairs
    assert not plan((4, 9, 9, 1), 3, stride=2).pairs
    assert not plan((4, 9, 9, 1), 2, dilation=2, stride=2).pairs
    assert plan((4, 9, 9, 1), 2, "float16").most == tiles.cpu_lanes(np.dtype("float32"))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_float16_is_the_same_with_conversion_and_without(data_format, monkeypatch):
    """A processor that cannot convert float16 takes a copy in float32."""
    from fastconv.plans import pool

    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 9, 14)) * 10.0 ** rng.integers(-7, 5, (2, 5, 9, 14))
    x = x.astype("float16")
    x[0, 0, 0, :3] = np.nan, np.inf, 6e-8
    results = []
    for halves in (True, False):
        monkeypatch.setattr(pool, "halves", lambda halves=halves: halves)
        for window, options in ((2, {}), (3, {"stride": 2, "padding": 1})):
            options["data_format"] = data_format
            y, argmax = fc.max_pool(x, window, return_argmax=True, **options)
            dx = fc.max_pool_backward(y, argmax, x.shape, window, **options)
            mean = fc.avg_pool(x, window, **options)
            share = fc.avg_pool_backward(mean, x.shape, window, **options)
            results.append([a.view(f"i{a.itemsize}") for a in (y, argmax, dx, mean, share)])
    for mine, others in zip(results[:2], results[2:], strict=True):
        for a, b in zip(mine, others, strict=True):
            assert_array_equal(a, b)
