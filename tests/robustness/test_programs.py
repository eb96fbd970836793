"""Programs of steps and of inference inside other people's processes, under every layer.

Every cell is a process of its own with a deadline, as in `test_processes`.
"""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these forks are POSIX")

LAYERS = ["tbb", "omp", "workqueue"]
PROLOGUE = """
import hashlib, os, sys, threading, time
import numpy as np
import numpy.random
import fastconv as fc
from fastconv import nn

def made():
    model = nn.Sequential(
        nn.Conv(2, 16, 3, padding=1, rng=0), nn.BatchNorm(16), nn.ReLU(),
        nn.Residual(nn.Conv(16, 16, 3, padding=1, rng=1)), nn.MaxPool(2), nn.Dropout(0.25, seed=2),
        nn.Flatten(), nn.Dense(1024, 5, rng=3),
    )
    return model, nn.SoftmaxCrossEntropy(), nn.Adam(model.parameters())

def batch(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(32, 16, 16, 2)).astype("f4"), rng.integers(0, 5, 32)

def digest(*arrays):
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]

def work(made=made, step=nn.train_step, steps=3):
    model, loss, optimizer = made()
    values = [step(model, loss, optimizer, *batch(seed))[0] for seed in range(steps)]
    y = model.predict(batch(9)[0])
    run = model.plan_inference((32, 16, 16, 2))
    assert digest(run(batch(9)[0])) == digest(y)
    return digest(np.array(values), y, *(p.value for p in model.parameters()))

def fork(run):
    child = os.fork()
    if child == 0:
        run()
        sys.stdout.flush()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status

def tell(found=None):
    print(found or work(), flush=True)
"""
# For each: code, and how many digests it prints.
CELLS = {
    "eight threads": (
        """
from concurrent.futures import ThreadPoolExecutor
together = threading.Barrier(8)
def first(i):
    together.wait()
    return work()
with ThreadPoolExecutor(8) as pool:
    for found in pool.map(first, range(8)):
        tell(found)
tell()
""",
        9,
    ),
    "inside the user's prange": (
        """
import numba
work()
found = []
def call():
    found.append(work())
@numba.njit(parallel=True)
def mine(n):
    for i in numba.prange(n):
        with numba.objmode():
            call()
mine(4)
for digest in found:
    tell(digest)
""",
        4,
    ),
    "joblib's loky": (
        """
from joblib import Parallel, delayed
tell()
for found in Parallel(n_jobs=2)(delayed(work)() for _ in range(3)):
    tell(found)
""",
        4,
    ),
    "children that go on": (
        """
model, loss, optimizer = made()
nn.train_step(model, loss, optimizer, *batch(0))
def rest():
    values = [nn.train_step(model, loss, optimizer, *batch(seed))[0] for seed in (1, 2)]
    first = made()
    value = nn.train_step(*first, *batch(0))[0]
    y = model.predict(batch(9)[0])
    tell(digest(np.array([value, *values]), y, *(p.value for p in model.parameters())))
fork(rest)
fork(lambda: (tell(), fork(tell)))
rest()
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
    "fork while others step": (
        """
work()
stop = threading.Event()
def busy():
    own = made()
    while not stop.is_set():
        nn.train_step(*own, *batch(0))
threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads:
    thread.start()
time.sleep(0.1)
for _ in range(4):
    fork(tell)
stop.set()
for thread in threads:
    thread.join()
tell()
""",
        5,
    ),
}
SOME = {
    "eight threads": LAYERS,
    "inside the user's prange": ["tbb", "omp", "workqueue"],
    "joblib's loky": ["tbb"],
    "children that go on": LAYERS,
    "fork from a thread": ["omp", "workqueue"],
    "fork while others step": ["tbb", "omp"],
}


PLAIN = """
def plain(model, loss, optimizer, x, y):
    z = model.forward(x)
    value = loss.forward(z, y)
    model.backward_parameters(loss.backward())
    optimizer.step()
    return value, z
fc.set_num_threads(1)
tell(work(step=plain))
"""


@pytest.fixture(scope="module")
def wanted(python):
    """The digest of the plain passes, on one thread."""
    return python(PROLOGUE + PLAIN, deadline=300)[0]


def check(python, wanted, layer, name, **environment):
    code, times = CELLS[name]
    out = python(PROLOGUE + code, NUMBA_THREADING_LAYER=layer, **environment)[0].splitlines()
    digests = [line for line in out if line and not line.startswith("Unable to join threads")]
    assert digests == [wanted] * times


@pytest.mark.parametrize(
    ("layer", "name"), [(layer, name) for name, layers in SOME.items() for layer in layers]
)
def test_right_results_and_no_signal(python, wanted, layer, name):
    check(python, wanted, layer, name, FASTCONV_NUM_THREADS=2)


@pytest.mark.soak
@pytest.mark.parametrize("threads", [2, 7])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_whole_matrix(python, wanted, layer, name, threads):
    check(python, wanted, layer, name, NUMBA_NUM_THREADS=threads, FASTCONV_NUM_THREADS=threads)
