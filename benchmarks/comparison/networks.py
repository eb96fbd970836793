"""The networks that are trained and run, and a case of each: what a library is asked to compute.

A network is a `fastconv.nn.Sequential`; every other library's is made from it, layer by layer, with
the same weights. Images are drawn from a normal distribution and labels at random, so about half of
the ReLUs are off, in no order. A case goes through several batches in turn: a processor that saw
one batch again and again would learn its branches by heart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from comparison.cases import Call, Case
from fastconv import nn
from fastconv.examples import binary_cnn, digits_cnn

Run = Callable[[], Any]
Trainer = Callable[[bool, float], Run]

BATCHES = 8
# Losses of so many steps are compared before a step is timed, without dropout, whose zeros each
# library draws on its own.
STEPS = 10
EPOCH_RATE = 1e-3
# While steps are timed the weights stay where they are. Thousands of steps on a few batches would
# learn them by heart, and the ReLUs would not be those of a training any more.
HELD = 1e-9


@dataclass(frozen=True)
class Network:
    """A network, the images it takes, and how it is trained.

    Parameters
    ----------
    make : callable
        From a generator for the weights to the model.
    image : (H, W, C)
    classes : int
        2: one logit and binary cross-entropy; otherwise softmax cross-entropy.
    adam : bool
        Adam; otherwise SGD with momentum 0.9.
    """

    name: str
    make: Callable[[np.random.Generator], nn.Sequential]
    image: tuple[int, int, int]
    classes: int = 10
    adam: bool = False

    def model(self, dropout: bool = True) -> nn.Sequential:
        """The model with weights as a training begins, but for biases and statistics.

        Those are drawn, too: zeros and ones would hide a mistake.
        """
        rng = np.random.default_rng(0)
        model = self.make(rng)
        for parameter in model.parameters():
            if parameter.value.ndim == 1:
                parameter.value += rng.normal(0, 0.1, parameter.shape).astype(parameter.dtype)
        for buffer in model.named_buffers().values():
            buffer += abs(rng.normal(0, 0.1, buffer.shape)).astype(buffer.dtype)
        for _, layer in model.walk():
            if isinstance(layer, nn.Dropout) and not dropout:
                layer.rate = 0.0
        return model

    def loss(self) -> nn.Loss:
        """What is minimised."""
        return nn.BinaryCrossEntropy() if self.classes == 2 else nn.SoftmaxCrossEntropy()

    @property
    def rate(self) -> float:
        """Learning rate where losses are compared.

        Adam divides a gradient by its own size: where it is almost zero, its rounding becomes a
        step of full length, which is kept short here.
        """
        return 1e-4 if self.adam else 1e-3

    def optimizer(self, model: nn.Sequential, lr: float) -> nn.Optimizer:
        """What minimises it."""
        if self.adam:
            return nn.Adam(model.parameters(), lr=lr)
        return nn.SGD(model.parameters(), lr=lr, momentum=0.9)


@dataclass(frozen=True)
class NetworkCase:
    """A training step, a prediction or an epoch of a network at one batch size.

    Parameters
    ----------
    network : Network
    batch : int
    product : "step", "predict" or "epoch"
    data : (x, y), optional
        Images (m, H, W, C) and labels; drawn if there are none.
    """

    network: Network
    batch: int
    product: str
    data: tuple[np.ndarray, np.ndarray] | None = None

    dtype = "float32"
    flops = 0

    @property
    def table(self) -> str:
        """Name of the network."""
        return self.network.name

    @property
    def name(self) -> str:
        """The batch."""
        return f"m{self.batch}"

    @property
    def descriptor(self) -> str:
        """Shape of a batch."""
        h, w, c = self.network.image
        return f"m{self.batch} h{h}w{w}c{c}"

    @property
    def images(self) -> int:
        """Images a call."""
        return len(self.data[0]) if self.data and self.product == "epoch" else self.batch

    @cached_property
    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Images and labels of the batches, which take turns."""
        if self.data:
            x, y = (array[: BATCHES * self.batch] for array in self.data)
        else:
            rng = np.random.default_rng(1)
            x = rng.standard_normal((BATCHES * self.batch, *self.network.image), np.float32)
            y = rng.integers(0, self.network.classes, len(x))
        steps = range(0, len(x), self.batch)
        return [(x[i : i + self.batch], y[i : i + self.batch]) for i in steps]

    def alone(self) -> NetworkCase:
        """The same of one image."""
        return dataclasses.replace(self, batch=1)

    def training(self, trainer: Trainer) -> Call:
        """The call that makes a step: ``trainer(dropout, lr)`` begins a training from the start.

        The answer is the losses of the first STEPS steps of a training without dropout.
        """

        def losses(_: Any) -> np.ndarray:
            step = trainer(False, self.network.rate)
            return np.array([float(step()) for _ in range(STEPS)])

        return Call(trainer(True, HELD), losses)


AnyCase = Case | NetworkCase


# Networks -----------------------------------------------------------------------------------------


def _conv(rng: np.random.Generator, *shape: int, **options: Any) -> nn.Conv:
    return nn.Conv(*shape, activation="relu", rng=rng, **options)


def _lenet(padding: int) -> Callable[[np.random.Generator], nn.Sequential]:
    """Two convolutions 5x5 with ReLU and 2x2 maxima, then 120, 84, 10."""

    def make(rng: np.random.Generator) -> nn.Sequential:
        side = (28 + 2 * padding - 4) // 2
        side = (side - 4) // 2
        return nn.Sequential(
            _conv(rng, 1, 6, 5, padding=padding),
            nn.MaxPool(2),
            _conv(rng, 6, 16, 5),
            nn.MaxPool(2),
            nn.Flatten(),
            nn.Dense(side * side * 16, 120, rng=rng),
            nn.ReLU(),
            nn.Dense(120, 84, rng=rng),
            nn.ReLU(),
            nn.Dense(84, 10, rng=rng),
        )

    return make


def _keras_mnist(rng: np.random.Generator) -> nn.Sequential:
    return nn.Sequential(
        _conv(rng, 1, 32, 3),
        nn.MaxPool(2),
        _conv(rng, 32, 64, 3),
        nn.MaxPool(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Dense(5 * 5 * 64, 10, rng=rng),
    )


def _four_conv(rng: np.random.Generator) -> nn.Sequential:
    return nn.Sequential(
        _conv(rng, 3, 32, 3, padding=1),
        _conv(rng, 32, 32, 3, padding=1),
        nn.MaxPool(2),
        _conv(rng, 32, 64, 3, padding=1),
        _conv(rng, 64, 64, 3, padding=1),
        nn.MaxPool(2),
        nn.Flatten(),
        nn.Dense(8 * 8 * 64, 10, rng=rng),
    )


def _resnet(blocks: int, normalised: bool) -> Callable[[np.random.Generator], nn.Sequential]:
    """Three stages of 16, 32 and 64 channels, each of `blocks` residual blocks.

    A block that changes the number of channels has a 1x1 convolution as its shortcut, with batch
    normalisation where `normalised`.
    """

    def make(rng: np.random.Generator) -> nn.Sequential:
        def conv(c: int, f: int, k: int, s: int, bias: bool = False) -> nn.Conv:
            return nn.Conv(c, f, k, stride=s, padding=k // 2, bias=bias, rng=rng)

        layers: list[nn.Layer] = [conv(3, 16, 3, 1), nn.BatchNorm(16), nn.ReLU()]
        c = 16
        for f in (16, 32, 64):
            for _ in range(blocks):
                s = 1 if c == f else 2
                body = nn.Sequential(
                    conv(c, f, 3, s),
                    nn.BatchNorm(f),
                    nn.ReLU(),
                    conv(f, f, 3, 1),
                    nn.BatchNorm(f),
                )
                shortcut: nn.Layer | None = None
                if c != f:
                    shortcut = conv(c, f, 1, s, bias=not normalised)
                    if normalised:
                        shortcut = nn.Sequential(shortcut, nn.BatchNorm(f))
                layers += [nn.Residual(body, shortcut), nn.ReLU()]
                c = f
        return nn.Sequential(*layers, nn.GlobalAvgPool(), nn.Dense(64, 10, rng=rng))

    return make


# seed, digits_cnn: fastconv.examples. lenet5: LeCun et al. 1998 with ReLU and maxima;
# lenet5_simplechains: as SimpleChains.jl trains it, without padding. keras_mnist: the example
# mnist_convnet of keras.io. resnet8: MLPerf Tiny, but padded by one pixel on all sides, which all
# libraries can. resnet20: He et al. 2016, with projections as shortcuts.
NETWORKS = {
    network.name: network
    for network in (
        Network("seed", lambda rng: binary_cnn(), (8, 8, 1), classes=2),
        Network("digits_cnn", lambda rng: digits_cnn(), (8, 8, 1), adam=True),
        Network("lenet5", _lenet(2), (28, 28, 1)),
        Network("lenet5_simplechains", _lenet(0), (28, 28, 1), adam=True),
        Network("keras_mnist", _keras_mnist, (28, 28, 1)),
        Network("four_conv", _four_conv, (32, 32, 3)),
        Network("resnet8", _resnet(1, False), (32, 32, 3)),
        Network("resnet20", _resnet(3, True), (32, 32, 3)),
    )
}
