"""The cases that are compared: one product of one row of a table, with its operands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from comparison.windows import max_pool
from fastconv.problems import Operands, Problem

CONV_PRODUCTS = ("forward", "kernel", "input")
POOL_PRODUCTS = (
    "max_pool",
    "max_pool_argmax",
    "max_pool_backward",
    "avg_pool",
    "avg_pool_backward",
)
DELTA_PRODUCTS = ("relu_backward", "bias_grad")

# Activations that are pooled in these networks: the outputs of rows of the tables.
POOLED = {
    "lenet5_mnist": ("C1", "C3"),
    "mnist_cifar_examples": (
        "pytorch_examples_mnist.conv2",
        "keras_mnist_convnet.conv1",
        "keras_mnist_convnet.conv2",
        "tinygrad_mnist.conv2",
        "pytorch_cifar10_tutorial.conv1",
        "pytorch_cifar10_tutorial.conv2",
        "cs231n_three_layer_convnet",
    ),
    "mlperf_tiny_resnet8": ("stack1_conv", "stack3_conv2"),
    "resnet50_224": ("conv1",),
}
# (window, stride, padding): LeNet's and VGG's, and ResNet's.
POOLS = ((2, 2, 0), (3, 2, 1))


class UnsupportedError(Exception):
    """The library cannot compute this case; the message says why."""


class Call(NamedTuple):
    """How a library computes a case.

    ``run()`` is what is timed; ``answer(run())`` is the result as a NumPy array, channels last, or
    a tuple of two for ``max_pool_argmax``.
    """

    run: Callable[[], Any]
    answer: Callable[[Any], Any]


@dataclass(frozen=True)
class ConvCase:
    """One product of a convolution problem. Operands are small integers: sums are exact."""

    table: str
    problem: Problem
    product: str
    operands: Operands

    @property
    def name(self) -> str:
        """Name of the row, with a star where the padding differs between two sides."""
        return (self.problem.name or str(self.problem)) + ("*" if self.asymmetric else "")

    @property
    def asymmetric(self) -> bool:
        """Whether the padding differs between the sides of an axis."""
        return any(lo != hi for lo, hi in self.problem.geometry.pads)

    @property
    def descriptor(self) -> str:
        """The problem without its name."""
        return str(self.problem).removeprefix(f"{self.problem.name}: ")

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self.problem.dtype

    @property
    def flops(self) -> int:
        """Multiplications and additions, 2 P K F."""
        return self.problem.flops

    def magnitude(self) -> ConvCase:
        """The case over absolute values: its result is the G of the error bound 16 eps G."""
        return dataclasses.replace(self, operands=Operands(*map(np.abs, self.operands)))


@dataclass(frozen=True)
class PoolCase:
    """One pooling function on one activation."""

    table: str
    row: str
    product: str
    x: np.ndarray
    dy: np.ndarray
    argmax: np.ndarray
    window: int
    stride: int
    padding: int

    flops = 0

    @property
    def name(self) -> str:
        """Name of the row, and the window."""
        return f"{self.row} {self.window}x{self.window} s{self.stride}"

    @property
    def descriptor(self) -> str:
        """Shape, window, stride, padding."""
        m, h, w, c = self.x.shape
        k = self.window
        return f"m{m} h{h}w{w}c{c} k{k}x{k} s{self.stride} p{self.padding}"

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return str(self.x.dtype)

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments of fastconv's pooling functions."""
        return {"stride": self.stride, "padding": self.padding}


@dataclass(frozen=True)
class DeltaCase:
    """The ReLU's mask, half of it off at random, or the bias's gradient, on one activation."""

    table: str
    row: str
    product: str
    dy: np.ndarray
    y: np.ndarray

    flops = 0

    @property
    def name(self) -> str:
        """Name of the row."""
        return self.row

    @property
    def descriptor(self) -> str:
        """The shape."""
        return " ".join(map(str, self.dy.shape))

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return str(self.dy.dtype)

    @property
    def pixels(self) -> tuple[int, ...]:
        """The axes of images and pixels, over which the bias's gradient sums."""
        return tuple(range(self.dy.ndim - 1))


Case = ConvCase | PoolCase | DeltaCase


def conv_cases(table: str, problem: Problem, products: Iterable[str]) -> Iterator[ConvCase]:
    """Cases of one row of a table, which share their operands."""
    operands = problem.operands()
    for product in products:
        yield ConvCase(table, problem, product, operands)


def pool_cases(table: str, problem: Problem, products: Iterable[str]) -> Iterator[PoolCase]:
    """Pooling of the output of one row of a table, if its network does that."""
    if problem.name not in POOLED.get(table, ()):
        return
    shape = problem.y_shape
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**20), 2**20, shape).astype(problem.dtype)
    for window, stride, padding in POOLS:
        _, argmax = max_pool(x, window, stride, padding)
        dy = rng.integers(-9, 10, argmax.shape).astype(problem.dtype)
        for product in products:
            yield PoolCase(table, problem.name, product, x, dy, argmax, window, stride, padding)


def delta_cases(table: str, problem: Problem, products: Iterable[str]) -> Iterator[DeltaCase]:
    """The deltas of the output of one row of a table."""
    rng = np.random.default_rng(0)
    dy, z = rng.integers(-9, 10, (2, *problem.y_shape), np.int8).astype(problem.dtype)
    y = np.maximum(z, 0)
    for product in products:
        yield DeltaCase(table, problem.name or str(problem), product, dy, y)
