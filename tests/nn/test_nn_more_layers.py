"""The layers beside convolution and pooling: what they compute, files, resumes, errors."""

import copy
import pickle

import numpy as np
import pytest
from nn_checks import spread

from fastconv import nn, reference
from fastconv.nn import names

SHAPE = (6, 6, 4)


def network(dtype=np.float32):
    """All of them, for images (6, 6, 4)."""
    side = nn.Sequential(nn.MaxPool(2), nn.Conv(4, 4, 3, padding=1, rng=1, dtype=dtype), nn.SiLU(),
                         nn.Upsample(2, mode="bilinear"))  # fmt: skip
    return nn.Sequential(
        nn.Pad(((1, 1), (0, 2)), "symmetric"),
        nn.LeakyReLU(0.1),
        nn.Concat(nn.Identity(), side),
        nn.GroupNorm(4, 8, dtype=dtype),
        nn.SpatialDropout(0.5),
        nn.SeparableConv(8, 8, 3, padding=1, multiplier=2, rng=2, dtype=dtype),
        nn.InstanceNorm(8, epsilon=1e-3, dtype=dtype),
        nn.ELU(0.7),
        nn.PixelShuffle(2),
        nn.AdaptiveAvgPool((5, 4)),
        nn.LayerNorm(2, dtype=dtype),
        nn.GELU(),
        nn.Concat(nn.AdaptiveMaxPool(3), nn.Sequential(nn.Hardswish(), nn.AdaptiveAvgPool(3))),
        nn.Softplus(),
        nn.Upsample((2, 1)),
        nn.GlobalMaxPool(),
        nn.Dense(4, 3, rng=3, dtype=dtype),
    )


def data(m=10, dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(m, *SHAPE)).astype(dtype), rng.integers(0, 3, m)


def test_every_new_layer_is_in_the_network():
    inside = {type(layer).__name__ for _, layer in network().walk()}
    assert inside >= {
        "AdaptiveAvgPool", "AdaptiveMaxPool", "Concat", "ELU", "GELU", "GlobalMaxPool",
        "GroupNorm", "Hardswish", "Identity", "InstanceNorm", "LayerNorm", "LeakyReLU", "Pad",
        "PixelShuffle", "SeparableConv", "SiLU", "Softplus", "SpatialDropout", "Upsample",
    }  # fmt: skip


def test_saved_and_loaded(tmp_path):
    model, (x, _) = network(), data()
    model.save(tmp_path / "model.npz")
    again = nn.Sequential.load(tmp_path / "model.npz")
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(x), model.predict(x))


@pytest.mark.parametrize(
    "loss",
    [
        lambda: nn.SoftmaxCrossEntropy(class_weight=[1, 2, 0.5], label_smoothing=0.1),
        nn.FocalLoss,
    ],
)
def test_a_resume_is_exact(tmp_path, loss):
    x, y = data()

    def run(epochs, resume, name):
        model = network()
        optimizer = nn.Adam(model.parameters(), lr=0.01)
        options = {"batch_size": 4, "seed": 3, "checkpoint": tmp_path / name, "resume": resume}
        history = nn.fit(model, loss(), optimizer, x, y, epochs=epochs, **options)
        return model, history["loss"]

    whole, losses = run(4, False, "whole.npz")
    run(2, False, "part.npz")
    part, resumed = run(4, True, "part.npz")
    assert resumed == losses
    for a, b in zip(whole.parameters(), part.parameters(), strict=True):
        np.testing.assert_array_equal(a.value, b.value)
    other = nn.SoftmaxCrossEntropy(class_weight=[1, 2, 0.25])
    model = network()
    with pytest.raises(ValueError, match=r"resume: .* loss was"):
        nn.fit(model, other, nn.Adam(model.parameters(), lr=0.01), x, y, epochs=5, batch_size=4,
               seed=3, checkpoint=tmp_path / "part.npz", resume=True)  # fmt: skip


def test_infer_changes_nothing():
    model, (x, _) = network(), data()
    y = model.forward(x)
    dx = model.backward(np.ones_like(y)).copy()
    grads = [p.grad.copy() for p in model.parameters()]
    before = model.infer(x)
    assert all(layer.training for _, layer in model.walk())
    np.testing.assert_array_equal(model.infer(x[:3]), before[:3])
    np.testing.assert_array_equal(model.backward(np.ones_like(y)), dx)
    for p, grad in zip(model.parameters(), grads, strict=True):
        np.testing.assert_array_equal(p.grad, grad)


def test_the_naive_loops_run_all_of_it():
    model, (x, _) = network(np.float64), data(2, np.float64)
    twin = copy.deepcopy(model)
    twin.ops = reference
    np.testing.assert_allclose(twin.predict(x), model.predict(x), rtol=1e-10)


# What they compute -----------------------------------------------------------------------------


def test_layer_norm_is_of_pixels_group_norm_of_groups():
    x = np.random.default_rng(0).normal(3, 2, (2, 4, 5, 6))
    for layer, axes, shape in (
        (nn.LayerNorm(6, dtype=np.float64), (3,), x.shape),
        (nn.InstanceNorm(6, dtype=np.float64), (1, 2), x.shape),
        (nn.GroupNorm(2, 6, dtype=np.float64), (1, 2, 4), (2, 4, 5, 2, 3)),
    ):
        y = layer.forward(x).reshape(shape)
        np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-12)
        np.testing.assert_allclose(y.var(axis=axes), 1, rtol=1e-4)
        assert not layer.named_buffers()
        layer.shift = np.arange(6.0)
        np.testing.assert_array_equal(layer.forward(x), y.reshape(x.shape) + np.arange(6.0))


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 6), nn.LayerNorm(6), nn.InstanceNorm(6)])
@pytest.mark.parametrize("size", [(9, 7), (64, 48), (2, 1)])
def test_norms_of_an_image_do_not_depend_on_its_neighbours(layer, size):
    x = np.random.default_rng(0).normal(size=(5, *size, 6)).astype(np.float32)
    y = layer.forward(x)
    dx = layer.backward(x[::-1].copy())
    for i in range(5):
        np.testing.assert_array_equal(layer.forward(x[i : i + 1]), y[i : i + 1])
        np.testing.assert_array_equal(layer.backward(x[::-1][i : i + 1].copy()), dx[i : i + 1])


def test_spatial_dropout_drops_channels():
    x = np.ones((50, 3, 4, 8), np.float32)
    y = nn.SpatialDropout(0.25, seed=1).forward(x)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    assert abs((y == 0).mean() - 0.25) < 0.1
    rows = nn.SpatialDropout(0.5, seed=1).forward(np.ones((50, 40), np.float32))
    assert 0.4 < (rows == 0).mean() < 0.6


def test_bilinear_is_linear_inside():
    x = np.arange(6.0)[None, :, None, None] + 10 * np.arange(5.0)[None, None, :, None]
    y = nn.Upsample(4, mode="bilinear").forward(x)[0, ..., 0]
    at = (np.arange(24) + 0.5) / 4 - 0.5, (np.arange(20) + 0.5) / 4 - 0.5
    expected = np.clip(at[0], 0, 5)[:, None] + 10 * np.clip(at[1], 0, 4)
    np.testing.assert_allclose(y, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("mode", ["constant", "reflect", "symmetric", "edge", "wrap"])
def test_pad_is_numpys(mode):
    x, pairs = spread((2, 4, 3, 2)), ((1, 3), (2, 0))
    np.testing.assert_array_equal(
        nn.Pad(pairs, mode).forward(x), np.pad(x, ((0, 0), *pairs, (0, 0)), mode)
    )


def test_adaptive_windows_and_nan():
    x = np.array([3.0, 1, 2, 5, 4])[None, :, None]
    mean, largest = nn.AdaptiveAvgPool(3).forward(x), nn.AdaptiveMaxPool(3).forward(x)
    np.testing.assert_allclose(mean.ravel(), [2, 8 / 3, 4.5])
    np.testing.assert_array_equal(largest.ravel(), [3, 5, 5])
    x[0, 2] = np.nan
    np.testing.assert_array_equal(np.isnan(nn.AdaptiveMaxPool(3).forward(x)).ravel(), [0, 1, 0])
    same = nn.AdaptiveAvgPool((4, 4)).forward(spread((1, 4, 4, 1)))
    np.testing.assert_array_equal(same, spread((1, 4, 4, 1)))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: nn.LeakyReLU("a"), TypeError, "slope: a number"),
        (lambda: nn.ELU(np.inf), ValueError, "alpha: must be finite"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "groups: 3 does not divide channels = 4"),
        (lambda: nn.LayerNorm(0), ValueError, "channels: must be at least 1"),
        (lambda: nn.InstanceNorm(4, epsilon=-1), ValueError, "epsilon"),
        (lambda: nn.Upsample(0), ValueError, "factor: must be at least 1"),
        (lambda: nn.Upsample(1.5), TypeError, "factor: an integer"),
        (lambda: nn.Upsample(2, mode="cubic"), ValueError, "mode: must be 'nearest' or 'bilinear'"),
        (lambda: nn.PixelShuffle(0), ValueError, "factor: must be at least 1"),
        (lambda: nn.Pad(-1), ValueError, "padding: -1 must not be negative"),
        (lambda: nn.Pad("same"), TypeError, "padding: integers are needed, got 'same'"),
        (lambda: nn.Pad(1, "mirror"), ValueError, "mode: must be one of 'constant'"),
        (lambda: nn.AdaptiveAvgPool(0), ValueError, "size: must be at least 1"),
        (lambda: nn.AdaptiveMaxPool((2, 0)), ValueError, "size: must be at least 1"),
        (lambda: nn.Concat(), ValueError, "branches: at least one layer"),
        (lambda: nn.Concat(nn.ReLU), TypeError, "branches: expected fastconv.nn layers"),
        (lambda: nn.SeparableConv(2, 3, 3, multiplier=0), ValueError, "multiplier"),
        (lambda: nn.SpatialDropout(1.0), ValueError, "rate: must be in"),
    ],
)  # fmt: skip
def test_bad_arguments(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.InstanceNorm(3), (2, 1, 1, 3), r"more than one pixel is needed, got \(2, 1, 1, 3\)"),
        (nn.Upsample((2, 2)), (2, 5, 3), r"factor: \(2, 2\) must be one number, or 1"),
        (nn.Upsample(2), (2, 3), r"x: expected \(m, H, W, C\)"),
        (nn.PixelShuffle(2), (2, 3, 3, 6), "channels must be a multiple of 4"),
        (nn.Pad(((1, 1), (2, 2))), (2, 5, 3), "padding: .* must have 1 entries"),
        (nn.AdaptiveAvgPool((2, 2)), (2, 5, 3), r"size: \(2, 2\) must be one number, or 1"),
        (nn.GlobalMaxPool(), (2, 3), r"x: expected \(m, H, W, C\)"),
        (nn.Concat(nn.Identity(), nn.MaxPool(2)), (2, 4, 4, 3), "branches: outputs .* of 1 differ"),
        (nn.Concat(nn.ReLU(), nn.Conv(5, 1, 1)), (2, 4, 4, 3), r"in layer 0\.1 \(Conv\)"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit(layer, shape, message):
    model, x = nn.Sequential(layer), np.zeros(shape, np.float32)
    for run in (model.forward, model.predict):
        with pytest.raises(ValueError, match=message):
            run(x)


# Sequential as a sequence, and names -----------------------------------------------------------


def test_a_chain_is_a_sequence_of_its_layers():
    model = nn.Sequential(nn.Conv(1, 2, 3, rng=0), nn.ReLU(), nn.Flatten(), nn.Dense(8, 3, rng=1))
    assert len(model) == 4
    assert list(model) == list(model.layers)
    assert model[0] is model.layers[0]
    assert model[-1] is model[np.int64(3)] is model.layers[3]
    part = model[:-1]
    assert type(part) is nn.Sequential
    assert part.layers == model.layers[:3]
    assert [p.name for p in model[3:].parameters()] == ["3.w", "3.b"]
    assert model[3:].named_parameters().keys() == {"0.w", "0.b"}
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
    features = part.predict(x)
    np.testing.assert_array_equal(model[3:].predict(features), model.predict(x))
    model.ops = reference
    assert model[1:].ops is reference
    with pytest.raises(IndexError, match="layers: there are 4, got index 4"):
        model[4]
    with pytest.raises(IndexError, match="layers: there are 4, and none in"):
        model[4:]
    with pytest.raises(TypeError, match="layers: an index or a slice is needed, got 'conv'"):
        model["conv"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("Conv2d", "Conv"), ("Conv2D", "Conv"), ("Conv1d", "Conv"), ("Linear", "Dense"),
        ("MaxPool2d", "MaxPool"), ("MaxPooling2D", "MaxPool"), ("AveragePooling2D", "AvgPool"),
        ("ConvTranspose2d", "ConvTranspose"), ("Conv2DTranspose", "ConvTranspose"),
        ("BatchNorm2d", "BatchNorm"), ("BatchNormalization", "BatchNorm"),
        ("LayerNormalization", "LayerNorm"), ("Dropout2d", "SpatialDropout"),
        ("SpatialDropout2D", "SpatialDropout"), ("SeparableConv2D", "SeparableConv"),
        ("GlobalAveragePooling2D", "GlobalAvgPool"), ("GlobalMaxPooling2D", "GlobalMaxPool"),
        ("AdaptiveAvgPool2d", "AdaptiveAvgPool"), ("UpSampling2D", "Upsample"),
        ("CrossEntropyLoss", "SoftmaxCrossEntropy"), ("BCEWithLogitsLoss", "BinaryCrossEntropy"),
        ("MSELoss", "MeanSquaredError"), ("HuberLoss", "Huber"), ("Module", "Layer"),
        ("Concatenate", "Concat"), ("ZeroPad2d", "Pad"), ("Relu", "ReLU"),
        ("Sequentail", "Sequential"),
    ],
)  # fmt: skip
def test_names_from_elsewhere(given, meant):
    with pytest.raises(AttributeError, match=f"fastconv.nn has no {given}; did you mean {meant}?"):
        getattr(nn, given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv(1, 8, kernel_size=3), "Conv has no argument kernel_size; .* window"),
        (lambda: nn.Conv(in_channels=1, out_channels=8, window=3), "in_channels; .* channels"),
        (lambda: nn.Dense(in_features=1, out_features=8), "in_features; did you mean inputs"),
        (lambda: nn.Dense(1, units=8), "Dense has no argument units; did you mean outputs"),
        (lambda: nn.MaxPool(pool_size=2), "pool_size; did you mean window"),
        (lambda: nn.BatchNorm(4, eps=1e-3), "eps; did you mean epsilon"),
        (lambda: nn.Dropout(p=0.5), "p; did you mean rate"),
        (lambda: nn.SoftmaxCrossEntropy(weight=[1, 2]), "weight; did you mean class_weight"),
        (lambda: nn.Conv(1, 8, 3, colour=1), "colour"),
    ],
)
def test_arguments_from_elsewhere(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_ones_own_layer_may_use_any_names():
    class Own(nn.Layer):
        def __init__(self, kernel_size, **others):
            super().__init__()
            self.kernel_size, self.others = kernel_size, others

    assert Own(kernel_size=3, units=2).others == {"units": 2}
    assert copy.deepcopy(Own(kernel_size=3)).kernel_size == 3


def test_names_that_mean_nothing_and_methods_of_others():
    with pytest.raises(AttributeError, match=r"has no Xyzzy$"):
        _ = nn.Xyzzy
    model = nn.Sequential(nn.ReLU())
    for name, cure in names.METHODS.items():
        assert not hasattr(model, name)
        with pytest.raises(AttributeError) as caught:
            getattr(model, name)
        assert str(caught.value) == f"Sequential has no {name}; here: {cure}"
    with pytest.raises(AttributeError, match=r"Sequential has no xyzzy$"):
        _ = model.xyzzy


def test_the_table_of_names_names_what_there_is():
    for meant in set(names.FOREIGN.values()):
        assert hasattr(nn, meant), meant
    for word in ("Conv2d", "Linear", "BatchNorm2d", "CrossEntropyLoss", "transpose(2, 3, 1, 0)"):
        assert word in names.__doc__
