"""Inference touches nothing: predict, evaluate, to_onnx, summary and infer."""

import copy
import threading

import numpy as np
import pytest
from strategies import integers

from fastconv import nn, reference

X = np.random.default_rng(0).normal(1.0, 2.0, (64, 8, 8, 1)).astype(np.float32)
Y = np.arange(64) % 10


class Own(nn.Layer):
    """A user's layer that has only `forward`, which keeps things and counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls, self.seen = 0, []
        self.steps = self._buffers["steps"] = np.zeros(1)
        self.rng = np.random.default_rng(3)

    def forward(self, x):
        self.calls += 1
        self.seen.append(x.shape)
        self.steps += 1
        self.x = x
        noise = self.rng.normal(size=x.shape).astype(x.dtype)
        return x + noise if self.training else x * 2


class Around(nn.Layer):
    """A user's container: two layers in a dictionary and a list, one of them not named a child."""

    def __init__(self, first, second):
        super().__init__()
        self.parts = {"first": first}
        self.others = [[second]]

    def children(self):
        return self.parts

    def forward(self, x):
        return self.others[0][0].forward(self.parts["first"].forward(x))


class Slotted(nn.Layer):
    """A layer with a slot."""

    __slots__ = ("factor",)

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * x.dtype.type(self.factor)


def network(ops=None):
    return nn.Sequential(
        nn.BatchNorm(1),
        nn.Residual(
            nn.Sequential(nn.Conv(1, 2, 3, padding=1, rng=0), nn.BatchNorm(2), nn.Dropout(0.5)),
            nn.Conv(1, 2, 1, rng=1),
        ),
        Own(),
        Around(nn.BatchNorm(2), nn.Sequential(nn.Dropout(0.3), Own())),
        Slotted(2.0),
        nn.MaxPool(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Dense(32, 10, rng=2),
        ops=ops,
    )


def everything(model):
    """All that a layer holds, by identity, and the contents of arrays and generators.

    But for the programs, which are kept for the next call, and of which copies know nothing.
    """
    found = []
    hidden = list(model.layers[3].others[0][0].walk())
    for path, layer in [*model.walk(), *hidden]:
        for name, value in sorted(vars(layer).items()):
            if name == "_programs":
                continue
            array = value.tobytes() if isinstance(value, np.ndarray) else None
            state = getattr(getattr(value, "bit_generator", None), "state", None)
            size = len(value) if isinstance(value, (list, dict)) else None
            found.append((path, name, id(value), array, str(state), size))
        found += [(path, n, a.tobytes()) for n, a in layer._buffers.items()]
        found += [(path, n, str(g.bit_generator.state)) for n, g in layer._generators.items()]
        found += [
            (path, n, p.value.tobytes(), p.grad.tobytes()) for n, p in layer._parameters.items()
        ]
    return found


def trained():
    """A network after a training step: caches, statistics and random states are not fresh."""
    model = network()
    z = model.forward(X[:7])
    model.layers[8].backward(np.ones_like(z))
    return model


def evaluated(model, x):
    """What inference should give, by switching the modes of a model that is thrown away."""
    for _, layer in [*model.walk(), *model.layers[3].others[0][0].walk()]:
        layer.training = False
    return model.forward(x)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, path: model.predict(X, batch_size=3),
        lambda model, path: model.infer(X),
        lambda model, path: nn.evaluate(model, nn.SoftmaxCrossEntropy(), X, Y, 16),
        lambda model, path: model.summary((8, 8, 1)),
        lambda model, path: [layer.infer(X) for layer in model.layers[:2]],
    ],
    ids=["predict", "infer", "evaluate", "summary", "layers"],
)
def test_nothing_changes(call, tmp_path):
    model = trained()
    before = everything(model)
    call(model, tmp_path / "model.onnx")
    assert everything(model) == before
    # ... and backward still belongs to the last forward.
    assert model.layers[7].backward(np.ones((7, 32), np.float32)).shape == (7, 32)


def test_export_changes_nothing(tmp_path):
    pytest.importorskip("onnx")
    model = nn.Sequential(nn.Conv(1, 2, 3, rng=0), nn.BatchNorm(2), nn.Dropout(0.5), nn.Flatten())
    model.forward(X)
    before = [(path, dict(vars(layer))) for path, layer in model.walk()]
    statistics = model.layers[1].running_mean.copy()
    model.to_onnx(tmp_path / "model.onnx", input_shape=(8, 8, 1))
    after = [(path, dict(vars(layer))) for path, layer in model.walk()]
    for (_, one), (_, other) in zip(before, after, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name] is other[name] for name in one)
    np.testing.assert_array_equal(model.layers[1].running_mean, statistics)


def test_it_gives_what_evaluation_mode_gives():
    model = trained()
    expected = evaluated(copy.deepcopy(model), X)
    np.testing.assert_array_equal(model.predict(X), expected)
    np.testing.assert_array_equal(model.predict(X, batch_size=5), expected)
    np.testing.assert_array_equal(model.infer(X), expected)
    assert model.training


def test_threads_predict_at_once():
    model = network()
    rows = np.concatenate([X] * 4)
    expected = model.predict(rows, batch_size=1)
    before = everything(model)
    results = [None] * 4

    def predict(i):
        results[i] = model.predict(rows, batch_size=1)

    threads = [threading.Thread(target=predict, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in results:
        np.testing.assert_array_equal(found, expected)
    assert everything(model) == before


def test_predicting_and_evaluating_beside_training_changes_no_bit():
    def train(beside):
        model = nn.Sequential(
            nn.BatchNorm(1), nn.Conv(1, 2, 3, rng=0), nn.Flatten(), nn.Dropout(0.3),
            nn.Dense(72, 10, rng=0),
        )  # fmt: skip
        loss, stop, faults = nn.SoftmaxCrossEntropy(), threading.Event(), []

        def look():
            try:
                while not stop.is_set():
                    model.predict(X, batch_size=7)
                    nn.evaluate(model, loss, X, Y)
                    model.summary((8, 8, 1))
            except Exception as error:
                faults.append(error)

        threads = [threading.Thread(target=look) for _ in range(2 * beside)]
        for thread in threads:
            thread.start()
        optimizer = nn.SGD(model.parameters(), 0.05)
        nn.fit(model, loss, optimizer, X, Y, epochs=15, batch_size=8, validation=(X, Y))
        stop.set()
        for thread in threads:
            thread.join()
        assert not faults
        arrays = [p.value for p in model.parameters()] + list(model.named_buffers().values())
        return [array.tobytes() for array in arrays]

    assert train(True) == train(False)


def test_an_own_infer_is_called_inside_containers():
    class Twice(nn.Layer):
        def forward(self, x):
            raise AssertionError("forward is for training")

        def infer(self, x):
            return x * 2

    class Other(Twice):
        def forward(self, x):  # leaves the inherited infer behind
            return x * 3

    x = integers(0, 2, 3)
    for layer, factor in ((Twice(), 2), (Other(), 3)):
        nested = nn.Sequential(nn.Residual(nn.Sequential(layer)))
        np.testing.assert_array_equal(nested.predict(x), x * (1 + factor))
        np.testing.assert_array_equal(nn.Sequential(layer).infer(x), x * factor)
    np.testing.assert_array_equal(Twice().infer(x), x * 2)


def test_a_subclass_of_a_container_keeps_its_forward():
    class Scaled(nn.Sequential):
        def forward(self, x):
            return super().forward(x) * 10

    x = integers(0, 2, 3)
    np.testing.assert_array_equal(Scaled(nn.ReLU()).predict(x), np.maximum(x, 0) * 10)
    nested = nn.Sequential(Scaled(nn.Dropout(0.9)), nn.ReLU())
    np.testing.assert_array_equal(nested.predict(x), np.maximum(x, 0) * 10)


def test_inference_runs_on_the_models_ops():
    used = []

    class Ops:
        def __getattr__(self, name):
            used.append(name)
            return getattr(reference, name)

    network(Ops()).predict(X[:2])
    assert {"conv", "max_pool"} <= set(used)


def test_predict_sees_weights_of_now():
    model = nn.Sequential(nn.Flatten(), nn.Dense(64, 3, init="zeros"))
    assert not model.predict(X).any()
    model.layers[1].w.value += 1
    assert model.predict(X).any()


@pytest.mark.parametrize("layer", [nn.Residual(nn.ReLU()), nn.ReLU()])
def test_evaluate_takes_any_layer(layer):
    z = integers(0, 6, 4, high=5)
    value, accuracy = nn.evaluate(layer, nn.SoftmaxCrossEntropy(), z, np.arange(6) % 4, 2)
    assert np.isfinite(value)
    assert 0 <= accuracy <= 1


def test_evaluate_names_what_does_not_fit():
    model = nn.Sequential(nn.Flatten(), nn.Dense(64, 10, rng=0))
    loss = nn.SoftmaxCrossEntropy()
    with pytest.raises(ValueError, match=r"^x: expected \(m, \.\.\.\) with m of at least 1"):
        nn.evaluate(model, loss, X[:0], Y[:0])
    with pytest.raises(ValueError, match=r"^y: expected 64 labels"):
        nn.evaluate(model, loss, X, Y[:3])
    with pytest.raises(TypeError, match=r"^loss: .*SoftmaxCrossEntropy\(\)"):
        nn.evaluate(model, nn.SoftmaxCrossEntropy, X, Y)
