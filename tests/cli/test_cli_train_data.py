"""``fastconv train`` on data of every kind, names of classes, and a picture of augmentation."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

from fastconv.cli import main
from fastconv.cli.training import showing
from fastconv.examples import RECIPES, load_data

TEN = [f"kind {n}" for n in range(10)]


def train(*words):
    return main(["train", *map(str, words)])


def one_line(capsys):
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.fixture
def cifar(tmp_path):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (40, 3073), np.uint8)
    records[:, 0] = np.arange(40) % 10
    folder = tmp_path / "cifar"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(records.tobytes())
    (folder / "test_batch.bin").write_bytes(records[:10].tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(TEN))
    return folder


@pytest.fixture
def photos(tmp_path):
    for label, kind in enumerate(("cat", "dog")):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(10):
            grey = np.random.default_rng(i).integers(0, 99, (12, 10 + i % 3, 3)) + 120 * label
            Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "photos" / kind / f"{i}.png")
    return tmp_path / "photos"


def test_cifar_and_its_names(cifar, capsys, tmp_path):
    words = ("--data", cifar, "--epochs", 1, "--out", tmp_path / "run")
    assert train(*words, "--report", tmp_path / "report") == 0
    assert f"{cifar}: 40 training, 10 test images" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in TEN)


def test_a_folder_of_images_of_several_sizes(photos, capsys, tmp_path):
    words = ("--data", photos, "--epochs", 1, "--out", tmp_path / "run")
    assert train(*words) == 2
    assert re.search(
        r"error: --data: .*\d\.png: expected 12x\d+ .*: --image-size HxW resizes", one_line(capsys)
    )
    assert train(*words, "--image-size", "8x8") == 0
    out = capsys.readouterr().out
    assert f"{photos}: 14 training, 2 validation, 4 test images" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--image-size", "8"), "--image-size: '8' is not a size such as 32x32"),
        (("--image-size", "0x8"), "is not a size such as 32x32"),
        (("--image-size", "8x8"), "--image-size: it is for the images of a folder"),
        (("--labels", "none.txt"), "--labels: none.txt: No such file"),
    ],
)
def test_wrong_words(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = train(*words)
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert says in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_pickled_cifar_in_one_line(capsys, tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04.")
    assert train("--data", tmp_path, "--out", tmp_path / "run") == 2
    assert "is pickled" in one_line(capsys)


def test_a_folder_of_images_without_pillow(photos, capsys, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert train("--data", photos, "--out", tmp_path / "run") == 1
    assert "fastconv[examples]" in one_line(capsys)


def bars(folder, labels):
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(folder / "bars.npz", x=x, y=labels)
    return folder / "bars.npz"


def test_names_of_classes_from_a_file(capsys, tmp_path):
    data, names = bars(tmp_path, np.arange(60) % 3), tmp_path / "names.txt"
    words = ("--data", data, "--epochs", 1, "--labels", names, "--out", tmp_path / "run")
    names.write_text("<ant>\nbee\nfly\nnobody\n", encoding="utf-8")
    assert train(*words, "--report", tmp_path / "report") == 0
    assert "no training image has the label nobody: " in capsys.readouterr().err
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in page for name in ("&lt;ant&gt;", "bee", "fly", "nobody"))
    for content, says in [
        ("ant\nbee\n", "names.txt: 2 names for the 3 classes of the data"),
        ("ant\n\nbee", "names.txt: expected names of classes, one a line, but line 2 is empty"),
    ]:
        names.write_text(content, encoding="utf-8")
        assert train(*words, "--overwrite") == 2
        assert says in one_line(capsys)


@pytest.mark.parametrize("model", [name for name in RECIPES if RECIPES[name].augment()])
def test_a_picture_of_augmentation(model, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = []
    picture = showing.figures.augmentation
    monkeypatch.setattr(showing.figures, "augmentation", lambda *a: drawn.append(a) or picture(*a))
    data = bars(tmp_path, np.arange(60) % 3)
    words = ("--model", model, "--data", data, "--show-augmentation", "new/shown.png")
    assert train(*words, "--seed", 3) == 0
    assert capsys.readouterr().out.startswith("new/shown.png: 3 training images, as they are and")
    with Image.open("new/shown.png") as image:
        assert min(image.size) > 300
    columns, title = drawn[0]
    assert repr(RECIPES[model].augment()) in title
    rng, images = np.random.default_rng(3), columns[0]
    assert np.isin(images, load_data(data).x_train).all()
    for column in columns[1:]:
        np.testing.assert_array_equal(column, RECIPES[model].augment()(images, rng))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bars.npz", "new"]  # nothing was trained


def test_pictures_that_cannot_be_drawn(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    for words, says in [
        (("--show-augmentation", "a.jpg"), "a.jpg must be a file name that ends in .png"),
        (("--show-augmentation", "file/a.png"), "--show-augmentation: file is a file; a folder is"),
        (
            ("--show-augmentation", "a.png", "--model", "binary_cnn"),
            "recipe of binary_cnn has none",
        ),
    ]:
        assert train(*words) == 2
        assert says in one_line(capsys)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert train("--show-augmentation", "a.png") == 1
    assert "--show-augmentation draws with matplotlib, which is missing" in one_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
