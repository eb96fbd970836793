"""Memory: none left at any point of a call, nothing kept by calls, nothing kept by errors."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import fastconv as fc
from fastconv.cli.deep.memory import varying_call
from fastconv.geometry.resolve import conv_geometry
from fastconv.plans.compiled import products
from fastconv.plans.conv import planned

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept to on Linux only")

# Each call under a limit that lies further and further above what the process has, so that every
# one of its allocations is once the one that fails.
STARVED = """
import gc, resource, sys
import numpy as np
import fastconv as fc
from fastconv.engine.tables import workspace

rng = np.random.default_rng(0)
x = rng.standard_normal((16, 96, 96, 16)).astype("f4")  # 9 MiB
w = rng.standard_normal((3, 3, 16, 16)).astype("f4")
first = np.moveaxis(x, -1, 1).copy()
half, w_half = x.astype("f2"), w.astype("f2")
y, argmax = fc.max_pool(x, 2, return_argmax=True)
first_y, first_argmax = fc.max_pool(first, 2, return_argmax=True, data_format="channels_first")
cols = fc.im2col(x[:4], 2)
F = {"data_format": "channels_first"}
calls = {
    "conv": lambda: fc.conv(x, w),
    "conv, float16": lambda: fc.conv(half, w_half),
    "conv, channels first": lambda: fc.conv(first, w, **F),
    "conv_backward": lambda: fc.conv_backward(x, x, w, padding="same"),
    "conv_kernel_grad": lambda: fc.conv_kernel_grad(x, x, (7, 7, 16, 16), padding=3),
    "conv_transpose": lambda: fc.conv_transpose(x, w, stride=2),
    "max_pool": lambda: fc.max_pool(x, 3, stride=1, return_argmax=True),
    "max_pool, channels first": lambda: fc.max_pool(first, 2, return_argmax=True, **F),
    "max_pool_backward": lambda: fc.max_pool_backward(y, argmax, x.shape, 2),
    "max_pool_backward, first": lambda: fc.max_pool_backward(
        first_y, first_argmax, first.shape, 2, **F),
    "avg_pool, float16": lambda: fc.avg_pool(half, 2),
    "avg_pool_backward": lambda: fc.avg_pool_backward(y, x.shape, 2),
    "relu_backward": lambda: fc.relu_backward(x, x),
    "relu_backward, strided": lambda: fc.relu_backward(x[..., ::2], x[..., 1::2]),
    "im2col": lambda: fc.im2col(x[:4], 2),
    "col2im": lambda: fc.col2im(cols, x[:4].shape, 2),
}

def listed(result):
    return [r.copy() for r in (result if isinstance(result, tuple) else (result,))]

def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

before = resource.getrlimit(resource.RLIMIT_AS)
refused = right = 0
for name, call in calls.items():
    wanted = listed(call())
    refused_before = refused
    for step in range({steps}):
        workspace._local.workspace = None  # kept between calls
        gc.collect()
        spare = step * {stride} * 1024
        resource.setrlimit(resource.RLIMIT_AS, (used() + spare, before[1]))
        try:
            got = call()
        except MemoryError:
            got = None
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        if got is None:
            refused += 1
            continue
        right += 1
        for a, b in zip(listed(got), wanted, strict=True):
            assert np.array_equal(a, b), (name, step)
        del got
    for a, b in zip(listed(call()), wanted, strict=True):
        assert np.array_equal(a, b), (name, "afterwards")
    assert refused > refused_before or not {steps}, (name, "memory never ran out")
print("MemoryError:", refused, "right:", right)
"""


def starved(steps, stride):
    # Every array of more than 64 KiB is mapped anew, unless something as large was freed before:
    # a compiler does, so all kernels are put on disk by a process of its own.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    for count in (0, steps):
        code = STARVED.replace("{steps}", str(count)).replace("{stride}", str(stride))
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    words = done.stdout.split()
    print(done.stdout)
    return int(words[1]), int(words[3])


@LINUX
def test_memory_may_run_out_at_any_point_of_a_call():
    """MemoryError or the right result, whichever allocation fails; the next call works."""
    refused, right = starved(8, 7000)
    assert refused > 20
    assert right > 20


@LINUX
@pytest.mark.soak
def test_memory_may_run_out_at_any_point_of_a_call_in_small_steps():
    refused, right = starved(100, 560)
    assert refused > 200
    assert refused + right == 16 * 100


# -------------------------------------------------------------------------- nothing is kept

FLAT = """
import fastconv
from fastconv.cli.deep.memory import check_flat
(score,) = check_flat(fastconv, 0, {count}, lambda done, total: None)
print(score.failures, score.worst)
"""


def flat(count):
    code = FLAT.replace("{count}", str(count))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    failures, worst = done.stdout.split()
    print(f"{count} calls, growth of the second half: {worst} MiB")
    assert failures == "0"


@pytest.mark.skipif(sys.platform == "win32", reason="no module resource")
def test_calls_of_varying_shapes_keep_memory_flat():
    flat(3000)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="no module resource")
def test_a_hundred_thousand_calls_keep_memory_flat():
    flat(100_000)


def test_caches_are_bounded():
    rng = np.random.default_rng(0)
    for _ in range(600):
        varying_call(fc, rng)
    for function in (products, planned.__wrapped__, conv_geometry.__wrapped__):
        assert function.__module__.startswith("fastconv.")
    info = products.cache_info()
    assert info.maxsize is not None
    assert info.currsize <= info.maxsize == 256


X, W = np.ones((2, 6, 7, 4), "f4"), np.ones((3, 2, 4, 6), "f4")
READ_ONLY = np.zeros((2, 4, 6, 6), "f4")
READ_ONLY.flags.writeable = False
REFUSED = {
    "stride": lambda: fc.conv(X, W, stride=0),
    "dtype": lambda: fc.conv(X, W.astype("i4")),
    "mixed": lambda: fc.conv(X, W.astype("f8")),
    "shape": lambda: fc.conv(X, W[:, :, :3]),
    "out": lambda: fc.conv(X, W, out=READ_ONLY),
    "overlap": lambda: fc.max_pool(X, 1, out=X),
    "bias": lambda: fc.conv(X, W, X),
    "window": lambda: fc.max_pool(X, 99),
    "argmax": lambda: fc.max_pool_backward(X, np.full(X.shape, 2**40), X.shape, 1),
    "dy": lambda: fc.conv_backward(X, X, W),
    "cols": lambda: fc.col2im(X, X.shape, 2),
    "plan": lambda: fc.plan_conv(X.shape, W.shape).forward(W, W),
    "memory": lambda: fc.im2col(np.broadcast_to(X[:1], (2**22, 6, 7, 4)), 2**10, padding=2**10),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_leak_nothing(name):
    """Neither a reference to an operand nor memory is kept by a call that raises."""
    call = REFUSED[name]

    refused = 0

    def refuse(times):
        nonlocal refused
        for _ in range(times):
            try:
                call()
            except (ValueError, TypeError, MemoryError):
                refused += 1
        gc.collect()

    grown = []
    tracemalloc.start()
    try:
        refuse(20)
        counts = [sys.getrefcount(a) for a in (X, W, READ_ONLY)]
        for _ in range(3):
            before = tracemalloc.get_traced_memory()[0]
            refuse(200)
            grown.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert refused == 620
    assert [sys.getrefcount(a) for a in (X, W, READ_ONLY)] == counts
    # The interpreter's own dictionaries grow a little; the smallest object has 16 bytes.
    assert min(grown) < 200 * 8, f"bytes kept by 200 errors, three times: {grown}"


def test_results_hold_nothing_but_themselves():
    """A result owns its memory: it keeps no workspace alive."""
    for result in (fc.conv(X, W), fc.max_pool(X, 2), fc.im2col(X, 2), fc.relu_backward(X, X)):
        assert result.base is None
        assert result.flags.owndata


@pytest.mark.skipif(sys.platform == "win32", reason="no module resource")
def test_what_is_measured_is_measured():
    """In a process of its own: the largest resident size is that of its whole life."""
    code = (
        "import numpy as np; from fastconv.cli.deep.memory import GROWTH, resident; "
        "before = resident(); block = np.ones(GROWTH); assert resident() - before > 4 * GROWTH"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
