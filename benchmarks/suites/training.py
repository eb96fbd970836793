"""Whole training steps, predictions and epochs of small networks, on data as training has it."""

import itertools

import numpy as np

from fastconv import nn

from .common import Fastconv, NetworkCase, first_prediction, networks, require_equal

BATCHES = [1, 32]


class Step:
    """Forward, loss, backward, update."""

    params = (list(networks.NETWORKS), BATCHES)
    param_names = ("network", "batch")
    timeout = 300

    def setup(self, name, batch):
        case = NetworkCase(networks.NETWORKS[name], batch, "step")
        call = Fastconv().prepare(case)
        losses = call.answer(call.run())
        require_equal(losses, plain_losses(case), f"{name}, losses of {len(losses)} steps")
        self.run = call.run

    def time_step(self, name, batch):
        self.run()


class Predict:
    """A batch in evaluation mode."""

    params = (list(networks.NETWORKS), BATCHES)
    param_names = ("network", "batch")
    timeout = 300

    def setup(self, name, batch):
        case = NetworkCase(networks.NETWORKS[name], batch, "predict")
        call = Fastconv().prepare(case)
        got, expected = call.answer(call.run())[:1], first_prediction(case)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
        self.run = call.run

    def time_predict(self, name, batch):
        self.run()


class Fit:
    """What `nn.fit` adds to its steps: 64 batches of 32 images."""

    timeout = 300

    def setup(self):
        rng = np.random.default_rng(0)
        network = networks.NETWORKS["digits_cnn"]
        self.x = rng.standard_normal((64 * 32, *network.image), np.float32)
        self.y = rng.integers(0, network.classes, len(self.x))
        self.model, self.loss = network.model(), network.loss()
        self.optimizer = network.optimizer(self.model, networks.HELD)
        self.time_fit()

    def time_fit(self):
        nn.fit(self.model, self.loss, self.optimizer, self.x, self.y, epochs=1, batch_size=32)


def plain_losses(case):
    """Losses of the steps that `Fastconv` answers with, layer by layer."""
    network = case.network
    model, loss = network.model(dropout=False), network.loss()
    optimizer = network.optimizer(model, network.rate)
    losses = []
    for x, y in itertools.islice(itertools.cycle(case.batches), networks.STEPS):
        losses.append(loss.forward(model.forward(x), y))
        model.backward(loss.backward())
        optimizer.step()
    return np.array(losses)
