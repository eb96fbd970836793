"""What the programs of a model share: where it keeps them, and how they are made and shown."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import threads
from fastconv.nn.base import Layer
from fastconv.nn.checks import positive_int, shown
from fastconv.program.graph import Graph

if TYPE_CHECKING:
    from fastconv.program.machine import Program

__all__ = ["KEPT", "dtype_of", "images_shape", "kept", "new_program", "programs", "table"]

# Plans that a model keeps, and programs that a plan keeps for shorter batches.
KEPT = 8


def new_program(graph: Graph) -> Program:
    """The program of a graph; the first brings in the engine, and with it Numba."""
    with threads.building:
        from fastconv.program.machine import Program

        return Program(graph)


class _Programs:
    """What a model holds of its programs; copies and pickles of the model do without."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # of its training steps
        self.steps: dict[Any, Any] = {}  # what `train_step` keeps
        self.forwards: dict[Any, Any] = {}  # what `predict` keeps


def kept(found: dict[Any, Any], key: Any, value: Any) -> dict[Any, Any]:
    """A new dictionary of the last few: threads may read the old one, or make another."""
    others = [(k, v) for k, v in found.items() if k != key]
    return dict([*others[-KEPT + 1 :], (key, value)])


def programs(model: Layer) -> _Programs:
    """The programs that a model holds."""
    found: _Programs = vars(model).setdefault("_programs", _Programs())
    return found


def table(rows: Sequence[tuple[str, ...]], left: int = 1) -> str:
    """Rows of words as text: the first columns, so many, to the left, numbers to the right."""
    wide = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    sides = ["<"] * left + [">"] * (len(wide) - left)
    lines = [
        "  ".join(f"{a:{side}{n}}" for a, side, n in zip(row, sides, wide, strict=True))
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def dtype_of(model: Layer) -> np.dtype[Any]:
    """The dtype of a model's images: that of its parameters."""
    return next((p.dtype for p in model.parameters()), np.dtype(np.float32))


def images_shape(x_shape: Any) -> tuple[int, ...]:
    """A caller's `x_shape`, checked."""
    try:
        numbers = tuple(x_shape)
    except TypeError:
        raise TypeError(f"x_shape: (m, H, W, C) is needed, got {shown(x_shape)}") from None
    shape = tuple(positive_int("x_shape", n) for n in numbers)
    if len(shape) < 2:
        raise ValueError(f"x_shape: expected (m, ...), got {shape}")
    return shape
