"""Schedules, clipping, averages, parameter groups: what they compute; a resume to the bit."""

import math
from itertools import pairwise

import numpy as np
import pytest

from fastconv import nn
from fastconv.nn.clipping import clip_gradients

X = np.random.default_rng(0).normal(size=(20, 4, 4, 1)).astype(np.float32)
Y = (X.mean(axis=(1, 2, 3)) > 0).astype(int)


def network(dtype=np.float32):
    rng = np.random.default_rng(1)
    return nn.Sequential(
        nn.Conv(1, 3, 3, rng=rng, dtype=dtype),
        nn.BatchNorm(3, dtype=dtype),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2, seed=4),
        nn.Dense(12, 2, rng=rng, dtype=dtype),
    )


def train(callbacks=(), *, make=nn.Adam, epochs=4, **options):
    model = network()
    optimizer = make(model.parameters())
    history = nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, X, Y, epochs=epochs, batch_size=8,
                     callbacks=callbacks, **options)  # fmt: skip
    return model, optimizer, history


class Rates:
    """The rate of every step."""

    def __init__(self):
        self.seen = []
        self.next = None

    def on_epoch_begin(self, state):
        self.next = state.optimizer.lr

    def on_batch_end(self, state):
        self.seen.append(self.next)
        self.next = state.optimizer.lr


# Schedules --------------------------------------------------------------------------------------


def torch_rates(make, steps):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_cosine_step_and_one_cycle_are_pytorchs():
    cosine = nn.CosineDecay(0.1, 10)
    expected = torch_rates(lambda s, o: s.CosineAnnealingLR(o, 10), 10)
    np.testing.assert_allclose([cosine.rate(e) for e in range(1, 11)], expected, rtol=1e-12)
    steps = nn.StepDecay(0.1, 3, 0.5)
    expected = torch_rates(lambda s, o: s.StepLR(o, 3, 0.5), 10)
    np.testing.assert_allclose([steps.rate(e) for e in range(1, 11)], expected, rtol=1e-12)
    cycle = nn.OneCycle(0.1, 4)
    found = [cycle.rate(e, k, 5) for e in range(1, 5) for k in range(5)]
    expected = torch_rates(lambda s, o: s.OneCycleLR(o, 0.1, total_steps=20), 20)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_warm_up_grows_to_the_rate_then_the_cosine_begins_there():
    found = [nn.CosineDecay(0.1, 6, warmup=2).rate(e) for e in range(1, 7)]
    cosine = [0.05 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    np.testing.assert_allclose(found, [0.05, 0.1, *cosine])
    fine = nn.CosineDecay(0.1, 6, warmup=2, per="step")
    rates = [fine.rate(e, k, 10) for e in range(1, 7) for k in range(10)]
    np.testing.assert_allclose(rates[:20], 0.1 * np.arange(1, 21) / 20)
    assert rates[20] == 0.1
    assert all(a > b for a, b in pairwise(rates[20:]))
    assert nn.CosineDecay(0.1, 6).rate(7) == 0 == nn.CosineDecay(0.1, 6, per="step").rate(9, 1, 3)


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_every_step_has_the_rate_of_its_epoch_or_its_own(per):
    rates = Rates()
    schedule = nn.CosineDecay(0.1, 3, warmup=1, per=per)
    train([schedule, rates], epochs=3)
    steps = 3  # 20 images in batches of 8
    expected = [schedule.rate(e, k, steps) for e in range(1, 4) for k in range(steps)]
    assert rates.seen == expected
    assert len(set(expected[:steps])) == (1 if per == "epoch" else steps)


def test_plateau_reduces_after_so_many_epochs_without_a_new_lowest_loss():
    schedule = nn.ReduceOnPlateau(1.0, factor=0.5, patience=2)
    losses = [3.0, 2.0, 2.0, float("nan"), 2.5, 2.1, 1.0, 1.5]
    rows = [{"loss": v, "val_loss": None} for v in losses]
    found = [schedule.rate(rows[:k]) for k in range(len(rows) + 1)]
    assert found == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
    falling = [{"loss": -k, "val_loss": 1.0} for k in range(5)]  # val_loss counts
    assert schedule.rate(falling) == 0.25
    assert nn.ReduceOnPlateau(1.0, patience=1, min_lr=0.3).rate(falling) == 0.3
    assert nn.ReduceOnPlateau(0.1, patience=1, min_lr=0.3).rate(falling) == 0.1
    assert nn.ReduceOnPlateau(1.0, patience=1, min_delta=2.0).rate(rows[:3]) == 0.25


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: nn.CosineDecay(0.1, 3, warmup=3), ValueError,
         "warmup: must be less than epochs=3"),
        (lambda: nn.CosineDecay(0.1, 3, per="batch"), ValueError, "per: must be 'epoch' or 'step'"),
        (lambda: nn.CosineDecay("0.1", 3), TypeError, "lr: a number is needed"),
        (lambda: nn.OneCycle(0.1, 0), ValueError, "epochs: must be at least 1"),
        (lambda: nn.OneCycle(0.1, 2, rise=1.0), ValueError, r"rise: must be in \(0, 1\)"),
        (lambda: nn.StepDecay(0.1, 2.5, 0.1), TypeError, "every: an integer is needed"),
        (lambda: nn.StepDecay(0.1, 2, 1.5), ValueError, r"factor: must be in \(0, 1\]"),
        (lambda: nn.ReduceOnPlateau(0.1, 1.0), ValueError, r"factor: must be in \(0, 1\)"),
        (lambda: nn.ReduceOnPlateau(0.1, patience=0), ValueError, "patience: must be at least 1"),
        (lambda: nn.ParameterAverage(1.0), ValueError, r"decay: must be in \[0, 1\)"),
        (lambda: train(clip_norm=0), ValueError, "clip_norm: must be above 0, got 0"),
        (lambda: train(clip_value="1"), TypeError, "clip_value: a number is needed"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(make, error, says):
    with pytest.raises(error, match=f"^{says}"):
        make()


# Clipping ---------------------------------------------------------------------------------------


def test_clipping_by_norm_and_by_value():
    parameters = [nn.Parameter(np.zeros(2, np.float32), "a"), nn.Parameter(np.zeros(1), "b")]
    parameters[0].grad[...], parameters[1].grad[...] = [3, -4], [12]
    clip_gradients(parameters, clip_norm=13.0)  # it is 13
    assert parameters[0].grad.tolist() == [3, -4]
    clip_gradients(parameters, clip_norm=6.5)
    assert parameters[0].grad.tolist() == [1.5, -2]
    assert parameters[1].grad.tolist() == [6]
    clip_gradients(parameters, clip_value=1.75)
    assert parameters[0].grad.tolist() == [1.5, -1.75]
    assert parameters[1].grad.tolist() == [1.75]


@pytest.mark.parametrize("make", [nn.SGD, nn.AdamW, nn.RMSprop])
@pytest.mark.parametrize("limits", [{"clip_norm": 0.3}, {"clip_value": 0.02}])
def test_fit_cuts_the_gradients_before_the_optimizers_step(make, limits):
    """The program's bits are those of the plain passes, with the cutting by hand between them."""
    model, _, _ = train(make=make, epochs=2, **limits)
    twin, loss = network(), nn.SoftmaxCrossEntropy()
    optimizer, order = make(twin.parameters()), np.random.default_rng(0)
    twin.reseed(0)
    cut = 0
    for _ in range(2):
        chosen = order.permutation(len(X))
        for i in range(0, len(X), 8):
            batch = chosen[i : i + 8]
            loss.forward(twin.forward(X[batch]), Y[batch])
            twin.backward_parameters(loss.backward())
            before = [p.grad.copy() for p in twin.parameters()]
            clip_gradients(twin.parameters(), **limits)
            cut += any((p.grad != g).any() for p, g in zip(twin.parameters(), before, strict=True))
            optimizer.step()
    assert cut
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value, strict=True)


def test_an_optimizer_of_ones_own_is_clipped_too():
    class Plain:
        def __init__(self, parameters):
            self.parameters, self.lr, self.largest = list(parameters), 0.1, 0.0

        def step(self):
            squares = sum(float((p.grad.astype("f8") ** 2).sum()) for p in self.parameters)
            self.largest = max(self.largest, squares**0.5)
            for p in self.parameters:
                p.value -= self.lr * p.grad

    _, optimizer, _ = train(make=Plain, epochs=2, clip_norm=0.25)
    assert optimizer.largest == pytest.approx(0.25, rel=1e-6)


# Averages ---------------------------------------------------------------------------------------


class Weights:
    def __init__(self):
        self.seen = []

    def on_batch_end(self, state):
        self.seen.append([p.value.copy() for p in state.model.parameters()])


def test_the_average_is_that_of_all_steps_and_is_what_the_model_has_afterwards():
    start, weights = [p.value.copy() for p in network().parameters()], Weights()
    model, _, _ = train([weights, nn.ParameterAverage(0.8)])
    plain, _, _ = train()
    for i, (p, q) in enumerate(zip(model.parameters(), plain.parameters(), strict=True)):
        average = start[i].astype(np.float64)
        for step in weights.seen:
            average = 0.8 * average + 0.2 * step[i]
        np.testing.assert_allclose(p.value, average, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(weights.seen[-1][i], q.value)  # the steps go on from these


def test_the_average_is_what_is_validated_stopped_by_and_kept(tmp_path):
    best = tmp_path / "best.npz"
    loss = nn.SoftmaxCrossEntropy()
    average = nn.ParameterAverage(0.5)
    model, _, history = train([average], validation=(X, Y), best_checkpoint=best,
                              early_stopping=nn.EarlyStopping(3))  # fmt: skip
    lowest = min(history["val_loss"])
    assert nn.evaluate(model, loss, X, Y)[0] == pytest.approx(lowest, rel=1e-6)
    assert nn.evaluate(nn.Sequential.load(best), loss, X, Y)[0] == pytest.approx(lowest, rel=1e-6)


class Break:
    """The loss of one step becomes NaN, or a hook raises; remembers what there was."""

    def __init__(self, average, epoch, error=None):
        self.average, self.epoch, self.error = average, epoch, error
        self.plain, self.averages, self.figures = {}, {}, {}

    def on_batch_end(self, state):
        at = state.epoch, state.step
        self.plain[at] = [p.value.copy() for p in state.model.parameters()]
        self.averages[state.epoch] = [a.copy() for a in self.average.averages.values()]
        if at == (self.epoch, 2):
            if self.error is not None:
                raise self.error
            state.loss.broken = True

    def on_epoch_end(self, state):
        self.figures[state.epoch] = state.metrics["val_loss"]


class Broken(nn.SoftmaxCrossEntropy):
    broken = False

    def forward(self, z, y, sample_weight=None):
        return math.nan if self.broken else super().forward(z, y, sample_weight)


@pytest.mark.parametrize("epoch", [1, 4])
@pytest.mark.parametrize("early_stopping", [None, 9, nn.EarlyStopping(9, restore_best=False)])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), RuntimeError("mine")])
def test_the_weights_after_an_error(epoch, early_stopping, error):
    """The plain ones of the last step; but of the best epoch's average as `fit` says."""
    average, model = nn.ParameterAverage(0.5), network()
    watch = Break(average, epoch, error)
    kind = FloatingPointError if error is None else type(error)
    with pytest.raises(kind):
        nn.fit(model, Broken(), nn.Adam(model.parameters()), X, Y, epochs=6, batch_size=8,
               callbacks=[average, watch], validation=(X, Y),
               early_stopping=early_stopping)  # fmt: skip
    expected = watch.plain[epoch, 2]
    if error is None and early_stopping == 9 and epoch > 1:
        expected = watch.averages[min(watch.figures, key=watch.figures.__getitem__)]
    for parameter, value in zip(model.parameters(), expected, strict=True):
        np.testing.assert_array_equal(parameter.value, value)
    for array, value in zip(average.averages.values(), watch.averages[epoch], strict=True):
        np.testing.assert_array_equal(array, value)


def test_plain_weights_are_back_when_validating_fails():
    class Failing(nn.SoftmaxCrossEntropy):
        def correct(self, z, y):
            if len(z) == len(X):
                raise RuntimeError("mine")
            return super().correct(z, y)

    average, weights, model = nn.ParameterAverage(0.5), Weights(), network()
    with pytest.raises(RuntimeError, match="mine"):
        nn.fit(model, Failing(), nn.SGD(model.parameters()), X, Y, epochs=2, batch_size=8,
               callbacks=[average, weights], validation=(X, Y))  # fmt: skip
    for parameter, value in zip(model.parameters(), weights.seen[-1], strict=True):
        np.testing.assert_array_equal(parameter.value, value)


# Groups -----------------------------------------------------------------------------------------


def groups(model, decay=0.1, lr=None):
    own = {} if lr is None else {"lr": lr}
    kernels = [p for p in model.parameters() if p.value.ndim > 1]
    others = [p for p in model.parameters() if p.value.ndim <= 1]
    return [{"parameters": kernels, "weight_decay": decay}, {"parameters": others, **own}]


@pytest.mark.parametrize("make", [nn.SGD, nn.Adam, nn.RMSprop])
def test_a_group_moves_as_an_optimizer_of_its_own_does(make):
    """Also inside the program, and with a schedule: both rates by the same factor."""
    model, twin, loss = network(), network(), nn.SoftmaxCrossEntropy()
    ours = make(groups(model, lr=0.04), lr=0.02, weight_decay=0.0)
    kernels, others = groups(twin)
    theirs = [make(kernels["parameters"], lr=0.02, weight_decay=0.1),
              make(others["parameters"], lr=0.04, weight_decay=0.0)]  # fmt: skip
    step = nn.plan_step(model, loss, ours, (8, 4, 4, 1))
    assert sum(line.startswith("update") for line in str(step).splitlines()) == 2
    for i in range(4):
        step(X[:8], Y[:8])
        loss.forward(twin.forward(X[:8]), Y[:8])
        twin.backward_parameters(loss.backward())
        for optimizer in theirs:
            optimizer.step()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            np.testing.assert_array_equal(p.value, q.value, err_msg=f"step {i}", strict=True)
        for optimizer in [ours, *theirs]:
            optimizer.lr *= 0.5


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (lambda p: [{"params": [p]}], ValueError,
         r"parameters\[0\]: the key 'parameters' is needed"),
        (lambda p: [{"parameters": [p], "momentum": 0.5}], ValueError,
         r"parameters\[0\]: a group may have lr and weight_decay of its own, got 'momentum'"),
        (lambda p: [{"parameters": [p], "weight_decay": -1}], ValueError,
         r"parameters\[0\]\['weight_decay'\]: must be finite and at least 0"),
        (lambda p: [{"parameters": p}], TypeError,
         r"parameters\[0\]\['parameters'\]: a list of parameters is needed"),
        (lambda p: [{"parameters": [p]}, p], TypeError, r"parameters\[1\]: a dictionary is needed"),
        (lambda p: [{"parameters": [p]}, {"parameters": [p]}], ValueError,
         "parameters: one parameter is listed twice"),
        (lambda p: [{"parameters": []}], ValueError, "parameters: at least one is needed"),
        (lambda p: {"parameters": [p]}, TypeError, r"parameters: model.parameters\(\) is needed"),
    ],
)  # fmt: skip
def test_errors_name_the_group(given, error, says):
    with pytest.raises(error, match=f"^{says}"):
        nn.SGD(given(nn.Parameter(np.ones(3), "w")))


def test_a_group_without_parameters_is_no_error():
    p = nn.Parameter(np.ones(3), "w")
    p.grad[...] = 1
    nn.SGD([{"parameters": [p]}, {"parameters": [], "weight_decay": 0}], lr=0.5).step()
    assert p.value.tolist() == [0.5] * 3
    with pytest.raises(ValueError, match=r"^lr: must be above 0 where a group has an lr"):
        nn.SGD([{"parameters": [p], "lr": 0.1}], lr=0)


# Resuming ---------------------------------------------------------------------------------------

RUNS = {
    "cosine": ([nn.CosineDecay(0.01, 4, warmup=1, per="step")], {}),
    "one cycle": ([nn.OneCycle(0.01, 4)], {"clip_norm": 0.2, "clip_value": 0.1}),
    "plateau": ([nn.ReduceOnPlateau(0.5, 0.5, 1)], {"validation_fraction": 0.2}),
    "average": ([nn.StepDecay(0.01, 1, 0.5), nn.ParameterAverage(0.9)], {}),
    "rmsprop": ([], {"make": lambda p: nn.RMSprop(p, momentum=0.5)}),
    "groups": ([], {"make": lambda p: nn.AdamW(
        [{"parameters": p[:1], "lr": 0.01}, {"parameters": p[1:], "weight_decay": 0}])}),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_bit_for_bit_the_same(name, tmp_path):
    callbacks, options = RUNS[name]
    whole, optimizer, history = train(callbacks, **options)
    path = tmp_path / "run.npz"
    train(callbacks, epochs=2, checkpoint=path, **options)
    resumed, other, rows = train(callbacks, checkpoint=path, resume=True, **options)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        np.testing.assert_array_equal(a.value, b.value, strict=True)
    assert optimizer.lr == other.lr
    assert history["loss"] == rows["loss"]
    assert history["lr"] == rows["lr"]


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ({}, {"clip_norm": 1.0}, "clip_norm was None, is 1.0"),
        ({"clip_value": 1.0}, {"clip_value": 2.0}, "clip_value was 1.0, is 2.0"),
        ({"callbacks": [nn.CosineDecay(0.1, 4)]}, {"callbacks": [nn.CosineDecay(0.1, 5)]},
         r"callbacks was .*epochs=4, is .*epochs=5"),
        ({"callbacks": [nn.ParameterAverage(0.5)]}, {}, "callbacks was "),
        ({"make": RUNS["groups"][1]["make"]}, {"make": nn.AdamW}, "optimizer was groups="),
        ({"validation_fraction": 0.2}, {"validation_fraction": 0.3}, "data was "),
    ],
)  # fmt: skip
def test_a_resume_compares_what_changes_the_result(before, now, says, tmp_path):
    path = tmp_path / "run.npz"
    train(epochs=1, checkpoint=path, **before)
    with pytest.raises(ValueError, match=f"belongs to another run: {says}"):
        train(checkpoint=path, resume=True, **now)
