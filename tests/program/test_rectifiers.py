"""The compiled activations that are nearly ReLU: as their twins, at all ends, in every place."""

import numpy as np
import pytest

import fastconv as fc
from fastconv.program.naive import rectifiers as naive
from fastconv.program.ops import rectifiers

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
NAMES = pytest.mark.parametrize("name", naive.__all__)


def of(module, name, dy, x):
    arrays = (dy, x) if name.endswith("backward") else (x,)
    numbers = (0.3,) if name.startswith(("elu", "leaky")) else ()
    return getattr(module, name)(*arrays, *numbers)


def operands(dtype, *shape):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype(dtype), (4 * rng.normal(size=shape)).astype(dtype)


@BOTH
@NAMES
def test_as_the_twin(name, dtype):
    """Within some roundings of the twin's largest term: 1 + x (1 - s) may be next to nothing."""
    for size in (0, 1, 15, 37, 3 * 2**14 + 5):
        dy, x = operands(dtype, size)
        found, right = of(rectifiers, name, dy, x), of(naive, name, dy, x)
        assert found.dtype == dtype
        terms = np.abs(dy) * (1 + np.abs(x)) if name.endswith("backward") else 0
        if name == "gelu":  # the twin rounds x / sqrt(2), which the tail multiplies by x**2
            terms = np.abs(right) * x * x
        assert (np.abs(found - right) <= 8 * np.finfo(dtype).eps * (np.abs(right) + terms)).all()


@BOTH
@NAMES
def test_ends_of_the_range(name, dtype):
    info = np.finfo(dtype)
    x = np.array([np.nan, 0.0, -0.0, info.max, -info.max, info.tiny, -info.tiny, 1e-6, -1e-6, 3, -3,
                  700, -700, -50, 50, np.inf], dtype)  # fmt: skip
    with np.errstate(all="ignore"):
        right = of(naive, name, np.ones_like(x), x)
    found = of(rectifiers, name, np.ones_like(x), x)
    np.testing.assert_allclose(found, right, rtol=1e-6 if dtype is np.float32 else 1e-13,
                               atol=info.tiny)  # fmt: skip


def test_small_numbers_keep_their_digits():
    for dtype in (np.float32, np.float64):
        x = -np.logspace(-12, 0, 50, dtype=dtype)
        np.testing.assert_array_max_ulp(rectifiers.elu(x, 1.0), np.expm1(x), 3)
    x = np.linspace(-8, 8, 4001)
    np.testing.assert_allclose(rectifiers.gelu(x), naive.gelu(x), rtol=1e-14, atol=0)
    # x Phi(x) + x Phi(-x) = x
    both = rectifiers.gelu(x) - rectifiers.gelu(-x)
    np.testing.assert_allclose(both, x, rtol=1e-14, atol=1e-15)


@BOTH
@NAMES
def test_bits_do_not_depend_on_threads_place_or_layout(name, dtype):
    dy, x = operands(dtype, 67, 2**11 + 3)
    answer = of(rectifiers, name, dy, x)
    for count in (1, 2, 3, 8):
        with fc.num_threads(count):
            np.testing.assert_array_equal(of(rectifiers, name, dy, x), answer)
    strided = [np.asfortranarray(dy), np.asfortranarray(x)]
    np.testing.assert_array_equal(of(rectifiers, name, *strided), answer)
    one_by_one = [of(rectifiers, name, dy[:1, i], x[:1, i]) for i in range(40)]
    np.testing.assert_array_equal(np.concatenate(one_by_one), answer[0, :40])
