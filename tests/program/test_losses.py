"""The losses' compiled calls: against formulas in float64, bit for bit between thread counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import nn, num_threads
from fastconv.engine import losses as engine
from fastconv.engine.call import perform
from fastconv.engine.entries import loop_address
from fastconv.program.naive import losses as naive
from fastconv.program.ops import losses as ops

NAMES = ["softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error"]
DTYPES = [np.float32, np.float64]
SHAPES = [(1, 1), (1, 2), (7, 1), (128, 10), (33, 16), (5, 17), (3, 1000), (2, 5000), (2100, 3)]


def batch(name, shape, dtype, rng, scale=3.0):
    z = (rng.standard_normal(shape) * scale).astype(dtype)
    if name == "softmax_cross_entropy":
        return z, rng.integers(0, shape[1], shape[0])
    if name == "binary_cross_entropy":
        soft = rng.random(shape)
        return z, np.where(rng.random(shape) < 0.3, soft, soft > 0.5).astype(dtype)
    return z, rng.standard_normal(shape).astype(dtype)


def check(name, z, y):
    """Each within some roundings of the formula in float64."""
    got = getattr(ops, name)(z, y)
    labels = y if y.dtype == np.int64 else y.astype("f8")
    value, dz, correct = getattr(naive, name)(z.astype("f8"), labels)
    eps = np.finfo(z.dtype).eps
    size = 1 + float(np.abs(z).max())
    assert abs(got.value - value) <= 4 * eps * (abs(value) + size)
    assert got.correct == correct
    assert (got.dz.shape, got.dz.dtype) == (z.shape, z.dtype)
    if name == "mean_squared_error":
        bound = 4 * eps * np.abs(dz)
    elif name == "binary_cross_entropy":
        bound = 6 * eps / z.size
    else:  # exp(z - max) inherits the rounding of the difference
        bound = eps * (6 + 2 * np.abs(z)) / len(z)
    assert (np.abs(got.dz - dz) <= bound).all()
    return got


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_against_the_formulas(name, shape, dtype):
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 20.0):
        check(name, *batch(name, shape, dtype, rng, scale))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(DTYPES),
    st.integers(0, 2**32),
)
def test_drawn_shapes(name, rows, width, dtype, seed):
    check(name, *batch(name, (rows, width), dtype, np.random.default_rng(seed)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_threads_do_not_change_a_bit(name, dtype, monkeypatch):
    monkeypatch.setattr(engine, "GRAIN", 1)
    rng = np.random.default_rng(1)
    for shape in [(300, 10), (4, 7001), (9, 900)]:
        z, y = batch(name, shape, dtype, rng)
        results = []
        for n in (1, 2, 3, 8):
            with num_threads(n):
                results.append(getattr(ops, name)(z, y))
        for other in results[1:]:
            assert other.value == results[0].value
            assert other.correct == results[0].correct
            np.testing.assert_array_equal(other.dz, results[0].dz)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_its_neighbours(dtype):
    z, y = batch("softmax_cross_entropy", (64, 21), dtype, np.random.default_rng(2))
    dz = ops.softmax_cross_entropy(z, y).dz
    for i in range(4):
        one = ops.softmax_cross_entropy(np.repeat(z[i : i + 1], 64, 0), np.repeat(y[i], 64))
        np.testing.assert_array_equal(one.dz, np.repeat(dz[i : i + 1], 64, 0))


@pytest.mark.parametrize("width", [1, 3, 15, 16, 17, 40])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_not_finite(name, width, dtype):
    """NaN and infinities at every place: the value, the gradient and `correct` of the formulas."""
    rng = np.random.default_rng(3)
    for special in (np.nan, np.inf, -np.inf):
        for place in range(width):
            z, y = batch(name, (3, width), dtype, rng)
            z[1, place] = special
            got = getattr(ops, name)(z, y)
            with np.errstate(all="ignore"):
                value, dz, correct = getattr(naive, name)(z, y)
            if np.isfinite(value):
                assert got.value == pytest.approx(value, rel=1e-5)
            else:
                np.testing.assert_array_equal(got.value, value)
            assert got.correct == correct
            np.testing.assert_array_equal(np.isnan(got.dz), np.isnan(dz))
            np.testing.assert_allclose(got.dz, dz, rtol=1e-4, atol=1e-6)


def test_rows_of_one_infinity_and_ties():
    inf = np.inf
    z = np.array([[-inf, -inf, -inf], [2, 7, 7], [7, 2, 7], [np.nan, 1, np.nan], [1, 9, 3]], "f4")
    for labels in np.ndindex(3, 3, 3, 3, 3):
        expected = np.count_nonzero(z.argmax(1) == labels)
        assert ops.softmax_cross_entropy(z, np.array(labels)).correct == expected
    for row, label in ((1, 2), (2, 2), (4, 1)):
        np.testing.assert_allclose(
            ops.softmax_cross_entropy(z[row : row + 1], np.array([label])).value,
            naive.softmax_cross_entropy(z[row : row + 1].astype("f8"), [label])[0],
            rtol=1e-6,
        )


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("bad", [-1, 10, 2**62, -(2**63)])
def test_a_bad_label_is_reported_and_nothing_written_for_it(bad, n, monkeypatch):
    monkeypatch.setattr(engine, "GRAIN", 1)
    rng = np.random.default_rng(4)
    z, y = batch("softmax_cross_entropy", (400, 10), np.float32, rng)
    y[[399, 217]] = bad
    dz = np.full((402, 10), 77, "f4")
    parts, result = np.empty(engine.parts_of("softmax_cross_entropy", 400, 10)), np.empty(3)
    with num_threads(n):
        entry = loop_address("softmax_cross_entropy", z.dtype)
        perform(engine.loss_call(entry, "softmax_cross_entropy", z, y, dz[1:-1], parts, result))
    assert np.isnan(result[0])
    assert result[2] == 217
    np.testing.assert_array_equal(dz[[0, 218, 400, 401]], 77)
    with pytest.raises(ValueError, match="y: label 217"):
        ops.softmax_cross_entropy(z, y)


@pytest.mark.parametrize("bad", [-1e-6, 1.0001, np.nan, np.inf])
def test_a_bad_target_is_reported(bad):
    z, y = batch("binary_cross_entropy", (300, 7), np.float32, np.random.default_rng(5))
    y[211, 3] = y[299, 6] = bad
    with pytest.raises(ValueError, match=f"y: label {211 * 7 + 3} is"):
        ops.binary_cross_entropy(z, y)


def test_a_call_that_comes_late_writes_nothing():
    import ctypes

    from fastconv.engine import words as s

    z, y = batch("softmax_cross_entropy", (5, 4), np.float32, np.random.default_rng(6))
    for name in NAMES:
        labels = y if name[0] == "s" else z.copy()
        dz, result = np.full_like(z, 77), np.full(3, 77.0)
        parts = np.full(engine.parts_of(name, 5, 4), 77.0)
        call = engine.loss_call(loop_address(name, z.dtype), name, z, labels, dz, parts, result)
        table = np.array([0, call.items, call.items, *call.words], np.int64)
        assert s.NEXT_ITEM == 2
        entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(call.entry)
        entry(table.ctypes.data, 5)
        for array in (dz, result, parts):
            np.testing.assert_array_equal(array, 77)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_by_finite_differences(name):
    rng = np.random.default_rng(7)
    z, y = batch(name, (4, 19), np.float64, rng)
    dz, step = getattr(ops, name)(z, y).dz, 1e-6
    for i in np.ndindex(z.shape):
        ends = []
        for sign in (1, -1):
            moved = z.copy()
            moved[i] += sign * step
            ends.append(getattr(ops, name)(moved, y).value)
        assert dz[i] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">i4", "u4", "i8", "u8"])
def test_labels_of_every_integer_dtype_and_layout(dtype):
    z, y = batch("softmax_cross_entropy", (12, 10), np.float32, np.random.default_rng(8))
    loss = nn.SoftmaxCrossEntropy()
    value = loss.forward(z, y)
    dz = loss.backward()
    spaced = np.zeros(24, dtype)
    spaced[::2] = y
    assert loss.forward(np.asfortranarray(z), spaced[::2]) == value
    np.testing.assert_array_equal(loss.backward(), dz)


def test_an_error_keeps_the_last_gradient():
    loss = nn.SoftmaxCrossEntropy()
    loss.forward(np.zeros((2, 3)), np.array([0, 1]))
    dz = loss.backward()
    before = dz.copy()
    with pytest.raises(ValueError, match=r"y: labels must be in 0 \.\. 2, got 0 \.\. 3"):
        loss.forward(np.zeros((2, 3)), np.array([0, 3]))
    assert loss.backward() is dz
    np.testing.assert_array_equal(dz, before)


def test_not_finite_loss_updates_nothing():
    model = nn.Sequential(nn.Dense(2, 2))
    x = np.array([[np.inf, 1.0]], np.float32)
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    before = [p.value.copy() for p in model.parameters()]
    with np.errstate(all="ignore"):
        value, _ = nn.train_step(model, nn.SoftmaxCrossEntropy(), optimizer, x, np.array([0]))
    assert not np.isfinite(value)
    assert optimizer.steps == 0
    for parameter, kept in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.value, kept)


def test_losses_of_ones_own():
    class Scaled(nn.SoftmaxCrossEntropy):
        def forward(self, z, y):
            value = super().forward(z, y)
            self._dz = self._dz * 2
            return 2 * value

    z, y = batch("softmax_cross_entropy", (6, 4), np.float64, np.random.default_rng(9))
    plain, scaled = nn.SoftmaxCrossEntropy(), Scaled()
    assert scaled.forward(z, y) == 2 * plain.forward(z, y)
    np.testing.assert_array_equal(scaled.backward(), 2 * plain.backward())
