"""``fastconv predict``: a trained model's folder or file, and images in every form."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from fastconv import nn
from fastconv.cli import main
from fastconv.nn.storage import About, read_about, save_model


@pytest.fixture
def model():
    """Bright images are of class 1 ("light"), by a mean and a threshold at one half."""
    made = nn.Sequential(nn.GlobalAvgPool(), nn.Dense(1, 2, init="zeros"))
    made.layers[1].w = np.array([[0, 20]], np.float32)
    made.layers[1].b = np.array([0, -10], np.float32)
    return made


@pytest.fixture
def trained(model, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    save_model(model, folder / "model.npz", About(("dark", "light"), (4, 6, 1), 1 / 255))
    return folder


def picture(path, value, size=(6, 4), mode="L"):
    Image.new(mode, size, value).save(path)
    return path


def predict(capsys, *words):
    status = main(["predict", *map(str, words)])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out.splitlines()


@pytest.mark.parametrize("name", ["", "model.npz"])
def test_files_by_the_folder_or_the_file(name, trained, tmp_path, capsys):
    a, b = picture(tmp_path / "a.png", 255), picture(tmp_path / "b.png", 0)
    lines = predict(capsys, trained / name if name else trained, a, b)
    assert lines == [f"{a}: light 1.0000, dark 0.0000", f"{b}: dark 1.0000, light 0.0000"]
    assert predict(capsys, trained, a, "--top", 1) == [f"{a}: light 1.0000"]


def test_images_of_another_size_or_in_colour_are_brought_to_the_model_s(trained, tmp_path, capsys):
    path = picture(tmp_path / "a.png", (255, 255, 255), (30, 20), "RGB")
    assert predict(capsys, trained, path) == [f"{path}: light 1.0000, dark 0.0000"]


def test_folders_and_arrays(trained, tmp_path, capsys):
    folder = tmp_path / "photos" / "deep"
    folder.mkdir(parents=True)
    picture(folder / "a.png", 255)
    picture(folder / "b.jpg", 0)
    lines = predict(capsys, trained, tmp_path / "photos")
    assert [line.split(": ")[1][:5] for line in lines] == ["light", "dark "]
    path = tmp_path / "x.npy"
    x = np.zeros((3, 4, 6), np.uint8)
    x[1] = 255
    for array in (x, x[..., None], (x / 255).astype(np.float32), x.astype(np.int32)):
        np.save(path, array)
        lines = predict(capsys, trained, path)
        assert [line.split(" ")[1] for line in lines] == ["dark", "light", "dark"]
        assert lines[1].startswith(f"{path}[1]: ")
    np.save(path, x[1])
    assert predict(capsys, trained, path) == [f"{path}[0]: light 1.0000, dark 0.0000"]


def test_a_zarr_array(trained, tmp_path, capsys):
    zarr = pytest.importorskip("zarr")
    x = np.zeros((2, 4, 6, 1), np.uint8)
    x[1] = 255
    zarr.save(str(tmp_path / "x.zarr"), x)
    lines = predict(capsys, trained, tmp_path / "x.zarr")
    assert [line.split(" ")[1] for line in lines] == ["dark", "light"]


@pytest.fixture
def shades(tmp_path):
    """Nine images, dark and light in turn, in a zarr array."""
    zarr = pytest.importorskip("zarr")
    x = np.zeros((9, 4, 6, 1), np.uint8)
    x[1::2] = 255
    zarr.create_array(str(tmp_path / "x.zarr"), data=x, chunks=(2, 4, 6, 1))
    return x


def test_results_of_an_array_are_kept(trained, model, shades, tmp_path, capsys):
    import zarr

    out = tmp_path / "y.zarr"
    words = ["predict", str(trained), str(tmp_path / "x.zarr"), "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{out}: 2 of 2 chunks are there\n"
    y = zarr.open_array(str(out), mode="r")
    expected = nn.SoftmaxCrossEntropy().predict(model.predict(shades, scale=1 / 255))
    np.testing.assert_array_equal(y[:], expected)
    assert y.attrs["class_names"] == ["dark", "light"]
    assert main(words) == 0
    assert f"{out}: 2 of 2 chunks were there" in capsys.readouterr().err
    np.save(tmp_path / "x.npy", shades.astype(np.uint16))
    words[2] = str(tmp_path / "x.npy")
    assert main(words) == 2
    assert f"{out} holds results of another image" in capsys.readouterr().err
    words[4] = str(tmp_path / "z.zarr")
    assert main(words) == 0
    assert "uint16 divided by 255" in capsys.readouterr().err
    np.testing.assert_array_equal(zarr.open_array(words[4], mode="r")[:], expected)


def test_a_stopped_command_says_how_to_go_on(trained, shades, tmp_path, capsys, monkeypatch):
    from fastconv.adapters import zarr as stored

    monkeypatch.setattr(stored, "LARGEST", 300)
    run, calls = stored._Task.run, []

    def stopped(self, x, index):
        calls.append(index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(self, x, index)

    monkeypatch.setattr(stored._Task, "run", stopped)
    words = ["predict", str(trained), str(tmp_path / "x.zarr"), "--out", str(tmp_path / "y.zarr")]
    assert main(words) == 130
    err = capsys.readouterr().err
    assert err.splitlines()[-1].endswith(" ".join(words))
    assert main(words) == 0
    assert "2 of 5 chunks were there" in capsys.readouterr().err
    assert len(calls) == 6


def test_a_killed_command_goes_on(tmp_path, capsys):
    """Twelve chunks; killed, by what no program can catch, when two are there."""
    zarr = pytest.importorskip("zarr")
    model = nn.Sequential(
        nn.Conv(1, 64, 3, padding="same", rng=0), nn.GlobalAvgPool(), nn.Dense(64, 3, rng=1)
    )
    model.save(tmp_path / "model.npz")
    x = np.random.default_rng(0).integers(0, 256, (1900, 40, 40, 1), np.uint8)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "y.zarr"
    words = ["predict", str(tmp_path / "model.npz"), str(tmp_path / "x.npy"), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "fastconv", *words])
    while not out.joinpath("c", "1", "0").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    chunks = [p for p in out.joinpath("c").rglob("*") if p.is_file() and p.suffix != ".partial"]
    assert len(chunks) >= 2
    assert main(words) == 0
    assert f"{len(chunks)} of 12 chunks were there" in capsys.readouterr().err
    expected = nn.SoftmaxCrossEntropy().predict(model.predict(x, scale=1 / 255))
    np.testing.assert_array_equal(zarr.open_array(str(out), mode="r")[:], expected)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a.png", "--out", "y.zarr"], "--out: the results of one zarr array or .npy file"),
        (["x.zarr", "x.zarr", "--out", "y.zarr"], "--out: the results of one zarr array"),
        (["x.zarr", "--out", "x.zarr"], "where the images are"),
        (["x.zarr", "--out", "a.png"], "a.png is no folder"),
        (["x.zarr", "--out", "y.zarr", "--top", "2"], "not allowed with"),
    ],
)
def test_what_cannot_be_kept(words, says, trained, shades, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png", 255)
    assert main(["predict", str(trained), *words]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "y.zarr").exists()


def test_older_files_have_numbers_and_one_output_is_two_classes(model, tmp_path, capsys):
    old = nn.Sequential(nn.GlobalAvgPool(), nn.Dense(1, 1, init="zeros"))
    old.layers[1].w = np.array([[20]], np.float32)
    old.layers[1].b = np.array([-10], np.float32)
    old.save(tmp_path / "old.npz")
    assert read_about(tmp_path / "old.npz") == About()
    path = picture(tmp_path / "a.png", 255)
    assert predict(capsys, tmp_path / "old.npz", path) == [f"{path}: 1 1.0000, 0 0.0000"]


def test_readers_that_do_not_know_of_it_load_the_model(trained, model):
    x = np.random.default_rng(0).random((2, 4, 6, 1), np.float32)
    loaded = nn.Sequential.load(trained / "model.npz")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ("[]", "cannot be read"),
        ("not JSON", "cannot be read"),
        (json.dumps({"scale": "x"}), "scale: a number is needed"),
        (json.dumps({"image_shape": [4, 4]}), "image_shape: .H, W, C. is needed"),
        (json.dumps({"class_names": [1]}), "class_names: texts are needed"),
    ],
)
def test_what_a_damaged_file_says_is_refused(about, says, trained, tmp_path, capsys):
    path = trained / "model.npz"
    arrays = dict(np.load(path)) | {"about": np.array(about)}
    np.savez(path, **arrays)
    assert main(["predict", str(trained), str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(path) in err
    assert err.count("\n") == 1
    with pytest.raises(ValueError, match=says):
        read_about(path)


@pytest.mark.parametrize(
    "name", ["none.png", "text.png", "empty", "a.npy", "wide.npy", "names.npy"]
)
def test_what_is_no_image_is_named(name, trained, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00nothing")
    np.save(tmp_path / "wide.npy", np.zeros((2, 4, 7, 1)))
    np.save(tmp_path / "names.npy", np.array(["a"]))
    assert main(["predict", str(trained), str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(tmp_path / name) in err
    assert err.count("\n") == 1


def test_no_model(tmp_path, capsys):
    assert main(["predict", str(tmp_path), "a.png"]) == 2
    assert "model.npz" in capsys.readouterr().err
