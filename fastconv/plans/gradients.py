"""Which gradients of a convolution are wanted, and where they go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv.operands import overlap, result

__all__ = ["OPERANDS", "ConvGrads", "check_need", "grad_results"]

OPERANDS = ("x", "w", "b")


class ConvGrads(NamedTuple):
    """Gradients of the loss with respect to input, kernel and bias; None where not needed."""

    dx: np.ndarray | None
    dw: np.ndarray | None
    db: np.ndarray | None


def check_need(need: Any) -> frozenset[str]:
    """The operands whose gradients are wanted."""
    if not isinstance(need, str | Iterable):
        raise TypeError(f"need={need!r} must hold some of {OPERANDS}")
    names = (need,) if isinstance(need, str) else tuple(need)
    for name in names:
        if name not in OPERANDS:
            raise ValueError(f"need={need!r} must hold some of {OPERANDS}")
    return frozenset(names)


def grad_results(
    wanted: frozenset[str],
    out: Sequence[np.ndarray | None] | None,
    shapes: Sequence[tuple[int, ...]],
    dtype: np.dtype,
    **inputs: np.ndarray,
) -> list[np.ndarray | None]:
    """Arrays for (dx, dw, db): the caller's where given, None where not wanted."""
    if out is not None and not isinstance(out, Sequence | np.ndarray):
        raise TypeError(f"out={out!r} must hold three arrays or None: (dx, dw, db)")
    given = (None, None, None) if out is None else tuple(out)
    if len(given) != 3:
        raise ValueError(f"out must hold three entries (dx, dw, db), not {len(given)}")
    made = [
        result(array, shape, dtype, **inputs) if name in wanted else None
        for name, array, shape in zip(OPERANDS, given, shapes, strict=True)
    ]
    for i, array in enumerate(made):
        others = [a for a in made[:i] if a is not None]
        if array is not None and any(overlap(array, a) for a in others):
            raise ValueError(f"out[{i}] overlaps another entry of out")
    return made
