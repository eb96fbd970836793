"""Networks as ONNX files: ONNX Runtime and the reference evaluator reproduce their outputs."""

import inspect
import os
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_layers import LAYERS, image, settled

from fastconv import nn
from fastconv.adapters.onnx import OPS
from fastconv.cli import main
from fastconv.cli.commands.export import OUTPUTS as WORDS
from fastconv.examples import binary_cnn, digits_cnn, two_conv_cnn
from fastconv.nn import registry
from fastconv.nn.onnx.writer import OUTPUTS, to_model


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


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name, path):
    layer, shape = LAYERS[name]
    check(settled(nn.Sequential(layer)), image(*shape), path, input_shape=shape)


def test_every_layer_is_among_them():
    inside = {type(layer) for top, _ in LAYERS.values() for _, layer in top.walk()}
    kinds = {entry.kind for entry in registry.ENTRIES.values()}
    assert inside | {nn.Sequential} >= {k for k in kinds if getattr(nn, k.__name__, None) is k}


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


def dims(path):
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    return [d.dim_param or d.dim_value for d in shape.dim]


def made_for(size, channels, *body):
    """A network that flattens what `body` makes of images of one size."""
    rows = np.prod(nn.Sequential(*body).forward(np.zeros((1, *size, channels), "f4")).shape)
    return nn.Sequential(*body, nn.Flatten(), nn.Dense(int(rows), 4, rng=0))


def same(channels, filters, **options):
    return nn.Conv(channels, filters, 3, padding="same", rng=0, **options)


def half(channels, filters):
    return nn.Conv(channels, filters, 3, stride=2, padding=1, rng=0)


MADE_FOR = {
    "pools": ((32, 32), 3, lambda: (same(3, 4), nn.MaxPool(2), same(4, 4), nn.MaxPool(2))),
    "strides": ((32, 32), 3, lambda: (half(3, 4), half(4, 4), half(4, 2))),
    "same_strides": ((28, 28), 1, lambda: (same(1, 4, stride=2), nn.ReLU(), same(4, 4, stride=2))),
    "no_padding": ((28, 28), 1, lambda: (nn.Conv(1, 2, 5, rng=0), nn.MaxPool(2))),
    "ceil": ((28, 28), 1, lambda: (same(1, 2), nn.MaxPool(3, stride=2, ceil_mode=True))),
    "ceil_counted": (
        (8, 8),
        1,
        lambda: (
            same(1, 2),
            nn.AvgPool(3, stride=2, padding=1, ceil_mode=True, count_include_pad=True),
        ),
    ),
    "transposed": ((8, 8), 2, lambda: (nn.ConvTranspose(2, 3, 2, stride=2, rng=0),)),
    "residual": (
        (32, 32),
        3,
        lambda: (
            nn.BatchNorm(3),
            nn.Residual(
                nn.Sequential(half(3, 4), nn.Residual(same(4, 4)), nn.BatchNorm(4)),
                nn.Conv(3, 4, 1, stride=2, rng=0),
            ),
            nn.Residual(nn.Sequential(same(4, 4), nn.Tanh())),
            nn.AvgPool(2),
        ),
    ),
    "one_axis": ((32,), 3, lambda: (nn.Conv(3, 4, (3,), rng=0), nn.MaxPool(2))),
    "three_axes": ((8, 8, 8), 2, lambda: (nn.Conv(2, 3, (3, 3, 3), rng=0), nn.MaxPool(2))),
    "wide": ((16, 16), 1, lambda: (same(1, 2, stride=(2, 1)), nn.MaxPool((2, 4)))),
}


@pytest.mark.parametrize("name", MADE_FOR)
def test_weights_behind_flatten_fix_the_size(name, path):
    size, C, body = MADE_FOR[name]
    model = made_for(size, C, *body())
    check(settled(model), image(*size, C), path)
    assert dims(path) == ["m", *size, C]


def test_another_size_with_as_many_numbers_is_refused(path):
    """16x64 gives Flatten as many numbers as 32x32 does."""
    model = made_for((32, 32), 3, *MADE_FOR["pools"][2]())
    model.to_onnx(path)
    x = image(16, 64, 3)
    assert model.predict(x).shape == (3, 4)
    for shape in ((16, 64), (64, 16), (33, 33)):
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            runtime(path, image(*shape, 3))
    checks = {"check_shape_annotations": True}
    if "check_shape_annotations" in inspect.signature(ReferenceEvaluator.__init__).parameters:
        evaluator = ReferenceEvaluator(path, new_ops=OPS, **checks)
        assert evaluator.run(None, {"x": image(32, 32, 3)})[0].shape == (3, 4)
        with pytest.raises(Exception, match=r"(?i)shape|dimension|annotat"):
            evaluator.run(None, {"x": x})
    model.to_onnx(path, input_shape=(16, 64, 3))
    assert dims(path) == ["m", 16, 64, 3]
    np.testing.assert_allclose(runtime(path, x), model.predict(x), rtol=1e-4, atol=1e-5)


def test_layers_between_flatten_and_the_weights(path):
    for rows in (nn.BatchNorm(2 * 7 * 7), nn.Residual(nn.Dense(2 * 7 * 7, 2 * 7 * 7, rng=0))):
        model = nn.Sequential(same(1, 2), nn.MaxPool(4), nn.Flatten(), nn.Tanh(), rows, nn.ReLU())
        check(settled(model), image(28, 28, 1), path)
        assert dims(path) == ["m", 28, 28, 1]


def test_sizes_that_no_square_image_gives_are_asked_for(path):
    model = made_for((28, 20), 1, same(1, 2), nn.MaxPool(2))
    with pytest.raises(ValueError, match=r"input_shape: .* take 280 numbers, which no square"):
        model.to_onnx(path)
    model.to_onnx(path, input_shape=(28, 20, 1))
    assert dims(path) == ["m", 28, 20, 1]


def test_size_is_free_where_nothing_fixes_it(path):
    for body in (
        (same(1, 2), nn.MaxPool(2)),
        (same(1, 2), nn.Flatten()),
        (same(1, 2), nn.GlobalAvgPool(), nn.Dense(2, 3, rng=0)),
        (same(1, 2), nn.GlobalAvgPool(), nn.Flatten(), nn.Dense(2, 3, rng=0)),
    ):
        nn.Sequential(*body).to_onnx(path)
        assert dims(path) == ["m", "H", "W", 1]


CEIL = [
    (window, stride, padding)
    for window in (1, 2, 3, 4)
    for stride in (1, 2, 3, 5)
    for padding in sorted({0, window // 2})
] + [(3, 2, ((0, 1), (1, 0))), (4, 3, ((2, 0), (0, 2))), ((2, 3), (3, 2), (1, 1))]


@pytest.mark.parametrize(("window", "stride", "padding"), CEIL, ids=str)
def test_ceil_mode_is_right_for_every_size(window, stride, padding, path):
    """Also where the last window is dropped, or overhangs alone; values and declared shapes."""
    options = {"stride": stride, "padding": padding, "ceil_mode": True}
    conv = nn.Conv(1, 2, 1, rng=0)
    for pool in (
        nn.MaxPool(window, **options),
        nn.AvgPool(window, **options),
        nn.AvgPool(window, **options, count_include_pad=True),
    ):
        model = nn.Sequential(conv, pool)
        model.to_onnx(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        evaluator = ReferenceEvaluator(path, new_ops=OPS)
        for H, W in [(n, n) for n in range(1, 10)] + [(3, 8), (7, 2)]:
            x = image(H, W, 1)
            try:
                expected = model.predict(x)
            except ValueError:
                continue
            for y in (session.run(["y"], {"x": x})[0], evaluator.run(None, {"x": x})[0]):
                np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
            declared = to_model(model, input_shape=(H, W, 1)).graph.output[0].type.tensor_type.shape
            assert [d.dim_value for d in declared.dim[1:]] == list(expected.shape[1:])
            rows = nn.Dense(expected[0].size, 3, rng=0)  # of which shape inference knows the length
            to_model(nn.Sequential(conv, pool, nn.Flatten(), rows), input_shape=(H, W, 1))


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
    for name in [name for name in sys.modules if name.startswith("fastconv.nn.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "model.npz"]) == 1
    assert 'onnx is not installed: pip install "fastconv[onnx]"' in capsys.readouterr().err
