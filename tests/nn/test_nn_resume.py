"""What a resumed run compares: everything that would make it another run, and nothing else."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_run import run

from fastconv import nn, reference
from fastconv.examples.augment import RandomShift
from fastconv.nn.describe import describe
from fastconv.nn.identity import differences

X = np.random.default_rng(0).normal(size=(12, 4, 4, 1)).astype(np.float32)
Y = np.arange(12) % 2


class LeakyReLU(nn.Layer):
    """A layer as users write it: the argument under one name, what backward needs under another."""

    def __init__(self, slope):
        super().__init__()
        self._slope = slope

    def forward(self, x):
        self.x = x
        self.shape_seen = x.shape
        return np.where(x > 0, x, x * x.dtype.type(self._slope))

    def backward(self, dy):
        return np.where(self.x > 0, dy, dy * dy.dtype.type(self._slope))


class Wrapped(nn.Layer):
    """A user's container, which hides its layer from `config`."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def children(self):
        return {"inner": self.inner}

    def forward(self, x):
        return self.inner.forward(x)

    def backward(self, dy):
        return self.inner.backward(dy)


class Secret(Wrapped):
    """One that does not even name its layer as a child."""

    def children(self):
        return {}


class Fixed(nn.Layer):
    """A layer with an array that nobody trains."""

    def __init__(self, scale):
        super().__init__()
        self.scale = np.asarray(scale, np.float32)

    def forward(self, x):
        return x * self.scale

    def backward(self, dy):
        return dy * self.scale


class Weighted(nn.SoftmaxCrossEntropy):
    """Class weights, and what its own forward keeps."""

    def __init__(self, weights):
        super().__init__()
        self.weights = np.asarray(weights)

    def forward(self, z, y):
        self.kept = z.copy()
        value = super().forward(z, y)
        self._dz = self._dz * self.weights[y][:, None].astype(z.dtype)
        return value


class Clipped(nn.SGD):
    """A subclassed optimizer with an attribute that `settings` does not know."""

    def __init__(self, parameters, lr, clip):
        super().__init__(parameters, lr)
        self.clip = clip

    def step(self):
        for parameter in self.parameters:
            np.clip(parameter.grad, -self.clip, self.clip, out=parameter.grad)
        super().step()


class Noise:
    """An augmenter without `settings()`."""

    def __init__(self, size):
        self.size = size

    def __call__(self, x, rng):
        return x + rng.normal(0, self.size, x.shape).astype(x.dtype)


class WiderShift(RandomShift):
    """A subclass whose parameter the inherited `settings()` does not tell."""

    def __init__(self, pixels, times):
        super().__init__(pixels)
        self.times = times


class Stepped:
    """A schedule with settings that are no JSON."""

    def __init__(self, rates):
        self.rates = np.asarray(rates)

    def settings(self):
        return {"rates": self.rates}

    def on_epoch_begin(self, state):
        state.optimizer.lr = float(self.rates[state.epoch - 1])


def adder(amount):
    return lambda x, rng: x + x.dtype.type(amount)


def default(amount):
    def add(x, rng, amount=amount):
        return x + x.dtype.type(amount)

    return add


def pooling(function):
    """A class of one name whose code is another: the closure of its method."""

    class Pool(nn.Layer):
        def forward(self, x):
            self.x = x
            return function(x)

        def backward(self, dy):
            return np.zeros_like(self.x)

    return Pool()


def coded(code):
    """A function of one name with another code."""
    space = {"__name__": "script"}
    exec(f"def augment(x, rng):\n    return {code}", space)
    return space["augment"]


def train(path, *layers, resume=False, epochs=1, loss=None, optimizer=None, **options):
    """Fit a small network with `layers` in the middle."""
    model = nn.Sequential(
        nn.Conv(1, 2, 3, rng=0), *layers, nn.Flatten(), nn.Dense(8, 2, rng=0), ops=reference
    )
    optimizer = (optimizer or (lambda p: nn.SGD(p, 0.1)))(model.parameters())
    options |= {"epochs": epochs, "batch_size": 5, "checkpoint": path, "resume": resume}
    nn.fit(model, loss or nn.SoftmaxCrossEntropy(), optimizer, X, Y, **options)
    return model, optimizer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


def sgd(**options):
    return {"optimizer": lambda p: nn.SGD(p, **options)}


OTHERS = {
    "argument of a layer": (
        lambda: ([LeakyReLU(0.1)], {}),
        lambda: ([LeakyReLU(0.9)], {}),
        "model",
    ),
    "layer in a layer": (
        lambda: ([Wrapped(nn.MaxPool(1))], {}),
        lambda: ([Wrapped(nn.AvgPool(1))], {}),
        "model",
    ),
    "hidden layer": (
        lambda: ([Secret(nn.MaxPool(1))], {}),
        lambda: ([Secret(nn.AvgPool(1))], {}),
        "model",
    ),
    "layer beside an own one": (
        lambda: ([nn.MaxPool(1), LeakyReLU(0.1)], {}),
        lambda: ([nn.AvgPool(1), LeakyReLU(0.1)], {}),
        "model",
    ),
    "array of a layer": (lambda: ([Fixed([1, 2])], {}), lambda: ([Fixed([1, 3])], {}), "model"),
    "code of a layer": (
        lambda: ([pooling(lambda x: x * 1)], {}),
        lambda: ([pooling(lambda x: x * 2)], {}),
        "model",
    ),
    "frozen layer": (
        lambda: ([nn.BatchNorm(2)], {}),
        lambda: ([nn.BatchNorm(2).eval()], {}),
        "model",
    ),
    "class weights": (
        lambda: ([], {"loss": Weighted([1, 2])}),
        lambda: ([], {"loss": Weighted([1, 9])}),
        "loss",
    ),
    "attribute of an optimizer": (
        lambda: ([], {"optimizer": lambda p: Clipped(p, 0.1, 1.0)}),
        lambda: ([], {"optimizer": lambda p: Clipped(p, 0.1, 0.01)}),
        "optimizer",
    ),
    "parameters of an optimizer": (
        lambda: (
            [nn.Conv(2, 2, 1, rng=0), nn.Conv(2, 2, 1, rng=0)],
            {"optimizer": lambda p: nn.SGD(p[2:4], 0.1)},
        ),
        lambda: (
            [nn.Conv(2, 2, 1, rng=0), nn.Conv(2, 2, 1, rng=0)],
            {"optimizer": lambda p: nn.SGD(p[4:6], 0.1)},
        ),
        "optimizer",
    ),
    "momentum": (
        lambda: ([], sgd(lr=0.1, momentum=0.5)),
        lambda: ([], sgd(lr=0.1, momentum=0.9)),
        "optimizer",
    ),
    "augmenter": (
        lambda: ([], {"augment": Noise(0.1)}),
        lambda: ([], {"augment": Noise(0.5)}),
        "augment",
    ),
    "subclassed augmenter": (
        lambda: ([], {"augment": WiderShift(0.5, 1)}),
        lambda: ([], {"augment": WiderShift(0.5, 2)}),
        "augment",
    ),
    "closure": (
        lambda: ([], {"augment": adder(1)}),
        lambda: ([], {"augment": adder(2)}),
        "augment",
    ),
    "default": (
        lambda: ([], {"augment": default(1)}),
        lambda: ([], {"augment": default(2)}),
        "augment",
    ),
    "code": (
        lambda: ([], {"augment": coded("x + 1 - 1")}),
        lambda: ([], {"augment": coded("x - 1 + 1")}),
        "augment",
    ),
    "partial": (
        lambda: ([], {"augment": functools.partial(coded("x"), **{})}),
        lambda: ([], {"augment": functools.partial(coded("x + 0"), **{})}),
        "augment",
    ),
    "method": (
        lambda: ([], {"augment": Noise(0.1).__call__}),
        lambda: ([], {"augment": Noise(0.5).__call__}),
        "augment",
    ),
    "callback": (
        lambda: ([], {"callbacks": [Stepped([0.1, 0.1])]}),
        lambda: ([], {"callbacks": [Stepped([0.1, 0.2])]}),
        "callbacks",
    ),
    "early stopping": (
        lambda: ([], {"early_stopping": nn.EarlyStopping(3)}),
        lambda: ([], {"early_stopping": nn.EarlyStopping(4)}),
        "early_stopping",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_changed_is_seen(path, name):
    before, after, key = OTHERS[name]
    layers, options = before()
    train(path, *layers, **options)
    layers, options = after()
    with pytest.raises(ValueError, match=f"another run: {key} was ") as caught:
        train(path, *layers, resume=True, epochs=2, **options)
    assert len(str(caught.value)) < 300
    assert nn.load_checkpoint(path).epoch == 1


@pytest.mark.parametrize("name", OTHERS)
def test_what_did_not_change_resumes(path, name):
    """New objects, and those of a run before: what a forward pass keeps is no setting."""
    before, _, _ = OTHERS[name]
    layers, options = before()
    train(path, *layers, epochs=1, **options)
    used = {k: v for k, v in options.items() if k != "optimizer"}
    layers, options = before()
    whole, _ = train(None, *layers, epochs=2, **options)
    layers, options = before()
    resumed, _ = train(path, *layers, epochs=2, resume=True, **(options | used))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        np.testing.assert_array_equal(one.value, other.value)


def test_a_used_model_resumes(path):
    """In a notebook the interrupted model itself goes on, with what its layers kept."""
    model = nn.Sequential(
        nn.Conv(1, 2, 3, rng=0), LeakyReLU(0.1), nn.Flatten(), nn.Dense(8, 2, rng=0), ops=reference
    )
    loss, optimizer = Weighted([1, 2]), Clipped(model.parameters(), 0.1, 1.0)
    for epochs in (1, 2, 3):
        options = {"epochs": epochs, "batch_size": 5, "checkpoint": path, "resume": epochs > 1}
        nn.fit(model, loss, optimizer, X, Y, **options)
    whole, _ = train(
        None, LeakyReLU(0.1), epochs=3, loss=Weighted([1, 2]),
        optimizer=lambda p: Clipped(p, 0.1, 1.0),
    )  # fmt: skip
    np.testing.assert_array_equal(model.layers[0].w.value, whole.layers[0].w.value)


def test_callbacks_that_only_look_on_come_and_go(path):
    class Watching:
        def on_epoch_end(self, state):
            self.seen = state.epoch

    train(path, callbacks=[Watching()])
    train(path, epochs=2, resume=True)
    train(path, epochs=3, resume=True, callbacks=[Watching(), Watching()])
    assert nn.load_checkpoint(path).epoch == 3


# What `fastconv.nn.fit` wrote for `killed_run.run` before descriptions were structured.
OLD_SETTINGS = {
    "model": "Sequential(name=None, layers=[{'type': 'Conv', 'channels': 1, 'filters': 2, "
    "'window': (3, 3), 'stride': 1, 'padding': 0, 'dilation': 1, 'groups': 1, 'bias': True, "
    "'activation': None, 'dtype': 'float32'}, {'type': 'BatchNorm', 'channels': 2, "
    "'momentum': 0.9, 'epsilon': 1e-05, 'dtype': 'float32'}, {'type': 'ReLU'}, "
    "{'type': 'Flatten'}, {'type': 'Dropout', 'rate': 0.3, 'seed': 1}, {'type': 'Dense', "
    "'inputs': 8, 'outputs': 2, 'bias': True, 'dtype': 'float32'}])",
    "loss": "SoftmaxCrossEntropy()",
    "optimizer": {
        "type": "Adam",
        "lr": 0.01,
        "betas": [0.9, 0.999],
        "epsilon": 1e-08,
        "weight_decay": 0.01,
    },
    "data": "86c1cd8d6baf9aa56338502ff2fda855",
    "validation": "71ad7148da2639537817986165a87523",
    "batch_size": 4,
    "shuffle": True,
    "seed": 3,
    "augment": None,
    "early_stopping": "EarlyStopping(patience=3, monitor=None, min_delta=0.0, restore_best=True)",
    "callbacks": [["fastconv.nn.history.ExponentialDecay", {"lr": 0.01, "factor": 0.9}]],
}


def as_old(path, **changes):
    found = nn.load_checkpoint(path)
    found.settings = OLD_SETTINGS | changes
    nn.save_checkpoint(path, found)


def test_an_old_checkpoint_resumes(path):
    run(path, epochs=2)
    as_old(path)
    resumed, whole = run(path, resume=True), run()
    for one, other in zip(resumed[0].parameters(), whole[0].parameters(), strict=True):
        np.testing.assert_array_equal(one.value, other.value)
    assert nn.load_checkpoint(path).settings["form"] == 2


def test_an_old_checkpoint_whose_dropout_had_the_default_seed_resumes(path):
    """It was 0 and is None: the generator's state is in the checkpoint, whatever the seed."""
    run(path, epochs=2)
    as_old(path, model=OLD_SETTINGS["model"].replace("'seed': 1", "'seed': 0"))
    run(path, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.5}, "optimizer was lr=0.01, is lr=0.5"),
        ({"batch_size": 6}, "batch_size was 4, is 6"),
        ({"early_stopping": nn.EarlyStopping(5)}, "early_stopping was .*3.*, is .*5"),
        ({"callbacks": [nn.ExponentialDecay(0.1, 0.5)]}, "callbacks was "),
    ],
)
def test_an_old_checkpoint_of_another_run(path, changes, message):
    run(path, epochs=1)
    as_old(path)
    with pytest.raises(ValueError, match=message):
        run(path, resume=True, **changes)


def test_an_old_checkpoint_that_took_nan_for_the_best(path):
    run(path, epochs=1)
    found = nn.load_checkpoint(path)
    found.stopping["best"] = float("nan")
    nn.save_checkpoint(path, found)
    _, _, history = run(path, resume=True)
    assert len(history) == 4
    assert nn.load_checkpoint(path).stopping["best"] > 0


SCRIPT = """
import json, re, functools, numpy as np
from fastconv import nn
from fastconv.nn.describe import describe

WORDS = {"alpha", "beta", "gamma", "delta", "epsilon"}
SCALE = 3

class Own:
    kinds = frozenset(WORDS)
    def __init__(self):
        self.words, self.more = set(WORDS), {w: {w} for w in sorted(WORDS)}
        self.rng, self.old = np.random.default_rng(5), np.random.RandomState(3)
        self.pattern, self.array = re.compile("a+"), np.arange(5)
        self.me, self.dtype = self, np.dtype("f4")
        self.f = functools.partial(lambda x, k=2: x in {"p", "q", "r", "s"}, 1)
        self.layer, self.lock = nn.Dense(2, 2, rng=0), __import__("threading").Lock()
    def __call__(self, x, rng):
        return x * SCALE if x in {"one", "two", "three", "four"} else super().__str__()

print(json.dumps(describe([Own(), Own().__call__, Own])))
"""


def test_one_description_in_every_process():
    found = set()
    for seed in "0", "1", "2":
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(nn.__file__).parents[2])}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1
    text = found.pop()
    assert " at 0x" not in text
    assert json.loads(text)[0]["state"]["array"]["array"] == [5]


SPEED = 2


def uses_a_global(x, rng):
    return x * SPEED


def test_plain_globals_of_a_function_count(monkeypatch):
    before = describe(uses_a_global)
    monkeypatch.setitem(uses_a_global.__globals__, "SPEED", 3)
    assert differences({"augment": before}, {"augment": describe(uses_a_global)}) == [
        "augment was globals.SPEED=2, is globals.SPEED=3"
    ]


def test_code_of_another_python_cannot_be_compared():
    before = {"augment": {"function": "f", "code": "python 3.9 0123"}}
    now = {"augment": {"function": "f", "code": describe(uses_a_global)["code"]}}
    assert not differences(before, now)
    now["augment"]["code"] += "0"
    assert differences({"augment": {"code": describe(uses_a_global)["code"]}}, now)
