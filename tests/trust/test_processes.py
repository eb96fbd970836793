"""Threads, forks and hosts, under every threading layer: right results, no signal, no hang.

Every cell of the matrix is a process of its own with a deadline. The default run takes the cells
that differ most; ``-m soak`` takes all of them, many times.
"""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these forks are POSIX")

LAYERS = ["tbb", "omp", "workqueue"]
PROLOGUE = """
import multiprocessing, os, sys, threading, time
import numpy as np
import fastconv as fc, work
def fork(run):
    child = os.fork()
    if child == 0:
        run()
        sys.stdout.flush()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
def tell(digest=None):
    print(digest or work.digest(), flush=True)
"""
# For each: code, and how many digests it prints.
CELLS = {
    "eight threads at once": (
        """
from concurrent.futures import ThreadPoolExecutor
together = threading.Barrier(8)
def first(i):
    if i < 8:
        together.wait()
    return work.digest()
with ThreadPoolExecutor(8) as pool:
    for digest in pool.map(first, range(16)):
        tell(digest)
""",
        16,
    ),
    "inside the user's prange": (
        """
import numba
work.quick()
found = []
def call():
    found.append(work.digest())
@numba.njit(parallel=True)
def mine(n):
    for i in numba.prange(n):
        with numba.objmode():
            call()
tell()
mine(4)
for digest in found:
    tell(digest)
""",
        5,
    ),
    "beside the user's parallel function": (
        """
import numba
@numba.njit(parallel=True)
def mine(a):
    total = 0.0
    for i in numba.prange(a.size):
        total += a[i]
    return total
fc.threads._load_tbb()  # this layer is the user's choice, so Numba can find it
assert mine(np.ones(1000)) == 1000
fork(tell)
tell()
assert mine(np.ones(1000)) == 1000
fork(tell)
""",
        3,
    ),
    "joblib's loky": (
        """
from joblib import Parallel, delayed
tell()
for digest in Parallel(n_jobs=2)(delayed(work.digest)() for _ in range(4)):
    tell(digest)
""",
        5,
    ),
    "dask's threads": (
        """
import dask
for digest in dask.compute(*[dask.delayed(work.digest, pure=False)() for _ in range(6)],
                           scheduler="threads", num_workers=4):
    tell(digest)
""",
        6,
    ),
    "child and grandchild": (
        """
tell()
fork(lambda: (tell(), fork(tell)))
fork(tell)
tell()
""",
        5,
    ),
    "fork from a thread": (
        """
tell()
thread = threading.Thread(target=fork, args=(tell,))
thread.start()
thread.join()
tell()
""",
        3,
    ),
    "fork while other threads compute": (
        """
work.digest()
stop = threading.Event()
def busy():
    while not stop.is_set():
        work.digest()
threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads:
    thread.start()
time.sleep(0.1)
for _ in range(6):
    fork(tell)
stop.set()
for thread in threads:
    thread.join()
tell()
""",
        7,
    ),
    "fork while another thread loads kernels": (
        """
for delay in (0, 0.1, 0.2, 0.4):
    def process():
        thread = threading.Thread(target=work.digest)
        thread.start()
        time.sleep(delay)
        fork(tell)
        thread.join()
    fork(process)
""",
        4,
    ),
    **{
        f"multiprocessing {method}": (
            f"""
if __name__ == "__main__":
    tell()
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        for digest in pool.map(work.digest, range(4), chunksize=1):
            tell(digest)
    tell()
""",
            6,
        )
        for method in ("fork", "forkserver", "spawn")
    },
}
# The default run: the layers for which a cell differs most.
SOME = {
    "eight threads at once": LAYERS,
    "inside the user's prange": ["omp", "workqueue"],
    "beside the user's parallel function": ["tbb", "omp"],
    "joblib's loky": ["workqueue"],
    "dask's threads": ["omp"],
    "child and grandchild": LAYERS,
    "fork from a thread": ["tbb", "omp"],
    "fork while other threads compute": ["tbb", "workqueue"],
    "fork while another thread loads kernels": ["tbb"],
    "multiprocessing fork": ["tbb"],
    "multiprocessing forkserver": ["omp"],
    "multiprocessing spawn": ["workqueue"],
}


def check(python, right, layer, name, **environment):
    code, times = CELLS[name]
    done = python(PROLOGUE + code, NUMBA_THREADING_LAYER=layer, **environment)[0].splitlines()
    # TBB itself says on stdout, and Numba on stderr, that a fork with other threads is unclean
    digests = [line for line in done if line and not line.startswith("Unable to join threads")]
    assert digests == [right] * times


@pytest.mark.parametrize(
    ("layer", "name"),
    [(layer, name) for name, layers in SOME.items() for layer in layers],
)
def test_right_results_and_no_signal(python, right, layer, name):
    check(python, right, layer, name)


@pytest.mark.soak
@pytest.mark.parametrize("threads", [2, 7])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_whole_matrix(python, right, layer, name, threads):
    check(python, right, layer, name, NUMBA_NUM_THREADS=threads, FASTCONV_NUM_THREADS=threads)


QUICK = """
from concurrent.futures import ThreadPoolExecutor
import threading, fastconv as fc, work
together = threading.Barrier(8)
def first(i):
    together.wait()
    return work.quick()
with ThreadPoolExecutor(8) as pool:
    print(*pool.map(first, range(8)))
"""


def test_eight_threads_compile_at_once(python, tmp_path):
    out, _ = python(QUICK, FASTCONV_CACHE_DIR=tmp_path)
    assert out.split() == ["True"] * 8


@pytest.mark.soak
@pytest.mark.parametrize("layer", LAYERS)
def test_eight_threads_compile_everything_at_once(python, right, layer, tmp_path):
    check(python, right, layer, "eight threads at once", deadline=300, FASTCONV_CACHE_DIR=tmp_path)


SETTINGS = """
import ctypes
import numba, numpy as np
import fastconv as fc, work

libm = ctypes.CDLL(None)
if not hasattr(libm, "fegetround"):
    libm = ctypes.CDLL("libm.so.6")
smallest = np.float32(1e-45)  # a subnormal; flushed to zero it would compare equal to 0
def state():
    x = np.array([smallest, -smallest])
    return (libm.fegetround(), (x * np.float32(1)).tolist(), np.geterr(), numba.get_num_threads(),
            np.finfo(np.float32).tiny / 2 > 0)
for rounding in (0, UPWARD):
    assert libm.fesetround(rounding) == 0
    numba.set_num_threads(1 + rounding % 2)
    before = state()
    work.digest()
    with fc.num_threads(1):
        work.digest()
    assert state() == before, (before, state())
    assert before[0] == rounding
print("ok")
"""


def test_the_callers_threads_rounding_and_subnormals_are_untouched(python, right):
    import platform

    machine = platform.machine()
    if machine not in ("x86_64", "aarch64"):
        pytest.skip(f"the number of FE_UPWARD on {machine} is not known here")
    upward = {"x86_64": 0x800, "aarch64": 0x400000}[machine]
    assert python(SETTINGS.replace("UPWARD", str(upward)))[0] == "ok"
