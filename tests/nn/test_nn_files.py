"""Saved models: bit-for-bit round trips, and files that are wrong."""

import io
import json
import zipfile

import numpy as np
import pytest

from fastconv import examples, nn, reference
from fastconv.nn.npz import write_npz


def everything(dtype=np.float32):
    """A network with every layer that can be saved."""
    body = nn.Sequential(nn.Conv(4, 4, 3, padding=((1, 1), (0, 2)), rng=1, dtype=dtype), nn.Tanh())
    return nn.Sequential(
        nn.Conv(1, 4, (3, 3), padding="same", activation="relu", rng=0, dtype=dtype),
        nn.Residual(body, nn.Conv(4, 4, 1, bias=False, rng=2, dtype=dtype)),
        nn.Residual(nn.BatchNorm(4, momentum=0.5, dtype=dtype)),
        nn.MaxPool((2, 2)),
        nn.ConvTranspose(4, 2, 2, stride=2, groups=2, rng=3, dtype=dtype),
        nn.AvgPool(2, padding=1, count_include_pad=True),
        nn.ReLU(),
        nn.Dropout(0.25, seed=4),
        nn.Conv(2, 3, 2, stride=(1, 2), dilation=2, rng=5, dtype=dtype),
        nn.Sigmoid(),
        nn.GlobalAvgPool(),
        nn.Flatten(),
        nn.Dense(3, 2, rng=6, dtype=dtype),
        name="everything",
    )


X = np.random.default_rng(0).random((3, 8, 8, 1))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.npz"
    everything().save(path)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_bit_for_bit(tmp_path, dtype):
    model, x = everything(dtype), X.astype(dtype)
    model.forward(x)  # moves the running statistics
    path = tmp_path / "model"  # no suffix is added
    model.save(path)
    again = nn.Sequential.load(path)
    assert again.config() == model.config()
    assert again.name == "everything"
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    for old, new in zip(model.parameters(), again.parameters(), strict=True):
        assert (old.name, old.dtype) == (new.name, new.dtype)
        np.testing.assert_array_equal(old.value, new.value)
    for name, buffer in model.named_buffers().items():
        np.testing.assert_array_equal(again.named_buffers()[name], buffer)
    second = tmp_path / "again.npz"
    again.save(second)
    assert second.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.npz", "model"]


def test_examples_round_trip(tmp_path):
    for make in (examples.binary_cnn, examples.two_conv_cnn, examples.digits_cnn):
        model = make()
        model.save(tmp_path / "model.npz")
        again = nn.Sequential.load(str(tmp_path / "model.npz"), ops=reference)
        assert again.config() == model.config()
        assert again.layers[0].ops is reference


def test_layer_of_ones_own_cannot_be_saved(tmp_path):
    class Twice(nn.Layer):
        def forward(self, x):
            return 2 * x

    with pytest.raises(TypeError, match=r"layer 1: .*Twice.* can be saved"):
        nn.Sequential(nn.ReLU(), Twice()).save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file"):
        nn.Sequential.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="it is no whole"):
        nn.Sequential.load(tmp_path)
    with pytest.raises(ValueError, match="is a folder"):
        everything().save(tmp_path)


def test_every_truncation_is_an_error(saved):
    whole = saved.read_bytes()
    for length in [0, 1, 10, *range(100, len(whole), len(whole) // 40), len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"model\.npz: expected a model saved by fastconv, but"
        ):
            nn.Sequential.load(saved)


def test_every_changed_byte_is_an_error_or_harmless(saved):
    whole = bytearray(saved.read_bytes())
    model, messages = nn.Sequential.load(saved).config(), []
    for position in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        saved.write_bytes(damaged)
        try:
            # What still loads differs in a date of the archive only: CRCs guard the rest.
            assert nn.Sequential.load(saved).config() == model
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert all("model.npz" in message for message in messages)


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {
            name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)))
            for name in archive.namelist()
        }


def altered(path, change):
    """Rewrite a saved model after `change(arrays, architecture)`."""
    arrays = members(path)
    text = json.loads(str(arrays["architecture"]))
    change(arrays, text)
    if "architecture" in arrays:
        arrays["architecture"] = np.array(json.dumps(text))
    write_npz(path, arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, t: a.pop("format"), "array 'format' is missing"),
        (lambda a, t: a.update(format=np.array("model 9")), "its format is 'model 9'"),
        (lambda a, t: a.pop("architecture"), "array 'architecture' is missing"),
        (lambda a, t: a.pop("parameters/0.w"), "array 'parameters/0.w' is missing"),
        (lambda a, t: a.pop("buffers/2.body.running_mean"), "running_mean' is missing"),
        (
            lambda a, t: a.update({"parameters/0.b": np.zeros(5, np.float32)}),
            r"'parameters/0.b' has shape \(5,\) instead of \(4,\)",
        ),
        (
            lambda a, t: a.update({"parameters/0.b": np.zeros(4)}),
            "'parameters/0.b' is float64 instead of float32",
        ),
        (lambda a, t: t["layers"][0].update(type="System"), "unknown layer type 'System'"),
        (lambda a, t: t["layers"][0].update(colour="red"), "its architecture makes no model"),
        (lambda a, t: t["layers"][0].pop("filters"), "its architecture makes no model"),
        (lambda a, t: t["layers"][0].update(filters=-1), "filters: must be at least 1"),
        (lambda a, t: t["layers"][0].update(filters=10**7, channels=10**7), "too large|shape"),
        (lambda a, t: t["layers"][0].update(filters=2**62), "makes no model|too large"),
        (lambda a, t: t.update(layers=3), "its architecture makes no model"),
        (lambda a, t: t.pop("type"), "its architecture makes no model"),
        (lambda a, t: [t.clear(), t.update(type="ReLU")], "it holds a ReLU"),
    ],
)
def test_wrong_contents(saved, change, message):
    altered(saved, change)
    with pytest.raises(ValueError, match=message) as caught:
        nn.Sequential.load(saved)
    assert "model.npz" in str(caught.value)


def test_deeply_nested_architecture(saved):
    arrays = members(saved)
    arrays["architecture"] = np.array('{"type":"Residual","body":' * 50000 + "0" + "}" * 50000)
    write_npz(saved, arrays)
    with pytest.raises(ValueError, match="its architecture"):
        nn.Sequential.load(saved)


def test_nothing_is_unpickled(saved):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    arrays = members(saved)
    arrays["parameters/0.b"] = np.array([Bomb()] * 4, dtype=object)
    np.savez(saved, **arrays)
    with pytest.raises(ValueError, match=r"'parameters/0\.b' holds object, which is never"):
        nn.Sequential.load(saved)


def test_compressed_files_are_refused(saved):
    arrays = members(saved)
    np.savez_compressed(saved, **arrays)
    with pytest.raises(ValueError, match="is compressed"):
        nn.Sequential.load(saved)


def test_failed_load_leaves_no_half_written_target(saved):
    from fastconv.nn.npz import NpzReader
    from fastconv.nn.storage import model_arrays, read_arrays

    model = everything()
    before = [p.value.copy() for p in model.parameters()]
    altered(saved, lambda a, t: a.pop("parameters/12.b"))
    with NpzReader(saved, "a model") as reader, pytest.raises(ValueError, match=r"12\.b"):
        read_arrays(reader, model_arrays(model))
    for value, parameter in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(value, parameter.value)
