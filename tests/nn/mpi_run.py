"""What test_nn_mpi.py runs on every rank: ``mpiexec -n N python mpi_run.py CASE [PATH]``."""

import json
import os
import signal
import sys
import zlib
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fastconv import nn
from fastconv.nn.mpi import SMALL, MPICommunicator
from fastconv.nn.ranks import Ranks

WORLD = MPI.COMM_WORLD


def train(comm=None, layers=(), rate=0.1, **given):
    """Three epochs of 26 images; model and history."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(26, 6, 6, 1)).astype(np.float32), rng.integers(0, 3, 26)
    rng = np.random.default_rng(0)
    first, last = nn.Conv(1, 4, 3, bias=False, rng=rng), nn.Dense(64, 3, rng=rng)
    model = nn.Sequential(first, *layers, nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), last)
    optimizer = nn.SGD(model.parameters(), rate, 0.9)
    options = {"epochs": 3, "batch_size": 8, "validation": (x[:7], y[:7]), **given}
    history = nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y, comm=comm, **options)
    return model, history


def arrays(model):
    return [p.value for p in model.parameters()] + list(model.named_buffers().values())


def bits(model):
    found = 0
    for array in arrays(model):
        found = zlib.crc32(array.tobytes(), found)
    return found


def compare(path):
    """Of each case how far the ranks are from one process, and how often from each other."""
    rows = {}
    cases = {
        "plain": {},
        "uneven": {"batch_size": 25},
        "synchronised": {"layers": True, "sync_batch_norm": True, "batch_size": 13},
        "local": {"layers": True},
    }
    for name, case in cases.items():

        def run(comm, case=case):
            layers = (nn.BatchNorm(4),) if case.get("layers") else ()
            return train(comm, **{**case, "layers": layers})

        runs = [run(WORLD) for _ in range(2)]
        marks = WORLD.allgather([bits(model) for model, _ in runs])
        model, history = runs[0]
        if WORLD.rank == 0:
            one, alone = run(None)
            far = [np.abs(a - b).max() for a, b in zip(arrays(model), arrays(one), strict=True)]
            losses = [np.abs(np.subtract(history[k], alone[k])).max() for k in ("loss", "val_loss")]
            found = {"weights": float(max(far)), "losses": float(max(losses))}
            rows[name] = {**found, "bits": len({mark for pair in marks for mark in pair})}
    if WORLD.rank == 0:
        print(json.dumps(rows))


def exchanges(path):
    """Sums in the order of the ranks, rounded once; texts; and a caller's own messages."""
    comm = MPICommunicator(WORLD)
    ranks = Ranks(comm)
    for size in (1, 3, SMALL, SMALL + 1, 10_007):
        for dtype in (np.float32, np.float64):
            all_ = [np.random.default_rng(r).normal(size=size) * 10.0**r for r in range(WORLD.size)]
            total = all_[0].astype(dtype)
            if WORLD.size > 2:  # else one sum, which float32 rounds once
                total = total.astype(np.float64)
            for array in all_[1:]:
                total += array.astype(dtype)
            own = all_[WORLD.rank].astype(dtype)
            comm.allreduce(own)
            np.testing.assert_array_equal(own, total.astype(dtype))
    data = np.random.default_rng(0).bytes(3_000_000)
    last = WORLD.size - 1
    assert ranks.broadcast_bytes(data if WORLD.rank == last else b"", last) == data
    assert 1 <= comm.neighbours() <= WORLD.size
    ranks.close()
    if WORLD.rank == 0:
        print("right")


class Killed:
    """SIGKILL in the second epoch, of rank 1."""

    def settings(self):  # so that rank 1 has it, too
        return {}

    def on_batch_end(self, state):
        if WORLD.rank == 1 and (state.epoch, state.step) == (2, 2):
            os.kill(os.getpid(), signal.SIGKILL)


class Fails(nn.Layer):
    def forward(self, x):
        return x

    def backward(self, dy):
        if WORLD.rank == 1:
            raise ValueError("no such gradient")
        return dy

    def settings(self):
        return {}


def killed(path):
    train(WORLD, callbacks=[Killed()], checkpoint=path)


def for_long(path):
    """Some minutes, unless it is killed; each rank says which process it is."""
    Path(f"{path}.{WORLD.rank}").write_text(str(os.getpid()))
    WORLD.Barrier()
    train(WORLD, rate=1e-6, epochs=10_000, checkpoint=path)


def dies_writing(path):
    """SIGKILL of rank 0 in place of the third rename of a checkpoint."""
    rename, calls = os.replace, []

    def counted(*names):
        calls.append(names)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(*names)

    os.replace = counted
    train(WORLD, checkpoint=path)


def goes_on(path):
    resumed, _ = train(WORLD, checkpoint=path, resume=True)
    whole, _ = train(WORLD)
    if WORLD.rank == 0:
        print(bits(resumed) == bits(whole))


def fails(path):
    train(WORLD, layers=(Fails(),), checkpoint=path)


def differs(path):
    try:
        train(WORLD, batch_size=8 + WORLD.rank)
    except (RuntimeError, ValueError) as error:
        sys.stdout.write(f"{WORLD.rank}: {type(error).__name__}: {error}\n")


if __name__ == "__main__":
    case, path = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    globals()[case](path)
