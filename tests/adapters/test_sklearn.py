"""The estimators: scikit-learn's own checks, and what they do not look at."""

from __future__ import annotations

import pickle
import re

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastconv as fc
from fastconv import nn
from fastconv.examples import digits_cnn
from fastconv.sklearn import CNNClassifier, CNNRegressor


def failing(estimator):
    """The only check that may fail, and why."""
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "batches: an image of weight 2 is in one of them, an image that is there twice may be "
            "in two; and float32 sums differ by more than 1e-7"
        )
    }


@pytest.mark.filterwarnings("ignore:X. .* features are no square:UserWarning")
@parametrize_with_checks([CNNClassifier(), CNNRegressor()], expected_failed_checks=failing)
def test_scikit_learns_checks(estimator, check):
    """All but the one that is declared."""
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


@pytest.fixture(scope="module")
def fitted(digits):
    X, y = digits
    return CNNClassifier(max_iter=10, random_state=0).fit(X[:1200], y[:1200])


def test_digits(fitted, digits):
    X, y = digits
    assert fitted.score(X[1200:], y[1200:]) > 0.92  # MLPClassifier after 200 epochs: 0.925
    proba = fitted.predict_proba(X[1200:])
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_array_equal(fitted.classes_[proba.argmax(axis=1)], fitted.predict(X[1200:]))
    assert fitted.image_shape_ == (8, 8, 1)
    assert fitted.n_iter_ == len(fitted.history_) == 10
    assert fitted.history_["loss"][-1] == fitted.loss_ < 0.3 * fitted.history_["loss"][0]


@pytest.mark.parametrize("threads", [1, 2])
def test_results_do_not_depend_on_the_batch(fitted, digits, threads):
    """Bit for bit, through convolutions, dense layers and softmax; 600 rows are three batches."""
    X = digits[0]
    whole = fitted.predict_proba(X[:600])
    with fc.num_threads(threads):
        for n in (1, 2, 3, 5, 17, 256, 257):
            np.testing.assert_array_equal(fitted.predict_proba(X[:n]), whole[:n])
        for i in (0, 1, 255, 256, 599):
            np.testing.assert_array_equal(fitted.predict_proba(X[i : i + 1]), whole[i : i + 1])
        order = np.random.default_rng(0).permutation(600)
        np.testing.assert_array_equal(fitted.predict_proba(X[order]), whole[order])


def test_a_random_state_decides_everything(digits):
    X, y = digits[0][:200], digits[1][:200]
    models = [
        CNNClassifier(max_iter=2, random_state=state, early_stopping=True).fit(X, y)
        for state in (3, 3, np.random.RandomState(3), 4)
    ]
    proba = [model.predict_proba(X) for model in models]
    np.testing.assert_array_equal(proba[0], proba[1])
    np.testing.assert_array_equal(proba[0], proba[2])
    assert not np.array_equal(proba[0], proba[3])


def test_pickle_and_joblib(fitted, digits, tmp_path):
    X = digits[0][:50]
    expected = fitted.predict_proba(X)
    joblib.dump(fitted, tmp_path / "model.joblib")
    for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(copy.predict_proba(X), expected)
    fitted.predict(digits[0])  # the network has seen a large batch since
    assert len(pickle.dumps(fitted)) < 300_000


def test_a_pickled_model_goes_on_training_as_the_original_does(digits):
    X, y = digits[0][:100], digits[1][:100]
    model = CNNClassifier(random_state=0).partial_fit(X, y)
    copy = pickle.loads(pickle.dumps(model))
    for each in (model, copy):
        each.partial_fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), copy.predict_proba(X))


def test_partial_fit(digits):
    X, y = digits[0][:400], digits[1][:400]
    model = CNNClassifier(random_state=0)
    for _ in range(6):
        for part in range(0, 400, 100):
            rows = slice(part, part + 100)
            assert model.partial_fit(X[rows], y[rows], classes=np.arange(10)) is model
    assert model.score(X, y) > 0.9
    assert model.n_iter_ == 24
    assert model.history_["epoch"] == list(range(1, 25))
    with pytest.raises(ValueError, match="y holds labels that are not in classes"):
        model.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match="is not what it was before"):
        model.partial_fit(X, y, classes=np.arange(11))


def test_early_stopping(digits):
    X, y = digits[0][:400], digits[1][:400]
    model = CNNClassifier(
        max_iter=100, early_stopping=True, n_iter_no_change=2, learning_rate_init=0.01,
        random_state=0,
    ).fit(X, y)  # fmt: skip
    losses = model.history_["val_loss"]
    assert 3 <= model.n_iter_ < 100
    assert min(losses[:-2]) < min(losses[-2:]) + model.tol
    assert all(row["val_accuracy"] is not None for row in model.history_.epochs)
    assert CNNClassifier(max_iter=1).fit(X, y).history_["val_loss"] == [None]


def test_a_pipeline_in_a_grid_search_of_two_processes(digits):
    X, y = digits[0][:300] * 16, digits[1][:300]
    pipeline = make_pipeline(MinMaxScaler(), CNNClassifier(max_iter=8, random_state=0))
    search = GridSearchCV(pipeline, {"cnnclassifier__filters": [(4,), (8, 16)]}, n_jobs=2, cv=2)
    search.fit(X, y)
    assert search.best_score_ > 0.75
    assert clone(search.best_estimator_).fit(X, y).score(X, y) > 0.9


@pytest.mark.filterwarnings("ignore:X. 10 features are no square:UserWarning")
@pytest.mark.parametrize(
    ("X_shape", "asked", "expected"),
    [
        ((6, 9), None, (3, 3, 1)),
        ((6, 10), None, (1, 10, 1)),
        ((6, 12), (2, 6), (2, 6, 1)),
        ((6, 12), (2, 2, 3), (2, 2, 3)),
        ((6, 4, 5), None, (4, 5, 1)),
        ((6, 4, 5, 3), None, (4, 5, 3)),
        ((6, 4, 5, 3), (4, 5, 3), (4, 5, 3)),
    ],
)
def test_image_shapes(X_shape, asked, expected):
    X = np.random.default_rng(0).normal(size=X_shape)
    model = CNNClassifier(image_shape=asked, max_iter=1, random_state=0).fit(X, [0, 1] * 3)
    assert model.image_shape_ == expected
    assert model.n_features_in_ == np.prod(X_shape[1:])
    np.testing.assert_array_equal(  # rows of features and images are the same thing
        model.predict_proba(X.reshape(6, -1)), model.predict_proba(X.reshape(6, *expected))
    )


def test_axes_of_an_image_are_heeded():
    """The class is which half of the image is brighter: left or right, above or below."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(300, 6, 10, 1)).astype("float32") * 0.1
    y = rng.integers(0, 4, 300)
    halves = [np.s_[:3], np.s_[3:], np.s_[:, :5], np.s_[:, 5:]]
    for image, label in zip(images, y, strict=True):
        image[halves[label]] += 1
    model = CNNClassifier(max_iter=15, random_state=0).fit(images[:200], y[:200])
    assert model.score(images[200:], y[200:]) > 0.95


@pytest.mark.parametrize(
    ("X_shape", "asked", "says"),
    [
        ((6, 12), (5, 5), r"image_shape=\(5, 5\) does not make 12 features"),
        ((6, 12), (12,), r"must be \(H, W\) or \(H, W, C\)"),
        ((6, 12), (0, 12), "image_shape: must be at least 1"),
        ((6, 3, 4, 1), (4, 3), r"X has images of shape \(3, 4, 1\)"),
        ((6, 2, 2, 2, 2), None, r"X must be \(m, features\)"),
    ],
)
def test_image_shapes_that_do_not_fit(X_shape, asked, says):
    with pytest.raises(ValueError, match=says):
        CNNClassifier(image_shape=asked).fit(np.zeros(X_shape), [0, 1] * 3)


def test_images_of_another_shape_than_fitted(digits):
    model = CNNClassifier(max_iter=1).fit(digits[0][:50].reshape(-1, 8, 8), digits[1][:50])
    with pytest.raises(ValueError, match=r"X has images of shape \(4, 16, 1\), fitted were"):
        model.predict(digits[0].reshape(-1, 4, 16))
    with pytest.raises(NotFittedError):
        CNNClassifier().predict(digits[0])


def test_a_network_of_ones_own(digits):
    X, y = digits[0][:300], digits[1][:300]
    model = CNNClassifier(network=digits_cnn, max_iter=6, random_state=0).fit(X, y)
    assert model.model_.name == "digits_cnn"
    assert model.score(X, y) > 0.9
    assert isinstance(model.model_, nn.Sequential)


def test_labels_of_any_kind(digits):
    X, names = digits[0][:200], np.array([f"digit {n % 2}" for n in digits[1][:200]])
    model = CNNClassifier(max_iter=10, random_state=0).fit(X, names)
    assert model.score(X, names) > 0.9
    assert list(model.classes_) == ["digit 0", "digit 1"]


def test_verbose(digits, capsys):
    CNNClassifier(max_iter=2, verbose=True).fit(digits[0][:50], digits[1][:50])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert "accuracy 0." in lines[0]


def test_regressor_of_several_outputs():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(260, 5, 5))
    y = np.stack([images[:, :2].mean(axis=(1, 2)), images[:, 3:].mean(axis=(1, 2))], axis=1) * 3
    model = CNNRegressor(filters=(8,), max_iter=25, random_state=0).fit(images[:200], y[:200])
    assert model.predict(images).shape == (260, 2)
    assert model.score(images[200:], y[200:]) > 0.5  # the mean of y scores 0
    model.partial_fit(images, y)
    with pytest.raises(ValueError, match="y has 1 outputs, fitted were 2"):
        model.partial_fit(images, y[:, 0])


# What is wrong is said by the names that the caller knows -----------------------------------------

X_SMALL, Y_SMALL = np.random.default_rng(0).normal(size=(12, 6, 6)).astype("f4"), [0, 1] * 6
WRONG = {
    "filters": ["16", (0,), (8, -1), (2.5,), 1.5, None, True, 0, {8: 1}],
    "hidden": ["64", (0,), (2.5,), -3, None, False],
    "network": ["digits_cnn", 3, nn.Sequential(nn.Flatten(), nn.Dense(36, 2))],
    "image_shape": ["6x6", 36, (36,), (0, 36), (6.0, 6), (5, 5), (6, 6, 1, 1), (6, 6, 3)],
    "learning_rate_init": [-1e-3, np.nan, np.inf, "0.1", None, True],
    "alpha": [-1, np.nan, "0", None],
    "batch_size": [0, -1, 2.5, "all", None, True],
    "max_iter": [0, -5, 1.5, "10", None],
    "tol": [-1, -1e-9, np.nan, None, "1e-4"],
    "n_iter_no_change": [0, -1, 2.5, None, -np.inf],
    "early_stopping": ["yes", None, 0.5],
    "validation_fraction": [1.5, 0, 1, -0.1, np.nan, None, "0.1"],
    "random_state": ["0", -1, 1.5, np.random.default_rng(0)],
    "verbose": ["yes", None, -1],
    "warm_start": ["yes", None, -1],
    "data_format": ["NCHW", None, True],
}


def test_every_parameter_is_looked_at():
    assert set(WRONG) == set(CNNRegressor().get_params())
    assert {*WRONG, "class_weight"} == set(CNNClassifier().get_params())


@pytest.mark.parametrize("value", ["even", {2: 1.0}, 3])
def test_class_weights_that_are_none(value):
    fresh = CNNClassifier(class_weight=value)
    with pytest.raises((ValueError, TypeError), match="class_weight"):
        fresh.fit(X_SMALL, Y_SMALL)
    assert not hasattr(fresh, "model_")


@pytest.mark.parametrize("estimator", [CNNClassifier, CNNRegressor])
@pytest.mark.parametrize(
    ("name", "value"),
    [(n, v) for n, values in WRONG.items() for v in values],
    ids=lambda value: re.sub(" at 0x.*", "", repr(value)),  # the same in every process
)
def test_a_wrong_parameter_is_named_before_anything_is_changed(estimator, name, value):
    others = [n for n in WRONG if n != name] + ["lr", "weight_decay", "min_delta", "patience"]
    others += ["test_size", "epochs"]
    for method in ("fit", "partial_fit"):
        model = estimator(max_iter=1, random_state=0).fit(X_SMALL, Y_SMALL)
        weights = [p.value.copy() for p in model.model_.parameters()]
        fresh = estimator(**{"max_iter": 1, name: value})
        with pytest.raises((ValueError, TypeError)) as caught:
            getattr(fresh, method)(X_SMALL, Y_SMALL)
        assert re.match(rf"{name}[ :=]", str(caught.value)), str(caught.value)
        words = set(re.findall(r"\w+", str(caught.value).partition("needed, such")[0]))
        assert not words & set(others)
        assert not hasattr(fresh, "model_")
        if (name, method) in (("image_shape", "partial_fit"), ("network", "partial_fit")):
            continue  # what is there already is not made again
        with pytest.raises((ValueError, TypeError)):
            getattr(model.set_params(**{name: value}), method)(X_SMALL, Y_SMALL)
        for before, parameter in zip(weights, model.model_.parameters(), strict=True):
            np.testing.assert_array_equal(parameter.value, before)


@pytest.mark.parametrize(
    "given", [{"filters": 8, "hidden": 5}, {"filters": np.int64(8), "hidden": [5]},
              {"filters": np.array([8]), "hidden": (np.int32(5),)}]
)  # fmt: skip
def test_one_number_is_one_layer(given):
    model = CNNClassifier(**given, max_iter=1, random_state=0).fit(X_SMALL, Y_SMALL)
    other = CNNClassifier((8,), (5,), max_iter=1, random_state=0).fit(X_SMALL, Y_SMALL)
    np.testing.assert_array_equal(model.predict_proba(X_SMALL), other.predict_proba(X_SMALL))
    assert model.get_params()["filters"] is given["filters"]  # scikit-learn's rule


def network_of(outputs, inputs=36):
    return lambda shape, _, seed: nn.Sequential(
        nn.Flatten(), nn.Dense(inputs, outputs, rng=seed), name="mine"
    )


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (network_of(3), "network: its model should return 2 numbers an image, got shape (3,)"),
        (network_of(1), "network: its model should return 2 numbers an image, got shape (1,)"),
        (network_of(2, 35), "network: its model does not take float32 images of (6, 6, 1)"),
        (lambda shape, outputs, seed: nn.Sequential(nn.ReLU()), "got shape (6, 6, 1)"),
        (lambda shape, outputs, seed: nn.Dense(2, 2), "network: it should return"),
        (lambda shape: nn.Sequential(), "network: it is called as network(input_shape, outputs,"),
        (lambda shape, outputs: nn.Sequential(), "got an unexpected keyword argument 'seed'"),
    ],
)
def test_a_network_that_does_not_fit(network, says):
    with pytest.raises((ValueError, TypeError)) as caught:
        CNNClassifier(network=network, max_iter=1).fit(X_SMALL, Y_SMALL)
    assert says in str(caught.value)
    assert str(caught.value).startswith("network: ")
    if "should return 2" in says:
        assert isinstance(caught.value, ValueError)


def test_too_few_images_to_hold_some_out():
    for share in (0.01, 0.05, 0.99):
        model = CNNClassifier(early_stopping=True, validation_fraction=share)
        with pytest.raises(
            ValueError, match=f"^validation_fraction={share} of 12 images"
        ) as caught:
            model.fit(X_SMALL, Y_SMALL)
        assert "test_size" not in str(caught.value)


def test_a_loss_that_is_not_finite_is_said_in_the_estimators_words():
    model = CNNRegressor(learning_rate_init=1e30, max_iter=5)
    with pytest.raises(FloatingPointError, match=r"smaller learning_rate_init than 1e\+30"):
        model.fit(X_SMALL, Y_SMALL)


# Images of any kind ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [list, tuple, lambda X: [x.tolist() for x in X], lambda X: [list(x) for x in X]]
)
@pytest.mark.parametrize("shape", [(12, 36), (12, 6, 6), (12, 6, 2, 3)])
def test_lists_of_images_are_arrays(kind, shape):
    X = X_SMALL.reshape(shape)
    model = CNNClassifier(max_iter=1, random_state=0).fit(X, Y_SMALL)
    other = CNNClassifier(max_iter=1, random_state=0).fit(kind(X), Y_SMALL)
    assert other.image_shape_ == model.image_shape_
    np.testing.assert_array_equal(other.predict_proba(kind(X)), model.predict_proba(X))
    other.partial_fit(kind(X), Y_SMALL)


def test_images_of_several_shapes():
    with pytest.raises(ValueError, match="X: rows or images of one shape"):
        CNNClassifier().fit([np.zeros((3, 3)), np.zeros((4, 4))], [0, 1])


class Foreign:
    """An array of a library that need not be installed."""

    shape, ndim = (12, 6, 6), 3

    def __array__(self, *args, **kwargs):
        pytest.fail("computed without a word")

    def __len__(self):
        return 12


@pytest.mark.parametrize(("module", "cure"), [("xarray.core.dataarray", "to_numpy()"),
                                              ("dask.array.core", "compute()")])  # fmt: skip
@pytest.mark.parametrize("kind", ["X", "X[0]"])
def test_arrays_that_would_be_computed_or_lose_their_names(monkeypatch, module, cure, kind):
    monkeypatch.setattr(Foreign, "__module__", module)
    fitted = CNNClassifier(max_iter=1).fit(X_SMALL, Y_SMALL)
    for call in (lambda X: CNNClassifier().fit(X, Y_SMALL), fitted.predict, fitted.predict_proba,
                 lambda X: fitted.partial_fit(X, Y_SMALL)):  # fmt: skip
        with pytest.raises(TypeError, match=r"^X: ") as caught:
            call(Foreign() if kind == "X" else [Foreign(), Foreign()])
        assert f"; {kind}.{cure} makes one" in str(caught.value)
    with pytest.raises(TypeError, match=r"^y: "):
        CNNRegressor().fit(X_SMALL, Foreign())


@pytest.mark.parametrize("size", [1e-300, 1e-40, 1e-310])
@pytest.mark.parametrize("estimator", [CNNClassifier, CNNRegressor])
def test_numbers_too_small_for_float32(estimator, size):
    X = np.float64(X_SMALL) * size
    y = np.float64(Y_SMALL) * (size if estimator is CNNRegressor else 1)
    with np.errstate(all="raise"):
        for given in (X, X.tolist(), X.reshape(12, -1)):
            model = estimator(max_iter=1, random_state=0).fit(given, y, sample_weight=y + size)
            model.partial_fit(given, y)
            model.predict(given)
            if estimator is CNNClassifier:  # a regressor's score is scikit-learn's alone
                model.score(X, y)
                model.predict_log_proba(given)
                model.predict_proba(given)
                model.decision_function(given)


def test_numbers_too_large_for_float32():
    with np.errstate(all="raise"), pytest.raises(ValueError, match="X contains infinity"):
        CNNClassifier().fit(np.full((12, 6, 6), 1e300), Y_SMALL)


def nested(kind):
    pandas = pytest.importorskip("pandas")
    items = np.empty(len(X_SMALL), object)
    items[:] = list(X_SMALL)
    ragged = np.array([np.zeros(n + 1) for n in range(len(X_SMALL))], object)
    return {
        "array": items,
        "rows": pandas.Series(list(X_SMALL.reshape(len(X_SMALL), -1))),
        "series": pandas.Series(list(X_SMALL)),
        "ragged": ragged,
        "frame": pandas.DataFrame({"n": Y_SMALL, "image": list(X_SMALL)}),
    }[kind]


@pytest.mark.parametrize("kind", ["array", "rows", "series", "ragged", "frame"])
def test_arrays_in_an_array(kind):
    cure = r"np\.stack\(X\['image'\]\)" if kind == "frame" else r"np\.stack\(X\)"
    fitted = CNNClassifier(max_iter=1).fit(X_SMALL, Y_SMALL)
    for call in (lambda X: CNNClassifier().fit(X, Y_SMALL), fitted.predict):
        with pytest.raises(ValueError, match=f"^X: its items are arrays .*{cure}"):
            call(nested(kind))


@pytest.mark.parametrize("dtype", [int, "Int64", object, "category", bool, float])
def test_labels_in_a_series(dtype):
    pandas = pytest.importorskip("pandas")
    y = pandas.Series(Y_SMALL, index=range(100, 100 + len(Y_SMALL))).astype(dtype)
    for options in ({}, {"early_stopping": True, "validation_fraction": 0.5}):
        model = CNNClassifier(max_iter=1, random_state=0, **options).fit(X_SMALL, y)
        assert model.classes_.tolist() == [0, 1]
        assert set(model.predict(X_SMALL)) <= {0, 1}


def test_dask():
    array = pytest.importorskip("dask.array").from_array(X_SMALL)
    with pytest.raises(TypeError, match=r"^X: .*X\.compute\(\) makes one"):
        CNNClassifier().fit(array, Y_SMALL)


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    X = torch.tensor(X_SMALL)
    model = CNNClassifier(max_iter=1, random_state=0).fit(X, torch.tensor(Y_SMALL))
    other = CNNClassifier(max_iter=1, random_state=0).fit(X_SMALL, Y_SMALL)
    for tensors in (X, list(X)):
        np.testing.assert_array_equal(model.predict_proba(tensors), other.predict_proba(X_SMALL))
    for needs in (X.clone().requires_grad_(), list(X.clone().requires_grad_())):
        with pytest.raises(TypeError, match=r"^X: Tensor of torch: .*detach"):
            model.predict(needs)
        with pytest.raises(TypeError, match=r"^X: "):
            CNNClassifier().fit(needs, Y_SMALL)
    with pytest.raises(TypeError, match=r"^y: "):
        CNNRegressor().fit(X_SMALL, X[:, 0, 0].clone().requires_grad_())


def test_a_mask_is_not_ignored():
    with pytest.raises(TypeError, match=r"^X: a masked array"):
        CNNClassifier().fit(np.ma.masked_less(X_SMALL, 0), Y_SMALL)


def test_one_class():
    model = CNNClassifier(max_iter=1).fit(X_SMALL, ["cat"] * 12)
    assert model.score(X_SMALL, ["cat"] * 12) == 1.0


# Weights, warm start, other forms of images -----------------------------------------------------


def test_weights_of_classes_and_samples():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 36))
    y = np.where(X[:, :3].sum(axis=1) + rng.normal(size=120) > 2.5, "rare", "usual")
    options = {"max_iter": 4, "random_state": 0, "filters": 4, "hidden": ()}
    plain = CNNClassifier(**options).fit(X, y)
    balanced = CNNClassifier(class_weight="balanced", **options).fit(X, y)
    found = [(model.predict(X)[y == "rare"] == "rare").mean() for model in (plain, balanced)]
    assert found[0] < found[1]
    share = {"rare": 5.0, "usual": 1.0}
    by_class = CNNClassifier(class_weight=share, **options).fit(X, y)
    by_sample = CNNClassifier(**options).fit(X, y, sample_weight=np.where(y == "rare", 5.0, 1.0))
    np.testing.assert_array_equal(by_class.predict_proba(X), by_sample.predict_proba(X))
    with pytest.raises(ValueError, match=r"at least one image must count|at least one non-zero"):
        plain.fit(X, y, sample_weight=np.zeros(120))
    with pytest.raises(ValueError, match=r"Negative values in data passed to .sample_weight"):
        plain.fit(X, y, sample_weight=-np.ones(120))
    held = CNNClassifier(early_stopping=True, **options).fit(X, y, sample_weight=np.ones(120))
    assert held.history_["val_loss"][-1] is not None
    with pytest.raises(ValueError, match="class_weight: 'balanced' needs all images"):
        CNNClassifier(class_weight="balanced").partial_fit(X, y)
    CNNRegressor(max_iter=1).fit(X, X[:, 0], sample_weight=np.ones(120))


def test_one_batch_with_weights_is_repetition():
    """Without batches it is what scikit-learn's check asks for, to float32's roundings."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(30, 16)), rng.integers(0, 3, 30)
    weights = rng.integers(0, 3, 30)
    options = {"batch_size": 100, "max_iter": 5, "random_state": 0, "n_iter_no_change": np.inf}
    ours = CNNClassifier(**options).fit(X, y, sample_weight=weights)
    twin = CNNClassifier(**options).fit(X.repeat(weights, axis=0), y.repeat(weights))
    np.testing.assert_allclose(ours.predict_proba(X), twin.predict_proba(X), atol=1e-4)


def test_a_warm_start_goes_on(digits):
    X, y = digits
    options = {"filters": 4, "hidden": (), "random_state": 0}
    model = CNNClassifier(max_iter=1, warm_start=True, **options).fit(X[:200], y[:200])
    network = model.model_
    first = model.loss_
    model.fit(X[:200], y[:200])
    assert model.model_ is network
    assert model.loss_ < first
    assert model.n_iter_ == 2
    model.set_params(warm_start=False).fit(X[:200], y[:200])
    assert model.model_ is not network
    assert model.loss_ == first
    model.set_params(warm_start=True)
    with pytest.raises(ValueError, match="y holds labels that are not in classes"):
        model.fit(X[:200], y[:200] + 5)


def test_decision_function_and_logarithms(fitted, digits):
    X, y = digits
    z = fitted.decision_function(X[:50])
    assert z.shape == (50, 10)
    np.testing.assert_array_equal(fitted.classes_[z.argmax(axis=1)], fitted.predict(X[:50]))
    logs = fitted.predict_log_proba(X[:50])
    np.testing.assert_allclose(np.exp(logs), fitted.predict_proba(X[:50]), rtol=1e-12)
    two = CNNClassifier(filters=2, hidden=(), max_iter=2).fit(X[:100], y[:100] > 4)
    ahead = two.decision_function(X[:50])
    assert ahead.shape == (50,)
    np.testing.assert_array_equal(ahead > 0, two.predict(X[:50]))
    np.testing.assert_allclose(1 / (1 + np.exp(-ahead)), two.predict_proba(X[:50])[:, 1])


def test_batch_size_auto_and_no_end():
    X, y = np.random.default_rng(0).normal(size=(20, 9)), np.arange(20) % 2
    options = {"filters": 2, "hidden": (), "max_iter": 14, "random_state": 0, "tol": 100.0}
    ours = CNNClassifier(batch_size="auto", n_iter_no_change=np.inf, **options).fit(X, y)
    twin = CNNClassifier(batch_size=20, n_iter_no_change=99, **options).fit(X, y)
    np.testing.assert_array_equal(ours.predict_proba(X), twin.predict_proba(X))
    assert ours.n_iter_ == 14
    assert CNNClassifier(**options).fit(X, y).n_iter_ == 11
    with pytest.raises(ValueError, match="batch_size: an integer or 'auto' is needed, got 'all'"):
        CNNClassifier(batch_size="all").fit(X, y)


def test_channels_first():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 6, 5, 3)), np.arange(30) % 2
    first = np.moveaxis(X, -1, 1)
    options = {"filters": 3, "hidden": (), "max_iter": 2, "random_state": 0}
    last = CNNClassifier(**options).fit(X, y)
    ours = CNNClassifier(data_format="channels_first", **options).fit(first, y)
    rows = CNNClassifier(data_format="channels_first", image_shape=(3, 6, 5), **options)
    rows.fit(first.reshape(30, -1), y)
    for model, x in ((ours, first), (rows, first.reshape(30, -1)), (ours, first.reshape(30, -1))):
        assert model.image_shape_ == (6, 5, 3)
        np.testing.assert_array_equal(model.predict_proba(x), last.predict_proba(X))
    with pytest.raises(ValueError, match="data_format: must be 'channels_last' or"):
        CNNClassifier(data_format="NCHW").fit(X, y)


def test_images_of_one_line_are_a_warning():
    X, y = np.random.default_rng(0).normal(size=(20, 10)), np.arange(20) % 2
    with pytest.warns(UserWarning, match="X: 10 features are no square.*image_shape"):
        CNNClassifier(filters=2, max_iter=1).fit(X, y)
    CNNClassifier(filters=2, max_iter=1, image_shape=(1, 10)).fit(X, y)
    CNNClassifier(filters=2, max_iter=1, image_shape=(2, 5)).fit(X, y)
