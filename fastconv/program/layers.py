"""What layers say when they are lowered: the functions of the package, as operations of a graph.

Each function has the name of the public function whose result it is, adds operations to a graph
and returns the value they write. Sizes and arguments are checked as there, when the graph is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv.geometry import Geometry
from fastconv.geometry.resolve import conv_geometry, pool_geometry, transpose_geometry
from fastconv.plans.compiled import engine, pools
from fastconv.plans.fast import FastProducts, products_of
from fastconv.plans.fold import fold
from fastconv.program.graph import Graph, Value
from fastconv.typing import Algorithm

__all__ = [
    "BatchNorm",
    "Convolution",
    "Pooling",
    "bias_grad",
    "each",
    "image_means",
    "loss",
    "relu_backward",
]


def _loop(name: str, like: np.ndarray) -> int:
    """The address of a compiled loop for arrays of a dtype."""
    return engine().loop(name, like.dtype)


class Convolution:
    """A convolution, or a transposed one, with its gradients.

    Parameters
    ----------
    graph : Graph
    x, w : Value
        ``(m, H, W, C)`` and ``(KH, KW, C/G, F)``; transposed, ``(KH, KW, F/G, C)``.
    b : Value, optional
        ``(F,)``.
    relu : bool
        Whether ReLU follows.
    transposed : bool
    backward_only : bool
        Whether another operation has the result already, or more of it.
    algorithm : {"exact", "fast"}
    options
        stride, padding, dilation, groups, padding_mode, as of :func:`fastconv.conv`.
    """

    def __init__(
        self, graph: Graph, x: Value, w: Value, b: Value | None, relu: bool,
        transposed: bool = False, backward_only: bool = False, algorithm: Algorithm = "exact",
        **options: Any,
    ) -> None:  # fmt: skip
        resolve = transpose_geometry if transposed else conv_geometry
        self.g: Geometry = resolve(x.shape, w.shape, names=("x", "w"), **options)
        self._graph, self._x, self._w, self._transposed = graph, x, w, transposed
        self._plan = products_of(self.g, x.dtype, algorithm)
        self.y = graph.value(self.g.x_shape if transposed else self.g.y_shape, x.dtype)
        kind = "input_grad" if transposed else "forward"
        if not backward_only:
            self._multiply("forward", kind, x, self.y, b, relu)

    def kernel_grad(self, dy: Value, dw: Value) -> None:
        """``dw``, into an array of the caller's."""
        x, dy = (dy, self._x) if self._transposed else (self._x, dy)
        transformed = self._transformed("kernel_grad")
        if transformed is not None:
            flops = self.g.flops
            self._graph.python("kernel gradient", transformed, (x, dy), (dw,), flops=flops)
            return
        product, most = self._plan.product("kernel_grad"), self._graph.most

        def make(scratch: int, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> Sequence[Any]:
            return (product.call(scratch, x, dy, dw),)

        self._graph.call(
            "kernel gradient", make, (x, dy), (dw,),
            scratch=product.scratch_nbytes(most), flops=self.g.flops,
        )  # fmt: skip

    def input_grad(self, dy: Value) -> Value:
        """``dx``."""
        dx, g = self._graph.value(self._x.shape, dy.dtype), self.g
        kind = "forward" if self._transposed else "input_grad"
        if g.padding_mode == "constant":
            self._multiply("input gradient", kind, dy, dx, None, False)
            return dx
        padded = self._graph.value(g.padded.x_shape, dy.dtype)
        self._multiply("input gradient", kind, dy, padded, None, False)

        def folded(padded: np.ndarray, dx: np.ndarray) -> None:
            dx[...] = fold(padded, g.x_size, g.pads, g.padding_mode)

        self._graph.python("fold", folded, (padded,), (dx,))
        return dx

    def _transformed(self, kind: str) -> Callable[..., None] | None:
        """What computes a product through Fourier transforms, in the interpreter, if it does."""
        return self._plan.transformed(kind) if isinstance(self._plan, FastProducts) else None

    def _multiply(
        self, label: str, kind: str, source: Value, target: Value, b: Value | None, relu: bool
    ) -> None:
        """The forward product or the input gradient: source (x or dy), kernel, target (y or dx)."""
        transformed = self._transformed(kind)
        if transformed is not None:

            def run(source: np.ndarray, w: np.ndarray, *others: np.ndarray) -> None:
                *bias, target = others
                transformed(source, w, bias[0] if bias else None, relu, target)

            operands = (source, self._w) if b is None else (source, self._w, b)
            self._graph.python(label, run, operands, (target,), flops=self.g.flops)
            return
        product, most = self._plan.product(kind), self._graph.most
        choice = product.choice
        if not choice.complete:
            _fill(self._graph, target, b, relu)
        if b is not None and choice.in_rows:
            b = _repeated(self._graph, b, choice.columns)
        if not choice.lattice.phases:
            return
        # a bias, if there is one, is the last that is read
        reads = (source, self._w) if b is None else (source, self._w, b)
        writes: tuple[Value, ...] = (target,)
        if self._graph.inference:  # kernels are packed once
            packed = self._graph.value((product.shared_nbytes,), np.uint8, kept=True)
            writes = (target, packed)

        def make(scratch: int, *arrays: np.ndarray) -> Sequence[Any]:
            source, w, *bias = arrays[: len(reads)]
            target, *kept = arrays[len(reads) :]
            packed = kept[0].ctypes.data if kept else 0
            b = bias[0] if bias else None
            return (product.call(scratch, source, w, b, relu, target, most, packed),)

        self._graph.call(
            label, make, reads, writes,
            scratch=product.scratch_nbytes(most), flops=self.g.flops,
        )  # fmt: skip


def _repeated(graph: Graph, b: Value, columns: int) -> Value:
    """The bias of one filter, for each of so many columns, as it is when a run begins."""
    found = graph.value((columns,), b.dtype)
    graph.draw("bias", lambda b, out: np.copyto(out, b), (b,), (found,))
    return found


def _fill(graph: Graph, target: Value, b: Value | None, relu: bool) -> None:
    """Cells that meet no tap: the bias alone."""

    def make(_: int, *arrays: np.ndarray) -> Sequence[Any]:
        *bias, out = arrays
        b = bias[0] if bias else None
        return (engine().channels.fill_call(_loop("fill_rows", out), out, b, relu),)

    graph.call("fill", make, () if b is None else (b,), (target,))


class Pooling:
    """Max or average pooling, with its gradient.

    Parameters
    ----------
    graph : Graph
    kind : {"max", "mean"}
    x : Value
        ``(m, H, W, C)``.
    window : int or tuple of int
    include_pad : bool
        Whether padding counts in a mean's divisor.
    backward_only : bool
        Whether another operation has the result already.
    options
        stride, padding, ceil_mode, as of :func:`fastconv.max_pool`.
    """

    def __init__(
        self, graph: Graph, kind: str, x: Value, window: Any, include_pad: bool = False,
        backward_only: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        g = pool_geometry(x.shape, window, name="x", **options)
        self._graph, self._x = graph, x
        self._pools, self._most = pools(g, x.dtype, include_pad), graph.most
        self._scratch = self._most * self._pools.scratch_bytes
        self.y = graph.value(g.y_shape, x.dtype)
        self._argmax = None
        if kind == "max" and not graph.inference:
            self._argmax = graph.value(g.y_shape, np.int64)
        writes = (self.y,) if self._argmax is None else (self.y, self._argmax)
        name = "argmax" if self._argmax is not None else kind
        if not backward_only:
            graph.call("forward", self._maker(name), (x,), writes, scratch=self._scratch)

    def backward(self, dy: Value) -> Value:
        """``dx``."""
        dx = self._graph.value(self._x.shape, dy.dtype)
        reads = (dy,) if self._argmax is None else (dy, self._argmax)
        name = "spread" if self._argmax is None else "scatter"
        make = self._maker(name)
        self._graph.call("backward", make, reads, (dx,), scratch=self._scratch)
        return dx

    def _maker(self, name: str) -> Any:
        """What makes the call: arrays are (x, y[, argmax]) forward, (dy[, argmax], dx) backward."""
        pools, most = self._pools, self._most

        def make(scratch: int, *arrays: np.ndarray) -> Sequence[Any]:
            if name in ("spread", "scatter"):
                dy, *argmax, x = arrays
                y = dy
            else:
                x, y, *argmax = arrays
            return (pools.later(scratch, most, name, x, y, argmax[0] if argmax else None),)

        return make


class BatchNorm:
    """Batch normalisation, with its gradients; ReLU may follow.

    Parameters
    ----------
    graph : Graph
    x : Value
        ``(m, ..., C)``.
    scale, shift, mean, variance : Value
        ``(C,)``; mean and variance are the running statistics.
    momentum, epsilon : float
    relu : bool
        Whether ReLU follows.
    frozen : bool
        Whether the running statistics are used, and stay as they are.
    """

    def __init__(
        self, graph: Graph, x: Value, scale: Value, shift: Value, mean: Value, variance: Value,
        *, momentum: float, epsilon: float, relu: bool, frozen: bool,
    ) -> None:  # fmt: skip
        self._graph, self._x, self._scale = graph, x, scale
        self._relu, self._frozen = relu, frozen
        channels = engine().channels
        self._table = graph.value(channels.table_shape(x.shape, x.dtype), x.dtype)
        self._parts = channels.norm_parts_nbytes(x.shape, x.dtype)
        self.y = graph.value(x.shape, x.dtype)

        def statistics(parts: int, *arrays: np.ndarray) -> Sequence[Any]:
            x, scale, shift, mean, variance, table = arrays
            if frozen:
                return (channels.norm_frozen_call(_loop("norm_frozen", x), x.shape, table, scale,
                                                  shift, mean, variance, epsilon),)  # fmt: skip
            return (channels.norm_statistics_call(_loop("norm_statistics", x), x, parts, table,
                                                  scale, shift, mean, variance, momentum,
                                                  epsilon),)  # fmt: skip

        def forward(_: int, x: np.ndarray, table: np.ndarray, y: np.ndarray) -> Sequence[Any]:
            entry = _loop(f"norm_forward{'_relu' * relu}", x)
            return (channels.norm_forward_call(entry, x, table, y),)

        operands = (x, scale, shift, mean, variance)
        graph.call("statistics", statistics, operands, (self._table,), scratch=self._parts)
        graph.call("forward", forward, (x, self._table), (self.y,))

    def backward(self, dy: Value, scale_grad: Value, shift_grad: Value, need: bool) -> Value | None:
        """``dx``, if it is needed, and the gradients of scale and shift."""
        channels, relu, frozen = engine().channels, self._relu, self._frozen

        def sums(parts: int, *arrays: np.ndarray) -> Sequence[Any]:
            dy, x, scale, table, scale_grad, shift_grad = arrays
            entry = _loop(f"norm_sums{'_relu' * relu}", x)
            return (channels.norm_sums_call(entry, dy, x, parts, table, scale, scale_grad,
                                            shift_grad),)  # fmt: skip

        def backward(_: int, *arrays: np.ndarray) -> Sequence[Any]:
            dy, x, table, dx = arrays
            entry = _loop(f"norm{'_frozen' * frozen}_backward{'_relu' * relu}", x)
            return (channels.norm_backward_call(entry, dy, x, table, dx),)

        self._graph.call(
            "sums", sums, (dy, self._x, self._scale, self._table), (scale_grad, shift_grad),
            scratch=self._parts,
        )  # fmt: skip
        if not need:
            return None
        dx = self._graph.value(self._x.shape, dy.dtype)
        self._graph.call("backward", backward, (dy, self._x, self._table), (dx,), over=(dx, dy))
        return dx


def bias_grad(graph: Graph, dy: Value, db: Value) -> None:
    """``db[f]``, the sum of ``dy[..., f]``, into an array of the caller's."""
    channels = engine().channels

    def make(sums: int, dy: np.ndarray, db: np.ndarray) -> Sequence[Any]:
        return (channels.bias_grad_call(_loop("bias_grad", dy), dy, sums, db),)

    graph.call("bias gradient", make, (dy,), (db,), scratch=channels.bias_sums_nbytes(dy.shape))


def image_means(graph: Graph, x: Value) -> Value:
    """``y (m, C)``, the means of ``x (m, ..., C)`` over the pixels of each image."""
    y = graph.value((x.shape[0], x.shape[-1]), x.dtype)

    def make(_: int, x: np.ndarray, y: np.ndarray) -> Sequence[Any]:
        return (engine().channels.image_means_call(_loop("image_means", x), x, y),)

    graph.call("forward", make, (x,), (y,))
    return y


def each(
    graph: Graph, label: str, name: str, a: Value, b: Value | None = None, number: float = 0.0
) -> Value:
    """A function of every element of `a`, or of those of `a` and `b` (see `engine.elementwise`)."""
    y = graph.value(a.shape, a.dtype)

    def make(_: int, *arrays: np.ndarray) -> Sequence[Any]:
        a, *b, y = arrays
        return (engine().elementwise.each_call(_loop(name, a), name, a, y, *b, number=number),)

    graph.call(label, make, (a,) if b is None else (a, b), (y,), over=(y, a))
    return y


def relu_backward(graph: Graph, dy: Value, y: Value) -> Value:
    """``dy`` where ``y > 0``, else exactly 0."""
    dx = graph.value(dy.shape, dy.dtype)

    def make(_: int, dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> Sequence[Any]:
        return (engine().deltas.relu_call(_loop("relu_delta", dy), dy, y, dx),)

    graph.call("mask", make, (dy, y), (dx,), over=(dx, dy))
    return dx


def loss(graph: Graph, name: str, z: Value, y: Value) -> tuple[Value, Value]:
    """A loss (see `engine.losses`), and its gradient ``dz``.

    The first is three doubles: the mean, how many rows are predicted right, and the first bad label
    or -1. The program goes on only if the mean is finite.
    """
    losses = engine().losses
    rows, width = z.shape[0], math.prod(z.shape[1:])
    result, dz = graph.value((3,), np.float64), graph.value(z.shape, z.dtype)
    parts = graph.value(losses.parts_of(name, rows, width), np.float64)

    def make(_: int, *arrays: np.ndarray) -> Sequence[Any]:
        z, y, parts, dz, result = arrays
        z, dz = z.reshape(rows, width), dz.reshape(rows, width)
        return (losses.loss_call(_loop(name, z), name, z, y, dz, parts, result),)

    graph.call("loss", make, (z, y), (parts, dz, result), checked=True)
    return result, dz
