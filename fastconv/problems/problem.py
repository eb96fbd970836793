"""One convolution problem: its sizes, its operands, and its descriptor read and written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastconv.geometry import Geometry
from fastconv.geometry.resolve import conv_geometry
from fastconv.problems.grammar import Padding, error, parse_fields

__all__ = ["Operands", "Problem", "parse_problem"]


class Operands(NamedTuple):
    """Operands of the three products: x, w, b and the output's gradient dy."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    dy: np.ndarray


@dataclass(frozen=True)
class Problem:
    """One convolution problem: sizes and options, no data.

    Parameters
    ----------
    name : str
        What the problem is called; may be empty.
    m : int
        Images in the batch.
    size : tuple of int
        Input size per spatial axis: (W,), (H, W) or (D, H, W).
    channels, filters : int
        C and F.
    window, stride, dilation : tuple of int
        One number per spatial axis.
    padding : tuple of (int, int), or str
        One (lo, hi) pair per spatial axis, or "same", "valid", "full".
    groups : int
        G.
    dtype : str
        "float16", "float32" or "float64".

    Examples
    --------
    >>> problem = parse_problem("c1: m64 h28w28c1 f6 k5x5 p2")
    >>> problem.name, problem.x_shape, problem.w_shape
    ('c1', (64, 28, 28, 1), (5, 5, 1, 6))
    >>> str(problem)
    'c1: m64 h28w28c1 f6 k5x5 s1 p2'
    """

    name: str
    m: int
    size: tuple[int, ...]
    channels: int
    filters: int
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int = 1
    dtype: str = "float32"

    @property
    def rank(self) -> int:
        """Number of spatial axes: 1, 2 or 3."""
        return len(self.size)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input, channels last: (m, H, W, C)."""
        return (self.m, *self.size, self.channels)

    @property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the kernel: (KH, KW, C/G, F)."""
        return (*self.window, self.channels // self.groups, self.filters)

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments for `fastconv.conv`, its gradients and `fastconv.plan_conv`."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    @cached_property
    def geometry(self) -> Geometry:
        """The checked geometry; a ValueError if the sizes do not fit together."""
        return conv_geometry(self.x_shape, self.w_shape, **self.kwargs)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the output, channels last: (m, OH, OW, F)."""
        return self.geometry.y_shape

    @property
    def flops(self) -> int:
        """Floating point operations of one of the three products: 2 P K F."""
        return self.geometry.flops

    def operands(self, seed: int = 0) -> Operands:
        """Operands with small integer values, on which every partial sum is exact.

        Parameters
        ----------
        seed : int
            Seed of the random values.

        Returns
        -------
        Operands
            x (m, H, W, C), w (KH, KW, C/G, F), b (F,), dy (m, OH, OW, F) in the problem's dtype.

        Notes
        -----
        The longest sum of the three products has n = max(K, P, T F / G) terms. Values are at most
        ``sqrt(2**24 / n)``, so that no partial sum exceeds 2**24, the last integer up to which
        float32 is exact; where n alone exceeds 2**24, entries are set to zero.

        Examples
        --------
        >>> x, w, b, dy = parse_problem("m2 h5w6c3 f4 k3").operands()
        >>> x.shape, w.shape, b.shape, dy.shape
        ((2, 5, 6, 3), (3, 3, 3, 4), (4,), (2, 3, 4, 4))
        """
        g = self.geometry
        longest = max(g.K + 1, g.P, g.T * g.F // g.G)  # 1 for the bias
        limit = min(32, max(1, math.isqrt(2**24 // longest)))
        rng = np.random.default_rng(seed)

        def draw(shape: tuple[int, ...]) -> np.ndarray:
            values = rng.integers(-limit, limit + 1, shape, np.int8).astype(self.dtype)
            if longest > 2**24:
                values[rng.random(shape) > 2**23 / longest] = 0
            return values

        return Operands(
            draw(self.x_shape), draw(self.w_shape), draw((self.filters,)), draw(self.y_shape)
        )

    def __str__(self) -> str:
        """Write the descriptor, such that `parse_problem` gives the same problem back."""
        letters = "dhw"[3 - self.rank :]
        words = [
            f"m{self.m}",
            "".join(f"{a}{n}" for a, n in zip(letters, self.size, strict=True))
            + f"c{self.channels}",
            f"f{self.filters}",
            "k" + "x".join(map(str, self.window)),
            "s" + _join(self.stride),
            _padding_word(self.padding),
        ]
        if set(self.dilation) != {1}:
            words.append("d" + _join(self.dilation))
        if self.groups != 1:
            words.append(f"g{self.groups}")
        if self.dtype != "float32":
            words.append(self.dtype)
        return (f"{self.name}: " if self.name else "") + " ".join(words)


def _join(values: Iterable[object]) -> str:
    """'2' for (2, 2), '2x1' for (2, 1)."""
    words = [str(v) for v in values]
    return words[0] if len(set(words)) == 1 else "x".join(words)


def _padding_word(padding: Padding) -> str:
    """Write 'p1', 'p1x0', 'p0:1x0:1' or 'psame'."""
    if isinstance(padding, str):
        return "p" + padding
    if all(lo == hi for lo, hi in padding):
        return "p" + _join(lo for lo, _ in padding)
    return "p" + _join(f"{lo}:{hi}" for lo, hi in padding)


def parse_problem(text: str) -> Problem:
    """Read one problem descriptor.

    Parameters
    ----------
    text : str
        The descriptor, see :mod:`fastconv.problems`.

    Returns
    -------
    Problem

    Raises
    ------
    ValueError
        If a word is not understood, repeated or missing, or the geometry is impossible. The
        message names the word and says what was expected.

    Examples
    --------
    >>> parse_problem("m64 h32w32c32 f32 k3x3 s1 p1").y_shape
    (64, 32, 32, 32)
    >>> parse_problem("m64 h32w32 f32 k3x3")
    Traceback (most recent call last):
        ...
    ValueError: problem 'm64 h32w32 f32 k3x3': 'h32w32' is not understood; expected the input, \
such as h32w32c32 (2-D), w100c3 (1-D) or d8h16w16c4 (3-D)
    """
    problem = Problem(**parse_fields(text))
    try:
        _ = problem.geometry
    except ValueError as fault:  # its first line names the argument; the descriptor has the rest
        raise error(text, str(fault).splitlines()[0]) from fault
    return problem
