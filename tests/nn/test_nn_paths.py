"""What is no path, or a folder where a file is wanted, is refused by the argument's name."""

import os
from pathlib import Path

import numpy as np
import pytest

from fastconv import nn
from fastconv.examples import data
from fastconv.examples.folder import ImageFiles
from fastconv.examples.names import read_names
from fastconv.explain.images import read_array, read_images
from fastconv.explain.notebooks import write_notebooks
from fastconv.nn import files
from fastconv.nn.files import file_path, replacing

X, Y = np.ones((4, 4, 4, 1), np.float32), np.arange(4) % 2


def model():
    return nn.Sequential(nn.Flatten(), nn.Dense(16, 2, rng=0))


def fit(**options):
    net = model()
    nn.fit(net, nn.SoftmaxCrossEntropy(), nn.SGD(net.parameters()), X, Y, epochs=1, **options)


def write(path):
    with replacing(path):
        pass


def from_onnx(path):
    pytest.importorskip("onnx")
    nn.from_onnx(path)


def to_onnx(path):
    pytest.importorskip("onnx")
    model().to_onnx(path, input_shape=(4, 4, 1))


def tensorboard(folder):
    pytest.importorskip("tensorboardX")
    nn.TensorBoard(folder)


WRITERS = {
    "checkpoint": ("checkpoint", lambda path: fit(checkpoint=path)),
    "best_checkpoint": ("best_checkpoint", lambda path: fit(best_checkpoint=path)),
    "save": ("path", lambda path: model().save(path)),
    "save_weights": ("path", lambda path: model().save_weights(path)),
    "save_checkpoint": (
        "path",
        lambda path: nn.save_checkpoint(path, nn.Checkpoint(0, {}, [], {})),
    ),
    "to_onnx": ("path", to_onnx),
    "CSVLog": ("path", lambda path: fit(callbacks=[nn.CSVLog(path)])),
    "replacing": ("path", write),
}
READERS = {
    "resume": ("checkpoint", lambda path: fit(checkpoint=path, resume=True)),
    "load": ("path", nn.Sequential.load),
    "load_weights": ("path", lambda path: model().load_weights(path)),
    "load_checkpoint": ("path", nn.load_checkpoint),
    "from_onnx": ("path", from_onnx),
    "load_npz": ("path", data.load_npz),
    "read_images": ("path", read_images),
    "read_array": ("path", read_array),
    "read_names": ("path", read_names),
}
OTHERS = {
    "previous_path": ("path", nn.previous_path),
    "TensorBoard": ("folder", tensorboard),
    "load_data": ("path", data.load_data),
    "load_idx": ("folder", data.load_idx),
    "load_cifar": ("folder", data.load_cifar),
    "load_folder": ("folder", data.load_folder),
    "ImageFiles": ("paths", lambda path: ImageFiles([path])),
    "write_notebooks": ("folder", write_notebooks),
}
ALL = WRITERS | READERS | OTHERS
NO_PATHS = [
    (3, TypeError, "3"), (True, TypeError, "True"), (1.5, TypeError, "1.5"),
    (["a.npz"], TypeError, "a.npz"), (X, TypeError, "an array of shape"),
    (model(), TypeError, "an object of Sequential"), (Path, TypeError, "class Path"),
    ("", ValueError, "''"), ("a\0b.npz", ValueError, "a.x00b"),
]  # fmt: skip


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize(("given", "kind", "text"), NO_PATHS)
def test_what_is_no_path(call, given, kind, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, function = ALL[call]
    with pytest.raises(kind, match=f"^{name}: a path is needed, got .*{text}") as caught:
        function(given)
    assert len(str(caught.value)) < 300
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("call", WRITERS)
def test_a_folder_is_no_file_to_write(call, tmp_path):
    folder = tmp_path / "a.npz"
    folder.mkdir()
    name, function = WRITERS[call]
    with pytest.raises(ValueError, match=f"^{name}: .*a.npz is a folder; a file name is needed$"):
        function(folder)
    assert os.listdir(tmp_path) == ["a.npz"]


@pytest.mark.parametrize("call", READERS)
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv", ".safetensors", ".weights.h5", ".png"])
def test_a_folder_is_no_file_to_read(call, suffix, tmp_path):
    folder = tmp_path / f"a{suffix}"
    folder.mkdir()
    with pytest.raises((ValueError, IsADirectoryError)) as caught:
        READERS[call][1](folder)
    assert f"a{suffix}" in str(caught.value)


@pytest.mark.parametrize("call", ["checkpoint", "best_checkpoint"])
def test_a_folder_that_is_not_there(call, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^{call}: there is no folder .*none"):
        WRITERS[call][1](tmp_path / "none" / "a.npz")


@pytest.mark.parametrize("protected", ["folder", "file"])
@pytest.mark.parametrize("call", ["checkpoint", "best_checkpoint"])
def test_what_may_not_be_written_is_found_before_the_first_step(
    call, protected, tmp_path, monkeypatch
):
    path = tmp_path / "a.npz"
    path.touch()
    wrong = tmp_path if protected == "folder" else path
    monkeypatch.setattr(files, "may_write", lambda place: place != wrong)
    with pytest.raises(PermissionError, match=f"^{call}: {wrong} may not be written to"):
        WRITERS[call][1](path)
    assert path.read_bytes() == b""
    assert os.listdir(tmp_path) == ["a.npz"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_what_is_no_file_is_written_in_place(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(files, "may_write", lambda place: place != tmp_path)
    assert files.new_file("path", tmp_path / "pipe") == tmp_path / "pipe"


def test_paths_of_all_kinds(tmp_path):
    for given in (str(tmp_path), tmp_path, os.fsencode(tmp_path)):
        assert file_path("path", given) == tmp_path
    model().save(os.fsencode(tmp_path / "a.npz"))
    assert len(nn.Sequential.load(os.fsencode(tmp_path / "a.npz"))) == 2
