"""Hard and hostile inputs beside tests/api/test_bad_input.py; what could crash, in processes.

Which test shows which kind of input is listed at the end of this file, and checked.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv as fc
from fastconv import reference

X, W = np.ones((2, 6, 7, 4), "f4"), np.ones((3, 2, 4, 6), "f4")


def in_a_process(code):
    """Run a program that might crash; its output."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-2000:])
    return done.stdout


HUGE = """
import itertools, sys
import numpy as np
import fastconv as fc

if sys.platform == "linux":
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, resource.RLIM_INFINITY))

x = np.arange(32, dtype="f4").reshape(1, 4, 4, 2)
w, dy = np.ones((3, 3, 2, 2), "f4"), np.ones((1, 4, 4, 2), "f4")
cols = np.ones((1, 4, 4, 18), "f4")
index = np.zeros(x.shape, np.int64)
numbers = [2**k + e for k in (15, 20, 31, 32, 33, 40, 53, 62, 63, 64) for e in (-1, 0, 1)]
calls = {
    "conv": lambda **o: fc.conv(x, w, **o),
    "conv_input_grad": lambda **o: fc.conv_input_grad(dy, w, x.shape, **o),
    "conv_kernel_grad": lambda **o: fc.conv_kernel_grad(x, dy, w.shape, **o),
    "conv_backward": lambda **o: fc.conv_backward(dy, x, w, **o),
    "conv_transpose": lambda **o: fc.conv_transpose(x, w, **o),
    "conv_transpose_backward": lambda **o: fc.conv_transpose_backward(dy, x, w, **o),
    "plan_conv": lambda **o: fc.plan_conv(x.shape, w.shape, **o),
    "max_pool": lambda window=3, **o: fc.max_pool(x, window, return_argmax=True, **o),
    "max_pool_backward": lambda window=3, **o: fc.max_pool_backward(
        dy, index, x.shape, window, **o),
    "avg_pool": lambda window=3, **o: fc.avg_pool(x, window, **o),
    "avg_pool_pad": lambda window=3, **o: fc.avg_pool(x, window, count_include_pad=True, **o),
    "avg_pool_backward": lambda window=3, **o: fc.avg_pool_backward(dy, x.shape, window, **o),
    "im2col": lambda window=3, **o: fc.im2col(x, window, **o),
    "col2im": lambda window=3, **o: fc.col2im(cols, x.shape, window, **o),
}
outcomes = {"right": 0, "refused": 0}

def attempt(call, **options):
    try:
        call(**options)
        outcomes["right"] += 1
    except (ValueError, MemoryError):
        outcomes["refused"] += 1

limit = 2**21  # a result of more cells than this would only take time
for n in numbers:
    for name, call in calls.items():
        for half in (n // 2, n):
            attempt(call, stride=n)
            attempt(call, dilation=n)
            if half > limit or n < 2**16:
                attempt(call, padding=((half, half), (0, 0)), stride=(n, 1))
                attempt(call, padding=((0, 0), (half, 0)), stride=(1, n))
                attempt(call, padding=((half, half), (1, 1)), dilation=(n, 1), stride=(n, 1))
                if "pool" in name or "col" in name:
                    attempt(call, window=(n, 2), padding=((half, half), (0, 0)))
                    if n > limit:  # below, im2col has 17 GB to write
                        attempt(call, window=n, padding=n // 2, stride=n)
                    attempt(call, window=n)
for sizes in itertools.product((4, 2**31, 2**62, 2**64), repeat=2):
    attempt(lambda: fc.conv_input_grad(dy, w, (1, *sizes, 2)))
    attempt(lambda: fc.avg_pool_backward(dy, (1, *sizes, 2), 3))
    attempt(lambda: fc.conv_kernel_grad(x, dy, (*sizes, 2, 2)))
    attempt(lambda: fc.plan_conv((1, *sizes, 2), (3, 3, 2, 2)))
# what is left in the heap is still in order
assert np.isfinite(fc.conv(x, w)).all()
print(outcomes)
"""


def test_huge_numbers_give_an_error_or_a_result():
    """Strides, dilations, paddings and windows from 2**15 to 2**64 on one axis or both."""
    words = re.findall(r"\d+", in_a_process(HUGE))
    print("right, refused:", words)
    assert min(map(int, words)) > 300


@pytest.mark.parametrize("window", [2**31, 2**32, 2**40, (2**50, 2**6)])
def test_a_pool_s_window_of_more_cells_than_64_bits_can_count(window):
    pair = window if isinstance(window, tuple) else (window, window)
    for call in (fc.max_pool, fc.avg_pool):
        with pytest.raises(ValueError, match=r"^window: .* more cells than a 64-bit integer"):
            call(X, window, stride=1, padding=tuple(k // 2 for k in pair))


@pytest.mark.parametrize("window", [2**20, 2**26, (2**32, 4), (2**48, 2**5)])
def test_a_pool_s_window_may_be_nearly_all_padding(window):
    """Padding of half the window is legal: every window here sees the whole image, or half."""
    code = f"""
import numpy as np
import fastconv as fc
x = np.random.default_rng(0).integers(-9, 9, (1, 4, 4, 3)).astype("f4")
window = {window!r}
pair = window if isinstance(window, tuple) else (window, window)
options = dict(stride=1, padding=tuple(k // 2 for k in pair))
y, argmax = fc.max_pool(x, window, return_argmax=True, **options)
row, column = 2, 2  # the window in the middle covers everything
assert (y[0, row, column] == x.max(axis=(0, 1, 2))).all()
flat = x.reshape(16, 3)
assert (flat[argmax[0, row, column], range(3)] == y[0, row, column]).all()
assert np.array_equal(fc.max_pool(x, window, **options), y)
mean = fc.avg_pool(x, window, **options)[0, row, column]
assert np.allclose(mean, x.mean(axis=(0, 1, 2)), rtol=1e-6)
padded = fc.avg_pool(x, window, count_include_pad=True, **options)[0, row, column]
cells = float(min(pair[0], 4 + 2 * (pair[0] // 2))) * min(pair[1], 4 + 2 * (pair[1] // 2))
assert np.allclose(padded, x.sum(axis=(0, 1, 2)) / cells, rtol=1e-6, atol=0)
dx = fc.max_pool_backward(np.ones_like(y), argmax, x.shape, window, **options)
assert dx.sum() == y.size
"""
    in_a_process(code)


ARGMAX = """
import numpy as np
import fastconv as fc
from fastconv.selfcheck.deep import cut_finely

cut_finely()
refused = wrong = 0
for H, W, stride in ((6, 7, 2), (3, 4, 1)):  # windows apart, and windows that share cells
    dy = np.ones((2, (H - 2) // stride + 1, (W - 2) // stride + 1, 5), "f4")
    out = np.full((2, H, W, 5), 7, "f4")
    for threads, at in np.ndindex(3, dy.size):
        for bad in (-(2**63), -2, H * W, 2**62, 2**63 - 1):
            wrong += 1
            argmax = np.zeros(dy.shape, np.int64)
            argmax.flat[at] = bad
            try:
                with fc.num_threads(threads + 1):
                    fc.max_pool_backward(dy, argmax, out.shape, 2, stride=stride, out=out)
            except ValueError as error:
                refused += str(error).startswith("argmax ") and str(bad) in str(error)
            assert (out == 7).all(), (threads, at, bad)
print(refused == wrong)
"""


def test_an_argmax_outside_the_image_is_found_wherever_it_is():
    """It would be an address: each element in turn, on one thread and more."""
    assert in_a_process(ARGMAX).strip() == "True"


@pytest.mark.parametrize(
    "call",
    [
        lambda n: fc.conv(X, W, padding=n, dilation=n),
        lambda n: fc.conv_kernel_grad(X, np.ones((2, 6, 6, 6), "f4"), W.shape, padding=n, stride=n),
        lambda n: fc.im2col(X, 3, padding=n, dilation=n),
        lambda n: fc.col2im(X, X.shape, 3, padding=n, dilation=n),
        lambda n: fc.conv_transpose(X, np.ones((3, 3, 2, 4), "f4"), padding=n, dilation=n),
    ],
)
def test_a_padded_image_that_cannot_be_addressed(call):
    with pytest.raises(ValueError, match=r"^(padding|dilation): .* padded image of extents"):
        call(2**40)


# -------------------------------------------------------------------- what is no array, or no dtype

RAGGED = [[1.0, 2.0], [3.0]]
STRINGS = np.full(X.shape, "a", np.dtypes.StringDType())
TAKES = {
    "conv": lambda a: fc.conv(a, W),
    "conv's kernel": lambda a: fc.conv(X, a),
    "conv's bias": lambda a: fc.conv(X, W, a),
    "conv_input_grad": lambda a: fc.conv_input_grad(a, W, X.shape),
    "conv_kernel_grad": lambda a: fc.conv_kernel_grad(X, a, W.shape),
    "conv_backward": lambda a: fc.conv_backward(a, X, W),
    "conv_transpose": lambda a: fc.conv_transpose(a, W),
    "conv_transpose_backward": lambda a: fc.conv_transpose_backward(a, X, W),
    "plan.forward": lambda a: fc.plan_conv(X.shape, W.shape).forward(a, W),
    "plan.input_grad": lambda a: fc.plan_conv(X.shape, W.shape).input_grad(a, W),
    "plan.kernel_grad": lambda a: fc.plan_conv(X.shape, W.shape).kernel_grad(X, a),
    "plan.backward": lambda a: fc.plan_conv(X.shape, W.shape).backward(a, X, W),
    "max_pool": lambda a: fc.max_pool(a, 2),
    "max_pool_backward": lambda a: fc.max_pool_backward(a, X, X.shape, 2),
    "its argmax": lambda a: fc.max_pool_backward(X, a, X.shape, 1),
    "avg_pool": lambda a: fc.avg_pool(a, 2),
    "avg_pool_backward": lambda a: fc.avg_pool_backward(a, X.shape, 2),
    "relu_backward": lambda a: fc.relu_backward(a, X),
    "im2col": lambda a: fc.im2col(a, 2),
    "col2im": lambda a: fc.col2im(a, X.shape, 2),
}
NAMES = r"^(x|w|b|dy|y|cols|argmax) (is|has|cannot)"


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (RAGGED, ValueError),
        (STRINGS, TypeError),
        (None, TypeError),
        ("text", TypeError),
        ({"a": 1}, TypeError),
        (np.zeros((2, 3), [("a", "f4")]), TypeError),
        (np.zeros((2, 3), "M8[s]"), TypeError),
        (np.ma.masked_array(np.zeros((2, 3, 3, 4), np.int64), True), TypeError),
    ],
    ids=["ragged", "strings", "None", "text", "dict", "record", "dates", "masked"],
)
def test_what_is_no_array_of_numbers(name, value, error):
    if name == "conv's bias" and value is None:
        return  # no bias
    if name == "its argmax" and error is TypeError and not np.ma.isMaskedArray(value):
        error = ValueError  # an index of the wrong dtype
    with pytest.raises(error, match=NAMES):
        TAKES[name](value)


@pytest.mark.parametrize("dtype", [None, "nonsense", "f4,f4", "int32", np.dtypes.StringDType(), 7])
def test_dtypes_of_plans_and_warmup(dtype):
    with pytest.raises(TypeError, match=r"^dtypes? is .*; use float32, float64 or float16"):
        fc.plan_conv(X.shape, W.shape, dtype)
    with pytest.raises(TypeError, match=r"^dtypes is"):
        fc.warmup(dtypes=[dtype])


def test_out_of_a_backward_is_three_arrays():
    y = fc.conv(X, W)
    with pytest.raises(TypeError, match="out=5 must hold three"):
        fc.conv_backward(y, X, W, out=5)
    with pytest.raises(TypeError, match="out=5 must hold three"):
        fc.plan_conv(X.shape, W.shape).backward(y, X, W, out=5)
    room = np.full((*X.shape[:-1], 8), 7, "f4")  # interleaved, but no element in common
    square = np.ones((1, 1, 4, 4), "f4")
    dw = np.empty_like(square)
    db = np.empty(4, "f4")
    grads = fc.conv_backward(X, X, square, out=(room[..., ::2], dw, db))
    assert (room[..., 1::2] == 7).all()
    assert_array_equal(grads.dx, fc.conv_input_grad(X, square, X.shape))


@pytest.mark.parametrize("value", [1e-45, 1e-41, -3e-42])
def test_subnormals_are_not_flushed(value):
    """Sums, maxima, means and errors of subnormal numbers, by every function."""
    x, dy = np.full((1, 6, 6, 5), value, "f4"), np.full((1, 6, 6, 5), value, "f4")
    w = np.zeros((3, 3, 5, 5), "f4")
    w[1, 1] = np.eye(5) * 4
    for ops in (fc, reference):
        results = [
            ops.conv(x, w, padding=1),
            *ops.conv_backward(dy, np.ones_like(x), w, padding=1),
            ops.conv_transpose(x, w, padding=1),
            ops.max_pool(x, 2),
            ops.avg_pool(x, 2),
            ops.relu_backward(dy, np.ones_like(x)),
            ops.relu_backward(dy, np.abs(x)),
            ops.im2col(x, 2),
            ops.col2im(np.full((1, 5, 5, 20), value, "f4"), x.shape, 2),
        ]
        assert all(np.count_nonzero(r) for r in results)
        if ops is fc:
            found = results
    for a, b in zip(found, results, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("C", range(1, 34))
def test_one_nan_goes_where_the_naive_loops_put_it(C):
    """In a vector's body or its tail: forward, gradients, means, transposes and masks."""
    rng = np.random.default_rng(C)
    x = rng.integers(-4, 5, (1, 4, 3, C)).astype("f4")
    x[0, rng.integers(4), rng.integers(3), rng.integers(C)] = np.nan
    w = rng.integers(-4, 5, (2, 2, C, 3)).astype("f4")
    back = rng.integers(-4, 5, (2, 2, 3, C)).astype("f4")
    plain = np.ones((1, 3, 2, 3), "f4")
    for call in (
        lambda ops: ops.conv(x, w),
        lambda ops: ops.conv_kernel_grad(x, plain, w.shape),
        lambda ops: ops.conv_transpose(x, back),
        lambda ops: ops.conv_input_grad(x, back, (1, 5, 4, 3)),
        lambda ops: ops.conv_backward(x, np.ones((1, 5, 4, 3), "f4"), back).db,
        lambda ops: ops.avg_pool(x, 2, stride=1),
        lambda ops: ops.avg_pool_backward(x, (1, 8, 6, C), 2),
        lambda ops: ops.relu_backward(x, np.ones_like(x)),
        lambda ops: ops.relu_backward(np.ones_like(x), x),
        lambda ops: ops.col2im(x, (1, 4, 3, C), 1),
    ):
        got, wanted = call(fc), call(reference)
        assert_array_equal(np.isnan(got), np.isnan(wanted))
        assert np.isnan(wanted).any() or (wanted == 0).any()


# --------------------------------------------------------- large: more than 32 bits can count


@pytest.mark.soak
@pytest.mark.parametrize("what", ["y", "dx", "pools", "transpose"])
def test_results_of_more_than_two_to_the_31_elements(what):
    """4.3 GB of float16 a result; the inputs take no memory."""
    m = 2**17 + 1
    one = np.float16(1)
    w = np.ones((1, 1, 1, 1), "f2")
    side = 128  # m * side * side > 2**31
    if what == "y":
        y = fc.conv(np.broadcast_to(one, (m, side, side, 1)), w)
    elif what == "dx":
        y = fc.conv_input_grad(np.broadcast_to(one, (m, side, side, 1)), w, (m, side, side, 1))
    elif what == "transpose":
        wide = np.ones((2, 2, 1, 1), "f2")
        y = fc.conv_transpose(np.broadcast_to(one, (m, side // 2, side // 2, 1)), wide, stride=2)
    else:
        index = np.broadcast_to(np.int64(side * side - 1), (m, 1, 1, 1))
        dy = np.broadcast_to(one, (m, 1, 1, 1))
        y = fc.max_pool_backward(dy, index, (m, side, side, 1), side)
        assert y.size > 2**31
        assert (y[:, -1, -1, 0] == 1).all()
        assert y[:: m // 50].sum(dtype=float) == len(y[:: m // 50])
        return
    assert y.size > 2**31
    assert (y[-1] == 1).all()
    assert all((part == 1).all() for part in np.array_split(y, 64))


@pytest.mark.soak
def test_a_large_window_on_a_large_image_in_bounded_memory():
    """4096 x 4096 with 127 x 127: the im2col matrix would take 1 TB at stride 1.

    That would take half an hour, so it is computed at stride 5 (41 GB), its gradients at stride 9,
    and a strip of the image at stride 1.
    """
    import tracemalloc

    x, w = np.ones((1, 4096, 4096, 1), "f4"), np.ones((127, 127, 1, 1), "f4")
    assert fc.plan_conv(x.shape, w.shape).workspace_nbytes < 16 * 2**20
    assert (fc.conv(x[:, :136], w) == 127 * 127).all()
    tracemalloc.start()
    try:
        y = fc.conv(x, w, stride=5)
        dy = np.ones((1, 442, 442, 1), "f4")
        dw = fc.conv_kernel_grad(x, dy, w.shape, stride=9)
        dx = fc.conv_input_grad(dy, w, x.shape, stride=9)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert y.shape == (1, 794, 794, 1)
    assert (y == 127 * 127).all()
    assert (dw == 442 * 442).all()
    assert dx[0, 0, 0, 0] == 1
    assert dx.sum(dtype=float) == 127.0 * 127 * dy.size
    assert peak < y.nbytes + dx.nbytes + 64 * 2**20


# -------------------------------------------------------------------- where each kind is tested

SHOWN = {
    "stride, window, dilation of 0, negative, of wrong length, empty": "test_stride_and_dilation "
    "test_window test_spoilt_calls",
    "padding negative; a pool's beyond half its window": "test_padding "
    "test_pool_padding_beyond_half_the_window",
    "a window larger than the padded input": "test_window_larger_than_the_input test_drawn_calls",
    "groups": "test_groups test_groups_type test_kernel_channels",
    "empty kernels and images": "test_empty_kernel test_empty_image",
    "an empty batch": "test_empty_batch test_drawn_calls",
    "shapes of dy, x_shape, w_shape": "test_dy_shape test_x_shape test_w_shape",
    "argmax": "test_argmax_out_of_range test_argmax_shape_and_dtype "
    "test_an_argmax_outside_the_image_is_found_wherever_it_is",
    "bias": "test_bias_shape",
    "huge integers": "test_huge_numbers_give_an_error_or_a_result "
    "test_a_pool_s_window_of_more_cells_than_64_bits_can_count",
    "more than 2**31 elements": "test_more_than_two_to_the_31_elements "
    "test_results_of_more_than_two_to_the_31_elements "
    "test_an_im2col_matrix_of_more_than_two_to_the_31_elements",
    "a huge window in bounded memory": "test_one_huge_window_in_bounded_memory "
    "test_a_large_window_on_a_large_image_in_bounded_memory",
    "padding as large as the kernel, on one side; a large stride": "test_drawn_calls "
    "test_padding_as_large_as_the_kernel",
    "NaN, infinities, ties": "test_values_that_mislead_comparisons "
    "test_one_nan_goes_where_the_naive_loops_put_it",
    "dtypes": "test_dtypes test_mixed_dtypes test_what_is_no_array_of_numbers",
    "layouts": "test_layout test_drawn_calls TestPlanCalls",
    "out": "test_out test_out_overlaps_an_input test_layout_of_out test_spoilt_calls",
    "masked arrays, matrices": "test_masked_matrix_and_other_subclasses test_spoilt_calls",
    "1.5, True, '2', NaN as integers": "test_not_integers test_numpy_integers_are_integers",
    "padding='foo'": "test_unknown_padding_lists_the_legal_names",
    "subnormals": "test_subnormals_are_not_flushed",
    "unreadable pages on both sides": "test_arrays_between_unreadable_pages test_command",
}


def test_every_kind_of_input_has_its_test():
    root = Path(__file__).parents[1]
    text = "\n".join(p.read_text(encoding="utf-8") for p in root.rglob("test_*.py"))
    for kind, names in SHOWN.items():
        for name in names.split():
            assert re.search(rf"\b(def |class )?{name}\b *[(=]", text), f"{kind}: {name}"
