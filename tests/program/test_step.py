"""Steps as programs: bit for bit what the layers' own passes give."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    Absolute,
    Louder,
    Scale,
    Signs,
    Square,
    batch,
    compare_steps,
    differences,
    images,
    labels,
    networks,
    optimizers,
    patched,
    plain_step,
    same_bits,
    small,
    state,
    trained,
)

import fastconv as fc
from fastconv import nn, reference
from fastconv.examples import binary_cnn, digits_cnn, two_conv_cnn

# ---------------------------------------------------------------------------------------- drawn


def twins(model, loss, make):
    """A model, loss and optimizer, and the same once more."""
    other = copy.deepcopy(model)
    return (model, loss, make(model.parameters())), (
        other, copy.deepcopy(loss), make(other.parameters()),
    )  # fmt: skip


def drawn_batches(data, model, shape, loss, most):
    sizes = data.draw(st.lists(st.integers(1, most), min_size=1, max_size=3))
    found = []
    for seed, m in enumerate([most, *sizes]):
        x = images(model, shape, m, seed)
        z_shape = (m, *model.infer(x[:1]).shape[1:])
        found.append((x, labels(loss, z_shape, seed)))
    return found


def refusal(step, batches):
    """What the batches raise: that of a normalisation with one value per channel, or None."""
    try:
        for x, y in batches:
            step(x, y)
    except ValueError as error:
        if "one value per channel" not in str(error):
            raise
        return type(error)
    return None


def check_drawn(data, plan):
    model, shape, loss = data.draw(networks())
    ours, twin = twins(model, loss, optimizers(data.draw))
    most = data.draw(st.integers(1, 9))
    batches = drawn_batches(data, model, shape, loss, most)
    step = plan(*ours, (most, *shape))
    third = copy.deepcopy(model)
    refused = refusal(lambda x, _: third.forward(x), batches)
    if refused is not None:
        assert refusal(step, batches) is refused
        return
    compare_steps(step, *ours, twin, batches)


def by_train_step(model, loss, optimizer, shape):
    return lambda x, y: nn.train_step(model, loss, optimizer, x, y)


def by_plan(model, loss, optimizer, shape):
    """A plan that is made at the first call, as some cannot be."""
    made = []

    def step(x, y):
        if not made:
            made.append(nn.plan_step(model, loss, optimizer, shape))
        return made[0](x, y)

    return step


BY = pytest.mark.parametrize("by", [by_plan, by_train_step])


@settings(max_examples=40)
@given(st.data())
def test_drawn_networks(data):
    check_drawn(data, data.draw(st.sampled_from([by_plan, by_train_step])))


@pytest.mark.soak
@settings(max_examples=5000)
@given(st.data())
def test_many_drawn_networks(data):
    check_drawn(data, data.draw(st.sampled_from([by_plan, by_train_step])))


def test_the_comparison_finds_a_wrong_bit():
    ours, twin = trained(), trained()
    w = twin[0].parameters()[0].value
    w[0, 0, 0, 0] = np.nextafter(w[0, 0, 0, 0], np.float32(9))
    with pytest.raises(AssertionError):
        compare_steps(by_train_step(*ours, None), *ours, twin, [batch()])


# ------------------------------------------------------------------------------------ each kind

ONE = {
    "no tap meets some cells": lambda: nn.Conv(2, 2, 1, stride=2, padding=1, rng=0),
    "transposed, gaps, in rows": lambda: nn.Sequential(
        nn.Conv(2, 1, 1, rng=0), nn.ConvTranspose(1, 1, (1, 3), stride=(2, 1), rng=0)
    ),
    "transposed, gaps": lambda: nn.ConvTranspose(2, 3, 1, stride=3, activation="relu", rng=0),
    "depthwise": lambda: nn.Conv(2, 4, 3, groups=2, dilation=2, rng=0),
    "identity residual": lambda: nn.Residual(nn.Dropout(0.0, seed=1)),
    "nested residual": lambda: nn.Residual(nn.Residual(nn.Tanh(), nn.ReLU()), nn.Sigmoid()),
    "residual of own layers": lambda: nn.Residual(Square(), Scale(2, np.float32)),
    "own in a chain of chains": lambda: nn.Sequential(nn.Sequential(Square(), nn.ReLU())),
    "patched": lambda: nn.Sequential(nn.Conv(2, 3, 3, rng=0), patched(nn.ReLU())),
    "subclass": lambda: nn.Sequential(Louder(2, 3, 3, rng=0), nn.ReLU()),
    "two ReLUs": lambda: nn.Sequential(nn.Conv(2, 3, 3, rng=0), nn.ReLU(), nn.ReLU()),
    "frozen": lambda: nn.Sequential(nn.BatchNorm(2).eval(), nn.Dropout(0.5, seed=1).eval()),
}


FIRST = {
    "Flatten": (lambda: [nn.Flatten(), nn.Dense(128, 3, rng=0)], False),
    "pools": (lambda: [nn.AvgPool(2), nn.ReLU(), nn.Conv(2, 3, 4, rng=0), nn.Flatten()], False),
    "own without parameters": (lambda: [Square(), nn.Flatten(), nn.Dense(128, 3, rng=0)], True),
    "own behind": (lambda: [nn.ReLU(), Louder(2, 3, 8, rng=0), nn.Flatten()], True),
    "own in a chain": (
        lambda: [nn.ReLU(), nn.Sequential(Louder(2, 3, 8, rng=0)), nn.Flatten()], True),
    "in a residual": (
        lambda: [nn.Residual(nn.Tanh()), nn.Flatten(), nn.Dense(128, 3, rng=0)], False),
    "norm": (lambda: [nn.BatchNorm(2), nn.Flatten(), nn.Dense(128, 3, rng=0)], True),
}  # fmt: skip


@BY
@pytest.mark.parametrize("name", FIRST)
def test_gradients_that_no_parameter_needs_are_left_out(name, by):
    layers, wanted = FIRST[name]
    ours, twin = (trained(make_model=lambda: nn.Sequential(*layers())) for _ in range(2))
    compare_steps(by(*ours, (5, 8, 8, 2)), *ours, twin, [batch(5, 1), batch(2, 2)])
    labels = str(nn.plan_step(*ours, (5, 8, 8, 2)))
    own = "Louder backward" in labels
    assert ("input gradient" in labels or own) == wanted


def with_head(layer):
    shape = layer.infer(np.zeros((1, 8, 8, 2), np.float32)).shape
    for parameter in layer.parameters():
        parameter.value += np.float32(0.25)
    return nn.Sequential(layer, nn.Flatten(), nn.Dense(int(np.prod(shape)), 3, rng=1))


@BY
@pytest.mark.parametrize("name", ONE)
def test_each_kind(name, by):
    def make():
        return with_head(ONE[name]())

    ours, twin = trained(make_model=make), trained(make_model=make)
    batches = [batch(5, 1), batch(2, 2), batch(5, 3)]
    compare_steps(by(*ours, (5, 8, 8, 2)), *ours, twin, batches)


@BY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ten_steps(by, dtype):
    def make():
        return small(dtype, (Square(), Scale(6, dtype)))

    def adam(parameters):
        return nn.Adam(parameters, lr=0.01)

    ours, twin = trained(adam, make), trained(adam, make)
    batches = [batch(6 - seed % 3, seed, dtype) for seed in range(10)]
    compare_steps(by(*ours, (6, 8, 8, 2)), *ours, twin, batches)


class Halved(nn.MeanSquaredError):
    """A loss that derives from one that programs know."""

    def forward(self, z, y):
        return super().forward(z, y) / 2

    def backward(self):
        return super().backward() / 2


class Methods:
    """A loss that derives from nothing."""

    def forward(self, z, y):
        self.z = z.copy()
        return float((z * z).sum())

    def backward(self):
        return 2 * self.z

    def correct(self, z, y):
        return None


class Plainest:
    """An optimizer that derives from nothing."""

    def __init__(self, parameters):
        self.parameters = list(parameters)

    def step(self):
        for parameter in self.parameters:
            parameter.value -= parameter.grad / 64

    def state(self):
        return {}


class Twice(nn.SGD):
    """An optimizer that derives from one that programs know."""

    def step(self):
        super().step()
        super().step()


@BY
@pytest.mark.parametrize("make_loss", [Absolute, Halved, Methods])
@pytest.mark.parametrize("make_optimizer", [Signs, Plainest, Twice, nn.Adam])
def test_losses_and_optimizers_of_ones_own(make_loss, make_optimizer, by):
    made = [small(), small()]
    ours, twin = ((m, make_loss(), make_optimizer(m.parameters())) for m in made)
    batches = [(x, np.zeros((len(x), 3) if make_loss is Halved else len(x))) for x, _ in
               (batch(4, 1), batch(3, 2), batch(4, 3))]  # fmt: skip
    compare_steps(by(*ours, (4, 8, 8, 2)), *ours, twin, batches)


# ----------------------------------------------------------------------------------- what changes


def rebind(parameter):
    """Value and gradient as views of other memory, as a flat buffer would have them."""
    for name in ("value", "grad"):
        held = getattr(parameter, name)
        memory = np.zeros(held.size + 8, held.dtype)
        view = memory[4:-4].reshape(held.shape)
        view[...] = held
        object.__setattr__(parameter, name, view)


def of_other_layout(parameter):
    """Fortran's order, which the plain passes copy."""
    for name in ("value", "grad"):
        object.__setattr__(parameter, name, np.asfortranarray(getattr(parameter, name)))


def replace_layers(model, optimizer):
    model.layers = (*model.layers[:5], nn.AvgPool(2), *model.layers[6:])


def drop_parameters(model, optimizer):
    optimizer.parameters = optimizer.parameters[:]
    del optimizer.parameters[-2:]
    optimizer._slots = [slot[:-2] for slot in optimizer._slots]


def patch(model, optimizer):
    patched(model.layers[8])


def patch_the_fused_relu(model, optimizer):
    patched(model.layers[12])


def replace_a_layer(path, new):
    def change(model, optimizer):
        setattr(model.layers[3], path, new())

    return change


CHANGES = {
    "one layer frozen": lambda model, _: model.layers[1].eval(),
    "all frozen": lambda model, _: model.eval(),
    "no dropout": lambda model, _: model.layers[6].eval(),
    "rate": lambda model, _: setattr(model.layers[6], "rate", 0.75),
    "rate 0": lambda model, _: setattr(model.layers[6], "rate", 0.0),
    "momentum of statistics": lambda model, _: setattr(model.layers[1], "momentum", 0.25),
    "epsilon": lambda model, _: setattr(model.layers[1], "epsilon", 0.5),
    "activation": lambda model, _: setattr(model.layers[7], "activation", "relu"),
    "window": lambda model, _: (
        setattr(model.layers[9], "window", (1, 2)),
        model.layers[9].settings.update(stride=2),
    ),
    "a pool's padding": lambda model, _: model.layers[5].settings.update(padding=((1, 0), (1, 0))),
    "dilation": lambda model, _: model.layers[0].settings.update(dilation=2),
    "lr": lambda _, optimizer: setattr(optimizer, "lr", 0.5),
    "momentum": lambda _, optimizer: setattr(optimizer, "momentum", 0.1),
    "nesterov": lambda _, optimizer: setattr(optimizer, "nesterov", True),
    "state loaded": lambda _, optimizer: optimizer.load_state(
        {name: a + a.dtype.type(1) for name, a in optimizer.state().items()}
    ),
    "other arrays": lambda model, _: [rebind(parameter) for parameter in model.parameters()],
    "arrays of another layout": lambda model, _: [of_other_layout(p) for p in model.parameters()],
    "other values": lambda model, _: [p.assign(p.value / 2) for p in model.parameters()],
    "fewer parameters": drop_parameters,
    "a shortcut": replace_a_layer("shortcut", nn.Tanh),
    "another body": replace_a_layer("body", nn.Sigmoid),
    "layers": replace_layers,
    "a patched layer": patch,
    "a patched ReLU": patch_the_fused_relu,
    "naive loops": lambda model, _: setattr(model, "ops", reference),
}


def momentum(parameters):
    return nn.SGD(parameters, lr=0.05, momentum=0.9)


@BY
@pytest.mark.parametrize("name", CHANGES)
def test_settings_changed_between_steps(name, by):
    ours, twin = trained(momentum), trained(momentum)
    step = by(*ours, (4, 8, 8, 2))
    compare_steps(step, *ours, twin, [batch(4, 0), batch(3, 1)])
    for model, _, optimizer in (ours, twin):
        CHANGES[name](model, optimizer)
    compare_steps(step, *ours, twin, [batch(4, 2), batch(3, 3), batch(4, 4)])


def test_a_patched_loss_and_optimizer():
    ours, twin = trained(), trained()
    step = nn.plan_step(*ours, (4, 8, 8, 2))
    compare_steps(step, *ours, twin, [batch(4, 0)])
    for _, loss, optimizer in (ours, twin):
        forward, move = loss.forward, optimizer.step
        loss.forward = lambda z, y, forward=forward: 2 * forward(z, y)
        optimizer.step = lambda move=move: (move(), move())
    compare_steps(step, *ours, twin, [batch(4, 1), batch(4, 2)])


def test_num_threads_may_change_between_steps():
    ours, twin = trained(), trained()
    step = nn.plan_step(*ours, (9, 8, 8, 2))
    for seed, count in enumerate((2, 1, 8, 3)):
        with fc.num_threads(count):
            compare_steps(step, *ours, twin, [batch(9 - seed, seed)])


# --------------------------------------------------------------------------- other ways to be right

EXAMPLES = {
    "binary": lambda **o: (binary_cnn(**o), nn.BinaryCrossEntropy(), (8, 8, 1)),
    "digits": lambda **o: (digits_cnn(**o), nn.SoftmaxCrossEntropy(), (8, 8, 1)),
    "max, relu": lambda **o: (
        two_conv_cnn((16, 16, 1), subsampling="max", activation="relu", **o),
        nn.SoftmaxCrossEntropy(),
        (16, 16, 1),
    ),
    "mean, sigmoid": lambda **o: (
        two_conv_cnn((16, 16, 1), subsampling="mean", activation="sigmoid", **o),
        nn.SoftmaxCrossEntropy(),
        (16, 16, 1),
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_as_on_naive_loops(name):
    model, loss, shape = EXAMPLES[name](dtype=np.float64)
    naive, naive_loss, _ = EXAMPLES[name](dtype=np.float64, ops=reference)
    ours, twin = ((m, k, nn.SGD(m.parameters(), lr=0.1)) for m, k in
                  ((model, loss), (naive, naive_loss)))  # fmt: skip
    step = nn.plan_step(*ours, (3, *shape))
    for seed in range(3):
        x = images(model, shape, 3, seed)
        z_shape = model.infer(x).shape
        y = labels(loss, z_shape, seed) if z_shape[1] > 1 else np.arange(3) % 2
        value, z = step(x, y)
        right, right_z = plain_step(*twin, x, y)
        np.testing.assert_allclose(value, right, rtol=1e-11)
        np.testing.assert_allclose(z, right_z, rtol=1e-10, atol=1e-12)
        for a, b in zip(model.parameters(), naive.parameters(), strict=True):
            np.testing.assert_allclose(a.grad, b.grad, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(a.value, b.value, rtol=1e-9, atol=1e-12)


def on_integers(ops):
    """A network whose every sum is exact in float32."""
    model = nn.Sequential(
        nn.Conv(2, 3, 3, padding=1, rng=0), nn.ReLU(), nn.MaxPool(2),
        nn.Residual(nn.Conv(3, 3, 3, padding=1, groups=3, rng=0)),
        nn.ConvTranspose(3, 2, 2, stride=2, rng=0), nn.AvgPool(2), nn.Flatten(),
        nn.Dense(32, 3, rng=0), ops=ops,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.value[...] = rng.integers(-2, 3, parameter.shape)
    return model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=2.0**-8)


def test_integers_exactly_as_on_naive_loops():
    ours, naive = on_integers(None), on_integers(reference)
    rng = np.random.default_rng(1)
    x = rng.integers(-3, 4, (4, 8, 8, 2)).astype(np.float32)
    y = rng.integers(-3, 4, (4, 3))
    # the gradient of the loss is 2 (z - y) / 12: multiples of 12 keep it whole
    z = ours[0].infer(x)
    y = np.where((z - y) % 6, z - 6 * ((z - y) // 6), y)
    value, z = nn.plan_step(*ours, x.shape)(x, y)
    right, right_z = plain_step(*naive, x, y)
    assert same_bits(z, right_z)
    assert value == pytest.approx(right, rel=1e-12)
    for a, b in zip(ours[0].parameters(), naive[0].parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad)


def test_gradients_by_differences():
    model = small(np.float64)
    model.layers[6].eval()
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.SGD(model.parameters(), lr=0.0)
    step = nn.plan_step(model, loss, optimizer, (5, 8, 8, 2))
    x, y = batch(5, dtype=np.float64)
    step(x, y)
    rng = np.random.default_rng(3)
    for parameter in model.parameters():
        flat, gradient = parameter.value.reshape(-1), parameter.grad.copy().reshape(-1)
        for i in rng.choice(flat.size, min(flat.size, 6), replace=False):
            kept, sides = flat[i], []
            for side in (1e-6, -1e-6):
                flat[i] = kept + side
                sides.append(step(x, y)[0])
            flat[i] = kept
            expected = (sides[0] - sides[1]) / 2e-6
            np.testing.assert_allclose(gradient[i], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 16])
def test_bits_do_not_depend_on_threads(count):
    def make():
        return small(extra=(nn.Conv(6, 6, 3, padding=1, rng=7),))

    ours, twin = trained(make_model=make), trained(make_model=make)
    with fc.num_threads(count):
        step = nn.plan_step(*ours, (64, 8, 8, 2))
        found = [step(*batch(64, seed))[0] for seed in range(3)]
    with fc.num_threads(1):
        right = [plain_step(*twin, *batch(64, seed))[0] for seed in range(3)]
    assert found == right
    assert not differences(state(ours[0], ours[2]), state(twin[0], twin[2]))


def test_fit_is_the_plain_loop():
    (model, loss, optimizer), twin = trained(), trained()
    x, y = batch(20)
    nn.fit(model, loss, optimizer, x, y, epochs=3, batch_size=6, shuffle=False)
    for _ in range(3):
        for i in range(0, 20, 6):
            plain_step(*twin, x[i : i + 6], y[i : i + 6])
    assert not differences(state(model, optimizer), state(twin[0], twin[2]))
