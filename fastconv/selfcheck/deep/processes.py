"""Threads at once, forks, and machine code that another process left on disk."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastconv.selfcheck.deep import Tick
from fastconv.selfcheck.score import Score

__all__ = ["check_cache", "check_forks", "check_threads", "digest"]

PYTHON_THREADS = 8
CHILD_SECONDS = 20
ORPHAN_SECONDS = 30  # a child whose parent was killed meanwhile ends by itself
PROGRAM = (
    "import fastconv; from fastconv.selfcheck.deep.processes import digest; print(digest(fastconv))"
)


def digest(ops: Any, seed: int = 0) -> str:
    """A hash of the results of every kind of kernel, on random reals.

    Examples
    --------
    >>> import fastconv
    >>> digest(fastconv) == digest(fastconv)
    True
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((6, 14, 13, 12)).astype(np.float32)
    w = rng.standard_normal((3, 3, 12, 20)).astype(np.float32)
    deep = rng.standard_normal((3, 3, 1, 12)).astype(np.float32)
    y = ops.conv(x, w, padding=1, activation="relu")
    dx, dw, db = ops.conv_backward(y, x, w, padding=1)
    pooled, argmax = ops.max_pool(x, 2, return_argmax=True)
    results = (
        *(y, dx, dw, db, pooled, argmax),
        ops.conv(x, deep, groups=12, stride=2),
        ops.conv(x.astype(np.float64), w.astype(np.float64)),
        ops.max_pool_backward(pooled, argmax, x.shape, 2),
        ops.avg_pool(x, 3, stride=2),
        ops.avg_pool_backward(pooled, x.shape, 2),
        ops.relu_backward(x, x),
        ops.col2im(ops.im2col(x, 3), x.shape, 3),
    )
    return hashlib.sha256(b"".join(a.tobytes() for a in results)).hexdigest()


def check_threads(ops: Any, seed: int, count: int, tick: Tick) -> list[Score]:
    """`count` rounds of all kernels on several Python threads at once."""
    score, lock, done = Score("threads at once"), threading.Lock(), [0]
    wanted = digest(ops, seed)

    def work(number: int) -> None:
        try:
            same = digest(ops, seed) == wanted
        except Exception as fault:  # a result like any other: reported as a failure
            with lock:
                score.record_exception(f"round {number}", fault)
            return
        with lock:
            score.record(f"round {number}: other bits", 0.0 if same else 1.0)
            done[0] += 1
            tick(done[0], count)

    with ThreadPoolExecutor(PYTHON_THREADS) as pool:
        list(pool.map(work, range(count)))
    return [score]


def check_forks(ops: Any, seed: int, count: int, tick: Tick) -> list[Score]:
    """Children, grandchildren and children of a thread get the parent's bits, in time."""
    score = Score("fork")
    if not hasattr(os, "fork"):
        return [score]
    wanted = digest(ops, seed)
    for number in range(count):
        kind = ("child", "grandchild", "child of a thread")[number % 3]
        if kind == "child of a thread":
            with ThreadPoolExecutor(1) as pool:
                status = pool.submit(_forked, ops, seed, wanted, 1).result()
        else:
            status = _forked(ops, seed, wanted, 1 if kind == "child" else 2)
        score.record(f"{kind}: {status}", 0.0 if status == "equal" else 1.0)
        tick(number + 1, count)
        if status.startswith("no result"):  # the others would hang as well, until the deadline
            break
    return [score]


def _forked(ops: Any, seed: int, wanted: str, generations: int, first: bool = True) -> str:
    """What a child finds: "equal", or what is wrong; the `first` ends with all that it forked."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            signal.alarm(ORPHAN_SECONDS)
            if first:
                os.setpgid(0, 0)
            if generations > 1:
                found = _forked(ops, seed, wanted, generations - 1, first=False)
                status = 0 if found == "equal" else 3
            else:
                status = 0 if digest(ops, seed) == wanted else 1
        finally:
            os._exit(status)
    end = time.monotonic() + CHILD_SECONDS
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if os.WIFSIGNALED(status):
                return f"killed by signal {os.WTERMSIG(status)}"
            outcomes = ("equal", "other bits", "an exception", "wrong in the grandchild")
            return outcomes[os.waitstatus_to_exitcode(status)]
        time.sleep(0.005)
    (os.killpg if first else os.kill)(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"no result in {CHILD_SECONDS} s"


def check_cache(ops: Any, seed: int, count: int, tick: Tick) -> list[Score]:
    """A process that compiles into an empty folder and those that load from it agree with us.

    The first process of each round has nothing on disk, two that start at once load what it left.
    """
    score = Score("kernel cache")
    wanted, total = digest(ops), 3 * count
    for number in range(count):
        with tempfile.TemporaryDirectory(prefix="fastconv-check-") as folder:
            for warm, together in ((False, 1), (True, 2)):
                running = [
                    subprocess.Popen(
                        [sys.executable, "-c", PROGRAM],
                        env=os.environ | {"FASTCONV_CACHE_DIR": folder},
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                    for _ in range(together)
                ]
                for process in running:
                    out, err = process.communicate()
                    said = (err.strip().splitlines() or ["other bits"])[-1]
                    case = f"{'loaded' if warm else 'compiled'}: {said}"
                    score.record(case, 0.0 if out.strip() == wanted else 1.0)
                    tick(3 * number + 1 + warm, total)
        tick(3 * number + 3, total)
    return [score]
