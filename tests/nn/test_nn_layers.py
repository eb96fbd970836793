"""Every layer: finite differences, fast against naive, dtypes, errors."""

import numpy as np
import pytest
from nn_checks import check_gradients, forward, spread
from strategies import integers

import fastconv
from fastconv import nn, reference

IMAGE = (2, 6, 5, 4)


def residual(dtype):
    body = nn.Sequential(
        nn.Conv(4, 6, 3, padding=1, activation="relu", rng=1, dtype=dtype),
        nn.Conv(6, 4, 3, padding="same", rng=2, dtype=dtype),
    )
    return nn.Residual(body)


def projected(dtype):
    return nn.Residual(
        nn.Conv(4, 6, 3, stride=2, padding=1, rng=1, dtype=dtype),
        nn.Conv(4, 6, 1, stride=2, rng=2, dtype=dtype),
    )


# name: (layer from a dtype, shape of x, whether integers stay integers through it)
LAYERS = {
    "conv": (lambda t: nn.Conv(4, 6, 3, rng=0, dtype=t), IMAGE, True),
    "conv settings": (
        lambda t: nn.Conv(
            4, 6, (3, 2), stride=(2, 1), padding=((1, 2), (0, 1)), dilation=(1, 2), groups=2,
            bias=False, rng=0, dtype=t,
        ),
        IMAGE,
        True,
    ),
    "conv relu": (lambda t: nn.Conv(4, 5, 3, activation="relu", rng=0, dtype=t), IMAGE, True),
    "conv same": (
        lambda t: nn.Conv(4, 5, 3, stride=2, padding="same", rng=0, dtype=t), IMAGE, True
    ),
    "conv reflect": (
        lambda t: nn.Conv(4, 5, 3, padding=2, padding_mode="reflect", rng=0, dtype=t), IMAGE, True
    ),
    "conv 1-D": (lambda t: nn.Conv(3, 4, (3,), rng=0, dtype=t), (2, 7, 3), True),
    "conv 3-D": (lambda t: nn.Conv(2, 3, (2, 2, 2), rng=0, dtype=t), (2, 3, 4, 3, 2), True),
    "transpose": (lambda t: nn.ConvTranspose(4, 3, 3, rng=0, dtype=t), IMAGE, True),
    "transpose settings": (
        lambda t: nn.ConvTranspose(
            4, 6, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), groups=2,
            activation="relu", rng=0, dtype=t,
        ),
        IMAGE,
        True,
    ),
    "max": (lambda t: nn.MaxPool(2), IMAGE, True),
    "max settings": (
        lambda t: nn.MaxPool((3, 2), stride=2, padding=1, ceil_mode=True), IMAGE, True
    ),
    "average": (lambda t: nn.AvgPool(2), IMAGE, True),
    "average settings": (
        lambda t: nn.AvgPool(3, stride=2, padding=1, ceil_mode=True, count_include_pad=True),
        IMAGE,
        False,
    ),
    "global average": (lambda t: nn.GlobalAvgPool(), (2, 4, 4, 3), True),
    "dense": (lambda t: nn.Dense(7, 5, rng=0, dtype=t), (3, 7), True),
    "dense no bias": (lambda t: nn.Dense(7, 5, bias=False, rng=0, dtype=t), (3, 7), True),
    "flatten": (lambda t: nn.Flatten(), IMAGE, True),
    "relu": (lambda t: nn.ReLU(), IMAGE, True),
    "leaky relu": (lambda t: nn.LeakyReLU(0.25), IMAGE, True),
    "elu": (lambda t: nn.ELU(0.5), IMAGE, False),
    "gelu": (lambda t: nn.GELU(), IMAGE, False),
    "silu": (lambda t: nn.SiLU(), IMAGE, False),
    "softplus": (lambda t: nn.Softplus(), IMAGE, False),
    "hardswish": (lambda t: nn.Hardswish(), IMAGE, False),
    "identity": (lambda t: nn.Identity(), IMAGE, True),
    "spatial dropout": (lambda t: nn.SpatialDropout(0.5, seed=2), IMAGE, True),
    "concat": (
        lambda t: nn.Concat(nn.Identity(), nn.Conv(4, 2, 3, padding=1, rng=0, dtype=t), nn.ReLU()),
        IMAGE,
        True,
    ),
    "separable": (
        lambda t: nn.SeparableConv(4, 3, 3, multiplier=2, stride=2, padding=1, rng=0, dtype=t),
        IMAGE,
        True,
    ),
    "global max": (lambda t: nn.GlobalMaxPool(), (2, 3, 4, 3), True),
    "adaptive mean": (lambda t: nn.AdaptiveAvgPool((3, 5)), IMAGE, True),
    "adaptive mean overlap": (lambda t: nn.AdaptiveAvgPool(4), (2, 6, 3, 2), False),
    "adaptive max": (lambda t: nn.AdaptiveMaxPool((2, 1)), IMAGE, True),
    "adaptive max overlap": (lambda t: nn.AdaptiveMaxPool((4, 3)), IMAGE, True),
    "adaptive 1-D": (lambda t: nn.AdaptiveMaxPool(3), (2, 7, 3), True),
    "adaptive 3-D": (lambda t: nn.AdaptiveAvgPool((2, 1, 2)), (2, 3, 2, 3, 2), False),
    "nearest": (lambda t: nn.Upsample((2, 3)), IMAGE, True),
    "nearest 1-D": (lambda t: nn.Upsample(2), (2, 5, 3), True),
    "bilinear": (lambda t: nn.Upsample(2, mode="bilinear"), IMAGE, True),
    "bilinear by 3": (lambda t: nn.Upsample((3, 1), mode="bilinear"), (2, 1, 3, 2), False),
    "bilinear 3-D": (lambda t: nn.Upsample(2, mode="bilinear"), (1, 2, 3, 2, 2), True),
    "pixel shuffle": (lambda t: nn.PixelShuffle(2), (2, 2, 3, 8), True),
    "pixel shuffle 1-D": (lambda t: nn.PixelShuffle(3), (2, 2, 6), True),
    "pad": (lambda t: nn.Pad(((1, 2), (0, 3))), IMAGE, True),
    "pad reflect": (lambda t: nn.Pad((2, 1), "reflect"), IMAGE, True),
    "pad symmetric": (lambda t: nn.Pad(8, "symmetric"), IMAGE, True),
    "pad edge": (lambda t: nn.Pad(((0, 3), (2, 0)), "edge"), IMAGE, True),
    "pad wrap": (lambda t: nn.Pad(((7, 2), (1, 1)), "wrap"), IMAGE, True),
    "pad 1-D": (lambda t: nn.Pad(2, "reflect"), (2, 5, 3), True),
    "layer norm": (lambda t: nn.LayerNorm(4, dtype=t), IMAGE, False),
    "layer norm flat": (lambda t: nn.LayerNorm(4, dtype=t), (5, 4), False),
    "group norm": (lambda t: nn.GroupNorm(2, 4, dtype=t), IMAGE, False),
    "group norm flat": (lambda t: nn.GroupNorm(2, 6, dtype=t), (5, 6), False),
    "instance norm": (lambda t: nn.InstanceNorm(4, dtype=t), IMAGE, False),
    "sigmoid": (lambda t: nn.Sigmoid(), IMAGE, False),
    "tanh": (lambda t: nn.Tanh(), IMAGE, False),
    "dropout": (lambda t: nn.Dropout(0.4, seed=3), IMAGE, False),
    "batch norm": (lambda t: nn.BatchNorm(4, dtype=t), IMAGE, False),
    "batch norm eval": (lambda t: nn.BatchNorm(4, dtype=t).eval(), IMAGE, False),
    "batch norm flat": (lambda t: nn.BatchNorm(4, dtype=t), (6, 4), False),
    "residual": (residual, IMAGE, True),
    "residual projected": (projected, IMAGE, True),
}  # fmt: skip


@pytest.fixture(params=LAYERS)
def case(request):
    return LAYERS[request.param]


def test_gradients_by_finite_differences(case):
    make, shape, _ = case
    layer = make(np.float64)
    for i, parameter in enumerate(layer.parameters()):
        parameter.assign(spread(parameter.shape, seed=i, step=0.01))
    for i, buffer in enumerate(layer.named_buffers().values()):
        buffer[...] = 0.5 + i
    check_gradients(layer, spread(shape, seed=5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fast_equals_naive(case, dtype):
    make, shape, exact = case
    layers = make(dtype), make(dtype)
    layers[1].ops = reference
    x = integers(1, *shape, dtype=dtype)
    results = []
    for layer in layers:
        for i, parameter in enumerate(layer.parameters()):
            parameter.assign(integers(i, *parameter.shape, dtype=dtype))
        y = layer.forward(x)
        dy = integers(2, *y.shape, dtype=dtype)
        dx = layer.backward(dy)
        gradients = [p.grad.copy() for p in layer.parameters()]
        layer.backward_parameters(dy)
        for kept, parameter in zip(gradients, layer.parameters(), strict=True):
            np.testing.assert_array_equal(parameter.grad, kept)
        results.append([y, dx, *gradients])
    for fast, naive in zip(*results, strict=True):
        assert fast.dtype == naive.dtype == dtype
        if exact:
            np.testing.assert_array_equal(fast, naive)
        else:
            np.testing.assert_allclose(fast, naive, rtol=4 * np.finfo(dtype).eps, atol=1e-6)


def test_dtype_and_gradient_arrays_stay(case):
    make, shape, _ = case
    layer = make(np.float32)
    held = [(p.value, p.grad) for p in layer.parameters()]
    x = spread(shape).astype(np.float32)
    before = x.copy()
    y = layer.forward(x)
    dx = layer.backward(np.ones_like(y))
    assert y.dtype == dx.dtype == np.float32
    assert dx.shape == x.shape
    np.testing.assert_array_equal(x, before)
    for (value, grad), p in zip(held, layer.parameters(), strict=True):
        assert p.value is value
        assert p.grad is grad
        assert value.dtype == grad.dtype == np.float32
        assert grad.any()
    with pytest.raises(ValueError, match=r"dy: .*shape"):
        layer.backward(np.ones((*y.shape, 1), np.float32))
    with pytest.raises(TypeError, match=r"dy: .*float"):
        layer.backward(np.ones(y.shape, np.float64))


def test_empty_batch(case):
    make, shape, _ = case
    layer = make(np.float32)
    y = layer.forward(np.zeros((0, *shape[1:]), np.float32))
    assert y.shape[0] == 0
    assert layer.backward(y).shape == (0, *shape[1:])
    for parameter in layer.parameters():
        np.testing.assert_array_equal(parameter.grad, 0)


def test_bad_x(case):
    make, shape, _ = case
    layer = make(np.float32)
    with pytest.raises(ValueError, match="backward was called before forward"):
        layer.backward(np.zeros(shape, np.float32))
    with pytest.raises(TypeError, match="x: a NumPy array is needed, got list"):
        layer.forward([1.0, 2.0])
    with pytest.raises(TypeError, match="x: dtype must be float32 or float64, got int64"):
        layer.forward(np.zeros(shape, np.int64))
    if layer.parameters():
        with pytest.raises(TypeError, match=r"x: expected dtype float32, got float64"):
            layer.forward(np.zeros(shape, np.float64))
        wrong = (*shape[:-1], shape[-1] + 1)
        with pytest.raises(ValueError, match=rf"x: expected \(m.*, {shape[-1]}\), got"):
            layer.forward(np.zeros(wrong, np.float32))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: nn.Conv(0, 1, 3), ValueError, "channels: must be at least 1, got 0"),
        (lambda: nn.Conv(1, 1.5, 3), TypeError, "filters: an integer is needed, got 1.5"),
        (lambda: nn.Conv(True, 1, 3), TypeError, "channels: an integer"),
        (lambda: nn.Conv(1, 1, (3, 0)), ValueError, "window: must be at least 1"),
        (lambda: nn.Conv(1, 1, (1, 1, 1, 1)), ValueError, "window: one to three axes"),
        (lambda: nn.Conv(3, 4, 3, groups=2), ValueError, "groups: 2 does not divide channels = 3"),
        (lambda: nn.Conv(4, 3, 3, groups=2), ValueError, "groups: 2 does not divide filters = 3"),
        (lambda: nn.Conv(1, 1, 3, activation="selu"), ValueError, "activation: .* 'selu'"),
        (lambda: nn.Conv(1, 1, 3, init="magic"), ValueError, "init: .* 'magic'"),
        (lambda: nn.Conv(1, 1, 3, rng="dice"), TypeError, "rng: .* 'dice'"),
        (lambda: nn.Conv(1, 1, 3, dtype=np.float16), TypeError, "dtype: .* float16"),
        (lambda: nn.Dense(1, 0), ValueError, "outputs: must be at least 1"),
        (lambda: nn.Dropout(1.0), ValueError, r"rate: must be in \[0, 1\)"),
        (lambda: nn.Dropout("half"), TypeError, "rate: a number"),
        (lambda: nn.BatchNorm(3, epsilon=-1), ValueError, "epsilon: must be finite and at least 0"),
        (lambda: nn.BatchNorm(3, momentum=1), ValueError, r"momentum: must be in \[0, 1\)"),
        (lambda: nn.Sequential(), ValueError, "layers: at least one"),
        (lambda: nn.Sequential(nn.ReLU, nn.ReLU()), TypeError, "layers: expected"),
        (lambda: nn.Residual("body"), TypeError, "body: a fastconv.nn layer"),
        (lambda: nn.Parameter(np.zeros(3, int), "w"), TypeError, "value: a float32 or float64"),
    ],
)  # fmt: skip
def test_bad_arguments(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_one_layer_in_two_places():
    layer = nn.ReLU()
    with pytest.raises(ValueError, match=r"stands at 0 and at 1\.body"):
        nn.Sequential(layer, nn.Residual(layer))


def test_error_inside_a_chain_names_the_layer():
    model = nn.Sequential(nn.ReLU(), nn.Conv(3, 4, 3, rng=0))
    with pytest.raises(ValueError, match=r"x: expected \(m, H, W, 3\), got") as caught:
        model.forward(np.zeros((1, 5, 5, 2), np.float32))
    assert str(caught.value).endswith("got (1, 5, 5, 2), in layer 1 (Conv)")


def test_residual_shapes():
    block = nn.Residual(nn.Conv(4, 4, 3, rng=0))
    with pytest.raises(ValueError, match=r"body: its output \(1, 3, 3, 4\) and the shortcut's"):
        block.forward(np.zeros((1, 5, 5, 4), np.float32))


def test_conv_transpose_kernel_layout():
    layer = nn.ConvTranspose(6, 4, 3, stride=2, groups=2, rng=0)
    assert layer.w.shape == (3, 3, 2, 6)
    assert layer.b.shape == (4,)
    assert layer.forward(np.zeros((1, 5, 5, 6), np.float32)).shape == (1, 11, 11, 4)


def test_max_pool_tells_its_winners():
    layer = nn.MaxPool(2)
    x = spread((2, 4, 4, 3))
    y = layer.forward(x)
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(2, 16, 3), layer.argmax.reshape(2, 4, 3), 1),
        y.reshape(2, 4, 3),
    )


def test_batch_norm_statistics():
    layer = nn.BatchNorm(2, momentum=0.75, dtype=np.float64)
    x = np.random.default_rng(0).normal(3.0, 2.0, (8, 4, 4, 2))
    y = layer.forward(x)
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(0, 1, 2)), 1, rtol=1e-4)
    flat = x.reshape(-1, 2)
    np.testing.assert_allclose(layer.running_mean, 0.25 * flat.mean(axis=0), rtol=1e-12)
    expected = 0.75 + 0.25 * flat.var(axis=0, ddof=1)
    np.testing.assert_allclose(layer.running_variance, expected, rtol=1e-12)
    kept = layer.running_mean.copy()
    out = layer.eval().forward(x)
    np.testing.assert_array_equal(layer.running_mean, kept)
    np.testing.assert_allclose(out, (x - kept) / np.sqrt(expected + 1e-5), rtol=1e-12)


def test_dropout():
    layer = nn.Dropout(0.25, seed=5)
    x = np.ones((100, 100), np.float32)
    y = layer.forward(x)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(layer.backward(x), y)
    assert (layer.forward(x) != y).any()
    np.testing.assert_array_equal(nn.Dropout(0.25, seed=5).forward(x), y)
    assert layer.eval().forward(x) is x


@pytest.mark.parametrize("init", ["he", "glorot", "zeros"])
def test_initial_weights(init):
    layer = nn.Conv(32, 64, 3, init=init, rng=np.random.default_rng(1))
    again = nn.Conv(32, 64, 3, init=init, rng=1, dtype=np.float64)
    np.testing.assert_array_equal(layer.w.value, again.w.value.astype(np.float32))
    variance = {"he": 2 / (9 * 32), "glorot": 2 / (9 * 96), "zeros": 0.0}[init]
    np.testing.assert_allclose(layer.w.value.var(), variance, rtol=0.05)
    np.testing.assert_array_equal(layer.b.value, 0)


def test_ops_reach_every_layer():
    model = nn.Sequential(residual(np.float32), nn.Sequential(nn.ReLU()), ops=reference)
    assert {layer.ops for _, layer in model.walk()} == {reference}
    model.ops = None
    assert {layer.ops for _, layer in model.walk()} == {fastconv}


def test_names_modes_and_summary():
    model = nn.Sequential(residual(np.float32), nn.BatchNorm(4), nn.Dropout(0.5), name="net")
    names = ["0.body.0.w", "0.body.0.b", "0.body.1.w", "0.body.1.b", "1.scale", "1.shift"]
    assert [p.name for p in model.parameters()] == names
    assert list(model.named_buffers()) == ["1.running_mean", "1.running_variance"]
    assert list(model.named_generators()) == ["2.rng"]
    assert not any(layer.training for _, layer in model.eval().walk())
    with nn.evaluating(model.train()):
        assert not any(layer.training for _, layer in model.walk())
    assert all(layer.training for _, layer in model.walk())
    table = model.summary((5, 5, 4)).splitlines()
    assert table[2].split()[:6] == ["0", "Residual", "(5,", "5,", "4)", "442"]
    assert table[-1].split()[:2] == ["net", "450"]


def test_predict_in_batches():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Dense(12, 3, rng=0))
    x = integers(0, 7, 2, 2, 3, dtype=np.float32)
    model.layers[2].w.assign(integers(0, 12, 3, dtype=np.float32))
    whole = model.predict(x)
    np.testing.assert_array_equal(whole, x.reshape(7, 12) @ model.layers[2].w.value)
    np.testing.assert_array_equal(model.predict(x, batch_size=3), whole)
    assert model.predict(x[:0]).shape == (0, 3)
    assert model.training
    with pytest.raises(ValueError, match="batch_size: must be at least 1"):
        model.predict(x, batch_size=0)


def test_activations_and_deltas():
    model = nn.Sequential(nn.Conv(1, 2, 3, rng=0), nn.ReLU(), nn.Flatten())
    x = spread((2, 4, 4, 1)).astype(np.float32)
    outputs = model.activations(x)
    np.testing.assert_array_equal(outputs[-1], model.forward(x))
    np.testing.assert_array_equal(outputs[1], np.maximum(outputs[0], 0))
    dy = np.ones_like(outputs[-1])
    deltas = model.deltas(dy)
    assert [d.shape for d in deltas] == [x.shape, outputs[0].shape, outputs[1].shape]
    np.testing.assert_array_equal(deltas[0], model.backward(dy))
    np.testing.assert_array_equal(deltas[1], outputs[0] > 0)


def test_shape_independent_of_forward_helper():
    # The helper that the gradient tests rely on really repeats a pass in training mode.
    layer = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm(4, dtype=np.float64))
    x = spread(IMAGE)
    np.testing.assert_array_equal(forward(layer, x), forward(layer, x))
    assert (layer.forward(x) != layer.forward(x)).any()
