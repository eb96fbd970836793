"""A convolution and what follows it, as one operation: what lies between is never written.

Each operation is rounded as in the layers' own passes, so the bits are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv.geometry.resolve import conv_geometry
from fastconv.plans.compiled import engine, finished, finished_choice
from fastconv.plans.fast import is_exact
from fastconv.program.graph import Graph, Value
from fastconv.typing import Algorithm

__all__ = ["Normalisation", "can_finish", "finished_convolution", "maxima", "maxima_backward",
           "result_of", "winners_of"]  # fmt: skip

# Words of a call that finishes; see `engine.words.FINISH_WORDS`, which may be fewer.
CALL_WORDS = 16


class Normalisation(NamedTuple):
    """Batch normalisation by running statistics: arrays (C,), and epsilon."""

    scale: Value
    shift: Value
    mean: Value
    variance: Value
    epsilon: float


def result_of(x: Value, w_shape: Sequence[int], **options: Any) -> Value:
    """A value like the result of a convolution, which nothing writes."""
    return Value(conv_geometry(x.shape, w_shape, names=("x", "w"), **options).y_shape, x.dtype)


def can_finish(
    x: Value, w_shape: Sequence[int], pool: bool, algorithm: Algorithm = "exact", **options: Any
) -> bool:
    """Whether a convolution of `x` can be followed at once; arguments are right.

    Only the exact product can: where "fast" takes another way, the layers behind it follow alone.
    """
    g = conv_geometry(x.shape, w_shape, **options)
    return is_exact("forward", g, x.dtype, algorithm) and (
        finished_choice(g, x.dtype, pool) is not None
    )


def finished_convolution(
    graph: Graph, x: Value, w: Value, b: Value | None, relu: bool, *, pool: bool = False,
    norm: Normalisation | None = None, added: Value | None = None, relu_after: bool = False,
    winners: Value | None = None, **options: Any,
) -> Value:  # fmt: skip
    """``y``: convolution, bias, ReLU; normalisation, sum, ReLU; 2x2 maxima: what is asked for.

    Parameters
    ----------
    graph : Graph
        In inference kernels are packed, and statistics taken, once.
    x, w, b : Value
        As of `layers.Convolution`.
    relu, relu_after : bool
        Whether ReLU follows at once, or after normalisation and sum.
    pool : bool
        Whether maxima are taken; of a sum they are not.
    norm, added : optional
        The second has the shape of the result. Statistics are taken in inference alone.
    winners : Value of uint8, optional
        Takes which of four each maximum is, if nothing else follows.
    options
        stride, padding, dilation, groups, as of :func:`fastconv.conv`.
    """
    g = conv_geometry(x.shape, w.shape, names=("x", "w"), **options)
    product, most = finished(g, x.dtype, pool, winners is not None), graph.most
    shape = g.y_shape if not pool else (g.m, *(n // 2 for n in g.y_size), g.F)
    y = graph.value(shape, x.dtype)
    table = None if norm is None else _table(graph, g.y_shape, norm)
    others = {"w": w, "b": b, "table": table, "added": added}
    given = {name: value for name, value in others.items() if value is not None}
    writes = {
        "target": y, "winners": winners, "memory": graph.value((CALL_WORDS,), np.int64, kept=True),
        "packed": graph.value((product.shared_nbytes,), np.uint8, kept=True)
        if graph.inference else None,
    }  # fmt: skip
    written = {name: value for name, value in writes.items() if value is not None}

    def make(scratch: int, *arrays: np.ndarray) -> Sequence[Any]:
        found: dict[str, Any] = dict(zip(("x", *given, *written), arrays, strict=True))
        packed = found["packed"].ctypes.data if "packed" in found else 0
        return (product.finished_call(
            scratch, found["x"], found["w"], found.get("b"), relu, found["target"], most, packed,
            found["memory"], found.get("table"), found.get("added"), relu_after,
            found.get("winners"),
        ),)  # fmt: skip

    parts = {"norm": norm, "sum": added, "ReLU": relu_after, "maxima": pool}
    label = " + ".join(["forward", *(name for name, part in parts.items() if part)])
    graph.call(
        label, make, (x, *given.values()), tuple(written.values()),
        scratch=product.scratch_nbytes(most), flops=product.flops,
    )  # fmt: skip
    return y


def winners_of(graph: Graph, shape: Sequence[int]) -> Value:
    """Room for the winners of 2x2 maxima of results of a shape."""
    m, H, W, C = shape
    return graph.value((m, H // 2, W // 2, C), np.uint8)


def maxima(graph: Graph, x: Value) -> tuple[Value, Value]:
    """2x2 maxima of an array (m, H, W, C), and their winners."""
    winners = winners_of(graph, x.shape)
    y, entry = graph.value(winners.shape, x.dtype), _winners_entry("pool_winners", x)

    def make(_: int, *arrays: np.ndarray) -> Sequence[Any]:
        return (engine().finished.pool_winners_call(entry, *arrays),)

    graph.call("forward", make, (x,), (y, winners))
    return y, winners


def maxima_backward(
    graph: Graph, dy: Value, y: Value, winners: Value, shape: Sequence[int], relu: bool,
    label: str = "backward",
) -> Value:  # fmt: skip
    """The error before 2x2 maxima `y`, and before a ReLU before them, in the shape of results."""
    dx, entry = graph.value(shape, dy.dtype), _winners_entry("winners_backward", dy)

    def make(_: int, *arrays: np.ndarray) -> Sequence[Any]:
        return (engine().finished.winners_backward_call(entry, *arrays, relu),)

    graph.call(label, make, (dy, y, winners), (dx,))
    return dx


def _winners_entry(name: str, like: Value) -> int:
    lanes = engine().finished.winners_lanes(like.shape[-1], like.dtype)
    return engine().finish_loop(name, lanes, like.dtype)


def _table(graph: Graph, shape: Sequence[int], norm: Normalisation) -> Value:
    """The numbers of a normalisation's channels, as they are when kernels are packed."""
    channels = engine().channels
    table = graph.value(channels.table_shape(shape, norm.scale.dtype), norm.scale.dtype, kept=True)

    def make(_: int, *arrays: np.ndarray) -> Sequence[Any]:
        *operands, table = arrays
        entry = engine().loop("norm_frozen", table.dtype)
        call = channels.norm_frozen_call(entry, tuple(shape), table, *operands, norm.epsilon)
        return (call._replace(once=True),)

    graph.call("statistics", make, norm[:4], (table,))
    return table
