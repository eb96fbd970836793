"""Rounding errors on random reals: within the bound, and like those of a sum in one chain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastconv.cli.check_cases import Score, random_problem
from fastconv.cli.deep import Tick
from fastconv.cli.deep.chain import chain_errors
from fastconv.geometry import Geometry
from fastconv.lowering import Im2colPlan
from fastconv.problems import Problem, find_table, read_problems, table_names

__all__ = ["BOUND", "RMS", "Errors", "check_numbers", "rounding_errors", "table_problems"]

# abs(y - y64) <= 16 * eps * G, the bound of the reference BLAS tests; G is the sum of magnitudes.
BOUND = 16.0
# Root-mean-square error relative to that of the same sums as one chain in the dtype, which rounds
# once or twice a step as this processor's vectors do.
RMS = 1.5
# Fewer sums than this say little about a root-mean-square, which varies by 12 % for 288 and by 5 %
# for 2000: a small problem is drawn again, some times at most.
ENOUGH = 2000
DRAWS = 20
SMALL = 1e6  # multiply-adds, twice
# How many sums of a product are computed as chains, about; the largest im2col matrix that is
# written out for them; and the work of a table's problem, at most (or one image).
SUMS = 2**12
LARGEST = 2**24
FLOPS = 5e7


class Errors(NamedTuple):
    """What one product does wrong: in units of eps * G at worst, and relative to one chain."""

    product: str
    bound: float
    rms: float


def rounding_errors(ops: Any, problem: Problem, seed: int, dtype: str) -> list[Errors]:
    """Errors of the three products of `problem` on normal random numbers.

    The bound is on the difference from explicit im2col and NumPy's matmul in float64; a float64
    result may differ from it by what either rounds. The root-mean-square is that of the errors of
    some rows of the result, over that of the same sums as one chain.

    Parameters
    ----------
    ops : module or namespace
        What is checked.
    problem : Problem
    seed : int
    dtype : str
        float32 or float64.
    """
    g, rng = problem.geometry, np.random.default_rng(seed)
    columns = max(g.P * g.K, math.prod(g.x_shape[:-1]) * g.T * g.F)
    compared = columns <= LARGEST
    totals = [_Total(name) for name in ("y", "dx", "dw")]
    for _ in range(DRAWS if compared and g.flops < SMALL else 1):
        _draw(ops, problem, rng, dtype, compared, totals)
        if all(total.count >= ENOUGH for total in totals):
            break
    return [total.errors() for total in totals]


@dataclasses.dataclass
class _Total:
    """A product's errors over several draws: the worst, and what is compared with chains."""

    product: str
    worst: float = 0.0
    count: int = 0
    parts: list[tuple[np.ndarray, ...]] = dataclasses.field(default_factory=list)

    def add(self, off: np.ndarray, allowed: np.ndarray) -> None:
        """Take in errors, and ``eps * G``."""
        worst = float(np.max(off / np.where(allowed > 0, allowed, 1.0)))
        if off[allowed == 0].any():  # a sum of zeros, as where a window lies in the padding
            worst = math.inf
        self.worst = max(self.worst, worst if worst == worst else math.inf)

    def keep(self, *part: np.ndarray) -> None:
        """Take in operands by groups, our results, and ``eps * G``, for `errors` to compare."""
        self.count += int(np.count_nonzero(part[-1]))
        self.parts.append(part)

    def errors(self) -> Errors:
        """What is reported; no ratio where too few sums were compared."""
        if self.count < ENOUGH:
            return Errors(self.product, self.worst, 0.0)
        # the draws are groups side by side: the chains of all take the steps of one
        left, right, results, allowed = map(np.concatenate, zip(*self.parts, strict=True))
        errors = chain_errors(left, right, results, _fused())
        ours, chains = (float(np.square(error).sum()) for error in errors)
        # where both round next to nothing, as in a product of one term, neither is worse
        least = float(np.square(allowed * 1e-3).sum())
        return Errors(self.product, self.worst, math.sqrt(ours / max(chains, least)))


def _draw(
    ops: Any, problem: Problem, rng: Any, dtype: str, compared: bool, totals: list[_Total]
) -> None:
    """Compute the three products of other random numbers."""
    g, options = problem.geometry, problem.kwargs
    x, w, dy = (rng.standard_normal(s).astype(dtype) for s in (g.x_shape, g.w_shape, g.y_shape))
    found = (
        ops.conv(x, w, **options),
        ops.conv_input_grad(dy, w, x.shape, **options),
        ops.conv_kernel_grad(x, dy, w.shape, **options),
    )
    wide = [a.astype(np.float64) for a in (x, w, dy)]
    exact = _products(g, "float64", *wide)
    sizes = _products(g, "float64", *(abs(a) for a in wide))
    eps = float(np.finfo(dtype).eps)
    for i, total in enumerate(totals):
        total.add(np.abs(found[i] - exact[i]), eps * sizes[i])
    if not compared:
        return
    for i, (left, right) in enumerate(explicit_operands(problem, x, w, dy)):
        (groups, rows, _), columns = left.shape, right.shape[2]
        count = min(rows, max(32, SUMS // (groups * columns)))
        some = np.linspace(0, rows - 1, count).astype(int)
        ours, size = (_by_group(a, 1, g.G)[:, some] for a in (found[i], eps * sizes[i]))
        totals[i].keep(left[:, some], right, ours, size)


def _fused() -> bool:
    """Whether the engine's multiplication and addition round once together on this processor."""
    from fastconv.engine.tables.tiles import cpu_isa

    return cpu_isa() != "generic"


def _products(g: Geometry, dtype: str, *operands: np.ndarray) -> list[np.ndarray]:
    """y, dx and dw of x, w and dy, box by box: memory is bounded."""
    plan, (x, w, dy) = Im2colPlan(g, np.dtype(dtype)), operands
    y, dx, dw = (np.full(s, np.nan, dtype) for s in (g.y_shape, g.x_shape, g.w_shape))
    plan.forward(x, w, None, False, y)
    plan.input_grad(dy, w, None, False, dx)
    plan.kernel_grad(x, dy, dw)
    return [y, dx, dw]


def explicit_operands(
    problem: Problem, x: np.ndarray, w: np.ndarray, dy: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What y, dx and dw are the matrix products of, by groups: ``(G, rows, K) @ (G, K, columns)``.

    The input gradient is the full convolution of dy, with zeros between its pixels, and the
    flipped kernel, so that each result is one sum, as long as ours.
    """
    from fastconv import im2col

    g, options = problem.geometry, {k: v for k, v in problem.kwargs.items() if k != "groups"}
    cols = _by_group(im2col(x, g.window, **options), g.T, g.G)  # (G, P, K)
    yield cols, _by_group(w, 1, g.G)
    flipped = np.flip(w, tuple(range(g.rank))).reshape(g.T, g.C // g.G, g.G, g.F // g.G)
    w_gfc = flipped.transpose(2, 0, 3, 1).reshape(g.G, g.T * g.F // g.G, g.C // g.G)
    yield _by_group(im2col(_spread(g, dy), g.window, dilation=problem.dilation), g.T, g.G), w_gfc
    yield cols.swapaxes(1, 2), _by_group(dy, 1, g.G)


def _by_group(a: np.ndarray, terms: int, G: int) -> np.ndarray:
    """``(rows, terms, G, c)`` as ``(G, rows, terms*c)``, whatever the shape of `a`."""
    last = a.shape[-1] // (terms * G)
    split = np.moveaxis(a.reshape(-1, terms, G, last), 2, 0)
    return split.reshape(G, -1, terms * last)


def _spread(g: Geometry, dy: np.ndarray) -> np.ndarray:
    """Put zeros between and around the pixels of dy, so that its windows are those of dx."""
    room = np.zeros((g.m, *(n + (k - 1) * d for n, k, _, d, _, _ in g.axes), g.F), dy.dtype)
    to, of = [], []
    for (_, k, s, d, lo, o), size in zip(g.axes, room.shape[1:-1], strict=True):
        at = (k - 1) * d - lo + s * np.arange(o)
        kept = (at >= 0) & (at < size)
        to.append(at[kept])
        of.append(np.arange(o)[kept])
    images = range(g.m)
    room[np.ix_(images, *to)] = dy[np.ix_(images, *of)]
    return room


def table_problems() -> list[Problem]:
    """Every problem of the tables, with so many images that it takes a moment."""
    problems = []
    for table in table_names():
        for problem in read_problems(find_table(table)):
            one = dataclasses.replace(problem, m=1)
            images = min(problem.m, 4, max(1, int(FLOPS // one.geometry.flops)))
            problems.append(dataclasses.replace(problem, m=images))
    return problems


def check_numbers(ops: Any, seed: int, count: int, tick: Tick) -> list[Score]:
    """Random problems and `count` of the tables' problems in float32 and float64."""
    bound, rms = Score("rounding errors / eps G"), Score("rms error / one chain's")
    rng = np.random.default_rng(seed)
    tables = table_problems()
    chosen = rng.permutation(len(tables))[:count]
    problems = [tables[i] for i in sorted(chosen)] + [random_problem(rng) for _ in range(count)]
    for number, problem in enumerate(problems):
        for dtype in ("float32", "float64"):
            case = f"{problem} [{dtype}]"
            try:
                errors = rounding_errors(ops, problem, seed + number, dtype)
            except Exception as fault:  # a result like any other: reported as a failure
                bound.record_exception(case, fault)
                continue
            for product, worst, ratio in errors:
                bound.record(f"{case}, {product}", worst, BOUND)
                if ratio:
                    rms.record(f"{case}, {product}", ratio, RMS)
        tick(number + 1, len(problems))
    return [bound, rms]
