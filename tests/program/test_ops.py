"""The operations of networks: against their twins in NumPy, in every tail, thread and layout."""

import itertools

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn, reference
from fastconv.engine import channels, known_loops
from fastconv.engine import elementwise as each_calls
from fastconv.engine.call import perform
from fastconv.engine.entries import loop_address
from fastconv.plans import compiled
from fastconv.program.naive import batch_norm as naive_batch_norm
from fastconv.program.naive import elementwise as naive_elementwise
from fastconv.program.ops import batch_norm, elementwise, pooling

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
UNARY = ("relu", "sigmoid", "tanh")
BINARY = ("add", "add_relu", "multiply", "sigmoid_backward", "tanh_backward")
LARGE = 3 * 2**14 + 21  # elements: several items and a rest
THREADS = (1, 2, 3, 8)


def operands(dtype, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for _ in range(2)]


def of(name, module, a, b):
    function = getattr(module, name)
    return function(a) if name in UNARY else function(a, b)


# ------------------------------------------------------------------------------- elementwise


@BOTH
@pytest.mark.parametrize("name", UNARY + BINARY)
@pytest.mark.parametrize("size", [*range(36), 100, LARGE])
def test_elementwise_as_its_twin(name, size, dtype):
    a, b = operands(dtype, size)
    found, right = (of(name, module, a, b) for module in (elementwise, naive_elementwise))
    assert found.dtype == dtype
    if name in ("sigmoid", "tanh"):
        np.testing.assert_array_max_ulp(found, right, 4)
    else:
        np.testing.assert_array_equal(found, right)


@BOTH
@pytest.mark.parametrize("name", UNARY + BINARY)
def test_elementwise_ends_of_the_range(name, dtype):
    info = np.finfo(dtype)
    ends = [np.nan, np.inf, -np.inf, 0.0, -0.0, info.smallest_subnormal, -info.smallest_subnormal,
            info.max, -info.max, info.tiny, 1.0, -1.0, -104.0, -800.0]  # fmt: skip
    a, b = (np.array(side, dtype) for side in zip(*itertools.product(ends, ends), strict=True))
    with np.errstate(all="ignore"):
        right = of(name, naive_elementwise, a, b)
    found = of(name, elementwise, a, b)
    tolerance = 8 * info.eps if name in ("sigmoid", "tanh") else 0
    np.testing.assert_allclose(found, right, rtol=tolerance, atol=info.smallest_subnormal)


@BOTH
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_activations_within_two_ulp(name, dtype):
    wider = {np.float32: np.float64, np.float64: np.longdouble}[dtype]
    if np.finfo(wider).nmant == np.finfo(dtype).nmant:
        pytest.skip("no wider arithmetic here")
    x = np.concatenate([np.linspace(-103 if dtype is np.float32 else -740, 40, 200_001),
                        np.linspace(-2, 2, 200_001)]).astype(dtype)  # fmt: skip
    right = getattr(naive_elementwise, name)(x.astype(wider))
    step = np.spacing(np.abs(right.astype(dtype))).astype(wider)
    assert (np.abs(getattr(elementwise, name)(x) - right) / step).max() < 2


@BOTH
@pytest.mark.parametrize("name", UNARY + BINARY)
def test_elementwise_bits_do_not_depend_on_threads_place_or_layout(name, dtype):
    a, b = operands(dtype, 67, 2**11 + 3)
    answer = of(name, elementwise, a, b)
    for count in THREADS:
        with fc.num_threads(count):
            np.testing.assert_array_equal(of(name, elementwise, a, b), answer)
    strided = [np.asfortranarray(a), np.asfortranarray(b)]
    np.testing.assert_array_equal(of(name, elementwise, *strided), answer)
    unaligned = []
    for array in (a, b):
        memory = np.zeros(array.nbytes + 1, np.uint8)
        unaligned.append(memory[1:].view(dtype).reshape(array.shape))
        unaligned[-1][...] = array
    np.testing.assert_array_equal(of(name, elementwise, *unaligned), answer)
    one_by_one = [of(name, elementwise, a[:1, i], b[:1, i]) for i in range(40)]
    np.testing.assert_array_equal(np.concatenate(one_by_one), answer[0, :40])


def guarded(dtype, *shape):
    memory = np.full(int(np.prod(shape)) + 40, -77, dtype)
    return memory[20:-20].reshape(shape), memory


def unharmed(memory):
    return (memory[:20] == -77).all() and (memory[-20:] == -77).all()


@BOTH
def test_elementwise_calls_write_their_result_and_nothing_else(dtype):
    for name in known_loops.EACH:
        for size in (1, 5, 17, 33, LARGE):
            a, b = operands(dtype, size)
            y, memory = guarded(dtype, size)
            call = each_calls.each_call(loop_address(name, a.dtype), name, a, y, b)
            perform(call)
            assert unharmed(memory)
            assert not (y == -77).any()
            again, same = guarded(dtype, size)
            late(each_calls.each_call(loop_address(name, a.dtype), name, a, again, b))
            assert (same == -77).all()


def late(call):
    """Make a call as a thread that comes when no item is left."""
    import ctypes

    from fastconv.engine import words as s

    words = np.array([0, 0, call.items, *call.words], np.int64)
    kept = words.copy()
    entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(call.entry)
    entry(words.ctypes.data, 1)
    kept[s.NEXT_ITEM] += 1
    np.testing.assert_array_equal(words, kept)


@BOTH
def test_elementwise_in_place(dtype):
    a, b = operands(dtype, LARGE)
    right = a + b
    perform(each_calls.each_call(loop_address("add", a.dtype), "add", a, a, b))
    np.testing.assert_array_equal(a, right)


# ------------------------------------------------------------------------------- normalisation


class Norm:
    """Operands of a normalisation, and what it gives."""

    def __init__(self, dtype, shape, seed=1):
        rng, C = np.random.default_rng(seed), shape[-1]
        self.x = (rng.normal(size=shape) * 3 + rng.normal(size=C) * 20).astype(dtype)
        self.dy = rng.normal(size=shape).astype(dtype)
        self.scale, self.shift = rng.normal(size=(2, C)).astype(dtype)
        self.running = [rng.normal(size=C).astype(dtype), rng.uniform(1, 2, C).astype(dtype)]

    def run(self, module, *, frozen=False, relu=False, table=None):
        mean, variance = (array.copy() for array in self.running)
        arrays = self.x, self.scale, self.shift, mean, variance
        if frozen:
            y, x, made = module.batch_norm_frozen(*arrays, 1e-5, relu)
        else:
            y, x, made = module.batch_norm(*arrays, 0.9, 1e-5, relu)
        kept = made[:4].copy()
        made = made if table is None else table
        grads = np.empty((2, len(mean)), self.x.dtype)
        dx = module.batch_norm_backward(self.dy, x, made, self.scale, *grads, frozen, relu)
        return {"y": y, "mean": mean, "variance": variance, "table": kept, "dx": dx,
                "scale_grad": grads[0], "shift_grad": grads[1]}  # fmt: skip


def assert_same(found, right):
    for name, array in found.items():
        np.testing.assert_array_equal(array, right[name], name)


@BOTH
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("C", [*range(1, 36), 48, 63, 64, 100, 513])
def test_norm_as_its_twin(C, relu, dtype):
    eps = np.finfo(dtype).eps
    for pixels in (1, 2, 3, 15, 129, 1000 if C < 64 else 70, 20_003 if C < 5 else 40):
        norm = Norm(dtype, (pixels, C))
        found = norm.run(batch_norm, relu=relu)
        table = np.ascontiguousarray(found["table"][:, :C])
        right = norm.run(naive_batch_norm, relu=relu, table=table)
        size = np.abs(norm.x).max() + 1
        np.testing.assert_allclose(found["mean"], right["mean"], atol=4 * eps * size)
        # roundings of float64 sums, of which the twin adds one number after another
        wide = 16 + 4 * np.sqrt(pixels) if dtype is np.float64 else 4
        np.testing.assert_allclose(found["variance"], right["variance"], rtol=wide * eps)
        np.testing.assert_allclose(table[1:], right["table"][1:], rtol=wide * eps)
        np.testing.assert_allclose(table[0], right["table"][0], atol=4 * eps * size)
        scaled = naive_batch_norm._scaled(norm.x, table)  # of the engine's table: bit for bit
        np.testing.assert_array_equal(found["y"], np.maximum(scaled, 0) if relu else scaled)
        many = np.sqrt(pixels) * 64 * np.finfo(np.float64).eps * pixels
        for name in ("scale_grad", "shift_grad"):
            np.testing.assert_allclose(found[name], right[name], rtol=4 * eps, atol=many)
        np.testing.assert_allclose(
            found["dx"], right["dx"], rtol=0, atol=(16 * eps + many) * np.abs(right["dx"]).max()
        )


@BOTH
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("C", [1, 2, 3, 6, 16, 17, 32, 513])
def test_frozen_norm_as_its_twin_bit_for_bit(C, relu, dtype):
    norm = Norm(dtype, (3, 5, 9, C))
    found, right = (
        norm.run(module, frozen=True, relu=relu) for module in (batch_norm, naive_batch_norm)
    )
    for name in ("y", "dx", "mean", "variance"):
        np.testing.assert_array_equal(found[name], right[name], name)
    for name in ("scale_grad", "shift_grad"):
        np.testing.assert_allclose(
            found[name], right[name], rtol=8 * np.finfo(dtype).eps, atol=1e-12
        )
    np.testing.assert_array_equal(found["mean"], norm.running[0])


@BOTH
@pytest.mark.parametrize("C", [1, 3, 6, 16, 23, 96])
def test_norm_bits_do_not_depend_on_threads_or_layout(C, dtype):
    shape = (7, 61, 67, C)
    for frozen, relu in itertools.product([False, True], repeat=2):
        norm = Norm(dtype, shape)
        answer = norm.run(batch_norm, frozen=frozen, relu=relu)
        for count in THREADS:
            with fc.num_threads(count):
                assert_same(norm.run(batch_norm, frozen=frozen, relu=relu), answer)
        norm.x, norm.dy = np.asfortranarray(norm.x), np.asfortranarray(norm.dy)
        assert_same(norm.run(batch_norm, frozen=frozen, relu=relu), answer)
        table = norm.run(batch_norm, frozen=frozen)
        flat = Norm(dtype, shape)
        flat.x, flat.dy = (array.reshape(-1, C) for array in (flat.x, flat.dy))
        np.testing.assert_array_equal(
            flat.run(batch_norm, frozen=frozen)["y"], table["y"].reshape(-1, C)
        )


@BOTH
def test_norm_of_a_large_mean_loses_no_digits(dtype):
    rng = np.random.default_rng(4)
    C = 6
    x = (rng.integers(-8, 9, (4, 100, 50, C)) / 8 + 2.0**16).astype(dtype)  # exact in float32
    mean, variance = np.zeros(C, dtype), np.ones(C, dtype)
    batch_norm.batch_norm(x, np.ones(C, dtype), np.zeros(C, dtype), mean, variance, 0.0, 0.0)
    unbiased = x.astype(np.float64).reshape(-1, C).var(0, ddof=1)
    np.testing.assert_allclose(variance, unbiased, rtol=1e-11 if dtype is np.float64 else 1e-7)


@BOTH
def test_norm_of_equal_numbers_is_the_shift(dtype):
    for C, pixels in ((1, 5000), (3, 1000), (16, 100), (5, 3)):
        x = np.full((pixels, C), 0.1, dtype)
        shift = np.arange(C, dtype=dtype)
        found = batch_norm.batch_norm(x, np.ones(C, dtype), shift, np.zeros(C, dtype),
                                      np.ones(C, dtype), 0.9, 1e-5)[0]  # fmt: skip
        # a sum of some thousand float64 numbers is rounded, and so is its mean
        np.testing.assert_allclose(found, np.tile(shift, (pixels, 1)), atol=1e-9)


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_norm_shows_nan_and_infinity_in_their_channel_only(bad, dtype):
    for C, at in ((3, (100, 1)), (16, (399, 7)), (21, (0, 20))):
        norm = Norm(dtype, (400, C))
        clean = norm.run(batch_norm)
        norm.x[at] = bad
        found = norm.run(batch_norm)
        others = np.arange(C) != at[1]
        assert np.isnan(found["y"][:, at[1]]).all()
        for name in ("y", "dx", "mean", "variance", "scale_grad"):
            np.testing.assert_array_equal(found[name][..., others], clean[name][..., others])


@BOTH
@pytest.mark.parametrize("shape", [(1, 1), (130, 3), (77, 23), (40, 16), (2000, 6)])
def test_norm_calls_write_their_results_and_nothing_else(shape, dtype):
    norm, C = Norm(dtype, shape), shape[-1]
    table, around_table = guarded(dtype, *channels.table_shape(shape, np.dtype(dtype)))
    parts, around_parts = guarded(
        np.float64, channels.norm_parts_nbytes(shape, np.dtype(dtype)) // 8
    )
    grads = [guarded(dtype, C) for _ in range(4)]
    (mean, _), (variance, _), (scale_grad, _), (shift_grad, _) = grads
    y, around = guarded(dtype, *shape)
    at, operands = parts.ctypes.data, (table, norm.scale, norm.shift, mean, variance)

    def entry(name):
        return loop_address(name, np.dtype(dtype))

    calls = [
        channels.norm_statistics_call(entry("norm_statistics"), norm.x, at, *operands, 0.5, 1e-5),
        channels.norm_frozen_call(entry("norm_frozen"), shape, *operands, 1e-5),
        channels.norm_forward_call(entry("norm_forward"), norm.x, table, y),
        channels.norm_sums_call(entry("norm_sums"), norm.dy, norm.x, at, table, norm.scale,
                                scale_grad, shift_grad),
        channels.norm_backward_call(entry("norm_backward"), norm.dy, norm.x, table, y),
        channels.norm_backward_call(entry("norm_frozen_backward_relu"), norm.dy, norm.x, table, y),
    ]  # fmt: skip
    for call in calls:
        perform(call)
    everything = [memory for _, memory in grads] + [around, around_table, around_parts]
    assert all(unharmed(memory) for memory in everything)
    before = [memory.copy() for memory in everything]
    for call in calls:
        late(call)
    for memory, kept in zip(everything, before, strict=True):
        np.testing.assert_array_equal(memory, kept)


# ------------------------------------------------------------------------------- layers


def layers(dtype):
    return {
        "relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(),
        "dropout": nn.Dropout(0.5, seed=3), "norm": nn.BatchNorm(5, dtype=dtype),
        "norm eval": nn.BatchNorm(5, dtype=dtype).eval(),
        "residual": nn.Residual(nn.Sequential(nn.Tanh(), nn.BatchNorm(5, dtype=dtype))),
    }  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", layers(np.float32))
def test_layers_compute_with_the_twins_under_reference(name, dtype, monkeypatch):
    x, dy = operands(dtype, 3, 4, 7, 5)
    fast, naive = layers(dtype)[name], layers(dtype)[name]
    naive.ops = reference
    y, dx = fast.forward(x), fast.backward(dy)

    def refuse(*_):
        raise AssertionError("the engine was called")

    monkeypatch.setattr(compiled, "engine", refuse)
    bound = 64 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, naive.forward(x), rtol=bound, atol=bound)
    np.testing.assert_allclose(dx, naive.backward(dy), rtol=bound, atol=bound)
    for a, b in zip(fast.parameters(), naive.parameters(), strict=True):
        np.testing.assert_allclose(a.grad, b.grad, rtol=bound, atol=64 * bound)


def test_layers_give_what_the_operations_give():
    norm = Norm(np.float32, (3, 4, 7, 5))
    layer = nn.BatchNorm(5)
    layer.scale.assign(norm.scale)
    layer.shift.assign(norm.shift)
    layer.running_mean[...], layer.running_variance[...] = norm.running
    answer = norm.run(batch_norm)
    np.testing.assert_array_equal(layer.forward(norm.x), answer["y"])
    np.testing.assert_array_equal(layer.backward(norm.dy), answer["dx"])
    np.testing.assert_array_equal(layer.running_variance, answer["variance"])
    np.testing.assert_array_equal(layer.scale.grad, answer["scale_grad"])


def test_a_frozen_norm_in_an_empty_batch():
    for training in (True, False):
        layer = nn.BatchNorm(3).train(training)
        y = layer.forward(np.zeros((0, 2, 2, 3), np.float32))
        assert layer.backward(y).shape == (0, 2, 2, 3)
        assert not layer.scale.grad.any()
        assert not layer.shift.grad.any()
        assert (layer.running_variance == 1).all()


@BOTH
@pytest.mark.parametrize("C", [*range(1, 36), 64, 67, 130])
def test_global_average_is_the_average_pool_bit_for_bit(C, dtype):
    for shape in ((3, 7, C), (2, 5, 9, C), (1, 2, 3, 4, C), (64, 20, 16, C)):
        x = operands(dtype, *shape)[0]
        answer = fc.avg_pool(x, shape[1:-1]).reshape(shape[0], C)
        for count in (1, 3):
            with fc.num_threads(count):
                np.testing.assert_array_equal(pooling.global_avg_pool(x), answer)
        layer = nn.GlobalAvgPool()
        np.testing.assert_array_equal(layer.forward(np.asfortranarray(x)), answer)
        np.testing.assert_allclose(answer, x.mean(tuple(range(1, x.ndim - 1))), atol=1e-5)
    y, memory = guarded(dtype, 64, C)
    call = channels.image_means_call(loop_address("image_means", x.dtype), x, y)
    perform(call)
    np.testing.assert_array_equal(y, answer)
    assert unharmed(memory)
    late(call)


# ------------------------------------------------------------------------------- bias


@BOTH
@pytest.mark.parametrize("F", [*range(1, 36), 64, 100])
def test_bias_gradient_is_exact_on_integers(F, dtype):
    rng = np.random.default_rng(F)
    for m, pixels in ((1, 1), (3, 7), (130, 1), (5, 700), (40, 64)):
        dy = rng.integers(-9, 10, (m, pixels, F)).astype(dtype)
        x, w = np.zeros((m, pixels, 1), dtype), np.zeros((1, 1, F), dtype)
        db = fc.conv_backward(dy, x, w, need=("b",)).db
        np.testing.assert_array_equal(db, dy.sum((0, 1)))


@BOTH
@pytest.mark.parametrize("F", [1, 6, 16, 23])
def test_bias_gradient_bits_do_not_depend_on_threads_or_layout(F, dtype):
    rng = np.random.default_rng(F)
    dy = (rng.normal(size=(37, 31, 33, F)) * 10.0 ** rng.integers(-6, 6, F)).astype(dtype)
    x, w = np.zeros((37, 31, 33, 1), dtype), np.zeros((1, 1, 1, F), dtype)
    db = fc.conv_backward(dy, x, w, need=("b",)).db
    for count in THREADS:
        with fc.num_threads(count):
            np.testing.assert_array_equal(fc.conv_backward(dy, x, w, need=("b",)).db, db)
    for order in (np.asfortranarray(dy), dy[::-1].copy()[::-1], dy.transpose(0, 3, 1, 2).copy()
                  .transpose(0, 2, 3, 1)):  # fmt: skip
        np.testing.assert_array_equal(fc.conv_backward(order, x, w, need=("b",)).db, db)


@BOTH
@pytest.mark.parametrize("F", [1, 2, 3, 7, 8, 9, 17])
def test_bias_gradient_adds_in_the_order_it_says(F, dtype):
    m, pixels = 3, 2**14 // F + 7
    rng = np.random.default_rng(F)
    dy = (rng.normal(size=(m, pixels, F)) * 10.0 ** rng.integers(-9, 9, (m, pixels, 1))).astype(
        dtype
    )
    memory = np.full(channels.bias_sums_nbytes(dy.shape) // 8 + 1, -77.0)
    db, around = guarded(dtype, F)
    call = channels.bias_grad_call(loop_address("bias_grad", dy.dtype), dy, memory.ctypes.data, db)
    perform(call)
    assert unharmed(around)
    assert memory[-1] == -77
    late(call)
    block, total = max(4, 2**14 // (F * dy.itemsize)), np.zeros(F)
    for image in dy.astype(np.float64):
        seen = np.zeros(F)
        for q in range(0, pixels, block):
            part = image[q : q + block]
            whole = len(part) // 4 * 4
            chains = [np.add.accumulate(part[k:whole:4])[-1] for k in range(4)]
            for pixel in part[whole:]:
                chains[0] = chains[0] + pixel
            seen = seen + ((chains[0] + chains[1]) + (chains[2] + chains[3]))
        total = total + seen
    np.testing.assert_array_equal(db, total.astype(dtype))


# ------------------------------------------------------------------------------- fill


@BOTH
@pytest.mark.parametrize("shape", [(1, 1), (3, 4, 5, 1), (130, 3), (9, 7, 16), (2, 77, 23), (0, 4)])
def test_filled_arrays(shape, dtype):
    """All rows are the row, or zeros, on any number of threads; NaN stays, -0 becomes 0 by ReLU."""
    rng = np.random.default_rng(0)
    b = rng.choice(np.array([np.nan, -np.inf, np.inf, -0.0, 0.0, 1.5, -1.5], dtype), shape[-1])
    entry = loop_address("fill_rows", np.dtype(dtype))
    for bias, relu in ((None, False), (None, True), (b, False), (b, True)):
        for threads in (1, 2, 3):
            y, around = guarded(dtype, *shape)
            call = channels.fill_call(entry, y, bias, relu)._replace(grain=1)
            with fc.num_threads(threads):
                perform(call)
            row = np.zeros(shape[-1], dtype) if bias is None else b
            right = np.broadcast_to(np.maximum(row, 0) if relu else row, shape)
            np.testing.assert_array_equal(y, right)
            np.testing.assert_array_equal(np.signbit(y), np.signbit(right))
            assert unharmed(around)
    before = y.copy()
    late(call)
    np.testing.assert_array_equal(y, before)


def test_cells_that_meet_no_tap_are_filled_without_the_interpreter():
    """A 1x1 kernel at stride 2 leaves three of four cells of its input's gradient alone."""
    model = nn.Sequential(
        nn.Conv(3, 4, 3, padding="same", rng=0), nn.Conv(4, 5, 1, stride=2, rng=1),
        nn.GlobalAvgPool(), nn.Dense(5, 2, rng=2),
    )  # fmt: skip
    loss, sgd = nn.SoftmaxCrossEntropy(), nn.SGD(model.parameters(), lr=0.1)
    step = nn.plan_step(model, loss, sgd, (4, 6, 6, 3))
    operations = step._batch(4).program.operations
    assert [o.python for o in operations if o.label.endswith("fill")] == [None]
    assert all(o.python is None for o in operations)
