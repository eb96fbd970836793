"""What is tried: random problems, and operands in every dtype and data format."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.geometry import effective
from fastconv.problems import Problem, parse_problem

__all__ = ["AVERAGE_STEP", "Trial", "random_problem"]

# Every number of cells that a window of up to 3x3x3 can have inside the input divides this.
AVERAGE_STEP = 216


class Trial:
    """One problem in one dtype and data format: operands and arguments for every function.

    Attributes ``x``, ``w``, ``b``, ``dy`` are the problem's integer operands; arrays of images are
    in the trial's data format. Two trials with the same problem and seed hold the same numbers.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        dtype: str = "float64",
        data_format: str = "channels_last",
    ) -> None:
        self.problem, self.seed, self.dtype, self.data_format = problem, seed, dtype, data_format
        operands = [a.astype(dtype) for a in problem.operands(seed)]
        self.w, self.b = operands[1:3]
        self.x, self.dy = self.to(operands[0]), self.to(operands[3])
        self.conv_options = problem.kwargs | {"data_format": data_format}
        self.window_options = {k: v for k, v in self.conv_options.items() if k != "groups"}
        self.window, padding = _pool(problem)
        self.pool_options = self.window_options | {
            "padding": padding,
            "ceil_mode": bool(seed % 2),
        }
        self.average_options = self.pool_options | {"count_include_pad": bool(seed // 2 % 2)}
        self.transpose_options = self.conv_options | {"output_padding": _output_padding(problem)}

    def __str__(self) -> str:
        name = f"{self.problem} [{self.dtype}, {self.data_format}, seed {self.seed}]"
        return name.replace(" float64 [", " [")

    def to(self, array: np.ndarray) -> np.ndarray:
        """A channels-last array in the trial's data format."""
        if self.data_format == "channels_last":
            return array
        return np.ascontiguousarray(np.moveaxis(array, -1, 1))

    def back(self, array: np.ndarray) -> np.ndarray:
        """An array of the trial's data format, channels last."""
        return array if self.data_format == "channels_last" else np.moveaxis(array, 1, -1)

    def integers(self, shape: tuple[int, ...], step: int = 1) -> np.ndarray:
        """Integers from -3 to 3, times `step`, of a channels-last shape in the trial's format."""
        rng = np.random.default_rng([self.seed, *shape])
        return self.to((step * rng.integers(-3, 4, shape)).astype(self.dtype))

    def like(self, array: np.ndarray, step: int = 1) -> np.ndarray:
        """Integers in the shape of an array of the trial's data format."""
        return self.integers(self.back(array).shape, step)


def _pool(problem: Problem) -> tuple[tuple[int, ...], Any]:
    """A pooling window near the problem's, of at most 3 an axis, and padding legal for it."""
    window, pads = [], []
    for axis, (lo, hi) in enumerate(problem.geometry.pads):
        n, d = problem.size[axis], problem.dilation[axis]
        for k in range(min(problem.window[axis], 3), 0, -1):
            span = effective(k, d)
            pair = min(lo, span // 2), min(hi, span // 2)
            if span <= n + sum(pair):
                break
        window.append(k)
        pads.append(pair)
    named = problem.padding in ("same", "valid")
    return tuple(window), problem.padding if named else tuple(pads)


def _output_padding(problem: Problem) -> tuple[int, ...]:
    """Cells that the transposed convolution must add to give the problem's input size back."""
    if problem.padding == "same":
        return (0,) * problem.rank
    spare = []
    for axis, (lo, hi) in enumerate(problem.geometry.pads):
        span = effective(problem.window[axis], problem.dilation[axis])
        spare.append((problem.size[axis] + lo + hi - span) % problem.stride[axis])
    return tuple(spare)


def random_problem(rng: np.random.Generator) -> Problem:
    """A small random problem, 1-D to 3-D, with any option.

    Examples
    --------
    >>> random_problem(np.random.default_rng(0)).rank in (1, 2, 3)
    True
    """
    while True:
        rank = int(rng.choice([1, 2, 2, 2, 3]))
        axes = "dhw"[3 - rank :]
        groups = int(rng.choice([1, 1, 1, 2, 3]))
        channels, filters = groups * rng.integers(1, 7 // groups + 1, 2)
        words = [
            f"m{rng.integers(1, 4)}",
            "".join(f"{a}{rng.integers(1, 9 if rank < 3 else 6)}" for a in axes) + f"c{channels}",
            f"f{filters}",
            "k" + "x".join(str(rng.integers(1, 5 if rank < 3 else 4)) for _ in axes),
            "s" + "x".join(str(rng.integers(1, 4)) for _ in axes),
            "d" + "x".join(str(rng.choice([1, 1, 2, 3])) for _ in axes),
            "p" + "x".join(f"{rng.integers(0, 4)}:{rng.integers(0, 4)}" for _ in axes),
            f"g{groups}",
        ]
        if rng.random() < 0.25:
            words[6] = "p" + str(rng.choice(["same", "valid", "full"]))
        try:
            return parse_problem(" ".join(words))
        except ValueError:
            continue  # the window does not fit: draw again
