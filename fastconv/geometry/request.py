"""Arguments of the public functions: canonical forms, and errors that show the whole problem.

What is not made of integers is a TypeError, what does not fit is a ValueError. Both name the
argument and its value; the ValueError lists every quantity of the geometry, one a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Any, NoReturn

import numpy as np

from fastconv.geometry.cures import format_cure, name_cure

__all__ = [
    "DATA_FORMATS",
    "PADDING_MODES",
    "PADDING_NAMES",
    "Request",
    "boolean",
    "channels_last_shape",
    "integer",
]

DATA_FORMATS = ("channels_last", "channels_first")
PADDING_NAMES = ("valid", "same", "full")
PADDING_MODES = ("constant", "reflect", "symmetric", "edge", "wrap")

Pairs = tuple[tuple[int, int], ...]


def channels_last_shape(shape: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    """The channels-last order of `shape`.

    >>> channels_last_shape((64, 3, 32, 28), "channels_first")
    (64, 32, 28, 3)
    """
    if data_format == "channels_last":
        return shape
    m, C, *size = shape
    return (m, *size, C)


def is_sequence(value: Any) -> bool:
    """Whether `value` holds one entry per axis (a string does not)."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def integer(argument: str, value: Any) -> int:
    """`value` as a Python int; bool and float are not integers.

    >>> integer("stride", np.int8(2))
    2
    """
    if type(value) is int:
        return value
    if not isinstance(value, bool | np.bool_) and hasattr(value, "__index__"):
        try:
            return index(value)
        except TypeError:  # an array of several numbers has __index__ too
            pass
    raise TypeError(f"{argument}={value!r} must be an integer, not {type(value).__name__}")


def boolean(argument: str, value: Any) -> bool:
    """`value` as a bool; numbers are not truth values here."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{argument}={value!r} must be True or False")
    return bool(value)


class Request:
    """What the caller asked for, in their own words.

    Parameters
    ----------
    data_format : str
        Checked here: every other check depends on it.
    **quantities
        Argument names and values as the caller gave them, in the order in which errors list
        them. The shape of an array argument goes under the array's name.
    """

    def __init__(self, data_format: Any, **quantities: Any) -> None:
        if not isinstance(data_format, str):
            raise TypeError(f"data_format={data_format!r} must be a string")
        self.quantities = {**quantities, "data_format": data_format}
        if data_format not in DATA_FORMATS:
            names = ", ".join(map(repr, DATA_FORMATS))
            self.fail("data_format", f"must be one of {names}", format_cure(data_format))

    def fail(self, argument: str, reason: str, cure: str = "") -> NoReturn:
        """Raise the one ValueError: argument, value, cure, then every quantity on a line."""
        lines = [f"{argument}: {self.quantities[argument]!r} {reason}{cure and f'; {cure}'}"]
        lines += [f"    {name} = {value!r}" for name, value in self.quantities.items()]
        raise ValueError("\n".join(lines))

    def per_axis(self, argument: str, rank: int, cure: str = "") -> tuple[int, ...]:
        """One integer per spatial axis; a single one stands for all."""
        value = self.quantities[argument]
        if not is_sequence(value):
            return (integer(argument, value),) * rank
        values = tuple(integer(argument, v) for v in value)
        if len(values) != rank:
            self.fail(argument, f"must be one integer, or {rank}: one per spatial axis", cure)
        return values

    def positive(self, argument: str, rank: int, cure: str = "") -> tuple[int, ...]:
        """`per_axis`, each at least 1."""
        values = self.per_axis(argument, rank, cure)
        if min(values) < 1:
            self.fail(argument, "must be at least 1 on every axis")
        return values

    def steps(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...], Any]:
        """Stride, dilation and padding, which every problem has."""
        return self.positive("stride", rank), self.positive("dilation", rank), self.padding(rank)

    def padding(self, rank: int) -> str | Pairs:
        """A legal name, or one (lo, hi) pair per spatial axis, none negative."""
        value = self.quantities["padding"]
        if isinstance(value, str):
            if value not in PADDING_NAMES:
                names = ", ".join(map(repr, PADDING_NAMES))
                reason = f"must be one of {names}, an integer, or one per axis"
                self.fail("padding", reason, name_cure(value, PADDING_NAMES))
            return value
        if is_sequence(value):
            if len(value) != rank:
                self.fail("padding", f"must have {rank} entries, an integer or (lo, hi) pair each")
            pads = tuple(self._pair(entry) for entry in value)
        else:
            pads = (self._pair(value),) * rank
        if any(p < 0 for pair in pads for p in pair):
            self.fail("padding", "must not be negative")
        return pads

    def padding_mode(self) -> str:
        """What stands in the padding."""
        value = self.quantities["padding_mode"]
        if not isinstance(value, str):
            raise TypeError(f"padding_mode={value!r} must be a string")
        if value not in PADDING_MODES:
            names = ", ".join(map(repr, PADDING_MODES))
            self.fail("padding_mode", f"must be one of {names}", name_cure(value, PADDING_MODES))
        return value

    def _pair(self, entry: Any) -> tuple[int, int]:
        if not is_sequence(entry):
            p = integer("padding", entry)
            return p, p
        pair = tuple(integer("padding", p) for p in entry)
        if len(pair) != 2:
            self.fail("padding", "must have pairs (lo, hi) of two integers")
        return pair[0], pair[1]

    def image(self, argument: str, cure: Callable[[tuple[int, ...]], str]) -> tuple[int, ...]:
        """Shape of a batch, perhaps empty, of images that are not, in channels-last order.

        ``cure(shape)`` says what a wrong number of axes asks for.
        """
        shape = self.shape(argument)
        if not 3 <= len(shape) <= 5:
            reason = "must have 3 to 5 axes: batch, 1 to 3 spatial axes, channels"
            self.fail(argument, reason, cure(shape))
        if shape[0] < 0 or min(shape[1:]) < 1:
            self.fail(argument, "must have no negative batch and no empty spatial or channel axis")
        return channels_last_shape(shape, self.quantities["data_format"])

    def kernel(
        self, argument: str, rank: int, cure: Callable[[tuple[int, ...]], str]
    ) -> tuple[int, ...]:
        """Shape of a kernel for that many spatial axes; `cure` is as for `image`."""
        shape = self.shape(argument)
        if len(shape) != rank + 2:
            self.fail(argument, f"must have {rank + 2} axes", cure(shape))
        if min(shape) < 1:
            self.fail(argument, "must be at least 1 on every axis")
        return shape

    def shape(self, argument: str) -> tuple[int, ...]:
        """A shape of any number of axes."""
        value = self.quantities[argument]
        if not is_sequence(value):
            self.fail(argument, "must be a shape: a sequence of integers")
        return tuple(integer(argument, n) for n in value)

    def divides(self, groups: int, symbol: str, channels: int, cure: str = "") -> None:
        """`groups` splits the channels evenly."""
        if groups < 1 or channels % groups:
            self.fail("groups", f"must be at least 1 and divide {symbol} = {channels}", cure)
