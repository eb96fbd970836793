"""`ceil_mode` as PyTorch has it: windows that overhang the padded input, down to a single one."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastconv as fc
from fastconv import reference

# (n, k, s, p, d) of one axis; maxima and winners of 1, 2, ..., n by PyTorch 2.13, and its means
# without and with the padding in the divisor. None: refused there, as no output is left.
FACTS = [
    ((1, 2, 2, 0, 1), ([1], [0]), ([1], [1])),
    ((1, 3, 2, 0, 1), None, None),
    ((1, 3, 3, 0, 1), ([1], [0]), ([1], [1])),
    ((2, 3, 1, 0, 1), None, None),
    ((2, 3, 2, 0, 1), ([2], [1]), ([1.5], [1.5])),
    ((2, 5, 3, 0, 1), None, None),
    ((2, 5, 4, 0, 1), ([2], [1]), ([1.5], [1.5])),
    ((3, 4, 4, 0, 1), ([3], [2]), ([2], [2])),
    ((1, 4, 2, 1, 1), ([1], [0]), ([1], [1 / 3])),
    ((1, 5, 2, 1, 1), None, None),
    ((1, 5, 3, 1, 1), ([1], [0]), ([1], [1 / 3])),
    ((2, 4, 3, 1, 1), ([2], [1]), ([1.5], [0.75])),
    ((5, 3, 3, 1, 1), ([2, 5], [1, 4]), ([1.5, 4], [1, 4])),
    ((1, 2, 3, 0, 3), None, None),
    ((2, 3, 3, 1, 2), ([2], [1]), None),
    ((3, 2, 4, 0, 4), ([1], [0]), None),
]


@pytest.mark.parametrize("ops", [fc, reference])
@pytest.mark.parametrize(("axis", "maxima", "means"), FACTS, ids=str)
def test_what_pytorch_gives(axis, maxima, means, ops):
    n, k, s, p, d = axis
    x = np.arange(1.0, n + 1).reshape(1, n, 1)
    options = {"stride": s, "padding": p, "dilation": d, "ceil_mode": True}
    if maxima is None:
        for pool in (ops.max_pool, ops.avg_pool):
            with pytest.raises(ValueError, match="window"):
                pool(x, k, **options)
        return
    y, argmax = ops.max_pool(x, k, return_argmax=True, **options)
    assert (y.ravel().tolist(), argmax.ravel().tolist()) == maxima
    if means is not None:
        found = [ops.avg_pool(x, k, count_include_pad=i, **options) for i in (False, True)]
        assert_allclose([y.ravel() for y in found], means, rtol=1e-15)


def test_a_small_image_at_the_end_of_a_network():
    """3x3 at stride 2 on 2x2, which SqueezeNet and GoogLeNet meet on small images."""
    x = np.arange(1.0, 9).reshape(1, 2, 2, 2)
    options = {"stride": 2, "ceil_mode": True}
    y, argmax = fc.max_pool(x, 3, return_argmax=True, **options)
    assert_array_equal(y.ravel(), [7, 8])
    assert_array_equal(argmax.ravel(), [3, 3])
    dx = fc.max_pool_backward(np.full((1, 1, 1, 2), 5.0), argmax, x.shape, 3, **options)
    assert_array_equal(dx.ravel(), [0] * 6 + [5] * 2)
    assert_array_equal(fc.avg_pool(x, 3, **options).ravel(), [4, 5])
    dx = fc.avg_pool_backward(np.full((1, 1, 1, 2), 4.0), x.shape, 3, **options)
    assert_array_equal(dx.ravel(), [1] * 8)


def refused(call):
    try:
        return call()
    except ValueError:
        return None


AXES = [
    (n, k, s, d, (lo, hi))
    for n, k, s, d in itertools.product(range(1, 5), range(1, 5), range(1, 5), range(1, 3))
    for lo, hi in itertools.product(range(((k - 1) * d + 1) // 2 + 1), repeat=2)
]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_small_geometry_equals_the_naive_loops(rank):
    """Alone, and drawn by twos and threes: maxima, winners, means and both gradients."""
    rng = np.random.default_rng(rank)
    chosen = [(i,) for i in range(len(AXES))]
    if rank > 1:
        chosen = rng.integers(0, len(AXES), (500 // rank, rank))
    overhang = 0
    for indices in chosen:
        n, k, s, d, pads = map(tuple, zip(*(AXES[i] for i in indices), strict=True))
        options = {"stride": s, "padding": pads, "dilation": d, "ceil_mode": True}
        x = rng.integers(-8, 9, (2, *n, 3)).astype("float32")
        expected = refused(lambda: reference.max_pool(x, k, return_argmax=True, **options))  # noqa: B023
        found = refused(lambda: fc.max_pool(x, k, return_argmax=True, **options))  # noqa: B023
        assert (found is None) == (expected is None), (n, k, options)
        if found is None:
            continue
        reach = [(a - 1) * b + 1 for a, b in zip(k, d, strict=True)]
        padded = [a + sum(p) for a, p in zip(n, pads, strict=True)]
        overhang += any(a > b for a, b in zip(reach, padded, strict=True))
        y, argmax = found
        assert_array_equal(y, expected[0])
        assert_array_equal(argmax, expected[1])
        dy = rng.integers(-8, 9, y.shape).astype("float32")
        dx = fc.max_pool_backward(dy, argmax, x.shape, k, **options)
        assert_array_equal(dx, reference.max_pool_backward(dy, argmax, x.shape, k, **options))
        for include in (False, True):
            options["count_include_pad"] = include
            found = fc.avg_pool(x, k, **options)
            assert_allclose(found, reference.avg_pool(x, k, **options), rtol=1e-6, atol=1e-6)
            dx = fc.avg_pool_backward(dy, x.shape, k, **options)
            naive = reference.avg_pool_backward(dy, x.shape, k, **options)
            assert_allclose(dx, naive, rtol=1e-5, atol=1e-5)
    assert overhang > 20


def test_what_is_refused_says_why():
    with pytest.raises(ValueError, match="padded input, 2, by 1, the stride, or more"):
        fc.max_pool(np.ones((1, 2, 1)), 3, stride=1, ceil_mode=True)
    with pytest.raises(ValueError, match="larger than the padded input, 2\n"):
        fc.max_pool(np.ones((1, 2, 1)), 3, stride=2)
