"""The table of a network's layers: sizes, work, memory, and what of the image each pixel sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv import _html
from fastconv.nn.base import Layer
from fastconv.nn.copying import scratch_copy
from fastconv.nn.programs import dtype_of, table

__all__ = ["Summary", "summary"]

HEADS = ("layer", "output", "parameters", "multiply-adds", "bytes", "sees")


class Summary(str):
    """A table as text, and in a notebook as HTML."""

    heading = ""
    rows: Sequence[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        head, *rows = self.rows
        return _html.table(self.heading, head, rows)


class _Reach(NamedTuple):
    """Pixels of the image that one of a layer's output depends on, on each axis.

    Attributes
    ----------
    size : tuple of float
    step : tuple of float
        Pixels of the image from one output to the next.
    """

    size: tuple[float, ...]
    step: tuple[float, ...]


# An axis is seen whole, or nobody knows how far.
WHOLE, UNKNOWN = "all", "?"
Seen = _Reach | str


def summary(model: Layer, input_shape: tuple[int, ...] | None) -> Summary:
    """The table; see `Sequential.summary`."""
    twin = model
    if input_shape is not None:
        twin = scratch_copy(model, evaluating=True)
        twin.forward(np.zeros((0, *input_shape), dtype_of(model)))
    itemsize, shape, seen = dtype_of(model).itemsize, input_shape, None
    rows, work, memory = [HEADS], 0, 0
    known = True
    for i, layer in enumerate(twin.children().values()):
        if seen is None:
            seen = _start(twin, shape)
        seen = _after(layer, seen)
        adds = _multiply_adds(layer, shape)
        shape = layer.output_shape
        count = sum(parameter.size for parameter in layer.parameters())
        nbytes = None if shape is None else math.prod(shape) * itemsize
        known = known and adds is not None and nbytes is not None
        work, memory = work + (adds or 0), memory + (nbytes or 0)
        name = f"{i} {type(layer).__name__}"
        rows.append(
            (name, UNKNOWN if shape is None else str(shape), str(count), _number(adds),
             _number(nbytes), _seen_text(seen))
        )  # fmt: skip
    total = sum(parameter.size for parameter in model.parameters())
    sums = (_number(work), _number(memory)) if known else (UNKNOWN, UNKNOWN)
    rows.append((getattr(model, "name", None) or "total", "", str(total), *sums, ""))
    text = Summary(table(rows, left=2))
    text.heading, text.rows = repr(model).strip("<>"), rows
    return text


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _multiply_adds(layer: Layer, shape: tuple[int, ...] | None) -> int | None:
    """Of the products of one image; `shape` is that of the layer's input."""
    children = layer.children()
    if children:
        found = [_multiply_adds(child, None) for child in children.values()]
        return None if None in found else sum(found)  # type: ignore[arg-type]
    w = layer._parameters.get("w")
    if w is None:
        return 0
    if w.value.ndim == 2:
        return w.size
    after = layer.output_shape
    if type(layer).__name__ == "ConvTranspose":
        if shape is not None:
            return math.prod(shape[:-1]) * w.size
        return None
    return None if after is None else math.prod(after[:-1]) * w.size


# Receptive fields -------------------------------------------------------------------------------


def _start(model: Layer, shape: tuple[int, ...] | None) -> Seen:
    rank = len(shape) - 1 if shape is not None else _rank_of(model)
    return _Reach((1.0,) * rank, (1.0,) * rank) if rank else UNKNOWN


def _rank_of(model: Layer) -> int:
    """Spatial axes of the images, as the first convolution tells."""
    for _, inner in model.walk():
        w = inner._parameters.get("w")
        if w is not None and w.value.ndim > 2:
            return w.value.ndim - 2
    return 2


def _after(layer: Layer, seen: Seen) -> Seen:
    """What an output of the layer sees, if its inputs see `seen`."""
    children = layer.children()
    name = type(layer).__name__
    if children:
        if "layers" in vars(layer):
            for child in children.values():
                seen = _after(child, seen)
            return seen
        ways = [_after(child, seen) for child in children.values()]
        return _widest([*ways, seen] if name == "Residual" else ways)
    if isinstance(seen, str):
        return seen
    if not type(layer).__module__.startswith("fastconv."):
        return UNKNOWN
    if name in ("Flatten", "Dense") or name.startswith(("Global", "Adaptive")):
        return WHOLE
    window: Any = getattr(layer, "window", None)
    if window is None:
        factor = getattr(layer, "factor", None) if name in ("Upsample", "PixelShuffle") else None
        return seen if factor is None else _finer(seen, factor)
    settings: dict[str, Any] = getattr(layer, "settings", {})
    return _through(layer, seen, window, settings)


def _through(layer: Layer, seen: _Reach, window: Any, settings: dict[str, Any]) -> Seen:
    rank = len(seen.size)
    windows = _per_axis(window, rank)
    stride = settings.get("stride")
    strides = _per_axis(window if stride is None else stride, rank)
    dilations = _per_axis(settings.get("dilation", 1), rank)
    if not windows or not strides or not dilations:
        return UNKNOWN
    if type(layer).__name__ == "ConvTranspose":
        seen = _finer(seen, strides)
        strides = (1,) * rank
    size = tuple(
        r + (k - 1) * d * j
        for r, j, k, d in zip(seen.size, seen.step, windows, dilations, strict=True)
    )
    return _Reach(size, tuple(j * s for j, s in zip(seen.step, strides, strict=True)))


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
    """A number, or one for each axis, as a tuple; empty where it does not fit."""
    if isinstance(value, (tuple, list)):
        return tuple(value) if len(value) == rank else ()
    return (int(value),) * rank


def _finer(seen: _Reach, factor: Any) -> _Reach:
    factors = _per_axis(factor, len(seen.step))
    step = tuple(j / f for j, f in zip(seen.step, factors, strict=True))
    return seen._replace(step=step)


def _widest(ways: Sequence[Seen]) -> Seen:
    for text in (UNKNOWN, WHOLE):
        if text in ways:
            return text
    found = [way for way in ways if isinstance(way, _Reach)]
    return _Reach(
        tuple(map(max, zip(*(way.size for way in found), strict=True))),
        tuple(map(max, zip(*(way.step for way in found), strict=True))),
    )


def _seen_text(seen: Seen) -> str:
    if isinstance(seen, str):
        return seen
    return "x".join(str(math.ceil(r)) for r in seen.size)
