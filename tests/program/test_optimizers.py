"""The optimizers' compiled steps against NumPy's, bit for bit."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import nn, num_threads
from fastconv.engine import optimizers as engine
from fastconv.program.naive import optimizers as naive

SHAPES = [(3, 3, 5, 16), (16,), (1,), (700, 33), (5,), (0, 4), (9000,), ()]
SGD = [
    {},
    {"weight_decay": 0.013},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.37, "weight_decay": 0.1},
    {"momentum": 0.37, "weight_decay": 0.1, "nesterov": True},
]
ADAM = [
    {},
    {"weight_decay": 0.01},
    {"betas": (0.83, 0.97), "epsilon": 0.0},
    {"betas": (0.0, 0.0), "weight_decay": 0.3},
]
RMS = [
    {},
    {"momentum": 0.9},
    {"alpha": 0.7, "epsilon": 0.0, "weight_decay": 0.03},
    {"alpha": 0.0, "momentum": 0.4, "weight_decay": 0.1},
]
CASES = [(nn.SGD, options) for options in SGD] + [(nn.Adam, options) for options in ADAM]
CASES += [(nn.AdamW, {})] + [(nn.RMSprop, options) for options in RMS]


def replace(parameter, name, array):
    """Another array in the place of a parameter's, where setting it would copy into that."""
    object.__setattr__(parameter, name, array)


def parameters(shapes, dtype, rng):
    return [nn.Parameter(rng.standard_normal(s).astype(dtype), str(i))
            for i, s in enumerate(shapes)]  # fmt: skip


class Twin:
    """What an optimizer's parameters must be after each step, by NumPy."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.values = [p.value.copy() for p in optimizer.parameters]
        self.slots = [[np.zeros_like(v) for v in self.values] for _ in range(2)]

    def step(self):
        o = self.optimizer
        for i, (parameter, value) in enumerate(zip(o.parameters, self.values, strict=True)):
            first, second = self.slots[0][i], self.slots[1][i]
            if isinstance(o, nn.SGD):
                naive.sgd(value, parameter.grad, first, lr=o.lr, momentum=o.momentum,
                          nesterov=o.nesterov, weight_decay=o.weight_decay)  # fmt: skip
            elif isinstance(o, nn.RMSprop):
                naive.rmsprop(value, parameter.grad, first, second, lr=o.lr, alpha=o.alpha,
                              epsilon=o.epsilon, momentum=o.momentum,
                              weight_decay=o.weight_decay)  # fmt: skip
            else:
                naive.adam(value, parameter.grad, first, second, step=o.steps, lr=o.lr,
                           betas=o.betas, epsilon=o.epsilon,
                           weight_decay=o.weight_decay)  # fmt: skip

    def check(self):
        o = self.optimizer
        for i, parameter in enumerate(o.parameters):
            np.testing.assert_array_equal(parameter.value, self.values[i], strict=True)
            for k, slot in enumerate(o._slots):
                np.testing.assert_array_equal(slot[i], self.slots[k][i], strict=True)


def run(make, options, shapes, dtype, steps, seed=0):
    rng = np.random.default_rng(seed)
    optimizer = make(parameters(shapes, dtype, rng), lr=0.07, **options)
    twin = Twin(optimizer)
    for step in range(steps):
        for parameter in optimizer.parameters:
            size = 10.0 ** rng.uniform(-8, 3)
            parameter.grad[...] = rng.standard_normal(parameter.shape) * size
        optimizer.lr *= 0.97 if step % 3 else 1.21
        optimizer.step()
        twin.step()
    return optimizer, twin


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("make", "options"), CASES)
def test_many_steps_equal_numpy_bit_for_bit(make, options, dtype):
    with np.errstate(all="ignore"):
        optimizer, twin = run(make, options, SHAPES, dtype, 60)
    twin.check()
    assert optimizer.steps == 60


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 40), max_size=3).map(tuple), min_size=1, max_size=6),
    st.sampled_from(CASES),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**32),
)
def test_drawn_shapes(shapes, case, dtype, seed):
    make, options = case
    with np.errstate(all="ignore"):
        _, twin = run(make, options, shapes, dtype, 4, seed)
    twin.check()


@pytest.mark.parametrize(("make", "options"), CASES)
def test_threads_do_not_change_a_bit(make, options, monkeypatch):
    monkeypatch.setattr(engine, "GRAIN", 1)
    monkeypatch.setattr(engine, "BLOCK", 1000)
    for n in (1, 2, 3, 8):
        with num_threads(n), np.errstate(all="ignore"):
            _, twin = run(make, options, SHAPES, np.float32, 5)
        twin.check()


@pytest.mark.parametrize(("make", "options"), CASES)
def test_not_finite_and_subnormal(make, options):
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-40, 3e38, 1.0], "f4")
    values, grads = (a.ravel().copy() for a in np.meshgrid(special, special))
    parameter = nn.Parameter(values, "w")
    optimizer = make([parameter], lr=0.1, **options)
    twin = Twin(optimizer)
    with np.errstate(all="ignore"):
        for _ in range(3):
            parameter.grad[...] = grads
            optimizer.step()
            twin.step()
            twin.check()
    signs = np.signbit(parameter.value) == np.signbit(twin.values[0])
    assert (signs | np.isnan(parameter.value)).all()


def test_parameters_of_two_dtypes():
    rng = np.random.default_rng(1)
    mixed = parameters([(5, 7), (40,)], "f4", rng) + parameters([(9,), (33, 3)], "f8", rng)
    optimizer = nn.Adam(mixed)
    twin = Twin(optimizer)
    for _ in range(3):
        for parameter in mixed:
            parameter.grad[...] = rng.standard_normal(parameter.shape)
        optimizer.step()
        twin.step()
    twin.check()


@pytest.mark.parametrize("make", [nn.SGD, nn.Adam])
def test_arrays_that_were_replaced(make):
    """Another array, also one of another layout, dtype or shape that broadcasts."""
    rng = np.random.default_rng(2)
    mine = parameters([(6, 10), (4,)], "f4", rng)
    optimizer = make(mine)
    twin = Twin(optimizer)
    base = np.zeros((10, 12), "f4")
    for step in range(6):
        if step == 1:
            replace(mine[0], "value", mine[0].value.copy())
        elif step == 2:
            base[:, ::2] = mine[0].value.T
            replace(mine[0], "value", base[:, ::2].T)
        for parameter in mine:
            grad = rng.standard_normal(parameter.shape).astype("f4")
            if step == 3:
                grad = np.asfortranarray(grad)
            elif step == 4:
                grad = grad.astype("f8")
            elif step == 5:
                grad = np.float32(0.5) * np.ones(1, "f4")
            replace(parameter, "grad", grad)
        optimizer.step()
        twin.step()
        if step != 4 or make is nn.SGD:
            twin.check()
        else:  # NumPy would compute with the doubles
            for parameter, value in zip(mine, twin.values, strict=True):
                np.testing.assert_allclose(parameter.value, value, rtol=1e-6)
            twin = None
            break
    assert not base[:, 1::2].any()
    np.testing.assert_array_equal(base[:, ::2], mine[0].value.T)


def test_values_that_share_memory_move_one_after_another(monkeypatch):
    monkeypatch.setattr(engine, "GRAIN", 1)
    monkeypatch.setattr(engine, "BLOCK", 64)
    value = np.linspace(-1, 1, 5000, dtype=np.float32)
    twins = [nn.Parameter(value, "a"), nn.Parameter(value, "b")]
    assert twins[1].value is value
    expected = value.copy()
    for i, parameter in enumerate(twins):
        parameter.grad[...] = value * (i + 0.3)
        expected -= parameter.grad * np.float32(0.1)
    for n in (1, 4):
        value[...] = np.linspace(-1, 1, 5000, dtype=np.float32)
        with num_threads(n):
            nn.SGD(twins, lr=0.1).step()
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_move_their_own_parameters(copied):
    p = nn.Parameter(np.ones(5), "w")
    p.grad[...] = 1
    optimizer = nn.SGD([p], lr=0.5, momentum=0.5)
    optimizer.step()
    other = copied(optimizer)
    other.step()
    np.testing.assert_array_equal(p.value, 0.5)
    np.testing.assert_array_equal(other.parameters[0].value, -0.25)
    optimizer.step()
    np.testing.assert_array_equal(p.value, -0.25)


def test_a_step_that_is_refused_changes_nothing():
    fine, frozen = (nn.Parameter(np.ones(3), name) for name in "ab")
    optimizer = nn.Adam([fine, frozen])
    for parameter in (fine, frozen):
        parameter.grad[...] = 1
    frozen.value.flags.writeable = False
    with pytest.raises(ValueError, match="parameters: the value of parameter 1 is read-only"):
        optimizer.step()
    replace(frozen, "value", np.ones(4))
    with pytest.raises(ValueError, match=r"parameter 1 is \(4,\) of float64; .* for \(3,\)"):
        optimizer.step()
    replace(frozen, "value", np.ones(3, np.float16))
    with pytest.raises(ValueError, match="parameter 1 is of dtype float16"):
        optimizer.step()
    np.testing.assert_array_equal(fine.value, 1)
    assert optimizer.steps == 0
    optimizer = nn.SGD([fine])
    optimizer.momentum = 0.5
    with pytest.raises(ValueError, match="momentum: it was 0 when the optimizer was made"):
        optimizer.step()
    np.testing.assert_array_equal(fine.value, 1)


def test_a_subclass_with_a_step_of_its_own():
    class Sign(nn.SGD):
        def step(self):
            self.steps += 1
            for parameter in self.parameters:
                parameter.value -= self.lr * np.sign(parameter.grad)

    class Clipped(nn.Adam):
        def step(self):
            for parameter in self.parameters:
                np.clip(parameter.grad, -1, 1, out=parameter.grad)
            super().step()

    p = nn.Parameter(np.ones(3), "w")
    p.grad[...] = [5.0, -3.0, 0.0]
    Sign([p], lr=0.5).step()
    np.testing.assert_array_equal(p.value, [0.5, 1.5, 1.0])
    optimizer = Clipped([p], lr=0.1)
    optimizer.step()
    np.testing.assert_array_equal(p.grad, [1.0, -1.0, 0.0])
    assert optimizer.steps == 1
