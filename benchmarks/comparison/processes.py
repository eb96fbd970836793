"""Figures that need fresh processes: peak memory of a call, start to first result, cold cache."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import fastconv
from comparison.cases import CONV_PRODUCTS, conv_cases
from comparison.peer_fastconv import Fastconv
from comparison.peer_pytorch import Pytorch
from comparison.rows import BASELINE, OURS, Library, thread_count
from comparison.timing import Run, measure
from fastconv.cli.output import print_table
from fastconv.problems import parse_problem

MIB = 2**20
# An image batch whose explicit im2col matrix would take 288 MiB, a quarter of it, one large image.
MEMORY_PROBLEMS = (
    "m64 h32w32c32 f32 k3x3 p1",
    "m256 h32w32c32 f32 k3x3 p1",
    "m64 h56w56c64 f64 k3x3 s2 p1",
    "m1 h1024w1024c8 f8 k5x5 p2",
)
# Memory that is freed goes back to the system at once (glibc), or a call would find it in the heap.
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
# Runs in the child. Kernels are loaded and threads started by another problem, in a Python thread
# that ends: scratch that a thread keeps between calls is gone with it.
MEMORY = """
import re, sys, threading
import fastconv as fc
from pathlib import Path
from fastconv.problems import parse_problem

product, threads, text = sys.argv[1], int(sys.argv[2]), sys.argv[3]
problem = parse_problem(text)

def resident(key):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"^{key}:\\s+(\\d+) kB", status, re.MULTILINE)[1])

fc.set_num_threads(threads)
warm = threading.Thread(target=fc.warmup, args=(["conv", "conv_backward"],))
warm.start()
warm.join()
x, w, b, dy = problem.operands()
out = {"forward": dy, "kernel": w, "input": x}[product].copy()
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
before = resident("VmRSS")
plan = fc.plan_conv(problem.x_shape, problem.w_shape, problem.dtype, **problem.kwargs)
if product == "forward":
    plan.forward(x, w, out=out)
elif product == "kernel":
    plan.kernel_grad(x, dy, out=out)
else:
    plan.input_grad(dy, w, out=out)
print(max(0, resident("VmHWM") - before), plan.workspace_nbytes)
"""

FIRST_CONV = {
    "import numpy": "import numpy",
    "fastconv": """
import numpy as np
import fastconv as fc
y = fc.conv(np.ones((64, 28, 28, 1), np.float32), np.ones((3, 3, 1, 32), np.float32))
assert (y == 9).all()
""",
    "torch": """
import torch
y = torch.nn.functional.conv2d(torch.ones(64, 1, 28, 28), torch.ones(32, 1, 3, 3))
assert (y == 9).all()
""",
}
DIGITS = """
import numpy as np
from fastconv import nn
from fastconv.examples import digits_cnn

model, loss = digits_cnn(seed=0), nn.SoftmaxCrossEntropy()
rng = np.random.default_rng(0)
x, y = rng.random((64, 8, 8, 1), np.float32), rng.integers(0, 10, 64)
nn.train_step(model, loss, nn.Adam(model.parameters(), lr=0.002), x, y)
model.predict(x)
"""
STARTS = 7
TORCH = "torch conv2d"


def memory(counts: Sequence[int]) -> int:
    """Print the peak extra memory of one call, and return the exit status."""
    if not Path("/proc/self/clear_refs").exists():
        print("--memory needs Linux: it resets the high-water mark in /proc", file=sys.stderr)
        return 1
    lines = []
    for text in MEMORY_PROBLEMS:
        g = parse_problem(text).geometry
        columns = 4 * g.P * g.K * g.G / MIB
        for product in CONV_PRODUCTS:
            for n in counts:
                result = _python(MEMORY, product, str(n), text, environment=RETURN_MEMORY)
                extra, workspace = (int(word) / MIB for word in result.stdout.split())
                figures = (extra, extra / n, workspace, columns)
                lines.append([text, product, str(n), *(f"{figure:.2f}" for figure in figures)])
    columns_ = ["problem", "product", "threads", "MiB", "MiB/thread", "workspace", "im2col"]
    print_table(columns_, lines, left=2)
    print(
        "MiB: growth of the resident set's high-water mark during the first call with this shape,\n"
        "  over operands and result, plan included, within some 0.2 MiB; kernels were loaded and\n"
        "  threads started beforehand.\n"
        "workspace: what ConvPlan.workspace_nbytes says, in MiB; im2col: the explicit matrix, MiB."
    )
    return 0


def _python(
    code: str, *words: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code in a new process; its traceback is shown if it fails."""
    result = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    if result.returncode:
        sys.stderr.write(result.stderr)
        raise SystemExit(f"compare.py: a child process ended with status {result.returncode}")
    return result


def _seconds(code: str, environment: Mapping[str, str] | None = None) -> float:
    """Duration of a whole process."""
    start = time.perf_counter()
    _python(code, environment=environment)
    return time.perf_counter() - start


def startup(counts: Sequence[int]) -> int:
    """Print start-up figures, and return the exit status."""
    torch = find_spec("torch") is not None
    if not torch:
        print("torch is left out: it is not installed")
    codes = {name: code for name, code in FIRST_CONV.items() if torch or name != "torch"}
    _python(FIRST_CONV["fastconv"])  # the kernels are on disk from here on
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(STARTS):
        for name, code in codes.items():
            times[name].append(_seconds(code))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"process from start to end, medians of {STARTS}, interleaved")
    labels = {
        "fastconv": "import fastconv, one conv (kernels on disk)",
        "torch": "import torch, one conv",
    }
    for name, seconds in medians.items():
        print(f"  {labels.get(name, name):<46} {seconds:6.2f} s")
    if torch:
        print(f"  {'fastconv / torch':<46} {medians['fastconv'] / medians['torch']:6.2f}")
    _cold()
    for count in counts:
        _tiny(count, torch)
    return 0


def _cold() -> None:
    """The first training step ever, and the second process."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"FASTCONV_CACHE_DIR": folder}
        cold = _seconds(DIGITS, environment)
        kept = sum(1 for _ in Path(folder).rglob("*.kernel"))
        if not kept:
            raise SystemExit("compare.py: no kernel was kept in the folder that was to be used")
        warm = statistics.median(_seconds(DIGITS, environment) for _ in range(3))
    print("\nprocess that trains digits_cnn one step and predicts")
    print(f"  {'empty kernel cache':<46} {cold:6.2f} s  ({kept} kernels kept)")
    print(f"  {'kernels on disk':<46} {warm:6.2f} s")


def _tiny(count: int, torch_is_there: bool) -> None:
    """A call so small that only overhead counts."""
    (case,) = conv_cases("", parse_problem("m1 h8w8c1 f1 k3x3"), ["forward"])
    x, w, _, dy = case.operands
    plan, y = fastconv.plan_conv(x.shape, w.shape), np.empty_like(dy)
    runs: dict[str, Run] = {
        "fc.conv(x, w)": lambda: fastconv.conv(x, w),
        "plan.forward(x, w, out=y)": lambda: plan.forward(x, w, out=y),
    }
    libraries: dict[str, Library] = {OURS: Fastconv()}
    if torch_is_there:
        libraries[BASELINE] = Pytorch()
    with thread_count(libraries, count):
        if torch_is_there:
            runs[TORCH] = libraries[BASELINE].prepare(case).run
        for run in runs.values():
            run()
        times = measure(runs, repeat=50, seconds=3.0)
    print(f"\ntiny call, (1, 8, 8, 1) and one 3x3 filter, threads: {count}; median and best")
    for name, values in times.items():
        line = f"  {name:<46} {1e6 * statistics.median(values):6.1f} {1e6 * min(values):6.1f} us"
        if torch_is_there:
            theirs = times[TORCH]
            line += f"  {statistics.median(values) / statistics.median(theirs):6.2f}"
            line += f" {min(values) / min(theirs):6.2f} x torch"
        print(line)
