"""Time the public functions without a matrix product against what a user would write in NumPy.

Slices of the input, one for each cell of a window: `numpy.maximum` of them, their sum, their
copies. Data is as training has it: random signs, masks and winners. A row is the time of NumPy's
expression divided by fastconv's (the least of some rounds in turn), which allocates its result
too; both answers are compared first. Rows below 1 are printed, and the least of each function.

    python benchmarks/slices.py                      # the whole grid: some minutes
    python benchmarks/slices.py max_pool im2col --batches 8 --threads 1 --all
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # see compare.py

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import fastconv as fc

IMAGES = ((28, 28, 1), (32, 32, 3), (26, 26, 32))
BATCHES = (1, 8, 32, 128)
DTYPES = ("float16", "float32", "float64")
FORMATS = ("channels_last", "channels_first")
# (window, stride): LeNet's, ResNet's without its padding, and one that keeps the size (im2col).
WINDOWS = ((2, 2), (3, 2), (3, 1))
# A measurement takes at least this long; ROUNDS of each, in turn.
SECONDS, ROUNDS = 5e-4, 9


class Case(NamedTuple):
    """Operands of every function, in one data format."""

    x: np.ndarray
    y: np.ndarray
    dy: np.ndarray
    argmax: np.ndarray
    cols: np.ndarray
    window: int
    stride: int
    data_format: str

    @property
    def first(self) -> bool:
        """Whether channels come first."""
        return self.data_format == "channels_first"

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of fastconv's functions."""
        return {"stride": self.stride, "data_format": self.data_format}

    def cells(self) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
        """For every cell of a window: its slice of x, and its flat index, an output each."""
        s, (OH, OW) = self.stride, (self.y.shape[2:] if self.first else self.y.shape[1:3])
        W = self.x.shape[3 if self.first else 2]
        for i, j in np.ndindex(self.window, self.window):
            where = slice(i, i + s * OH, s), slice(j, j + s * OW, s)
            flat = np.arange(i, i + s * OH, s)[:, None] * W + np.arange(j, j + s * OW, s)
            if self.first:
                yield (..., *where), flat
            else:
                yield (..., *where, slice(None)), flat[..., None]


def make_case(m: int, image: Sequence[int], dtype: str, data_format: str, window: int,
              stride: int) -> Case:  # fmt: skip
    """Random operands."""
    rng = np.random.default_rng(0)
    H, W, C = image
    shape = (m, C, H, W) if data_format == "channels_first" else (m, H, W, C)
    x = rng.standard_normal(shape).astype(dtype)
    y, argmax = fc.max_pool(x, window, stride=stride, data_format=data_format, return_argmax=True)
    dy = rng.standard_normal(y.shape).astype(dtype)
    cols = rng.standard_normal((1,)).astype(dtype)
    if stride == 1:
        cols = fc.im2col(x, window, data_format=data_format)
    return Case(x, y, dy, argmax, cols, window, stride, data_format)


def np_max_pool(c: Case) -> np.ndarray:
    """The maximum of a slice for each cell."""
    (first, _), *others = c.cells()
    y = c.x[first].copy()
    for where, _ in others:
        np.maximum(y, c.x[where], out=y)
    return y


def np_max_pool_argmax(c: Case) -> tuple[np.ndarray, np.ndarray]:
    """The same, and where it was."""
    (first, flat), *others = c.cells()
    y, winners = c.x[first].copy(), np.zeros(c.y.shape, np.int64) + flat
    for where, flat in others:
        larger = c.x[where] > y
        y = np.where(larger, c.x[where], y)
        winners = np.where(larger, flat, winners)
    return y, winners


def np_max_pool_backward(c: Case) -> np.ndarray:
    """The error where a cell has won."""
    dx = np.zeros_like(c.x)
    for where, flat in c.cells():
        if c.window == c.stride:
            dx[where] = c.dy * (c.argmax == flat)
        else:
            dx[where] += c.dy * (c.argmax == flat)
    return dx


def np_avg_pool(c: Case) -> np.ndarray:
    """The sum of a slice for each cell."""
    y = np.zeros_like(c.y)
    for where, _ in c.cells():
        y += c.x[where]
    y /= c.x.dtype.type(c.window**2)
    return y


def np_avg_pool_backward(c: Case) -> np.ndarray:
    """A share to a slice for each cell."""
    dx = np.zeros_like(c.x)
    share = c.dy / c.x.dtype.type(c.window**2)
    for where, _ in c.cells():
        if c.window == c.stride:
            dx[where] = share
        else:
            dx[where] += share
    return dx


def np_im2col(c: Case) -> np.ndarray:
    """A copy of all windows."""
    axes = (2, 3) if c.first else (1, 2)
    windows = sliding_window_view(c.x, (c.window, c.window), axis=axes)
    order = (0, 2, 3, 4, 5, 1) if c.first else (0, 1, 2, 4, 5, 3)
    return windows.transpose(order).reshape(c.cols.shape)


def np_col2im(c: Case) -> np.ndarray:
    """A slice of columns added for each cell."""
    x = np.zeros_like(c.x)
    taps = c.cols.reshape(*c.cols.shape[:3], c.window**2, -1)
    for tap, (where, _) in enumerate(c.cells()):
        x[where] += np.moveaxis(taps[..., tap, :], -1, 1) if c.first else taps[..., tap, :]
    return x


# Each: fastconv's call, NumPy's, and whether only windows of stride 1 are asked for.
FUNCTIONS: dict[str, tuple[Callable[[Case], Any], Callable[[Case], Any], bool]] = {
    "max_pool": (lambda c: fc.max_pool(c.x, c.window, **c.options), np_max_pool, False),
    "max_pool_argmax": (
        lambda c: fc.max_pool(c.x, c.window, return_argmax=True, **c.options),
        np_max_pool_argmax,
        False,
    ),
    "max_pool_backward": (
        lambda c: fc.max_pool_backward(c.dy, c.argmax, c.x.shape, c.window, **c.options),
        np_max_pool_backward,
        False,
    ),
    "avg_pool": (lambda c: fc.avg_pool(c.x, c.window, **c.options), np_avg_pool, False),
    "avg_pool_backward": (
        lambda c: fc.avg_pool_backward(c.dy, c.x.shape, c.window, **c.options),
        np_avg_pool_backward,
        False,
    ),
    "im2col": (
        lambda c: fc.im2col(c.x, c.window, data_format=c.data_format),
        np_im2col,
        True,
    ),
    "col2im": (
        lambda c: fc.col2im(c.cols, c.x.shape, c.window, data_format=c.data_format),
        np_col2im,
        True,
    ),
    "relu_backward": (lambda c: fc.relu_backward(c.dy, c.y), lambda c: c.dy * (c.y > 0), True),
}


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float]:
    """Least time of a call of `ours`, and how many times as long `theirs` takes."""
    times: tuple[list[float], list[float]] = ([], [])
    calls = []
    for run in (ours, theirs):
        run()
        start = time.perf_counter()
        run()
        calls.append(max(1, int(SECONDS / (time.perf_counter() - start))))
    for _ in range(ROUNDS):
        for run, count, found in zip((ours, theirs), calls, times, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                run()
            found.append((time.perf_counter() - start) / count)
    mine, other = map(min, times)
    return mine, other / mine


def same(ours: Any, theirs: Any) -> bool:
    """Whether two answers agree to some roundings."""
    if isinstance(ours, tuple):
        return all(map(same, ours, theirs))
    close = 20 * float(np.finfo(ours.dtype).eps) if ours.dtype.kind == "f" else 0
    return np.allclose(ours, theirs, rtol=close, atol=close)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the grid; returns 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("functions", nargs="*", metavar="FUNCTION", help=", ".join(FUNCTIONS))
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--all", action="store_true", help="print all rows, not those below 1 only")
    args = parser.parse_args(argv)
    for name in args.functions:
        if name not in FUNCTIONS:
            parser.error(f"{name}: not one of {', '.join(FUNCTIONS)}")
    names = args.functions or list(FUNCTIONS)
    wrong, least, seen = 0, dict.fromkeys(names, (np.inf, "")), dict.fromkeys(names, 0)
    below = dict.fromkeys(names, 0)
    grid = itertools.product(args.dtypes, args.formats, IMAGES, args.batches, WINDOWS)
    for dtype, data_format, image, m, (window, stride) in grid:
        case = make_case(m, image, dtype, data_format, window, stride)
        for name in names:
            ours, theirs, dense = FUNCTIONS[name]
            if dense and stride > 1:
                continue
            size = "x".join(map(str, image))
            row = f"{name:18} {dtype} {data_format:14} m{m:<3} {size:8} k{window} s{stride}"
            if not same(ours(case), theirs(case)):
                wrong = 1
                print(f"WRONG  {row}")
            for threads in args.threads:
                with fc.num_threads(threads):
                    mine, times = ratio(partial(ours, case), partial(theirs, case))
                text = f"{row} t{threads}"
                seen[name] += 1
                below[name] += times < 1
                least[name] = min(least[name], (times, text))
                if args.all or times < 1:
                    print(f"{times:6.2f} {text} {mine * 1e6:9.1f} us", flush=True)
    print("\nleast")
    for name in names:
        print(f"{least[name][0]:6.2f} {least[name][1]}; {below[name]} of {seen[name]} below 1")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
