"""What `fit`, `predict` and the layers refuse, at once and by the caller's names."""

import functools

import numpy as np
import pytest

import fastconv
from fastconv import nn, reference

X = np.random.default_rng(0).normal(size=(20, 6, 6, 1)).astype(np.float32)
Y = np.arange(20) % 3


def network():
    return nn.Sequential(
        nn.Conv(1, 2, 3, rng=0),
        nn.Residual(nn.Sequential(nn.Conv(2, 2, 3, padding=1, rng=0), nn.ReLU())),
        nn.Flatten(),
        nn.Dense(32, 3, rng=0),
        ops=reference,
    )


def fit(model=None, loss=None, optimizer=None, x=X, y=Y, **options):
    model = network() if model is None else model
    loss = nn.SoftmaxCrossEntropy() if loss is None else loss
    optimizer = nn.SGD(model.parameters(), 0.1) if optimizer is None else optimizer
    return nn.fit(model, loss, optimizer, x, y, **({"epochs": 1, "batch_size": 8} | options))


def refused(kind, pattern, call):
    with pytest.raises(kind, match=pattern) as caught:
        call()
    text = str(caught.value)
    assert len(text) < 300
    assert "layers=[" not in text
    assert not getattr(caught.value, "__notes__", [])


def foreign(package, name):
    """An array of a package that need not be installed: it converts itself when asked."""

    def convert(self, dtype=None, copy=None):
        raise AssertionError(f"{package} was computed")

    return type(name, (), {"__module__": f"{package}.core", "__array__": convert})()


class Tensor:
    """As a torch tensor that requires a gradient."""

    requires_grad = True
    shape, ndim = (20,), 1

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


# Data -------------------------------------------------------------------------------------------

WRONG_X = [
    (X[:, :5], ValueError, r"^x: expected \(m, 32\), got .*, in layer 3 \(Dense\)$"),
    (X[:, :2, :2], ValueError, r"padded input.*in layer 0 \(Conv\)$"),
    (np.repeat(X, 2, 3), ValueError, r"^x: expected \(m, H, W, 1\), got .*in layer 0 \(Conv\)$"),
    (X[..., 0], ValueError, r"^x: expected .*in layer 0 \(Conv\)$"),
    (X.astype(np.float64), TypeError, r"^x: expected dtype float32.*in layer 0 \(Conv\)$"),
    (X.astype(np.uint8), TypeError, "^x: dtype must be float32 or float64, got uint8; scale= m"),
    (X.tolist(), TypeError, "^x: a NumPy array is needed, got list$"),
    (np.ma.masked_array(X), TypeError, "^x: a NumPy array is needed, got MaskedArray"),
    (foreign("dask", "Array"), TypeError, r"^x: .*Array of dask; .*x\.compute\(\)$"),
    (foreign("xarray", "DataArray"), TypeError, r"^x: .*DataArray of xarray"),
    (Tensor(), TypeError, r"^x: .*got Tensor that requires a gradient; x\.detach\(\)\.numpy\(\)"),
]


@pytest.mark.parametrize(("x", "kind", "pattern"), WRONG_X)
def test_images_that_do_not_fit(x, kind, pattern):
    refused(kind, pattern, lambda: network().predict(x))
    if isinstance(x, np.ndarray):
        refused(kind, pattern, lambda: network().forward(x)) if x.dtype == X.dtype else None
    model = network()
    refused(kind, pattern, lambda: fit(model, x=x))
    refused(kind, pattern, lambda: nn.evaluate(network(), nn.SoftmaxCrossEntropy(), x, Y))


def late(y, value):
    y = np.array(y)
    y[-1] = value
    return y


ROWS = np.eye(3)[Y]
WRONG_Y = [
    (nn.SoftmaxCrossEntropy, late(Y, 3), ValueError, r"labels must be in 0 \.\. 2, got 0 \.\. 3"),
    (nn.SoftmaxCrossEntropy, late(Y, -1), ValueError, r"labels must be in 0 \.\. 2, got -1"),
    (nn.SoftmaxCrossEntropy, Y[:7], ValueError, r"expected 20 labels, one per image, got \(7,\)"),
    (nn.SoftmaxCrossEntropy, ROWS[:, :2], ValueError, r"expected \(20,\) labels"),
    (nn.SoftmaxCrossEntropy, late(ROWS, 1.5), ValueError, r"soft labels must be in 0 \.\. 1"),
    (nn.SoftmaxCrossEntropy, ROWS / 2, ValueError, "soft labels of an image must add up to 1"),
    (nn.SoftmaxCrossEntropy, Y * 1.0, TypeError, "integer labels are needed, got float64"),
    (nn.SoftmaxCrossEntropy, Y.astype(str), TypeError, "integer labels are needed"),
    (nn.SoftmaxCrossEntropy, 3, ValueError, "expected 20 labels"),
    (nn.SoftmaxCrossEntropy, [[1], [2, 3]] * 10, TypeError, "no NumPy array can be made"),
    (nn.SoftmaxCrossEntropy, foreign("dask", "Array"), TypeError, "Array of dask"),
    (nn.SoftmaxCrossEntropy, foreign("xarray", "DataArray"), TypeError, "DataArray of xarray"),
    (nn.SoftmaxCrossEntropy, Tensor(), TypeError, "requires grad"),
    (nn.BinaryCrossEntropy, late(ROWS, 1.5), ValueError, r"labels must be in 0 \.\. 1"),
    (nn.BinaryCrossEntropy, late(ROWS, np.nan), ValueError, r"labels must be in 0 \.\. 1"),
    (nn.BinaryCrossEntropy, Y, ValueError, "expected the shape of z"),
    (nn.MeanSquaredError, ROWS[:, :2], ValueError, "expected the shape of z"),
    (nn.MeanSquaredError, ROWS.astype(str), TypeError, "numbers are needed"),
]


@pytest.mark.parametrize(("loss", "y", "kind", "text"), WRONG_Y)
@pytest.mark.parametrize("name", ["y", "validation"])
def test_labels_that_do_not_fit_are_found_before_the_first_step(
    loss, y, kind, text, name, tmp_path
):
    model = network()
    before = [p.value.copy() for p in model.parameters()]
    good = Y if loss is nn.SoftmaxCrossEntropy else ROWS
    options = {"y": y} if name == "y" else {"y": good, "validation": (X, y)}
    options |= {"epochs": 3, "checkpoint": tmp_path / "run.npz"}
    refused(kind, f"^{name}.*: .*{text}", lambda: fit(model, loss(), **options))
    for value, parameter in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(parameter.value, value)
    assert not (tmp_path / "run.npz").exists()
    if name == "y":  # shuffled or changed, the label is found as early
        refused(kind, text, lambda: fit(loss=loss(), augment=lambda x, rng: x, **options))


@pytest.mark.parametrize(("x", "kind", "pattern"), WRONG_X)
def test_validation_images_that_do_not_fit(x, kind, pattern):
    inner = pattern.removeprefix("^x").removeprefix("^")
    refused(kind, f"^validation.*{inner}", lambda: fit(validation=(x, Y)))


@pytest.mark.parametrize("validation", [X, (X,), (X, Y, Y), {"x": X, "y": Y}, "xy "])
def test_validation_that_is_no_pair(validation):
    refused(ValueError, "^validation: a pair", lambda: fit(validation=validation))


def test_validation_by_a_loss_of_ones_own():
    class Own(nn.SoftmaxCrossEntropy):
        def forward(self, z, y):
            return super().forward(z, np.asarray(y) - 1)

    fit(loss=Own(), y=Y + 1, validation=(X, Y + 1))
    refused(ValueError, "^validation: ", lambda: fit(loss=Own(), y=Y + 1, validation=(X, Y)))


def test_a_loss_with_other_labels_than_the_one_it_derives_from():
    class Soft(nn.SoftmaxCrossEntropy):
        def forward(self, z, y):
            self._dz = (self.predict(z) - y).astype(z.dtype) / z.dtype.type(len(z))
            return float(-(y * np.log(self.predict(z))).sum() / len(z))

        def correct(self, z, y):
            return None

    assert len(fit(loss=Soft(), y=ROWS, validation=(X, ROWS))) == 1


def test_augment_may_change_the_size():
    wide = np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0)))
    fit(x=wide, augment=lambda x, rng: x[:, 1:-1, 1:-1])
    refused(
        ValueError,
        r"in layer 3 \(Dense\)$",
        lambda: fit(x=wide, augment=lambda x, rng: x[:, 1:-2, 1:-2]),
    )


# Objects ----------------------------------------------------------------------------------------


class Named:
    """A callback with one method, of a given name."""

    def __new__(cls, name, method=lambda self, state: None):
        return type("Mine", (), {name: method})()


CALLBACKS = [
    ([print], "the function print"),
    ([lambda state: None], "the function <lambda>"),
    ([functools.partial(print)], "functools.partial"),
    (["on_epoch_end"], "'on_epoch_end'"),
    ([None], "None"),
    ([nn.ExponentialDecay], r"class ExponentialDecay; write ExponentialDecay\(\)"),
    ([nn.EarlyStopping(3)], "EarlyStopping.*; it goes to early_stopping=$"),
    ([nn.SoftmaxCrossEntropy()], "SoftmaxCrossEntropy.*; it goes to loss=$"),
    ([nn.SGD(network().parameters())], "got SGD.*; it goes to optimizer=$"),
    ([network()], "got an object of Sequential; it goes to model=$"),
    ([nn.History()], "History"),
    ([Named("begin")], "got an object of Mine$"),
    ([object()], "got an object of object$"),
    ([np], "module"),
    ([np.random.default_rng(0)], "Generator"),
    ([frozenset()], "frozenset"),
    ([Named("on_epoch_ends")], "has on_epoch_ends, .*did you mean on_epoch_end"),
    ([Named("onEpochEnd")], "did you mean on_epoch_end"),
    ([Named("on_epoch_start")], "did you mean on_epoch"),
    ([Named("on_train_begin")], "did you mean on_fit_begin"),
    ([Named("on_batch_ended")], "did you mean on_batch_end"),
    ([Named("epoch_end")], "did you mean on_epoch_end"),
    ([Named("on_epoch_end", 3)], "Mine.on_epoch_end must be a method, got 3"),
    ([Named("on_epoch_end", lambda self: None)], "must take the state alone"),
    ([Named("on_epoch_end", lambda self, a, b: None)], "must take the state alone"),
    (Named("on_epoch_end"), r"a list is needed, as in \[callback\]; got an object of Mine"),
    (nn.ExponentialDecay(0.1, 0.5), "a list is needed"),
    (nn.ExponentialDecay, "a list is needed.*class ExponentialDecay"),
    (None, "a list is needed"),
    (print, "a list is needed"),
]


@pytest.mark.parametrize(("callbacks", "pattern"), CALLBACKS)
def test_callbacks(callbacks, pattern):
    refused(TypeError, f"^callbacks: .*{pattern}", lambda: fit(callbacks=callbacks))


def test_callbacks_that_are_right():
    class Both:
        def on_epoch_end(self, state, *more, scale=1):
            pass

        def report(self):
            pass

        def begin(self):
            pass

    fit(callbacks=(Both(), Both()))
    fit(callbacks=iter([Both()]))


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"loss": nn.SoftmaxCrossEntropy}, r"^loss: .*write SoftmaxCrossEntropy\(\)"),
        ({"loss": "mse"}, "^loss: .*'mse'"),
        ({"loss": lambda z, y: 0.0}, "^loss: .*function"),
        ({"optimizer": "adam"}, r"^optimizer: .*nn\.Adam\(model\.parameters\(\)\).*'adam'"),
        ({"optimizer": nn.Adam}, r"^optimizer: .*Adam\(model\.parameters\(\)\)"),
        ({"augment": 3}, "^augment: "),
        ({"augment": np.random.Generator}, "^augment: .*class Generator"),
        ({"early_stopping": nn.EarlyStopping}, r"^early_stopping: .*EarlyStopping\(\)"),
        ({"early_stopping": "3"}, "^early_stopping: .*'3'"),
    ],
)
def test_objects_of_another_kind(options, pattern):
    refused(TypeError, pattern, lambda: fit(**options))


@pytest.mark.parametrize("model", [nn.Sequential, "digits_cnn", [nn.ReLU()], None, nn.ReLU])
def test_models_of_another_kind(model):
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.SGD(network().parameters())
    refused(TypeError, "^model: ", lambda: nn.fit(model, loss, optimizer, X, Y))
    refused(TypeError, "^model: ", lambda: nn.evaluate(model, loss, X, Y))


@pytest.mark.parametrize("ops", [None, reference])
@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        ({"model": nn.Sequential}, "^model: .*class Sequential"),
        ({"model": "digits_cnn"}, "^model: .*'digits_cnn'"),
        ({"model": [nn.ReLU()]}, r"^model: .*nn\.Sequential\(\.\.\.\)$"),
        ({"loss": nn.SoftmaxCrossEntropy}, r"^loss: .*write SoftmaxCrossEntropy\(\)"),
        ({"loss": nn.Adam}, r"^loss: .*nn\.SoftmaxCrossEntropy\(\) is needed, got the class Adam"),
        ({"loss": "mse"}, "^loss: .*'mse'"),
        ({"loss": None}, "^loss: .*None"),
        ({"loss": nn.SGD(network().parameters())}, "^loss: .*got SGD"),
        ({"optimizer": nn.Adam}, r"^optimizer: .*write Adam\(model\.parameters\(\)\)"),
        ({"optimizer": "adam"}, r"^optimizer: .*nn\.Adam\(model\.parameters\(\)\).*'adam'"),
        ({"optimizer": None}, "^optimizer: .*None"),
        ({"optimizer": nn.MeanSquaredError}, "^optimizer: .*such as nn.Adam.*MeanSquaredError"),
        ({"optimizer": nn.MeanSquaredError()}, "^optimizer: .*MeanSquaredError"),
    ],
)
def test_a_step_of_other_objects(wrong, pattern, ops):
    model = network()
    model.ops = ops or fastconv
    optimizer = nn.SGD(model.parameters())
    given = {"model": model, "loss": nn.SoftmaxCrossEntropy(), "optimizer": optimizer} | wrong
    refused(TypeError, pattern, lambda: nn.train_step(**given, x=X, y=Y))
    refused(TypeError, pattern, lambda: nn.train_step(**given, x=X.tolist(), y=Y))
    refused(TypeError, pattern, lambda: nn.plan_step(**given, x_shape=X.shape))
    refused(TypeError, pattern, lambda: nn.fit(**given, x=X, y=Y))


def test_optimizers_take_parameters():
    refused(TypeError, r"^parameters: model\.parameters\(\)", lambda: nn.Adam(network()))
    refused(TypeError, "^parameters: ", lambda: nn.Adam([network()]))
    refused(TypeError, "^parameters: ", lambda: nn.Adam(3))


# Errors inside a network --------------------------------------------------------------------------


class Failing(nn.Layer):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


def test_paths_grow_from_the_inside_out():
    def nested(layer):
        return nn.Sequential(nn.ReLU(), nn.Residual(nn.ReLU(), nn.Sequential(layer)))

    with pytest.raises(ValueError, match=r"^too bad, in layer 1\.shortcut\.0 \(Failing\)$"):
        nested(Failing(ValueError("too bad"))).forward(X)
    error = KeyError("k", 3)
    with pytest.raises(KeyError) as caught:
        nested(Failing(error)).forward(X)
    assert caught.value.args == ("k", 3)
    assert caught.value.__notes__ == ["in layer 0 (Failing)"]
    refused(
        ValueError,
        "^x{9}.*in layer 1.shortcut.0",
        lambda: nested(Failing(ValueError("x" * 999))).predict(X),
    )


def test_an_output_that_is_no_array():
    class Nothing(nn.Layer):
        def forward(self, x):
            return None

    model = nn.Sequential(nn.ReLU(), Nothing())
    refused(TypeError, r"None, .*no array, in layer 1 \(Nothing\)", lambda: model.forward(X))


def test_errors_of_backward_name_the_layer():
    model = network()
    refused(
        ValueError,
        r"^backward was called before forward, in layer 3 \(Dense\)$",
        lambda: model.backward(np.zeros((1, 3), np.float32)),
    )
    model.forward(X)
    for call in (model.backward, model.backward_parameters, model.deltas):
        refused(
            ValueError,
            r"^dy: expected the shape of y, \(20, 3\), got \(1, 3\), in layer 3 \(Dense\)$",
            lambda call=call: call(np.zeros((1, 3), np.float32)),
        )


def test_a_residual_names_its_ways():
    block = nn.Residual(nn.Conv(1, 1, 3, rng=0))
    refused(ValueError, r"^body: .* in Residual$", lambda: block.forward(X))
    refused(ValueError, r"in layer 0 \(Residual\)$", lambda: nn.Sequential(block).predict(X))
    other = nn.Residual(nn.Conv(3, 1, 3, rng=0))
    refused(ValueError, r"in layer body \(Conv\)$", lambda: other.forward(X))


# Assigning --------------------------------------------------------------------------------------


def containers():
    def conv():
        return nn.Conv(1, 1, 1, rng=0)

    class Own(nn.Layer):
        def __init__(self):
            super().__init__()
            self.inner = conv()

    return {
        "body": nn.Residual(conv(), conv()),
        "shortcut": nn.Residual(conv()),
        "layers": nn.Sequential(conv(), nn.ReLU()),
        "branches": nn.Concat(conv(), conv()),
        "inner": Own(),
    }


NO_LAYERS = [X, "relu", nn.ReLU, nn.Parameter(X, "w"), 3, X.tolist(), {"0": nn.ReLU()}, len]


@pytest.mark.parametrize("name", containers())
@pytest.mark.parametrize("value", NO_LAYERS, ids=lambda v: type(v).__name__)
def test_what_is_no_layer_is_not_assigned(name, value):
    block = containers()[name]
    before = getattr(block, name)
    refused(TypeError, f"^{name}: .*layers?.* got ", lambda: setattr(block, name, value))
    assert getattr(block, name) is before


@pytest.mark.parametrize("name", ["layers", "branches"])
def test_layers_that_are_not_assigned(name):
    block, relu = containers()[name], nn.ReLU()
    for value in (None, relu, (relu, X), [relu, None], (relu, nn.ReLU)):
        refused(TypeError, f"^{name}: ", lambda value=value: setattr(block, name, value))
    refused(ValueError, f"^{name}: at least one layer", lambda: setattr(block, name, ()))
    refused(TypeError, "^body: ", lambda: setattr(containers()["body"], "body", None))


def test_layers_that_are_assigned():
    found = containers()
    for name in ("body", "shortcut", "inner"):
        setattr(found[name], name, relu := nn.ReLU())
        assert getattr(found[name], name) is relu
    for name in ("shortcut", "inner"):
        setattr(found[name], name, None)
    for name in ("layers", "branches"):
        setattr(found[name], name, [relu, nn.Sigmoid()])
        assert isinstance(getattr(found[name], name), tuple)
        assert found[name].children()["0"] is relu


def test_items_are_not_assigned():
    model = network()
    with pytest.raises(TypeError, match="'Sequential' object does not support item assignment"):
        model[1] = X
    for name in ("insert", "append", "extend"):
        with pytest.raises(AttributeError, match=f"has no {name}; here: .*layers"):
            getattr(model, name)


def test_assigning_copies_into_the_parameter():
    layer = nn.Conv(1, 2, 3, rng=0)
    parameter, value = layer.w, layer.w.value
    new = np.ones((3, 3, 1, 2), np.float32)
    layer.w = new
    assert layer.w is parameter
    assert layer.w.value is value
    np.testing.assert_array_equal(value, new)
    new[...] = 2
    assert (value == 1).all()
    layer.w.value = new
    layer.w.value -= 1
    assert layer.w.value is value
    assert (value == 1).all()
    layer.w.grad = new
    assert (layer.w.grad == 2).all()
    layer.forward(X)


def test_assigning_copies_into_buffers():
    layer = nn.BatchNorm(2)
    buffer = layer.running_mean
    layer.running_mean = np.array([1, 2], np.float32)
    layer.running_mean += 1
    assert layer.running_mean is buffer is layer.named_buffers()["running_mean"]
    assert buffer.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("build", "name", "value", "kind", "text"),
    [
        (lambda: nn.Conv(1, 2, 3), "w", np.ones((3, 3, 2, 1), np.float32), ValueError, "shape"),
        (lambda: nn.Conv(1, 2, 3), "w", np.ones((3, 3, 1, 2)), TypeError, "dtype float32"),
        (lambda: nn.Conv(1, 2, 3), "w", 1.0, ValueError, "shape"),
        (lambda: nn.Conv(1, 2, 3), "w", None, TypeError, "None"),
        (lambda: nn.Conv(1, 2, 3), "b", None, TypeError, "None"),
        (lambda: nn.Dense(1, 2), "w", nn.Parameter(np.ones((1, 2)), "w"), TypeError, "Parameter"),
        (lambda: nn.Dense(1, 2, bias=False), "b", np.ones(2, np.float32), TypeError, "without it"),
        (lambda: nn.Conv(1, 2, 3, bias=False), "b", [0, 0], TypeError, "without it"),
        (lambda: nn.BatchNorm(2), "running_mean", np.ones(3, np.float32), ValueError, "shape"),
        (lambda: nn.BatchNorm(2), "running_variance", np.ones(2), TypeError, "dtype"),
        (lambda: nn.BatchNorm(2), "running_mean", None, TypeError, "None"),
        (lambda: nn.Dense(1, 2).w, "value", np.ones((2, 1), np.float32), ValueError, "shape"),
        (lambda: nn.Dense(1, 2).w, "grad", np.ones((1, 2)), TypeError, "dtype"),
        (lambda: nn.Dense(1, 2), "w", Tensor(), TypeError, "requires grad"),
        (lambda: nn.Dense(1, 2), "w", foreign("dask", "Array"), TypeError, "dask"),
    ],
)
def test_assigning_what_does_not_fit(build, name, value, kind, text):
    holder = build()
    before = getattr(holder, name)
    refused(kind, f"^(w.)?{name}: .*{text}", lambda: setattr(holder, name, value))
    assert getattr(holder, name) is before


def test_parameters_of_a_users_layer_under_another_name():
    class Own(nn.Layer):
        def __init__(self):
            super().__init__()
            self.kernel = self.add_parameter("w", np.zeros(2))

    layer = Own()
    layer.kernel = np.ones(2)
    assert layer.named_parameters()["w"].value.tolist() == [1, 1]
    refused(ValueError, "^kernel: ", lambda: setattr(layer, "kernel", np.ones(3)))
    layer.kernel = layer.add_parameter("w", np.zeros(5))  # made anew by the layer itself
    assert layer.kernel.shape == (5,)


# History ----------------------------------------------------------------------------------------


def test_history_is_a_table():
    history = fit(epochs=3)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert list(history) == history.epochs
    assert history[-1] == history.epochs[2]
    assert history["epoch"] == [1, 2, 3]
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(history)
    assert list(table.columns) == list(history.epochs[0])
    assert table["loss"].tolist() == history["loss"]


# Resume -----------------------------------------------------------------------------------------


def test_a_resume_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "run.npz"
    fit(checkpoint=path)
    found = nn.load_checkpoint(path)
    found.random["fit"] = {"bit_generator": "PCG64", "state": 3}
    nn.save_checkpoint(path, found)
    model = network()
    optimizer = nn.SGD(model.parameters(), 0.1)
    model.layers[0].b.value += 1
    optimizer.lr = 0.7
    before = [p.value.copy() for p in model.parameters()]
    refused(
        ValueError,
        "random state 'fit'",
        lambda: fit(model, optimizer=optimizer, checkpoint=path, resume=True),
    )
    for value, parameter in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(parameter.value, value)
    assert optimizer.lr == 0.7


def test_a_resume_of_a_large_network_says_it_in_one_line(tmp_path):
    path = tmp_path / "run.npz"

    def deep(n):
        layers = [nn.Conv(1, 1, 1, rng=0) for _ in range(30)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Dense(36, n, rng=0), ops=reference)

    fit(deep(3), checkpoint=path)
    refused(
        ValueError,
        r"model was layer 31 \(Dense\)\.outputs=3, is layer 31 \(Dense\)\.outputs=4$",
        lambda: fit(deep(4), checkpoint=path, resume=True),
    )


def test_an_optimizers_state_of_another_kind_is_named_shortly():
    optimizer = nn.Adam(network().parameters())
    refused(ValueError, "^state: expected the entries", lambda: optimizer.load_state({"lr": 1}))
