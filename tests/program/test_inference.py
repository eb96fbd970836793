"""Inference as programs: `plan_inference` and `predict`, bit for bit what `infer` gives."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    SHAPE,
    Scale,
    Square,
    batch,
    differences,
    images,
    labels,
    networks,
    patched,
    same_bits,
    small,
    state,
    trained,
)

import fastconv as fc
from fastconv import nn, reference
from fastconv.examples import digits_cnn


def check_drawn(data):
    model, shape, loss = data.draw(networks())
    most = data.draw(st.integers(1, 9))
    x = images(model, shape, most)
    for i, p in enumerate(model.parameters()):
        p.value += p.dtype.type(0.01 * i)
    for i, b in enumerate(model.named_buffers().values()):
        b += b.dtype.type(0.1 * i)
    before = state(model)
    run = model.plan_inference((most, *shape))
    right = model.infer(x)
    assert same_bits(run(x), right)
    assert run.y_shape == right.shape
    part = data.draw(st.integers(0, most))
    assert same_bits(run(x[:part]), model.infer(x[:part]))
    assert same_bits(model.predict(x, batch_size=data.draw(st.integers(1, 10))), right)
    out = np.full(right.shape, np.nan, right.dtype)
    assert run(x, out) is out
    assert same_bits(out, right)
    assert not differences(state(model), before)
    # a step later: the plan has the old weights, predict the new ones
    optimizer = nn.SGD(model.parameters(), lr=0.01)
    if most > 1:
        nn.train_step(model, loss, optimizer, x, labels(loss, right.shape))
        assert same_bits(run(x), right)
        right = model.infer(x)
        assert same_bits(model.predict(x), right)
        run.refresh()
        assert same_bits(run(x), right)


@settings(max_examples=40)
@given(st.data())
def test_drawn_networks(data):
    check_drawn(data)


@pytest.mark.soak
@settings(max_examples=3000)
@given(st.data())
def test_many_drawn_networks(data):
    check_drawn(data)


NOTHING_TO_DO = {
    "Flatten": lambda: nn.Sequential(nn.Flatten()),
    "Dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.1)),
    "a residual of nothing": lambda: nn.Sequential(nn.Residual(nn.Dropout(0.5))),
    "own": lambda: nn.Sequential(Square()),
}


@pytest.mark.parametrize("name", NOTHING_TO_DO)
def test_networks_that_do_almost_nothing(name):
    model = NOTHING_TO_DO[name]()
    x = batch(5)[0]
    right = model.infer(x)
    run = model.plan_inference(x.shape)
    for y in (run(x), run(x[:2]), model.predict(x), model.predict(x, 2)):
        assert same_bits(y, right[: len(y)])
    assert not np.shares_memory(run(x), x)


class Own(nn.Dropout):
    """Overrides the rule of inference alone."""

    def infer(self, x):
        return 3 * x


class Patched(nn.Layer):
    def forward(self, x):
        return x + 1

    def backward(self, dy):
        return dy


def infer_patched():
    layer = Patched()
    layer.infer = lambda x: x - 1
    return layer


@pytest.mark.parametrize(
    "make", [lambda: Own(0.5), infer_patched, lambda: patched(nn.ReLU()), Patched]
)
def test_rules_of_ones_own(make):
    model = nn.Sequential(nn.Conv(2, 3, 3, rng=0), make(), nn.Flatten(), nn.Dense(108, 2, rng=0))
    x = batch(4)[0]
    right = model.infer(x)
    assert same_bits(model.predict(x), right)
    assert same_bits(model.plan_inference(x.shape)(x), right)


def test_settings_changed_between_calls():
    model = small()
    x = batch(4)[0]
    run = model.plan_inference(x.shape)
    right = run(x)
    changes = [
        lambda: model.layers[5].settings.update(padding=((1, 0), (1, 0))),
        lambda: setattr(model.layers[3], "shortcut", nn.Tanh()),
        lambda: setattr(model, "layers", (*model.layers[:-2], nn.Tanh(), model.layers[-1])),
        lambda: patched(model.layers[4]),
        lambda: setattr(model.layers[1], "epsilon", 0.5),
        lambda: setattr(model, "ops", reference),
    ]
    for change in changes:
        change()
        now = model.infer(x)
        assert not same_bits(now, right)
        assert same_bits(model.predict(x), now)
        run.refresh()
        assert same_bits(run(x), now)
        right = now


def test_a_plan_keeps_the_weights_of_its_making():
    model = small(extra=(Scale(6, np.float32),))
    x = batch(4)[0]
    run = model.plan_inference(x.shape)
    right = run(x)
    for array in [p.value for p in model.parameters()] + list(model.named_buffers().values()):
        array += 0.125
        assert same_bits(run(x), right)
        assert same_bits(model.predict(x), model.infer(x))
    run.refresh()
    assert same_bits(run(x), model.infer(x))


def test_one_image_of_a_batch_is_that_image():
    model = digits_cnn()
    x = np.random.default_rng(0).random((9, 8, 8, 1)).astype(np.float32)
    one, nine = model.plan_inference((1, 8, 8, 1)), model.plan_inference(x.shape)
    y = nine(x)
    for i in range(9):
        assert same_bits(one(x[i : i + 1])[0], y[i])


BAD_OUT = {
    "a list": ([[0.0] * 3] * 4, TypeError),
    "other shape": (np.zeros((4, 4), np.float32), ValueError),
    "more images": (np.zeros((5, 3), np.float32), ValueError),
    "other dtype": (np.zeros((4, 3)), ValueError),
    "read-only": (np.broadcast_to(np.float32(0), (4, 3)), ValueError),
}


@pytest.mark.parametrize("name", BAD_OUT)
def test_bad_out(name):
    out, kind = BAD_OUT[name]
    x = batch(4)[0]
    run = small().plan_inference(x.shape)
    kept = copy.deepcopy(out)
    with pytest.raises(kind, match=r"^out: "):
        run(x, out)
    np.testing.assert_array_equal(out, kept)
    assert np.isfinite(run(x)).all()


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (None, TypeError), ([1.0], TypeError), (np.array(1, np.float32), ValueError),
        (np.zeros((4, *SHAPE)), TypeError), (np.zeros((4, *SHAPE), ">f4"), TypeError),
        (np.zeros((5, *SHAPE), np.float32), ValueError), (np.zeros(SHAPE, np.float32), ValueError),
        (np.zeros((4, 8, 8, 1), np.float32), ValueError),
    ],
)  # fmt: skip
def test_bad_images(x, kind):
    run = small().plan_inference((4, *SHAPE))
    with pytest.raises(kind, match=r"^x: "):
        run(x)


def test_layouts_of_x_and_out_do_not_matter():
    model = small()
    x = batch(4)[0]
    run, right = model.plan_inference(x.shape), model.infer(x)
    out = np.zeros((3, 4), np.float32).T
    for other in (np.asfortranarray(x), np.repeat(x, 2, -1)[..., ::2], x[::-1][::-1]):
        run(other, out)
        assert same_bits(np.ascontiguousarray(out), right)
        assert same_bits(model.predict(other), right)
    square = nn.Sequential(nn.Conv(2, 2, 3, padding=1, rng=0))
    run, right = square.plan_inference(x.shape), square.infer(x)
    over = x.copy()
    assert same_bits(run(over, over), right)


def test_a_layer_inside_that_predicts():
    """A copy of the model may not share the programs that were made for its arrays."""

    class Predicts(nn.Layer):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.BatchNorm(2))

        def children(self):
            return {"body": self.body}

        def forward(self, x):
            return self.body.predict(x)

    layer = Predicts()
    model, x = nn.Sequential(layer), batch(3)[0]
    for mean in (0.0, 1.0, 2.0):
        layer.body.layers[0].running_mean[...] = mean
        for y in (model.predict(x), model.infer(x)):
            np.testing.assert_allclose(y, x - mean, atol=1e-4)
        assert same_bits(layer.body.predict(x), model.predict(x))


# --------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("count", [1, 2, 3, 8, 16])
def test_bits_do_not_depend_on_threads(count):
    model = small(extra=(nn.Conv(6, 6, 3, padding=1, rng=7),))
    x = batch(64)[0]
    with fc.num_threads(1):
        right = model.infer(x)
    with fc.num_threads(count):
        assert same_bits(model.plan_inference(x.shape)(x), right)
        assert same_bits(model.predict(x), right)


@pytest.mark.parametrize("planned", [1, 2])
def test_many_threads_on_one_plan(planned):
    """Each with other images and a setting of its own, whatever the plan was made for."""
    model = nn.Sequential(
        nn.Conv(2, 16, 3, padding=1, rng=0), nn.ReLU(), nn.Conv(16, 16, 3, padding=1, rng=1),
        nn.BatchNorm(16), nn.MaxPool(2), nn.Flatten(), nn.Dense(256, 5, rng=2),
    )  # fmt: skip
    with fc.num_threads(planned):
        run = model.plan_inference((16, *SHAPE))
    together = threading.Barrier(8)
    batches = [batch(16 - i, i)[0] for i in range(8)]
    right = [model.infer(x) for x in batches]

    def work(i):
        together.wait()
        with fc.num_threads(1 + i):
            return [run(batches[i]) for _ in range(20)], model.predict(batches[i])

    with ThreadPoolExecutor(8) as pool:
        for i, (found, predicted) in enumerate(pool.map(work, range(8))):
            assert all(same_bits(y, right[i]) for y in found)
            assert same_bits(predicted, right[i])
    # none has more scratch, or uses more threads, than the plan was made for
    assert {ready.program.most for ready in run._forward.free} == {planned}


def test_versions_of_packed_kernels_never_come_again():
    run = small().plan_inference((4, *SHAPE))
    forward = run._forward
    seen = {forward.version}
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda _: forward.renew(), range(200)):
            pass
    forward.renew()
    assert forward.version not in seen
    assert next(forward._versions) == 202


def test_predict_from_many_threads_with_many_shapes():
    model = small()
    batches = [batch(m, m)[0] for m in range(1, 25)]
    right = [model.infer(x) for x in batches]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, wanted in zip(pool.map(model.predict, batches), right, strict=True):
                assert same_bits(found, wanted)


def test_predict_while_training():
    """What it gives lies between the weights of two steps; at the end it is exact."""
    (model, loss, optimizer), twin = trained(), trained()
    x = batch(16)[0]
    stop, found = threading.Event(), []

    def predict():
        while not stop.is_set():
            found.append(np.isfinite(model.predict(x)).all())

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    for seed in range(20):
        nn.train_step(model, loss, optimizer, *batch(16, seed))
    stop.set()
    for thread in threads:
        thread.join()
    for seed in range(20):
        nn.train_step(*twin, *batch(16, seed))
    assert found
    assert all(found)
    assert not differences(state(model, optimizer), state(twin[0], twin[2]))
    assert same_bits(model.predict(x), twin[0].infer(x))


def test_what_it_says_of_itself():
    run = small().plan_inference((4, *SHAPE))
    program = run._forward.free[0].program
    assert run.workspace_nbytes == program.nbytes == program._memory.nbytes
    assert "0 Conv forward" in str(run)
    assert repr(run) == "InferencePlan(x=(4, 8, 8, 2), y=(4, 3), float32)"
