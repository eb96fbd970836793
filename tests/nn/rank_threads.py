"""Ranks that are threads of one process, a small run of `fit`, and how runs are compared."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.testing import assert_array_equal

from fastconv import nn


class Together:
    """What the ranks share: a slot for each, and a barrier."""

    def __init__(self, size):
        self.size, self.slots = size, [None] * size
        self.barrier = threading.Barrier(size, timeout=60)


class ThreadRank:
    """One rank: adds up in the order of the ranks."""

    def __init__(self, together, rank):
        self.together, self.rank, self.size = together, rank, together.size

    def allreduce(self, buffer):
        assert buffer.flags.c_contiguous
        assert buffer.dtype in (np.float32, np.float64)
        self.together.slots[self.rank] = buffer.copy()
        self.together.barrier.wait()
        first, *others = self.together.slots
        total = first.copy()
        for other in others:
            assert other.shape == total.shape
            assert other.dtype == total.dtype
            total += other
        self.together.barrier.wait()
        buffer[...] = total

    def abort(self):
        self.together.barrier.abort()


def on_ranks(size, work):
    """What ``work(comm)`` gives on each of so many ranks; an exception is its result."""
    together = Together(size)

    def run(rank):
        try:
            return work(ThreadRank(together, rank))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


# What N ranks may differ by from one process, of weights about 1 after a few steps: the README's.
CLOSE = 2e-6


def images(m=26, seed=1, classes=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, 6, 6, 1)).astype(np.float32), rng.integers(0, classes, m)


def network(*layers, ops=None):
    rng = np.random.default_rng(0)
    first = nn.Conv(1, 4, 3, bias=False, rng=rng)
    last = nn.Dense(64, 3, rng=rng)
    return nn.Sequential(first, *layers, nn.ReLU(), nn.Flatten(), last, ops=ops)


def train(comm=None, layers=lambda: (), data=None, model=None, loss=None, optimizer=None, **given):
    """A run of two epochs; the model, its optimizer and the history."""
    model = network(*layers(), ops=given.pop("ops", None)) if model is None else model()
    x, y = images() if data is None else data
    optimizer = nn.SGD(model.parameters(), 0.1, 0.9) if optimizer is None else optimizer(model)
    options = {"epochs": 2, "batch_size": 8, **given}
    if y is not None:
        options.setdefault("validation", (x[:7], y[:7]))
    loss = nn.SoftmaxCrossEntropy() if loss is None else loss
    history = nn.fit(model, loss, optimizer, x, y, comm=comm, **options)
    return model, optimizer, history


def arrays(model):
    found = {name: p.value for name, p in model.named_parameters().items()}
    return found | model.named_buffers()


def assert_alike(found):
    """All ranks have the same bits."""
    for result in found:
        if isinstance(result, Exception):
            raise result
    for model, _, history in found[1:]:
        for name, array in arrays(found[0][0]).items():
            assert_array_equal(array, arrays(model)[name], err_msg=name)
        for key in ("loss", "accuracy", "val_loss", "val_accuracy", "lr"):
            assert history[key] == found[0][2][key]


def assert_close(found, one, bound=CLOSE):
    assert_alike(found)
    for name, array in arrays(one[0]).items():
        assert np.abs(array - arrays(found[0][0])[name]).max() <= bound, name
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        ours, theirs = (np.array(h[key], float) for h in (found[0][2], one[2]))  # None is NaN
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


LAYERS = {
    "plain": lambda: (),
    "dropout": lambda: (nn.Dropout(0.3), nn.SpatialDropout(0.2)),
    "normalised": lambda: (nn.BatchNorm(4),),
    "residual": lambda: (
        nn.Residual(
            nn.Sequential(nn.Conv(4, 4, 1, rng=0), nn.BatchNorm(4), nn.Dropout(0.1)),
            nn.Sequential(nn.BatchNorm(4), nn.Conv(4, 4, 1, rng=1)),
        ),
        nn.Concat(nn.Sequential(nn.ReLU(), nn.BatchNorm(4)), nn.Conv(4, 2, 1, rng=2)),
        nn.Conv(6, 4, 1, rng=3),
    ),
}


class IterAgain:
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)
