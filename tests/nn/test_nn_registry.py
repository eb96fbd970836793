"""`nn.register`: layers of one's own in files, in ONNX, inside and around the project's."""

import numpy as np
import pytest

from fastconv import nn
from fastconv.nn.registry import built, described


@nn.register
class Count(nn.Layer):
    """Adds how often it ran in training."""

    def __init__(self, step=1.0, shape=(2, 3)):
        super().__init__()
        self.step, self.shape = step, shape
        self.w = self.add_parameter("w", np.ones(1, np.float32))
        self.total = self.add_buffer("total", np.zeros(1, np.float32))
        self.runs = self.add_buffer("runs", np.zeros((), np.int64))

    def config(self):
        return {"step": self.step, "shape": self.shape}

    def forward(self, x):
        if self.training:
            self.total += self.step
            self.runs += 1
        return x + self.total

    def backward(self, dy):
        self.w.grad[...] = 0
        return dy


@nn.register
class Twice(nn.Layer):
    """A layer, applied twice over."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def children(self):
        return {"inner": self.inner}

    def config(self):
        return {"inner": described(self.inner)}

    @classmethod
    def from_config(cls, config):
        return cls(built(config["inner"]))

    def forward(self, x):
        return self.inner.forward(self.inner.forward(x))


def test_saved_and_loaded(tmp_path):
    model = nn.Sequential(Count(0.5), Twice(nn.Sequential(Count(2.0, (4, (5, 6))), nn.ReLU())))
    x = np.zeros((2, 3), np.float32)
    for _ in range(3):
        model.forward(x)
    model.layers[0].w = np.full(1, 7, np.float32)
    model.save(tmp_path / "model.npz")
    again = nn.Sequential.load(tmp_path / "model.npz")
    assert again.config() == model.config()
    assert again.layers[1].inner.layers[0].shape == (4, (5, 6))  # lists come back as tuples
    assert again.layers[0].w.value == 7
    assert again.layers[0].runs == 3
    assert again.layers[1].inner.layers[0].total == 12
    assert again.layers[0].total is again.named_buffers()["0.total"]
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@nn.register
class Stack(nn.Sequential):
    """A chain that is made from a number."""

    def __init__(self, depth):
        self.depth = depth
        super().__init__(*(nn.Dense(3, 3, rng=i) for i in range(depth)))

    def config(self):
        return {"depth": self.depth}


def test_a_chain_of_ones_own(tmp_path):
    model = Stack(2)
    model.save(tmp_path / "model.npz")
    again = nn.Sequential.load(tmp_path / "model.npz")
    assert type(again) is Stack
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_a_buffer_is_copied_into_and_predict_leaves_it():
    layer, x = Count(), np.zeros((1, 1), np.float32)
    buffer = layer.total
    layer.total = np.full(1, 4, np.float32)
    assert layer.total is buffer
    nn.Sequential(layer).predict(x)
    assert buffer == 4
    layer.forward(x)
    assert buffer == 5
    for wrong in ([1.0], np.array("a"), np.array([None])):
        with pytest.raises(TypeError, match="value: an array of numbers is needed for 'more'"):
            layer.add_buffer("more", wrong)
    assert "more" not in layer.named_buffers()


def test_what_cannot_be_registered():
    with pytest.raises(TypeError, match=r"register: a class derived from fastconv\.nn\.Layer"):
        nn.register(Count())
    with pytest.raises(TypeError, match="got the class dict"):
        nn.register(dict)
    with pytest.raises(ValueError, match=r"fastconv\.nn\.conv has a layer Conv"):
        nn.register(type("Conv", (nn.Layer,), {"__module__": "mine"}))
    assert isinstance(built(described(nn.Conv(1, 1, 1))), nn.Conv)


def test_a_class_defined_anew_takes_the_place(tmp_path):
    old = nn.register(type("Anew", (nn.ReLU,), {}))
    new = nn.register(type("Anew", (nn.ReLU,), {}))
    nn.Sequential(new()).save(tmp_path / "model.npz")
    assert type(nn.Sequential.load(tmp_path / "model.npz").layers[0]) is new
    with pytest.raises(TypeError, match="can be saved"):
        nn.Sequential(old()).save(tmp_path / "old.npz")


def test_a_subclass_that_is_not_registered_is_not_its_base(tmp_path):
    class Own(nn.ReLU):
        pass

    with pytest.raises(TypeError, match=r"layer 0: .*Own.* can be saved"):
        nn.Sequential(Own()).save(tmp_path / "model.npz")


def add_one(graph, layer, x, path):
    one = graph.constant(f"{path}.one", np.ones(1))
    return x._replace(name=graph.node("Add", [x.name, one], path))


@nn.register(onnx=add_one)
class AddOne(nn.Layer):
    def config(self):
        return {}

    def forward(self, x):
        return x + x.dtype.type(1)


@nn.register
class Named(nn.Conv):
    """A convolution under another name."""


@nn.register
class Halved(nn.ReLU):
    """ReLU with a pass of its own."""

    def forward(self, x):
        return super().forward(x) / 2


def test_exported(tmp_path):
    reference = pytest.importorskip("onnx.reference")
    model = nn.Sequential(Named(2, 3, 3, activation="relu", rng=0), AddOne())
    model.to_onnx(tmp_path / "model.onnx")
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 2)).astype(np.float32)
    (y,) = reference.ReferenceEvaluator(str(tmp_path / "model.onnx")).run(None, {"x": x})
    np.testing.assert_allclose(y, model.predict(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=r"layer model\.1: .*Halved.* has no form in ONNX"):
        nn.Sequential(nn.Conv(1, 1, 1), Halved()).to_onnx(tmp_path / "none.onnx")
    with pytest.raises(TypeError, match=r"layer model\.1: .*Count.* has no form in ONNX"):
        nn.Sequential(nn.Conv(1, 1, 1), Count()).to_onnx(tmp_path / "none.onnx")


def test_shapes_are_told_by_registered_layers():
    writer = pytest.importorskip("fastconv.nn.onnx.writer")

    @nn.register(onnx=add_one, takes=lambda layer: ("m", "H", "W", 5))
    class Five(AddOne):
        pass

    (x,) = writer.to_model(nn.Sequential(Five(), nn.ReLU())).graph.input
    dims = [d.dim_value or d.dim_param for d in x.type.tensor_type.shape.dim]
    assert dims == ["m", "H", "W", 5]


def test_a_resumed_run_sees_that_the_code_of_a_registered_layer_changed(tmp_path):
    x, y = np.zeros((8, 3), np.float32), np.zeros((8, 2), np.float32)

    def train(gradient, resume):
        members = {"forward": lambda self, x: x, "backward": gradient, "config": lambda self: {}}
        kind = nn.register(type("Changed", (nn.Layer,), members))
        model = nn.Sequential(kind(), nn.Dense(3, 2, rng=0))
        rate = nn.SGD(model.parameters(), lr=0.1)
        path = tmp_path / "run.npz"
        options = {"epochs": 2 if resume else 1, "checkpoint": path, "resume": resume}
        nn.fit(model, nn.MeanSquaredError(), rate, x, y, seed=0, **options)

    train(lambda self, dy: dy, False)
    with pytest.raises(ValueError, match="layer 0"):
        train(lambda self, dy: 2 * dy, True)
