"""What a step leaves behind: after bad inputs, in copies, in memory; and how often it launches."""

import copy
import gc
import pickle
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from networks import (
    SHAPE,
    Scale,
    Square,
    batch,
    compare_steps,
    differences,
    plain_step,
    same_bits,
    small,
    state,
    trained,
)

import fastconv as fc
from fastconv import nn
from fastconv.nn.step import forget
from fastconv.program import machine

# ------------------------------------------------------------------------------------ bad inputs

X, Y = batch(4)
BAD_X = {
    "None": (None, TypeError),
    "a list": (X.tolist(), TypeError),
    "a number": (np.float32(1), TypeError),
    "no axes": (np.array(1, np.float32), ValueError),
    "float64": (X.astype(np.float64), TypeError),
    "integers": (X.astype(int), TypeError),
    "byte-swapped": (X.astype(">f4"), TypeError),
    "masked": (np.ma.array(X), TypeError),
    "one image": (X[0], ValueError),
    "smaller images": (X[:, :7], ValueError),
    "fewer channels": (X[..., :1], ValueError),
    "an axis too many": (X[..., None], ValueError),
    "no image": (X[:0], ValueError),
    "more than planned": (batch(5)[0], ValueError),
}
BAD_Y = {
    "None": (None, (ValueError, TypeError)),
    "too few": (Y[:3], ValueError),
    "too many": (np.zeros(5, int), ValueError),
    "an axis too many": (Y[:, None], ValueError),
    "floats": (Y.astype(float), TypeError),
    "words": (["a"] * 4, TypeError),
    "negative": (Y - 9, ValueError),
    "a class too many": (np.full(4, 3), ValueError),
}


@pytest.mark.parametrize("name", BAD_X)
@pytest.mark.parametrize("method", ["__call__", "profile"])
def test_bad_images(name, method):
    model, loss, optimizer = trained()
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step(X, Y)
    before = state(model, optimizer)
    bad, kind = BAD_X[name]
    y = Y if name != "more than planned" else np.zeros(5, int)
    with pytest.raises(kind, match=r"^x: "):
        getattr(step, method)(bad, y)
    assert not differences(state(model, optimizer), before)
    assert np.isfinite(step(X, Y)[0])


@pytest.mark.parametrize("name", BAD_Y)
@pytest.mark.parametrize("method", ["__call__", "profile", "train_step"])
def test_bad_labels(name, method):
    model, loss, optimizer = trained()
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step(X, Y)
    before = state(model, optimizer)
    bad, kind = BAD_Y[name]
    call = getattr(step, method, lambda x, y: nn.train_step(model, loss, optimizer, x, y))
    with pytest.raises(kind, match=r"^y: "):
        call(X, bad)
    assert not differences(state(model, optimizer), before)
    assert np.isfinite(step(X, Y)[0])


# Labels of the other losses, and whether they fit.
@pytest.mark.parametrize(
    ("make_loss", "y"),
    [
        (nn.BinaryCrossEntropy, np.full((4, 3), 2.0)),
        (nn.BinaryCrossEntropy, np.full((4, 3), np.nan)),
        (nn.BinaryCrossEntropy, np.zeros((3, 3))),
        (nn.MeanSquaredError, np.zeros((4, 2))),
        (nn.MeanSquaredError, np.zeros(4)),
        (nn.MeanSquaredError, np.zeros((4, 3), complex)),
    ],
)
def test_bad_numbers_as_labels(make_loss, y):
    model, _, optimizer = trained()
    step = nn.plan_step(model, make_loss(), optimizer, (4, *SHAPE))
    before = state(model, optimizer)
    with pytest.raises((ValueError, TypeError), match=r"^y: "):
        step(X, y)
    assert not differences(state(model, optimizer), before)


@pytest.mark.parametrize("plan", ["plan_step", "plan_inference"])
@pytest.mark.parametrize(
    ("x_shape", "kind"),
    [
        (8, TypeError), (None, TypeError), ("abcd", TypeError), ((4, 8, 8, 2.5), TypeError),
        ((4, 8, True, 2), TypeError), (np.array(4), TypeError), ((), ValueError),
        ((4,), ValueError), ((0, 8, 8, 2), ValueError), ((4, 8, 8, -2), ValueError),
    ],
)  # fmt: skip
def test_bad_shapes(plan, x_shape, kind):
    model, loss, optimizer = trained()
    of_step = lambda shape: nn.plan_step(model, loss, optimizer, shape)  # noqa: E731
    with pytest.raises(kind, match=r"^x_shape: "):
        getattr(model, plan, of_step)(x_shape)


@pytest.mark.parametrize("x_shape", [(4, 7, 8, 2), (4, 8, 8, 3), (4, 8, 8), (4, 8, 8, 2, 1)])
def test_shapes_that_do_not_fit_name_the_layer(x_shape):
    model, loss, optimizer = trained()
    with pytest.raises(ValueError, match="in layer"):
        nn.plan_step(model, loss, optimizer, x_shape)
    with pytest.raises(ValueError, match="in layer"):
        model.plan_inference(x_shape)
    with pytest.raises(ValueError, match="in layer"):
        nn.train_step(model, loss, optimizer, np.zeros(x_shape, np.float32), Y)
    with pytest.raises(ValueError, match="in layer"):
        model.predict(np.zeros(x_shape, np.float32))


class Wide(nn.Layer):
    """Changes the dtype."""

    def __init__(self, dtype):
        super().__init__()
        self.wanted = dtype

    def forward(self, x):
        self.dtype = x.dtype
        return x.astype(self.wanted)

    def backward(self, dy):
        return dy.astype(self.dtype)


# Layers that do not fit together: lowering must see what `forward` sees.
MISFITS = {
    "Dense behind images": ([nn.Dense(2, 3, rng=0)], (4, 8, 2)),
    "Dense of other inputs": ([nn.Flatten(), nn.Dense(100, 3, rng=0)], (4, 8, 8, 2)),
    "Dense of fewer inputs": ([nn.Flatten(), nn.Dense(64, 3, rng=0)], (4, 8, 8, 2)),
    "norm of other channels": ([nn.BatchNorm(3)], (4, 8, 8, 2)),
    "norm of more channels": ([nn.BatchNorm(1)], (4, 8, 8, 2)),
    "convolution of other channels": ([nn.Conv(3, 2, 3, rng=0)], (4, 8, 8, 2)),
    "window of other rank": ([nn.Conv(2, 2, (3,), rng=0)], (4, 8, 8, 2)),
    "too many axes": ([nn.Conv(2, 2, 1, rng=0), nn.GlobalAvgPool()], (4, 8, 2)),
    "pool of flat": ([nn.Flatten(), nn.MaxPool(2), nn.Dense(1, 1, rng=0)], (4, 8, 8, 2)),
    "means of flat": ([nn.Flatten(), nn.GlobalAvgPool(), nn.Dense(1, 1, rng=0)], (4, 8, 8, 2)),
    "other dtype": ([Wide(np.float64), nn.Conv(2, 2, 1, rng=0)], (4, 8, 8, 2)),
    "other dtype, dense": (
        [nn.Flatten(), Wide(np.float64), nn.Dense(128, 3, rng=0)], (4, 8, 8, 2)),
    "other dtype, norm": ([Wide(np.float64), nn.BatchNorm(2)], (4, 8, 8, 2)),
    "integers": ([Wide(np.int64), nn.ReLU(), nn.Conv(2, 2, 1, rng=0)], (4, 8, 8, 2)),
    "half": ([Wide(np.float16), nn.MaxPool(2), nn.Conv(2, 2, 1, rng=0)], (4, 8, 8, 2)),
    "residual": ([nn.Residual(nn.Conv(2, 2, 3, rng=0))], (4, 8, 8, 2)),
    "window too large": ([nn.Conv(2, 2, 9, rng=0)], (4, 8, 8, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_layers_that_do_not_fit(name):
    layers, shape = MISFITS[name]
    model = nn.Sequential(*layers)
    x = np.ones(shape, np.float32)
    with pytest.raises((ValueError, TypeError)) as plain:
        copy.deepcopy(model).forward(x)
    loss, optimizer = nn.MeanSquaredError(), nn.SGD(model.parameters())
    before = state(model, optimizer)
    kind, text = type(plain.value), str(plain.value)
    for call in (
        lambda: nn.train_step(model, loss, optimizer, x, x),
        lambda: model.predict(x),
    ):
        with pytest.raises(kind) as found:
            call()
        assert str(found.value) == text
    with pytest.raises(kind):
        nn.plan_step(model, loss, optimizer, shape)
    assert not differences(state(model, optimizer), before)


def test_a_replaced_layer_that_does_not_fit():
    model, loss, optimizer = trained()
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step(X, Y)
    kept, before = model.layers, state(model, optimizer)
    model.layers = (*kept[:-1], nn.Dense(40, 3, rng=0))
    with pytest.raises(ValueError, match=r"x: expected \(m, 40\).*in layer 13"):
        step(X, Y)
    model.layers = kept
    assert not differences(state(model, optimizer), before)
    assert np.isfinite(step(X, Y)[0])


class Broken(nn.Layer):
    """Gives what it should not, or raises."""

    def __init__(self, way):
        super().__init__()
        self.way, self.now = way, False

    def forward(self, x):
        if self.now and self.way == "forward raises":
            raise IndexError("mine")
        if self.now and self.way == "forward shape":
            return x[:1]
        return None if self.now and self.way == "forward None" else x

    def backward(self, dy):
        if self.now and self.way == "backward raises":
            raise IndexError("mine")
        if self.now and self.way == "backward dtype":
            return dy.astype(np.float64)
        return None if self.now and self.way == "backward None" else dy


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("forward raises", IndexError), ("forward shape", ValueError), ("forward None", TypeError),
        ("backward raises", IndexError), ("backward dtype", TypeError),
        ("backward None", TypeError),
    ],
)  # fmt: skip
def test_errors_of_a_layer_of_ones_own_say_where(way, kind):
    broken = Broken(way)
    model, loss, optimizer = trained(make_model=lambda: small(extra=(nn.Residual(broken),)))
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step(X, Y)
    values = [p.value.copy() for p in model.parameters()]
    broken.now = True
    found = []
    for call in (step, lambda x, y: plain_step(model, loss, optimizer, x, y)):
        if way not in ("forward raises", "backward raises") and found:
            break  # the layers around find other words for it
        with pytest.raises(kind) as raised:
            call(X, Y)
        found.append([str(raised.value), *getattr(raised.value, "__notes__", [])])
    assert found[0] == found[-1]
    assert "body (Broken)" in " ".join(found[0])
    for before, parameter in zip(values, model.parameters(), strict=True):
        assert same_bits(before, parameter.value)
    broken.now = False
    assert np.isfinite(step(X, Y)[0])


class NotZeros(nn.Layer):
    """Cannot be tried on zeros, so that nobody can know the shape of its result beforehand."""

    def forward(self, x):
        if not x.any():
            raise IndexError("zeros")
        return x

    def backward(self, dy):
        return dy


def test_a_layer_that_cannot_be_tried_runs_as_ever():
    def make():
        return small(extra=(NotZeros(),))

    ours, twin = trained(make_model=make), trained(make_model=make)
    compare_steps(lambda x, y: nn.train_step(*ours, x, y), *ours, twin, [batch(4), batch(3, 1)])
    assert same_bits(ours[0].predict(X), twin[0].infer(X))
    with pytest.raises((IndexError, ValueError), match="zeros"):
        nn.plan_step(*ours, X.shape)


class Gradient(nn.MeanSquaredError):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def backward(self):
        return self.change(super().backward())


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda dz: dz[:1], ValueError), (lambda dz: dz[:, :1], ValueError),
        (lambda dz: dz.astype(np.float64), TypeError), (lambda dz: None, ValueError),
    ],
)  # fmt: skip
def test_gradients_of_a_loss_of_ones_own_that_do_not_fit(change, kind):
    model, _, optimizer = trained()
    values = [p.value.copy() for p in model.parameters()]
    with pytest.raises(kind, match=r"^dz: "):
        nn.train_step(model, Gradient(change), optimizer, X, np.zeros((4, 3)))
    for before, parameter in zip(values, model.parameters(), strict=True):
        assert same_bits(before, parameter.value)


@pytest.mark.parametrize("extra", [(), (Square(), Scale(6, np.float32))])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_updates_nothing(bad, extra):
    def make():
        return small(extra=copy.deepcopy(extra))

    def adam(parameters):
        return nn.Adam(parameters)

    ours, twin = trained(adam, make), trained(adam, make)
    step = nn.plan_step(*ours, (4, *SHAPE))
    compare_steps(step, *ours, twin, [batch(4)])
    values = [p.value.copy() for p in ours[0].parameters()]
    x, y = batch(4, 1)
    x[2, 3, 3, 1] = bad
    compare_steps(step, *ours, twin, [(x, y)])
    assert not np.isfinite(step(x, y)[0])
    assert ours[2].steps == 1
    for before, parameter in zip(values, ours[0].parameters(), strict=True):
        assert same_bits(before, parameter.value)


# -------------------------------------------------------------- beside the plain passes, and copies


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


# ---------------------------------------------------------------------------------------- memory


KEPT = 10_000  # bytes of 200 calls: the interpreter's own, as a frame that it keeps


def grown(function, times):
    """Bytes that stay after so many calls, and the most that one held above those before it."""
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(30):  # the interpreter keeps some frames
            function()
        before, peak = tracemalloc.get_traced_memory()[0], 0
        for _ in range(times):
            now = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            function()
            peak = max(peak, tracemalloc.get_traced_memory()[1] - now)
        return tracemalloc.get_traced_memory()[0] - before, peak
    finally:
        tracemalloc.stop()


def test_a_step_allocates_nothing_and_launches_once(monkeypatch):
    model, loss, optimizer = trained()
    model.layers[6].eval()  # a mask is drawn by NumPy, which allocates it
    x, y = batch(32)
    step = nn.plan_step(model, loss, optimizer, x.shape)
    launches = []
    start = machine.start
    monkeypatch.setattr(machine, "start", lambda *a: (launches.append(a), start(*a)))
    monkeypatch.setattr("fastconv.engine.call.start", lambda *a: launches.append("another"))
    for call in (lambda: step(x, y), lambda: nn.train_step(model, loss, optimizer, x, y)):
        call()
        launches.clear()
        call()
        assert len(launches) == 1
        assert launches[0] != "another"
    monkeypatch.undo()
    stays, peak = grown(lambda: step(x, y), 200)
    assert stays < KEPT
    assert peak < 6000
    stays, peak = grown(lambda: nn.train_step(model, loss, optimizer, x, y), 200)
    assert stays < KEPT
    assert peak < 8000


def test_inference_allocates_its_result_and_launches_once(monkeypatch):
    model = small()
    x, _ = batch(32)
    run = model.plan_inference(x.shape)
    out = run(x)
    launches = []
    start = machine.start
    monkeypatch.setattr(machine, "start", lambda *a: (launches.append(a), start(*a)))
    run(x, out)
    assert len(launches) == 1
    monkeypatch.undo()
    stays, peak = grown(lambda: run(x, out), 200)
    assert stays < KEPT
    assert peak < 5000


def test_steps_with_dropout_keep_nothing():
    model, loss, optimizer = trained()
    x, y = batch(32)
    assert grown(lambda: nn.train_step(model, loss, optimizer, x, y), 200)[0] < KEPT


def resnet8():
    def block(inputs, filters, stride):
        body = nn.Sequential(
            nn.Conv(inputs, filters, 3, stride=stride, padding=1, bias=False, rng=0),
            nn.BatchNorm(filters), nn.ReLU(),
            nn.Conv(filters, filters, 3, padding=1, bias=False, rng=1), nn.BatchNorm(filters),
        )  # fmt: skip
        side = None
        if stride > 1:
            side = nn.Sequential(
                nn.Conv(inputs, filters, 1, stride=stride, bias=False, rng=2),
                nn.BatchNorm(filters),
            )
        return [nn.Residual(body, side), nn.ReLU()]

    return nn.Sequential(
        nn.Conv(3, 16, 3, padding=1, bias=False, rng=3), nn.BatchNorm(16), nn.ReLU(),
        *block(16, 16, 1), *block(16, 32, 2), *block(32, 64, 2),
        nn.GlobalAvgPool(), nn.Dense(64, 10, rng=4),
    )  # fmt: skip


def test_memory_of_resnet8():
    model, x_shape = resnet8(), (32, 32, 32, 3)
    optimizer = nn.SGD(model.parameters(), momentum=0.9)
    loss = nn.SoftmaxCrossEntropy()
    nn.plan_step(model, loss, optimizer, (1, *x_shape[1:]))  # tables and modules
    with fc.num_threads(2):
        gc.collect()
        tracemalloc.start()
        try:
            step = nn.plan_step(model, loss, optimizer, x_shape)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert step._batch(32).program._memory.nbytes == step.workspace_nbytes
    assert 0 <= held - step.workspace_nbytes < 2e6  # tables of the geometries
    # What the plain passes keep for backward: x, and of each layer its output, at least.
    pixel = 4 * 32 * 32 * 32
    kept = pixel * (3 + 3 * 16 + 16 * 6 + (32 * 7 + 32) / 4 + (64 * 7 + 64) / 16)
    assert step.workspace_nbytes < kept
    value, _ = step(np.zeros(x_shape, np.float32), np.zeros(32, int))
    assert np.isfinite(value)


def test_plans_that_a_model_keeps_are_bounded():
    model, loss, optimizer = trained()
    for m in range(2, 15):
        nn.train_step(model, loss, optimizer, *batch(m))
        model.predict(batch(m)[0])
    held = vars(model)["_programs"]
    assert len(held.steps) <= 8
    assert len(held.forwards) <= 8
    forget(model)
    assert not held.steps


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
