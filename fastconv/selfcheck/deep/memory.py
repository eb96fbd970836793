"""Memory: what many calls of varying shapes keep, and what happens when there is none left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastconv.selfcheck.deep import Tick
from fastconv.selfcheck.score import Score

__all__ = ["check_exhausted", "check_flat", "exhausting_calls", "varying_call"]

MIB = 2**20
# What the second half of the calls may add to the resident size.
GROWTH = 24 * MIB
CALLS_BETWEEN_TICKS = 50
Args = tuple[Any, ...]


def varying_call(ops: Any, rng: np.random.Generator) -> None:
    """One call of a random function on a random shape; nearly every one is new to all caches."""
    h, w = (int(n) for n in rng.integers(4, 60, 2))
    m, c, f, k = (int(n) for n in rng.integers(1, (4, 9, 9, 4), 4))
    x, kernel = np.ones((m, h, w, c), np.float32), np.ones((k, k, c, f), np.float32)
    which = int(rng.integers(6))
    if which == 0:
        ops.conv(x, kernel, padding=1)
    elif which == 1:
        ops.conv_backward(ops.conv(x, kernel), x, kernel)
    elif which == 2:
        y, argmax = ops.max_pool(x, 2, return_argmax=True)
        ops.max_pool_backward(y, argmax, x.shape, 2)
    elif which == 3:
        ops.avg_pool_backward(ops.avg_pool(x, 2), x.shape, 2)
    elif which == 4:
        ops.col2im(ops.im2col(x, k), x.shape, k)
    else:
        ops.conv_transpose(x, np.ones((k, k, f, c), np.float32), stride=2, padding="same")


def resident() -> int:
    """The resident size of this process in bytes; where it cannot be read, the largest so far."""
    import resource
    from pathlib import Path

    linux = sys.platform.startswith("linux")
    if linux:  # its largest size would be that of the parent process
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def check_flat(ops: Any, seed: int, count: int, tick: Tick) -> list[Score]:
    """`count` calls of varying shapes: once caches are full, the process grows no more."""
    score = Score("memory stays flat")
    if sys.platform == "win32":  # no module resource
        return [score]
    rng = np.random.default_rng(seed)
    half = 0
    for number in range(1, count + 1):
        varying_call(ops, rng)
        if number == count // 2:
            half = resident()
        if number % CALLS_BETWEEN_TICKS == 0 or number == count:
            tick(number, count)
            if number > count // 2:
                growth = (resident() - half) / MIB
                case = f"growth in MiB after {number - count // 2} calls with full caches"
                score.record(case, growth, GROWTH / MIB)
    return [score]


def exhausting_calls(ops: Any) -> dict[str, tuple[Callable[..., Any], Args, Args]]:
    """By name: a function, arguments whose result takes 1 GiB, and small ones of the same kind."""
    large = np.broadcast_to(np.float32(1), (64, 512, 1024, 1))
    tall = np.broadcast_to(np.float32(1), (256, 1024, 1024, 1))
    small = tall[:1, :8, :8]
    dy = tall[:, :512, :512]
    w = np.ones((3, 3, 1, 8), np.float32)
    return {
        "conv": (ops.conv, (large, w), (small, w)),
        "conv_transpose": (ops.conv_transpose, *((x, w.swapaxes(2, 3)) for x in (large, small))),
        "max_pool": (partial(ops.max_pool, return_argmax=True), (tall, 1), (small, 2)),
        "avg_pool_backward": (
            lambda dy, x: ops.avg_pool_backward(dy, x.shape, 2),
            (dy, tall),
            (small[:, :4, :4], small),
        ),
        "im2col": (ops.im2col, (large, 3), (small, 3)),
        "relu_backward": (ops.relu_backward, (tall, tall), (small, small)),
    }


def check_exhausted(ops: Any, seed: int, count: int, tick: Tick) -> list[Score]:
    """Where the address space is nearly full, large calls raise MemoryError; small ones work."""
    score = Score("memory runs out")
    if not sys.platform.startswith("linux"):  # elsewhere RLIMIT_AS limits nothing
        return [score]
    import resource
    from pathlib import Path

    calls = exhausting_calls(ops)
    expected = {name: call(*small) for name, (call, _, small) in calls.items()}
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = used * resource.getpagesize() + 256 * MIB
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        for number, (name, (call, large, small)) in enumerate(list(calls.items())[:count], 1):
            try:
                call(*large)
                outcome = "there was room"
            except MemoryError:
                outcome = ""
            except Exception as fault:  # a result like any other: reported as a failure
                outcome = f"{type(fault).__name__} instead of MemoryError"
            score.record(f"{name}: {outcome}", 1.0 if outcome else 0.0)
            after = call(*small)
            pairs = zip(_list(after), _list(expected[name]), strict=True)
            same = all(np.array_equal(a, b) for a, b in pairs)
            score.record(f"{name}, the call after it", 0.0 if same else 1.0)
            tick(number, count)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    return [score]


def _list(result: Any) -> list[np.ndarray]:
    return list(result) if isinstance(result, tuple) else [result]
