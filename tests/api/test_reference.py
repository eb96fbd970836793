"""The naive loops against things that are not the naive loops."""

import ast
import inspect
import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from numpy.testing import assert_array_equal
from strategies import integers

import fastconv as fc
from fastconv import reference as ref
from fastconv.testing import assert_adjoint, gradcheck

CL, CF = "channels_last", "channels_first"

# x_shape, w_shape, options: every rank, padding form and option, alone and together.
CONVS = [
    ((2, 7, 3), (3, 3, 4), {}),
    ((2, 9, 2), (3, 2, 2), {"stride": 2, "dilation": 2, "padding": ((3, 1),)}),
    ((1, 5, 6, 2), (3, 2, 2, 3), {}),
    ((2, 5, 6, 2), (3, 3, 2, 3), {"padding": "same"}),
    ((2, 7, 5, 2), (2, 4, 2, 3), {"padding": "same", "stride": (3, 2)}),
    ((1, 4, 4, 1), (3, 2, 1, 2), {"padding": "full"}),
    ((1, 6, 7, 4), (2, 3, 2, 6), {"groups": 2, "padding": ((2, 0), (1, 3))}),
    ((2, 6, 6, 3), (3, 3, 1, 6), {"groups": 3, "stride": 2, "padding": 1}),
    ((1, 8, 9, 2), (2, 3, 1, 2), {"groups": 2, "dilation": (3, 2), "stride": (1, 3)}),
    ((1, 2, 2, 1), (1, 1, 1, 1), {"stride": 5, "padding": (4, 0)}),
    ((1, 4, 3, 4, 2), (2, 2, 3, 2, 2), {"padding": (0, 1, 1), "stride": (2, 1, 1)}),
    ((0, 5, 5, 2), (3, 3, 2, 3), {}),
]


def operands(x_shape, w_shape, options):
    """(x, w, b, dy) of small integers."""
    x, w, b = integers(1, *x_shape), integers(2, *w_shape), integers(3, *w_shape[-1:])
    return x, w, b, integers(4, *ref.conv(x, w, **options).shape)


# ---- the package around it


def test_imports_only_numpy_and_the_standard_library():
    tree = ast.parse(Path(ref.__file__).read_text(encoding="utf-8"))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    expected = {"__future__", "collections.abc", "numpy", "numpy.typing", "operator", "typing"}
    assert names == expected


@pytest.mark.parametrize("name", [n for n in ref.__all__ if n != "ConvGrads"])
def test_signature_is_that_of_the_fast_function(name):
    def parameters(function):
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.kind, p.default) for p in found]

    assert parameters(getattr(ref, name)) == parameters(getattr(fc, name))


# ---- convolution: by hand, by SciPy, by its own definition


def test_conv_by_hand():
    x = np.array([[1, 2, 0], [0, 1, 3], [4, 0, 1]], float)[None, :, :, None]
    w = np.array([[1, -1], [2, 0]], float)[:, :, None, None]
    # 1-2+2*0, 2-0+2*1; 0-1+2*4, 1-3+2*0
    assert_array_equal(ref.conv(x, w)[0, :, :, 0], [[-1, 4], [7, -2]])
    y = ref.conv(x, w, np.array([1.0]), activation="relu")
    assert_array_equal(y[0, :, :, 0], [[0, 5], [8, 0]])


def test_backward_by_hand():
    x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    w = np.array([10.0, 20.0]).reshape(2, 1, 1)
    dy = np.array([1.0, -1.0]).reshape(1, 2, 1)
    dx, dw, db = ref.conv_backward(dy, x, w, stride=2)
    assert_array_equal(dx.ravel(), [10, 20, -10, -20])
    assert_array_equal(dw.ravel(), [1 - 3, 2 - 4])
    assert_array_equal(db, [0])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same", "full"])
def test_conv_and_gradients_are_scipys(rank, padding):
    """SciPy's "same" is centred like TensorFlow's where the kernel is odd."""
    x, w = integers(1, 2, *(5, 6, 4)[:rank], 2), integers(2, *(3, 1, 3)[:rank], 2, 3)
    y = ref.conv(x, w, padding=padding)
    dy = integers(3, *y.shape)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    expected = np.zeros_like(y)
    pads = [{"valid": 0, "same": k // 2, "full": k - 1}[padding] for k in w.shape[:-2]]
    inner = tuple(slice(p, p + n) for p, n in zip(pads, x.shape[1:-1], strict=True))
    for n, c, f in itertools.product(range(2), range(2), range(3)):
        image, taps, error = x[n, ..., c], w[..., c, f], dy[n, ..., f]
        expected[n, ..., f] += scipy.signal.correlate(image, taps, padding, "direct")
        dx[n, ..., c] += scipy.signal.convolve(error, taps, "full", "direct")[inner]
        padded = np.pad(image, [(p, p) for p in pads])
        dw[..., c, f] += scipy.signal.correlate(padded, error, "valid", "direct")
    assert_array_equal(y, expected)
    assert_array_equal(ref.conv_input_grad(dy, w, x.shape, padding=padding), dx)
    assert_array_equal(ref.conv_kernel_grad(x, dy, w.shape, padding=padding), dw)


def test_output_size_by_its_definition():
    """As many windows as fit: O windows do, O + 1 do not."""
    sizes = range(1, 8), range(1, 5), range(1, 4), range(1, 3), range(3), range(3)
    seen = set()
    for n, k, s, d, lo, hi in itertools.product(*sizes):
        options = {"stride": s, "dilation": d, "padding": ((lo, hi),)}
        last_cell, total = (k - 1) * d, n + lo + hi
        if last_cell >= total:
            with pytest.raises(ValueError, match="does not fit"):
                ref.im2col(np.ones((1, n, 1)), k, **options)
            continue
        count = ref.im2col(np.ones((1, n, 1)), k, **options).shape[1]
        assert (count - 1) * s + last_cell < total <= count * s + last_cell
        seen.add(count)
        if 2 * max(lo, hi) <= last_cell + 1:
            count = ref.avg_pool(np.ones((1, n, 1)), k, ceil_mode=True, **options).shape[1]
            starts = [i * s for i in range(20)]
            # A window is kept if it starts before the high padding and the one before it left
            # cells over.
            kept = [a for a in starts if a < lo + n and (a == 0 or a - s + last_cell + 1 < total)]
            assert count == len(kept)
    assert seen == set(range(1, 12))


def test_same_padding_is_the_least_that_gives_ceil():
    for n, k, s, d in itertools.product(range(1, 9), range(1, 5), range(1, 4), range(1, 3)):
        x, w = integers(1, 1, n, 1), integers(2, k, 1, 1)
        y = ref.conv(x, w, padding="same", stride=s, dilation=d)
        assert y.shape[1] == -(-n // s)
        for total in range(20):
            pads = ((total // 2, total - total // 2),)
            span = (k - 1) * d
            if (n + total - span - 1) // s + 1 == y.shape[1] and n + total > span:
                assert_array_equal(y, ref.conv(x, w, padding=pads, stride=s, dilation=d))
                break


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVS)
def test_adjoint(x_shape, w_shape, options):
    x, w, _, dy = operands(x_shape, w_shape, options)
    y = ref.conv(x, w, **options)
    dx, dw, db = ref.conv_backward(dy, x, w, **options)
    assert_adjoint((y, dy), (x, dx), (w, dw))
    assert_array_equal(db, dy.sum(axis=tuple(range(dy.ndim - 1))))
    assert_array_equal(ref.conv_input_grad(dy, w, x.shape, **options), dx)
    assert_array_equal(ref.conv_kernel_grad(x, dy, w.shape, **options), dw)


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVS)
def test_dilation_is_a_stuffed_kernel_and_stride_is_subsampling(x_shape, w_shape, options):
    x, w, b, _ = operands(x_shape, w_shape, options)
    y = ref.conv(x, w, b, **options)
    rank, groups = x.ndim - 2, options.get("groups", 1)
    stride = np.broadcast_to(options.get("stride", 1), rank)
    dilation = np.broadcast_to(options.get("dilation", 1), rank)
    stuffed = np.zeros((*((np.array(w.shape[:-2]) - 1) * dilation + 1), *w.shape[-2:]))
    stuffed[tuple(slice(None, None, d) for d in dilation)] = w
    assert_array_equal(ref.conv(x, stuffed, b, **(options | {"dilation": 1})), y)

    padding = options.get("padding", 0)
    if not isinstance(padding, str):
        each = [padding] * rank if isinstance(padding, int) else padding
        padded = np.pad(x, [(0, 0), *((p, p) if isinstance(p, int) else p for p in each), (0, 0)])
        dense = ref.conv(padded, stuffed, b, groups=groups)
        assert_array_equal(dense[:, *(slice(None, None, s) for s in stride)], y)


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVS)
def test_groups_are_convolutions_side_by_side(x_shape, w_shape, options):
    x, w, b, _ = operands(x_shape, w_shape, options)
    parts = [np.split(a, options.get("groups", 1), -1) for a in (x, w, b)]
    alone = options | {"groups": 1}
    joined = [ref.conv(*part, **alone) for part in zip(*parts, strict=True)]
    assert_array_equal(np.concatenate(joined, -1), ref.conv(x, w, b, **options))


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVS)
def test_columns(x_shape, w_shape, options):
    options = {k: v for k, v in options.items() if k != "groups"}
    w_shape = (*w_shape[:-2], x_shape[-1], w_shape[-1])
    x, w, b, _ = operands(x_shape, w_shape, options)
    cols = ref.im2col(x, w.shape[:-2], **options)
    assert_array_equal(cols @ w.reshape(-1, w.shape[-1]) + b, ref.conv(x, w, b, **options))
    back = integers(5, *cols.shape)
    assert_adjoint((cols, back), (x, ref.col2im(back, x.shape, w.shape[:-2], **options)))


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVS)
def test_channels_first(x_shape, w_shape, options):
    x, w, b, dy = operands(x_shape, w_shape, options)
    first = [np.ascontiguousarray(np.moveaxis(a, -1, 1)) for a in (x, dy)]
    y = ref.conv(first[0], w, b, data_format=CF, **options)
    assert y.flags.c_contiguous
    assert_array_equal(np.moveaxis(y, 1, -1), ref.conv(x, w, b, **options))
    dx, dw, db = ref.conv_backward(*reversed(first), w, data_format=CF, **options)
    expected = ref.conv_backward(dy, x, w, **options)
    for got, want in zip((np.moveaxis(dx, 1, -1), dw, db), expected, strict=True):
        assert_array_equal(got, want)
    window = w.shape[:-2]
    columns = {k: v for k, v in options.items() if k != "groups"}
    cols = ref.im2col(x, window, **columns)
    assert_array_equal(ref.im2col(first[0], window, data_format=CF, **columns), cols)
    back = ref.col2im(cols, first[0].shape, window, data_format=CF, **columns)
    assert_array_equal(np.moveaxis(back, 1, -1), ref.col2im(cols, x.shape, window, **columns))


def test_input_gradient_is_the_full_convolution_with_the_flipped_kernel():
    x, w, _, dy = operands((2, 5, 6, 2), (3, 2, 2, 3), {})
    flipped = w[::-1, ::-1].swapaxes(-1, -2)
    assert_array_equal(ref.conv_input_grad(dy, w, x.shape), ref.conv(dy, flipped, padding="full"))


@pytest.mark.parametrize("at", [0, 2, 5, 8])
def test_conv_numerically(at):
    x_shape, w_shape, options = CONVS[at]
    x, w, b, _ = operands(x_shape, w_shape, options)
    gradcheck(
        lambda x, w, b: ref.conv(x, w, b, **options),
        lambda dy, x, w, b: ref.conv_backward(dy, x, w, **options),
        *(a / 9 for a in (x, w, b)),
    )


# ---- transposed convolution


TRANSPOSES = [
    ((2, 4, 3), (3, 2, 3), {}),
    ((2, 4, 3, 2), (3, 2, 4, 2), {"stride": (2, 3), "output_padding": (1, 2)}),
    ((1, 3, 3, 4), (3, 3, 1, 4), {"groups": 2, "padding": ((1, 0), (0, 2)), "stride": 2}),
    ((1, 3, 4, 2), (3, 2, 2, 2), {"dilation": 3, "output_padding": 2}),
    ((1, 3, 4, 2), (3, 4, 2, 2), {"padding": "same", "stride": 2}),
    ((1, 3, 2, 2), (1, 2, 3, 2), {"padding": "same", "stride": 3}),
    ((1, 2, 2, 3, 1), (2, 2, 2, 2, 1), {"stride": (1, 2, 1)}),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), TRANSPOSES)
def test_transpose(x_shape, w_shape, options):
    """Its size, the convolution it is the gradient of, and its own gradients."""
    x, w = integers(1, *x_shape), integers(2, *w_shape)
    b = integers(3, w_shape[-2] * options.get("groups", 1))
    y = ref.conv_transpose(x, w, b, **options)
    rank = x.ndim - 2
    forward = {k: v for k, v in options.items() if k != "output_padding"}
    stride, dilation, extra = (
        np.broadcast_to(options.get(name, default), rank)
        for name, default in (("stride", 1), ("dilation", 1), ("output_padding", 0))
    )
    if options.get("padding") == "same":
        assert y.shape[1:-1] == tuple(x.shape[1:-1] * stride)
    else:
        pads = options.get("padding", np.zeros((rank, 2), int))
        reach = (np.array(w_shape[:-2]) - 1) * dilation + 1
        size = (np.array(x.shape[1:-1]) - 1) * stride - np.sum(pads, 1) + reach + extra
        assert y.shape[1:-1] == tuple(size)
    if np.all(extra < stride):
        assert_array_equal(y, ref.conv_input_grad(x, w, y.shape, **forward) + b)
    dy = integers(4, *y.shape)
    dx, dw, db = ref.conv_transpose_backward(dy, x, w, **options)
    assert_adjoint((y - b, dy), (x, dx), (w, dw))
    assert_array_equal(db, dy.sum(axis=tuple(range(dy.ndim - 1))))
    assert_array_equal(ref.conv_transpose(x, w, b, activation="relu", **options), np.maximum(y, 0))

    turned = [np.moveaxis(a, -1, 1) for a in (dy, x)]
    first = ref.conv_transpose(turned[1], w, b, data_format=CF, **options)
    assert_array_equal(np.moveaxis(first, 1, -1), y)
    grads = ref.conv_transpose_backward(*turned, w, data_format=CF, **options)
    for got, want in zip((np.moveaxis(grads.dx, 1, -1), grads.dw, grads.db), (dx, dw, db),
                         strict=True):  # fmt: skip
        assert_array_equal(got, want)


def test_transpose_by_hand():
    x = np.array([1.0, 2.0]).reshape(1, 2, 1)
    w = np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    y = ref.conv_transpose(x, w, stride=2, padding=((1, 0),), output_padding=1)
    assert_array_equal(y.ravel(), [10, 100 + 2, 20, 200, 0])


def test_transpose_numerically():
    x, w, b = (integers(0, *s) / 9 for s in ((1, 3, 2, 2), (2, 3, 2, 2), (2,)))
    options = {"stride": 2, "output_padding": 1, "padding": ((1, 0), (0, 1))}
    gradcheck(
        lambda x, w, b: ref.conv_transpose(x, w, b, **options),
        lambda dy, x, w, b: ref.conv_transpose_backward(dy, x, w, **options),
        x, w, b,
    )  # fmt: skip
