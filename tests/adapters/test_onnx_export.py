"""Networks as ONNX files: ONNX Runtime and the reference evaluator reproduce their outputs."""

import os
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from fastconv import nn
from fastconv.adapters.onnx import OPS
from fastconv.adapters.onnx.export import OUTPUTS, to_model
from fastconv.cli import main
from fastconv.cli.export import OUTPUTS as WORDS
from fastconv.examples import binary_cnn, digits_cnn, two_conv_cnn
from fastconv.nn import storage


def image(*shape, m=3, seed=0):
    return np.random.default_rng(seed).normal(size=(m, *shape)).astype(np.float32)


def settled(model):
    """The model with parameters and running statistics that are not those of the start."""
    rng = np.random.default_rng(1)
    arrays = [p.value for p in model.parameters()] + list(model.named_buffers().values())
    for array in arrays:
        array[...] = rng.uniform(0.1, 0.5, array.shape) * rng.choice([-1, 1])
        if array is not arrays[0]:
            array[...] = np.abs(array)
    return model


def runtime(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def check(model, x, path, **options):
    """Both hosts give what `predict` gives, also for another number of images."""
    model.to_onnx(path, **options)
    evaluator = ReferenceEvaluator(path, new_ops=OPS)
    for images in (x, x[:1]):
        expected = model.predict(images)
        for y in (runtime(path, images), evaluator.run(None, {"x": images})[0]):
            assert y.dtype == expected.dtype
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "net.onnx")


CONV = {"rng": 0}
LAYERS = {
    "conv": (nn.Conv(3, 4, 3, padding=((1, 2), (0, 1)), stride=(2, 1), **CONV), (9, 8, 3)),
    "conv_same": (nn.Conv(3, 4, (4, 3), padding="same", dilation=2, **CONV), (9, 8, 3)),
    "conv_same_stride": (nn.Conv(3, 4, 3, padding="same", stride=2, **CONV), (9, 8, 3)),
    "conv_full_groups_relu": (
        nn.Conv(4, 6, 3, padding="full", groups=2, bias=False, activation="relu", **CONV),
        (5, 6, 4),
    ),
    "conv_1d": (nn.Conv(3, 4, (3,), padding=1, **CONV), (9, 3)),
    "conv_3d": (nn.Conv(2, 3, (2, 3, 1), **CONV), (5, 6, 4, 2)),
    "transpose": (
        nn.ConvTranspose(3, 4, 3, stride=2, padding=1, output_padding=1, **CONV),
        (5, 4, 3),
    ),
    "transpose_same": (nn.ConvTranspose(3, 4, 3, stride=2, padding="same", **CONV), (5, 4, 3)),
    "transpose_gaps": (
        nn.ConvTranspose(4, 2, 2, stride=3, padding="same", groups=2, activation="relu", **CONV),
        (5, 4, 4),
    ),
    "transpose_full": (nn.ConvTranspose(2, 2, 2, dilation=2, padding="full", **CONV), (6, 7, 2)),
    "max_pool": (nn.MaxPool(3, stride=2, padding=1, ceil_mode=True), (8, 7, 2)),
    "max_pool_same": (nn.MaxPool((2, 3), padding="same"), (8, 7, 2)),
    "max_pool_1d": (nn.MaxPool(2), (8, 2)),
    "avg_pool": (nn.AvgPool(2), (8, 7, 2)),
    "avg_pool_ceil": (nn.AvgPool(3, stride=2, padding=1, ceil_mode=True), (8, 7, 2)),
    "avg_pool_pad": (nn.AvgPool(3, stride=1, padding=1, count_include_pad=True), (8, 7, 2)),
    "avg_pool_same": (nn.AvgPool(3, stride=2, padding="same"), (8, 7, 2)),
    "global_avg_pool": (nn.GlobalAvgPool(), (8, 7, 2)),
    "batch_norm": (nn.BatchNorm(3, epsilon=1e-2), (5, 4, 3)),
    "batch_norm_rows": (nn.BatchNorm(3), (3,)),
    "dense": (nn.Dense(5, 4, bias=False, rng=0), (5,)),
    "flatten": (nn.Flatten(), (3, 4, 2)),
    "flatten_rows": (nn.Flatten(), (7,)),
    "dropout": (nn.Dropout(0.5), (3, 4, 2)),
    "relu": (nn.ReLU(), (3, 4, 2)),
    "sigmoid": (nn.Sigmoid(), (7,)),
    "tanh": (nn.Tanh(), (3, 4, 2)),
    "residual": (nn.Residual(nn.Conv(2, 2, 3, padding=1, **CONV)), (5, 4, 2)),
    "residual_shortcut": (
        nn.Residual(
            nn.Sequential(nn.Conv(2, 4, 3, stride=2, padding=1, **CONV), nn.Tanh()),
            nn.Conv(2, 4, 1, stride=2, **CONV),
        ),
        (5, 4, 2),
    ),
    "residual_rows": (nn.Residual(nn.Dense(6, 6, rng=0)), (6,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name, path):
    layer, shape = LAYERS[name]
    check(settled(nn.Sequential(layer)), image(*shape), path, input_shape=shape)


def test_every_layer_is_among_them():
    inside = {type(layer) for top, _ in LAYERS.values() for _, layer in top.walk()}
    assert inside | {nn.Sequential} >= set(storage.LAYERS.values())


@pytest.mark.parametrize("build", [digits_cnn, binary_cnn, two_conv_cnn])
def test_the_examples_with_two_transposes_at_most(build, path):
    model = settled(build(seed=0))
    with_input = next(layer for _, layer in model.walk() if isinstance(layer, nn.Conv))
    size = {digits_cnn: 8, binary_cnn: 8}.get(build, 28)
    ops = check(model, image(size, size, with_input.channels), path)
    assert ops.count("Transpose") <= 2


def test_height_and_width_are_free_where_the_layers_leave_them_so(path):
    model = nn.Sequential(
        nn.BatchNorm(2), nn.Conv(2, 3, 3, padding="same", stride=2, rng=0), nn.GlobalAvgPool()
    )
    check(settled(model), image(9, 8, 2), path)
    x = image(12, 5, 2)
    np.testing.assert_allclose(runtime(path, x), model.predict(x), rtol=1e-4, atol=1e-5)
    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["m", "H", "W", 2]


@pytest.mark.parametrize(
    ("output", "loss"),
    [("softmax", nn.SoftmaxCrossEntropy()), ("sigmoid", nn.BinaryCrossEntropy())],
)
def test_outputs_are_logits_unless_probabilities_are_asked_for(output, loss, path):
    model, x = digits_cnn(seed=0), image(8, 8, 1)
    model.to_onnx(path)
    np.testing.assert_allclose(runtime(path, x), model.predict(x), rtol=1e-4, atol=1e-5)
    model.to_onnx(path, output=output)
    expected = loss.predict(model.predict(x))
    np.testing.assert_allclose(runtime(path, x), expected, rtol=1e-4, atol=1e-6)


def test_training_statistics_and_dropout_stay_out(path):
    model = nn.Sequential(nn.Conv(1, 2, 3, rng=0), nn.BatchNorm(2), nn.Dropout(0.9))
    model.train()
    check(model, image(6, 6, 1), path, input_shape=(6, 6, 1))
    assert all(layer.training for _, layer in model.walk())


def test_dtypes(path):
    model, x = binary_cnn(seed=0, dtype="float64"), image(8, 8, 1).astype("float64")
    model.to_onnx(path)
    (y,) = ReferenceEvaluator(path, new_ops=OPS).run(None, {"x": x})
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, model.predict(x), rtol=1e-12)
    model.to_onnx(path, dtype="float32")  # ONNX Runtime has no float64 convolution
    y = runtime(path, x.astype("float32"))
    np.testing.assert_allclose(y, model.predict(x), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_exported_says_so(tmp_path):
    class Own(nn.ReLU):
        pass

    conv = nn.Conv(1, 1, 3, padding="same", stride=2, dilation=2, rng=0)
    with pytest.raises(TypeError, match=r"layer model\.1: .*Own.* has no form in ONNX"):
        to_model(nn.Sequential(nn.Conv(1, 1, 1, rng=0), Own()))
    with pytest.raises(ValueError, match=r'layer model\.0: padding="same" with a stride of'):
        to_model(nn.Sequential(conv))
    with pytest.raises(ValueError, match="input_shape: give the shape of one image"):
        to_model(nn.Sequential(nn.MaxPool(2), nn.Flatten(), nn.Dense(4, 2, rng=0)))
    with pytest.raises(ValueError, match="output: 'probabilities' must be one of 'logits'"):
        to_model(binary_cnn(seed=0), output="probabilities")
    with pytest.raises(ValueError, match="expected"):
        to_model(binary_cnn(seed=0), input_shape=(8, 8, 3))
    with pytest.raises(TypeError):
        nn.Sequential(nn.Conv(1, 1, 1, rng=0), Own()).to_onnx(tmp_path / "none.onnx")
    assert not list(tmp_path.iterdir())


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tuple(OUTPUTS) == WORDS
    model, x = digits_cnn(seed=0), image(8, 8, 1)
    (tmp_path / "run").mkdir()
    model.save("run/model.npz")
    assert main(["export", "run"]) == 0
    assert capsys.readouterr().out.startswith("run/model.onnx: input x (m, ..., C)")
    np.testing.assert_allclose(runtime("run/model.onnx", x), model.predict(x), rtol=1e-4, atol=1e-5)
    words = ["run/model.npz", "soft.onnx", "--output", "softmax", "--input-shape", "8x8x1"]
    assert main(["export", *words]) == 0
    np.testing.assert_allclose(runtime("soft.onnx", x).sum(axis=1), 1, rtol=1e-5)
    capsys.readouterr()
    for words, message in (
        (["none.npz"], "none.npz: no such file"),
        (["run", "net.txt"], "net.txt must be a file name that ends in .onnx"),
        (["run", "--input-shape", "8x8x"], "'8x8x' is not a shape such as 8x8x1"),
        (["run", "--input-shape", "8x8x2"], "expected (m, H, W, 1)"),
        (["run", "no/net.onnx"], "no/net.onnx"),
    ):
        assert main(["export", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    binary_cnn(seed=0).save("model.npz")
    assert main(["export", "model.npz"]) == 0
    before = (tmp_path / "model.onnx").read_bytes()
    capsys.readouterr()

    def full(handle):
        os.ftruncate(handle, os.fstat(handle).st_size // 2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["export", "model.npz"]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "model.onnx" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.npz", "model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == before


def test_without_onnx_the_error_names_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    binary_cnn(seed=0).save("model.npz")
    for name in [name for name in sys.modules if name.startswith("fastconv.adapters")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "model.npz"]) == 1
    assert 'onnx is not installed: pip install "fastconv[onnx]"' in capsys.readouterr().err
