"""Padding in ONNX, for the layers that pad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["padded", "piece"]

BEFORE_ALL = -(2**31) + 1  # where a slice that runs backwards ends


def _integers(graph: Any, path: str, name: str, *values: int) -> str:
    """A constant of int64."""
    text: str = graph.constant(f"{path}.{name}.{len(graph.nodes)}", np.array(values), np.int64)
    return text


def padded(graph: Any, x: Any, pairs: Sequence[tuple[int, int]], mode: str, path: str) -> Any:
    """`x` with (lo, hi) more cells on its axes, channels first.

    Of the modes that ONNX's Pad lacks, pieces of the image are joined around it: they need no more
    cells than it has.
    """
    if mode in ("constant", "reflect", "edge"):
        lows, highs = ([pair[end] for pair in pairs] for end in (0, 1))
        pads = _integers(graph, path, "pads", 0, 0, *lows, 0, 0, *highs)
        return x._replace(name=graph.node("Pad", [x.name, pads], path, mode=mode))
    name = x.name
    for axis, (low, high) in enumerate(pairs, 2):
        back = mode == "symmetric"
        before = (low - 1, BEFORE_ALL, -1) if back else (-low, 2**31 - 1, 1)
        after = (-1, -high - 1, -1) if back else (0, high, 1)
        parts = [piece(graph, path, name, axis, *before)] if low else []
        parts += [name, *([piece(graph, path, name, axis, *after)] if high else [])]
        if len(parts) > 1:
            name = graph.node("Concat", parts, path, axis=axis)
    return x._replace(name=name)


def piece(graph: Any, path: str, name: str, axis: int, first: int, end: int, step: int = 1) -> str:
    """The cells from `first` to `end` of an axis."""
    words = {"first": first, "end": end, "axis": axis, "step": step}
    numbers = [_integers(graph, path, word, value) for word, value in words.items()]
    text: str = graph.node("Slice", [name, *numbers], path)
    return text
