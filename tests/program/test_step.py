"""Steps as programs: bit for bit what the layers' own passes give."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    Absolute,
    compare_steps,
    images,
    labels,
    networks,
    optimizers,
)

from fastconv import nn


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


def check_drawn(data, plan):
    model, shape, loss = data.draw(networks())
    if isinstance(loss, Absolute):
        loss = Absolute()
    ours, twin = twins(model, loss, optimizers(data.draw))
    most = data.draw(st.integers(1, 9))
    batches = drawn_batches(data, model, shape, loss, most)
    step = plan(*ours, (most, *shape))
    try:
        twin_copy = copy.deepcopy(twin[0])
        for x, _ in batches:
            twin_copy.forward(x)
    except ValueError as error:  # one value per channel in a normalisation
        with pytest.raises(ValueError, match="one value per channel") as found:
            for x, y in batches:
                step(x, y)
        assert "one value per channel" in str(error)
        assert type(found.value) is type(error)
        return
    compare_steps(step, *ours, twin, batches)


def by_train_step(model, loss, optimizer, shape):
    return lambda x, y: nn.train_step(model, loss, optimizer, x, y)


def by_plan(model, loss, optimizer, shape):
    """A plan that is made at the first call: where it can be, it must be able to run."""
    made = []

    def step(x, y):
        if not made:
            made.append(nn.plan_step(model, loss, optimizer, shape))
        return made[0](x, y)

    return step


@settings(max_examples=50)
@given(st.data())
def test_drawn_networks(data):
    check_drawn(data, data.draw(st.sampled_from([by_plan, by_train_step])))


@pytest.mark.soak
@settings(max_examples=2000)
@given(st.data())
def test_many_drawn_networks(data):
    check_drawn(data, data.draw(st.sampled_from([by_plan, by_train_step])))
