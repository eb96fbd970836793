"""The cases that are compared: one product of one row of a table, with its operands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from comparison.windows import max_pool
from fastconv.problems import Operands, Problem

CONV_PRODUCTS = ("forward", "kernel", "input")
POOL_PRODUCTS = (
    "max_pool", "max_pool_argmax", "max_pool_backward", "avg_pool", "avg_pool_backward",
)  # fmt: skip
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


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a library is asked to compute: one product of one row of a table.

    A star behind the name says that the padding differs between two sides.
    """

    table: str
    name: str
    descriptor: str
    product: str
    dtype: str
    flops: int = 0

    images: ClassVar[int] = 0  # of a network


@dataclass(frozen=True, kw_only=True)
class ConvCase(Case):
    """One product of a convolution problem. Operands are small integers: sums are exact."""

    problem: Problem
    operands: Operands

    @property
    def asymmetric(self) -> bool:
        """Whether the padding differs between the sides of an axis."""
        return any(lo != hi for lo, hi in self.problem.geometry.pads)

    def magnitude(self) -> ConvCase:
        """The case over absolute values: its result is the G of the error bound 16 eps G."""
        return dataclasses.replace(self, operands=Operands(*map(np.abs, self.operands)))


@dataclass(frozen=True, kw_only=True)
class PoolCase(Case):
    """One pooling function on one activation."""

    x: np.ndarray
    dy: np.ndarray
    argmax: np.ndarray
    window: int
    stride: int
    padding: int

    def magnitude(self) -> PoolCase:
        """The case over absolute values."""
        return dataclasses.replace(self, x=abs(self.x), dy=abs(self.dy))

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments of fastconv's pooling functions."""
        return {"stride": self.stride, "padding": self.padding}


@dataclass(frozen=True, kw_only=True)
class DeltaCase(Case):
    """The ReLU's mask, half of it off at random, or the bias's gradient, on one activation."""

    dy: np.ndarray
    y: np.ndarray

    def magnitude(self) -> DeltaCase:
        """The case over absolute values."""
        return dataclasses.replace(self, dy=abs(self.dy))

    @property
    def pixels(self) -> tuple[int, ...]:
        """The axes of images and pixels, over which the bias's gradient sums."""
        return tuple(range(self.dy.ndim - 1))


def conv_cases(table: str, problem: Problem, products: Iterable[str]) -> Iterator[ConvCase]:
    """Cases of one row of a table, which share their operands."""
    star = "*" if any(lo != hi for lo, hi in problem.geometry.pads) else ""
    operands = problem.operands()
    for product in products:
        yield ConvCase(
            table=table,
            name=(problem.name or str(problem)) + star,
            descriptor=str(problem).removeprefix(f"{problem.name}: "),
            product=product,
            dtype=problem.dtype,
            flops=problem.flops,
            problem=problem,
            operands=operands,
        )


def pool_cases(table: str, problem: Problem, products: Iterable[str]) -> Iterator[PoolCase]:
    """Pooling of the output of one row of a table, if its network does that."""
    if problem.name not in POOLED.get(table, ()):
        return
    m, h, w, c = problem.y_shape
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**20), 2**20, problem.y_shape).astype(problem.dtype)
    for k, s, p in POOLS:
        _, argmax = max_pool(x, k, s, p)
        dy = rng.integers(-9, 10, argmax.shape).astype(problem.dtype)
        for product in products:
            yield PoolCase(
                table=table,
                name=f"{problem.name} {k}x{k} s{s}",
                descriptor=f"m{m} h{h}w{w}c{c} k{k}x{k} s{s} p{p}",
                product=product,
                dtype=problem.dtype,
                x=x,
                dy=dy,
                argmax=argmax,
                window=k,
                stride=s,
                padding=p,
            )


def delta_cases(table: str, problem: Problem, products: Iterable[str]) -> Iterator[DeltaCase]:
    """The deltas of the output of one row of a table."""
    rng = np.random.default_rng(0)
    dy, z = rng.integers(-9, 10, (2, *problem.y_shape), np.int8).astype(problem.dtype)
    y, descriptor = np.maximum(z, 0), " ".join(map(str, problem.y_shape))
    for product in products:
        yield DeltaCase(
            table=table,
            name=problem.name or str(problem),
            descriptor=descriptor,
            product=product,
            dtype=problem.dtype,
            dy=dy,
            y=y,
        )


def cases(table: str, problem: Problem, products: Iterable[str]) -> Iterator[Case]:
    """All cases of one row of a table."""
    kinds = {CONV_PRODUCTS: conv_cases, POOL_PRODUCTS: pool_cases, DELTA_PRODUCTS: delta_cases}
    for known, make in kinds.items():
        if chosen := [product for product in products if product in known]:
            yield from make(table, problem, chosen)
