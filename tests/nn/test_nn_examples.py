"""The example CNNs: fast against naive loops and finite differences, layer by layer."""

import numpy as np
import pytest
from nn_checks import ATOL, RTOL, forward, numeric_gradient, same_state

import fastconv
from fastconv import examples, nn, reference

# name: (network from dtype and ops, image shape, batch for the naive loops)
MODELS = {
    "binary_cnn": (lambda **k: examples.binary_cnn(seed=1, **k), (8, 8, 1), 4),
    "digits_cnn": (lambda **k: examples.digits_cnn(seed=1, **k), (8, 8, 1), 3),
    "fashion_cnn": (lambda **k: examples.fashion_cnn((8, 8, 1), seed=1, **k), (8, 8, 1), 2),
    "two_conv_cnn 28x28": (lambda **k: examples.two_conv_cnn(seed=1, **k), (28, 28, 1), 1),
}
for _pool in ("max", "mean"):
    for _act in ("sigmoid", "relu"):
        MODELS[f"two_conv_cnn {_pool} {_act}"] = (
            lambda pool=_pool, act=_act, **k: examples.two_conv_cnn(
                (16, 16, 1), subsampling=pool, activation=act, seed=1, **k
            ),
            (16, 16, 1),
            2,
        )


@pytest.fixture(params=MODELS)
def case(request):
    return MODELS[request.param]


def problem(model, shape, m, dtype):
    """Images, labels and the loss that fits the network."""
    rng = np.random.default_rng(2)
    x = rng.random((m, *shape)).astype(dtype)
    outputs = model.layers[-1].outputs
    if outputs == 1:
        return x, np.arange(m) % 2, nn.BinaryCrossEntropy()
    return x, rng.integers(0, outputs, m), nn.SoftmaxCrossEntropy()


def whole_pass(model, loss, x, y):
    """Loss, every activation, every delta, every parameter gradient."""
    with same_state(model):
        activations = model.activations(x)
    value = loss.forward(activations[-1], y)
    deltas = model.deltas(loss.backward())
    return value, activations, deltas, [p.grad.copy() for p in model.parameters()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_activation_delta_and_gradient_fast_against_naive(case, dtype):
    make, shape, m = case
    fast, naive = make(dtype=dtype), make(dtype=dtype, ops=reference)
    assert {layer.ops for _, layer in fast.walk()} == {fastconv}
    assert {layer.ops for _, layer in naive.walk()} == {reference}
    x, y, loss = problem(fast, shape, m, dtype)
    got, expected = (whole_pass(model, loss, x, y) for model in (fast, naive))
    assert abs(got[0] - expected[0]) <= 64 * np.finfo(dtype).eps * max(1, abs(expected[0]))
    for kind, ours, theirs in zip(
        ("activation", "delta", "gradient"), got[1:], expected[1:], strict=True
    ):
        for i, (a, e) in enumerate(zip(ours, theirs, strict=True)):
            assert a.dtype == e.dtype == dtype
            assert a.shape == e.shape
            # Rounding is relative to the largest terms of a sum, not to the sum.
            bound = 128 * np.finfo(dtype).eps * max(np.abs(e).max(), 1e-3)
            np.testing.assert_allclose(a, e, rtol=0, atol=bound, err_msg=f"{kind} {i}")


def test_gradients_by_finite_differences(case):
    make, shape, m = case
    model = make(dtype=np.float64)
    x, y, loss = problem(model, shape, m, np.float64)
    _, _, deltas, gradients = whole_pass(model, loss, x, y)

    def value():
        return loss.forward(forward(model, x), y)

    pick = np.random.default_rng(3)
    pairs = [("x", x, deltas[0])]
    pairs += [(p.name, p.value, g) for p, g in zip(model.parameters(), gradients, strict=True)]
    for name, array, gradient in pairs:
        where = pick.choice(array.size, min(array.size, 6), replace=False)
        expected = numeric_gradient(value, array, where)
        actual = gradient.reshape(-1)[where]
        np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=1e-2 * ATOL, err_msg=name)


@pytest.mark.parametrize("name", [name for name in MODELS if "28x28" not in name])
def test_ten_training_steps_give_one_trajectory(name):
    make, shape, _ = MODELS[name]
    m = 4 if name == "binary_cnn" else 2 if name == "digits_cnn" else 1
    losses = []
    for ops in (fastconv, reference):
        model = make(dtype=np.float64, ops=ops)
        x, y, loss = problem(model, shape, m, np.float64)
        optimizer = nn.SGD(model.parameters(), lr=0.005, momentum=0.9)
        losses.append([nn.train_step(model, loss, optimizer, x, y)[0] for _ in range(10)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
    assert len(set(losses[0])) == 10


# binary_cnn by hand ---------------------------------------------------------------------------


def test_binary_cnn_against_the_equations():
    model = examples.binary_cnn(seed=3, dtype=np.float64)
    conv, _, _, _, dense = model.layers
    conv.b.assign(np.array([0.2]))
    dense.b.assign(np.array([-0.1]))
    m = 5
    x = np.random.default_rng(4).normal(size=(m, 8, 8, 1))
    y = np.array([0, 1, 1, 0, 1])
    w1, b1 = conv.w.value[:, :, 0, 0], conv.b.value[0]
    w3, b3 = dense.w.value, dense.b.value[0]

    z1, a1 = np.zeros((m, 6, 6)), np.zeros((m, 6, 6))
    a2, winner = np.zeros((m, 3, 3)), {}
    z3, a3, losses = np.zeros(m), np.zeros(m), np.zeros(m)
    dz3, da2 = np.zeros(m), np.zeros((m, 3, 3))
    da1, dz1 = np.zeros((m, 6, 6)), np.zeros((m, 6, 6))
    dw1, db1, dw3, db3 = np.zeros((3, 3)), 0.0, np.zeros((9, 1)), 0.0
    for n in range(m):
        for h in range(6):
            for w in range(6):
                # (1) z1 = x * w1 + b1: the 3x3 patch below (h, w) times the kernel
                z1[n, h, w] = (x[n, h : h + 3, w : w + 3, 0] * w1).sum() + b1
                a1[n, h, w] = max(z1[n, h, w], 0.0)  # (2) a1 = relu(z1)
        for h in range(3):
            for w in range(3):
                # (3) a2 = the largest of four; remember which
                cells = [(2 * h + i, 2 * w + j) for i in (0, 1) for j in (0, 1)]
                winner[n, h, w] = max(cells, key=lambda cell, n=n: a1[n, *cell])
                a2[n, h, w] = a1[n, *winner[n, h, w]]
        z3[n] = (a2[n].reshape(9) * w3[:, 0]).sum() + b3  # (4) z3 = flatten(a2) w3 + b3
        a3[n] = 1 / (1 + np.exp(-z3[n]))  # (5) a3 = sigmoid(z3)
        losses[n] = -np.log(a3[n]) if y[n] else -np.log(1 - a3[n])  # (6) cross-entropy
        dz3[n] = (a3[n] - y[n]) / m  # (7) dL/dz3 = a3 - y, for the mean over m images
        dw3 += dz3[n] * a2[n].reshape(9, 1)  # (8) dw3 = flatten(a2).T dL/dz3
        db3 += dz3[n]
        da2[n] = (dz3[n] * w3.T).reshape(3, 3)  # (9) dL/da2 = dL/dz3 w3.T
        for h in range(3):
            for w in range(3):
                da1[n, *winner[n, h, w]] = da2[n, h, w]  # (10) the winner gets the error
        for h in range(6):
            for w in range(6):
                # (11) ReLU mask, then dw1 as the sum over patches, db1 as the sum over pixels
                dz1[n, h, w] = da1[n, h, w] if z1[n, h, w] > 0 else 0.0
                dw1 += dz1[n, h, w] * x[n, h : h + 3, w : w + 3, 0]
                db1 += dz1[n, h, w]

    loss = nn.BinaryCrossEntropy()
    value, activations, deltas, _ = whole_pass(model, loss, x, y)
    close = {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(activations[0][..., 0], z1, **close)
    np.testing.assert_allclose(activations[1][..., 0], a1, **close)
    np.testing.assert_allclose(activations[2][..., 0], a2, **close)
    np.testing.assert_allclose(activations[4][:, 0], z3, **close)
    np.testing.assert_allclose(loss.predict(activations[4])[:, 0], a3, **close)
    np.testing.assert_allclose(value, losses.mean(), **close)
    np.testing.assert_allclose(loss.backward()[:, 0], dz3, **close)
    np.testing.assert_allclose(deltas[4], da2.reshape(m, 9), **close)
    np.testing.assert_allclose(deltas[3][..., 0], da2, **close)
    np.testing.assert_allclose(deltas[2][..., 0], da1, **close)
    np.testing.assert_allclose(deltas[1][..., 0], dz1, **close)
    np.testing.assert_allclose(dense.w.grad, dw3, **close)
    np.testing.assert_allclose(dense.b.grad, [db3], **close)
    np.testing.assert_allclose(conv.w.grad[:, :, 0, 0], dw1, **close)
    np.testing.assert_allclose(conv.b.grad, [db1], **close)

    # Of each window's four cells the winner holds the error and three hold exactly zero.
    windows = deltas[2][..., 0].reshape(m, 3, 2, 3, 2)
    np.testing.assert_array_equal((windows != 0).sum(axis=(2, 4)), 1)
    np.testing.assert_array_equal(windows.sum(axis=(2, 4)), deltas[3][..., 0])
    # The mask removed something, and what it removed is exactly zero.
    dead = activations[0] <= 0
    assert (deltas[2][dead] != 0).any()
    np.testing.assert_array_equal(deltas[1][dead], 0)
    np.testing.assert_array_equal(deltas[1][~dead], deltas[2][~dead])


# two_conv_cnn by hand -------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("subsampling", ["max", "mean"])
def test_delta_of_c1_is_the_full_convolution_of_c2s(subsampling, activation):
    from scipy.signal import correlate2d

    model = examples.two_conv_cnn(
        (16, 16, 1), subsampling=subsampling, activation=activation, seed=2, dtype=np.float64
    )
    x, y, loss = problem(model, (16, 16, 1), 3, np.float64)
    _, activations, deltas, gradients = whole_pass(model, loss, x, y)
    c1, a1, s1 = activations[:3]
    w2 = model.layers[3].w.value  # (5, 5, 6, 16)
    delta_c2 = deltas[4]  # dL/d(output of c2 before its activation), (3, 2, 2, 16)
    m, _, _, F = delta_c2.shape

    # Back through c2: full correlation with the kernel turned by 180 degrees.
    delta_s1 = np.zeros_like(s1)
    for n in range(m):
        for c in range(6):
            for f in range(F):
                flipped = w2[::-1, ::-1, c, f]
                delta_s1[n, :, :, c] += correlate2d(delta_c2[n, :, :, f], flipped, mode="full")

    # Upsample: all of the error to the window's winner, or a quarter to each of the four.
    upsampled = np.zeros_like(a1)
    for n, h, w, c in np.ndindex(s1.shape):
        window = (n, slice(2 * h, 2 * h + 2), slice(2 * w, 2 * w + 2), c)
        if subsampling == "mean":
            upsampled[window] = delta_s1[n, h, w, c] / 4
        else:
            i, j = divmod(int(a1[window].argmax()), 2)
            upsampled[n, 2 * h + i, 2 * w + j, c] = delta_s1[n, h, w, c]

    sigmoid = 1 / (1 + np.exp(-c1))
    slope = sigmoid * (1 - sigmoid) if activation == "sigmoid" else (c1 > 0).astype(float)
    delta_c1 = upsampled * slope

    close = {"rtol": 1e-10, "atol": 1e-15}
    np.testing.assert_allclose(deltas[3], delta_s1, **close)
    np.testing.assert_allclose(deltas[2], upsampled, **close)
    np.testing.assert_allclose(deltas[1], delta_c1, **close)
    assert np.abs(delta_c1).max() > 1e-6

    # Kernel gradient of c1: valid correlation of its input with its delta.
    dw1 = np.zeros((5, 5, 6))
    for n in range(m):
        for f in range(6):
            dw1[:, :, f] += correlate2d(x[n, :, :, 0], delta_c1[n, :, :, f], mode="valid")
    np.testing.assert_allclose(gradients[0][:, :, 0, :], dw1, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(gradients[1], delta_c1.sum(axis=(0, 1, 2)), rtol=1e-10, atol=1e-14)


# The models' own arguments --------------------------------------------------------------------


def test_shapes_and_parameters():
    binary = examples.binary_cnn()
    shapes = [a.shape[1:] for a in binary.activations(np.zeros((1, 8, 8, 1), np.float32))]
    assert shapes == [(6, 6, 1), (6, 6, 1), (3, 3, 1), (9,), (1,)]
    assert [p.size for p in binary.parameters()] == [9, 1, 9, 1]
    for make in (examples.two_conv_cnn, examples.digits_cnn):
        for shape in ((4, 4, 1), (8, 8, 1), (9, 17, 3), (16, 16, 1), (28, 28, 1), (32, 33, 3)):
            model = make(shape, 7)
            assert model.predict(np.zeros((2, *shape), np.float32)).shape == (2, 7)
    assert all(p.dtype == np.float64 for p in examples.digits_cnn(dtype=np.float64).parameters())
    first, second = (examples.digits_cnn(seed=seed).layers[0].w.value for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: examples.two_conv_cnn((3, 8, 1)), "input_shape: at least 4x4 .* 3x8"),
        (lambda: examples.digits_cnn((8, 8)), r"input_shape: expected \(H, W, C\)"),
        (lambda: examples.digits_cnn(classes=0), "classes: must be at least 1"),
        (lambda: examples.two_conv_cnn(subsampling="sum"), "subsampling: .* 'sum'"),
        (lambda: examples.two_conv_cnn(activation="tanh"), "activation: .* 'tanh'"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
