"""Training on several ranks, which are threads here: what goes wrong is said, and nothing waits."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from rank_threads import (
    LAYERS,
    IterAgain,
    ThreadRank,
    Together,
    arrays,
    assert_close,
    images,
    network,
    on_ranks,
    train,
)

from fastconv import nn, reference


def messages(found):
    assert all(isinstance(error, Exception) for error in found), found
    return [f"{type(error).__name__}: {error}" for error in found]


def test_a_loss_that_is_not_finite_ends_all_ranks_alike():
    x, y = images(8)
    x[7] = np.nan  # of rank 1
    given = {"data": (x, y), "shuffle": False}
    for ops, sync in ((None, True), (reference, False), (None, False)):
        models = [None, None]

        def run(comm, models=models, ops=ops, sync=sync):
            models[comm.rank] = network(*LAYERS["normalised"](), ops=ops)
            return train(comm, model=lambda: models[comm.rank], sync_batch_norm=sync, **given)

        found = messages(on_ranks(2, run))
        assert found[0].startswith("FloatingPointError: loss is nan in epoch 1, step 1 of 1")
        assert found[0] == found[1]
        start = network(*LAYERS["normalised"]())
        for model in models:  # nothing was updated
            assert_array_equal(model.layers[0].w.value, start.layers[0].w.value)


def test_ranks_that_were_not_called_alike_say_so():
    first, second = messages(on_ranks(2, lambda comm: train(comm, batch_size=8 + comm.rank)))
    assert second == (
        "ValueError: comm: rank 1 was not called as rank 0 was: batch_size was 8, is 9"
    )
    assert first == f"RankError: rank 1 of 2: {second}"
    found = messages(on_ranks(2, lambda comm: train(comm, data=images(seed=comm.rank))))
    assert "rank 0 was: data was" in found[1]
    found = messages(on_ranks(2, lambda comm: train(comm, epochs=-comm.rank)))
    assert found[0].startswith("RankError: rank 1 of 2: ValueError: epochs: must be at least 0")


class Faulty:
    def __init__(self, hook):
        self.hook = hook

    def __getattr__(self, name):
        if name == self.hook:
            return self.fail
        raise AttributeError(name)

    def fail(self, state):
        if self.hook != "on_batch_end" or state.step == 2:
            raise OSError("disk full")


@pytest.mark.parametrize("hook", ["on_fit_begin", "on_epoch_begin", "on_batch_end", "on_fit_end"])
def test_an_error_in_a_callback_of_rank_0_ends_all(hook):
    found = messages(on_ranks(3, lambda comm: train(comm, callbacks=[Faulty(hook)])))
    assert found[0] == "OSError: disk full"
    assert found[1] == found[2] == "RankError: rank 0 of 3: OSError: disk full"


class Unreadable:
    def __init__(self, comm):
        self.comm = comm

    def settings(self):
        return {}

    def __call__(self, x, rng):
        if self.comm.rank == 1 and len(x) < 8:
            raise OSError("no such image")
        return x


def test_an_error_while_a_batch_is_made_ends_all():
    found = messages(on_ranks(2, lambda comm: train(comm, augment=Unreadable(comm))))
    assert found == ["RankError: rank 1 of 2: OSError: no such image", "OSError: no such image"]


def test_batches_that_one_rank_lacks_end_all():
    x, y = images()

    def run(comm):
        batches = IterAgain([(x[:8], y[:8])] * (3 - comm.rank))
        return train(comm, data=(batches, None))

    first, second = messages(on_ranks(2, run))
    assert first == second
    assert first == (
        "ValueError: x: rank 1 has no batch 2 in epoch 1, but others have: all ranks must be given "
        "the same batches"
    )


class Broken(nn.Layer):
    def __init__(self, comm):
        super().__init__()
        self.comm = comm.rank if comm else 0

    def forward(self, x):
        return x

    def backward(self, dy):
        if self.comm == 1:
            raise MemoryError("too much")
        return dy

    def settings(self):
        return {}


def test_an_error_inside_a_step_ends_all_if_the_communicator_can():
    def run(comm):
        return train(comm, model=lambda: network(Broken(comm)), validation=None)

    found = messages(on_ranks(2, run))
    assert found[1].startswith("MemoryError: too much") or "Broken" in found[1]
    assert found[0].startswith("BrokenBarrierError")


def test_ranks_whose_weights_part_are_found_out():
    class Careless(ThreadRank):
        def allreduce(self, buffer):
            super().allreduce(buffer)
            if buffer.dtype == np.float32 and self.rank:
                buffer += np.float32(1e-3)

    def run(comm):
        return train(Careless(comm.together, comm.rank), validation=None)

    found = messages(on_ranks(2, run))
    assert found[0] == found[1]
    assert found[0].startswith("RuntimeError: comm: after epoch 1 the model of rank 1 is not that")


def test_a_rank_with_one_value_per_channel_is_found_before_the_first_step():
    x, y = images(6)

    def model():
        layers = [nn.Flatten(), nn.Dense(36, 4, rng=0), nn.BatchNorm(4), nn.Dense(4, 3, rng=0)]
        return nn.Sequential(*layers)

    found = messages(on_ranks(2, lambda comm: train(comm, model=model, data=(x, y), batch_size=3)))
    assert found[0].startswith("ValueError: batch_size: with 3 on 2 ranks, one of them has 1 image")
    given = {"model": model, "data": (x, y), "batch_size": 3, "sync_batch_norm": True}
    assert_close(on_ranks(2, lambda comm: train(comm, **given)), train(**given))


class Not:
    rank, size = 0, 2

    def __init__(self, **others):
        vars(self).update(others)

    def allreduce(self, buffer):
        return buffer * 2


@pytest.mark.parametrize(
    ("comm", "message"),
    [
        (3, "comm: mpi4py's MPI.COMM_WORLD is needed, or an object with rank, size and"),
        (Not(rank="0"), "comm: rank must be an integer, got '0'"),
        (Not(rank=2), "comm: rank 2 is not in 0 .. 1"),
        (Not(), r"comm: allreduce\(buffer\) must replace the buffer by the sum over all ranks"),
    ],
)
def test_communicators_that_are_none(comm, message):
    with pytest.raises((TypeError, ValueError), match=message):
        train(comm)


def test_one_rank_is_one_process():
    one = train(LonelyRank())
    for name, array in arrays(train()[0]).items():
        assert_array_equal(array, arrays(one[0])[name])


class LonelyRank(ThreadRank):
    def __init__(self):
        super().__init__(Together(1), 0)
