"""Steps beside plain passes, in copies and files, and in several threads."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from networks import (
    SHAPE,
    batch,
    compare_steps,
    differences,
    plain_step,
    same_bits,
    small,
    state,
    trained,
)

from fastconv import nn

X, Y = batch(4)


def test_plain_passes_and_steps_side_by_side():
    ours, twin = trained(), trained()
    step = nn.plan_step(*ours, (4, *SHAPE))
    for seed in range(4):
        ways = (step, lambda x, y: plain_step(*ours, x, y))
        compare_steps(ways[seed % 2], *ours, twin, [batch(4, seed)])
    step(X, Y)
    with pytest.raises(ValueError, match="backward was called before forward"):
        ours[0].backward(np.zeros((4, 3), np.float32))
    with pytest.raises(ValueError, match="backward was called before forward"):
        ours[1].backward()


def test_output_shapes_are_those_of_the_step():
    ours, twin = trained(), trained()
    nn.train_step(*ours, X, Y)
    plain_step(*twin, X, Y)
    assert ours[0].summary() == twin[0].summary()


def test_a_step_does_not_keep_the_callers_images_and_gives_its_own_z():
    model, loss, optimizer = trained()
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    _, z = step(X, Y)
    assert not any(np.shares_memory(z, a) for a in (X, *(p.value for p in model.parameters())))
    _, first = nn.train_step(model, loss, optimizer, X, Y)
    kept = first.copy()
    nn.train_step(model, loss, optimizer, *batch(4, 9))
    assert same_bits(first, kept)


def strided(x):
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def test_layouts_of_the_images_do_not_matter():
    unaligned = np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(X.dtype).reshape(X.shape)
    right = None
    for x in (X, np.asfortranarray(X), strided(X), X[::-1][::-1], unaligned):
        model, loss, optimizer = trained()
        value, _ = nn.plan_step(model, loss, optimizer, (4, *SHAPE))(x, Y)
        right = right or (value, state(model, optimizer))
        assert (value, state(model, optimizer)) == right


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_are_without_programs(way):
    model, loss, optimizer = trained()
    for seed in range(2):
        nn.train_step(model, loss, optimizer, *batch(4, seed))
    model.predict(X)
    fresh = len(pickle.dumps(small()))
    assert abs(len(pickle.dumps(model)) - fresh) < 200
    twin, twin_optimizer = COPIES[way]((model, optimizer))
    assert "_programs" not in vars(twin)
    ours = (model, loss, optimizer)
    compare_steps(
        lambda x, y: nn.train_step(*ours, x, y),
        *ours,
        (twin, nn.SoftmaxCrossEntropy(), twin_optimizer),
        [batch(4, 3), batch(3, 4)],
    )
    assert same_bits(model.predict(X), twin.predict(X))


def test_saved_and_loaded_after_steps(tmp_path):
    model, loss, optimizer = trained()
    nn.train_step(model, loss, optimizer, X, Y)
    model.save(tmp_path / "model.npz")
    loaded = nn.Sequential.load(tmp_path / "model.npz")
    assert same_bits(loaded.predict(X), model.predict(X))
    values = {k: p.value.tobytes() for k, p in model.named_parameters().items()}
    assert values == {k: p.value.tobytes() for k, p in loaded.named_parameters().items()}


def test_resume_is_that_of_an_uninterrupted_run(tmp_path):
    x, y = batch(20)

    def run(epochs, **options):
        model, loss, optimizer = trained()
        nn.fit(model, loss, optimizer, x, y, epochs=epochs, batch_size=8, **options)
        return state(model, optimizer)

    whole = run(4)
    run(2, checkpoint=tmp_path / "run.npz")
    assert not differences(run(4, checkpoint=tmp_path / "run.npz", resume=True), whole)


def test_a_profile_leaves_all_as_it_is():
    model, loss, optimizer = trained(lambda p: nn.Adam(p))
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step(X, Y)
    before = state(model, optimizer)
    rows = step.profile(X, Y, repeats=2)
    assert not differences(state(model, optimizer), before)
    assert sum(row.flops for row in rows) == step.flops
    assert all(row.seconds > 0 for row in rows)
    assert [row.label for row in rows] == [o.label for o in step._batch(4).program.operations]
    for label in ("0 Conv forward", "loss", "update", "6 Dropout mask"):
        assert label in str(step)
    twin = trained(lambda p: nn.Adam(p))
    plain_step(*twin, X, Y)
    compare_steps(step, model, loss, optimizer, twin, [batch(4, 1)])


# --------------------------------------------------------------------------------------- threads


class Waits(nn.Layer):
    """A layer inside which a test can wait."""

    def __init__(self):
        super().__init__()
        self.inside, self.go = threading.Event(), threading.Event()

    def forward(self, x):
        if self.training:
            self.inside.set()
            assert self.go.wait(30)
        return x

    def backward(self, dy):
        return dy

    def infer(self, x):
        return x


def test_a_second_thread_in_a_step_is_refused_and_does_no_harm():
    waits = Waits()
    ours = trained(make_model=lambda: small(extra=(waits,)))
    twin = trained()
    step = nn.plan_step(*ours, (4, *SHAPE))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(step, X, Y)
        assert waits.inside.wait(30)
        try:
            for call in (
                lambda: step(X, Y),
                lambda: step.profile(X, Y),
                lambda: nn.train_step(*ours, X, Y),
                lambda: nn.plan_step(*ours, (4, *SHAPE))(X, Y),
            ):
                with pytest.raises(RuntimeError, match="another thread is in a training step"):
                    pool.submit(call).result(30)
            # beside it, inference is right
            right = ours[0].infer(X)
            assert same_bits(pool.submit(ours[0].predict, X).result(30), right)
        finally:
            waits.go.set()
        value, z = first.result(30)
    right, right_z = plain_step(*twin, X, Y)
    assert value == right
    assert same_bits(z, right_z)
    assert list(state(ours[0], ours[2]).values()) == list(state(twin[0], twin[2]).values())
    compare_values = [nn.train_step(*ours, *batch(4, 1))[0], plain_step(*twin, *batch(4, 1))[0]]
    assert compare_values[0] == compare_values[1]


def test_the_lock_is_free_after_an_error():
    model, loss, optimizer = trained()
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    with pytest.raises(ValueError, match=r"^y: "):
        step(X, Y + 7)
    assert np.isfinite(step(X, Y)[0])


def test_eight_threads_with_eight_models():
    together = threading.Barrier(8)

    def run(_):
        ours = trained()
        together.wait()
        for seed in range(12):
            nn.train_step(*ours, *batch(8 - seed % 3, seed))
        return state(ours[0], ours[2])

    twin = trained()
    for seed in range(12):
        plain_step(*twin, *batch(8 - seed % 3, seed))
    right = state(twin[0], twin[2])
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(run, range(8)):
            assert not differences(found, right)
