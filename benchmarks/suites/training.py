"""One training step of the example CNNs: forward, loss, backward, update."""

import numpy as np

from fastconv import nn, reference
from fastconv.examples import binary_cnn, digits_cnn, two_conv_cnn

MODELS = {
    "binary_cnn": (binary_cnn, nn.BinaryCrossEntropy, (8, 8, 1), 2),
    "two_conv_cnn": (two_conv_cnn, nn.SoftmaxCrossEntropy, (28, 28, 1), 10),
    "digits_cnn": (digits_cnn, nn.SoftmaxCrossEntropy, (8, 8, 1), 10),
}


class Step:
    params = (list(MODELS), [32, 256])
    param_names = ("model", "batch")

    def setup(self, name, batch):
        make, loss, shape, classes = MODELS[name]
        rng = np.random.default_rng(0)
        self.x = rng.random((batch, *shape), np.float32)
        self.y = rng.integers(0, classes, batch)
        self.model, self.loss = make(seed=0), loss()
        slow = make(seed=0, ops=reference)
        self.model.eval(), slow.eval()
        np.testing.assert_allclose(
            self.model.forward(self.x[:2]), slow.forward(self.x[:2]), rtol=1e-4, atol=1e-5
        )
        self.model.train()
        self.optimizer = nn.SGD(self.model.parameters(), lr=0.01)
        self.time_step(name, batch)

    def time_step(self, name, batch):
        nn.train_step(self.model, self.loss, self.optimizer, self.x, self.y)
