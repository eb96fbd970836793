"""``fastconv train``: trains, resumes, reports, and says what is wrong."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser

import numpy as np
import pytest

from fastconv import nn
from fastconv.cli import main
from fastconv.cli.training import figures, report
from fastconv.cli.training.report import worst_mistakes
from fastconv.cli.training.setup import prepare
from fastconv.examples import RECIPES
from fastconv.nn.progress import Progress

MISSING = 'python -m pip install "fastconv[examples]"'


@pytest.fixture
def data(tmp_path):
    """60 images of 8x8 pixels that a tiny network can tell apart: an upright or a lying bar."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.integers(0, 60, (60, 8, 8)).astype(np.uint8)
    for image, label in zip(x, y, strict=True):
        place = rng.integers(1, 6)
        if label:
            image[:, place : place + 2] = 255
        else:
            image[place : place + 2] = 255
    path = tmp_path / "bars.npz"
    np.savez(path, x=x, y=y)
    return path


def train(*words):
    return main(["train", *map(str, words)])


def weights(path):
    return [p.value for p in nn.Sequential.load(path).parameters()]


def assert_same_model(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_digits(capsys, tmp_path):
    """One epoch on the real digits: far better than guessing, and only --out is written to."""
    assert train("--epochs", 1, "--out", tmp_path / "run") == 0
    out, err = capsys.readouterr()
    last = out.splitlines()[-1]
    match = re.fullmatch(r"test accuracy (\d\.\d{4}) \((\d+) of (\d+) images\)", last)
    right, total = int(match[2]), int(match[3])
    assert float(match[1]) == pytest.approx(right / total, abs=5e-5)
    assert right / total > 0.8
    assert 355 <= total <= 362  # a fifth of 1797
    assert re.fullmatch(
        r"epoch 1/1  loss [\d.]+  accuracy [\d.]+  val loss [\d.]+  val accuracy [\d.]+  "
        r"[\d,]+ images/s\n",
        err,
    )
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert files == {"checkpoint.npz", "checkpoint.previous.npz", "model.npz"}


def test_trained_model_is_the_one_that_was_tested(capsys, data, tmp_path):
    assert train("--model", "binary_cnn", "--data", data, "--out", tmp_path / "bars.npz.npz") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    setup = prepare("binary_cnn", str(data), lr=0.1, seed=0)
    z = nn.Sequential.load(tmp_path / "bars.npz.npz").predict(setup.x_test)
    right = int(((z[:, 0] > 0) == setup.y_test).sum())
    assert last == f"test accuracy {right / 12:.4f} ({right} of 12 images)"
    assert right >= 10
    assert (tmp_path / "bars.npz.checkpoint.npz").exists()


@pytest.mark.parametrize("model", RECIPES)
def test_resumed_is_uninterrupted(model, capsys, data, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    common = ("--model", model, "--data", data, "--seed", 3, "--batch-size", 7)
    assert train(*common, "--epochs", 3, "--out", whole) == 0
    assert train(*common, "--epochs", 1, "--out", part) == 0
    assert train(*common, "--epochs", 3, "--out", part, "--resume") == 0
    err = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in err] == [
        *("epoch 1/3", "epoch 2/3", "epoch 3/3"),
        "epoch 1/1",
        *("epoch 2/3", "epoch 3/3"),
    ]
    assert_same_model(whole / "model.npz", part / "model.npz")
    # A finished run resumes to its result.
    assert train(*common, "--epochs", 3, "--out", part, "--resume") == 0
    assert_same_model(whole / "model.npz", part / "model.npz")


def test_seed_decides_the_result(data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ("--model", "binary_cnn", "--data", data, "--seed", seed, "--epochs", 1)
        assert train(*words, "--out", tmp_path / name) == 0
    assert_same_model(tmp_path / "a" / "model.npz", tmp_path / "b" / "model.npz")
    with pytest.raises(AssertionError):
        assert_same_model(tmp_path / "a" / "model.npz", tmp_path / "c" / "model.npz")


class Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.images, self.fetched, self.open, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.fetched += [found[k] for k in ("href", "src", "action", "data") if k in found]
        if tag == "img":
            self.images.append(found["alt"])
        elif tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_report(capsys, tmp_path):
    folder = tmp_path / "deep" / "report"
    words = ("--epochs", 1, "--seed", 1, "--out", tmp_path / "run", "--report", folder)
    assert train(*words) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-2] == f"report: {folder / 'report.html'}"
    right, total = (int(n) for n in re.findall(r"(\d+) of (\d+)", out[-1])[0])
    assert right < total  # so that there are mistakes to show
    figures = ["learning_curve", "filters", "confusion_matrix", "mistakes", "attention"]
    assert {p.name for p in folder.iterdir()} == {"report.html", *(f"{f}.png" for f in figures)}
    for name in figures:
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.images == [name.replace("_", " ") for name in figures]
    assert page.fetched
    assert all(address.startswith("data:image/png;base64,") for address in page.fetched)
    text = " ".join(page.texts)
    assert "url(" not in text
    assert "@import" not in text
    assert f"{right} of {total} images" in text
    assert f"{right / total:.2%}" in text
    assert f"--seed 1 --out {tmp_path / 'run'}" in text
    wrong = total - right
    assert (f"All {wrong}," if wrong <= 18 else f"The worst 18 of {wrong},") in text
    assert "digits_cnn" in text


def test_report_without_mistakes(capsys, data, tmp_path, monkeypatch):
    """A resumed, finished run and a perfect model still make a page."""
    out = ("--model", "binary_cnn", "--data", data, "--out", tmp_path / "run")
    assert train(*out, "--epochs", 1) == 0
    assert "(12 of 12 images)" not in capsys.readouterr().out
    predict = nn.Sequential.predict

    def perfect(self, x, batch_size=256):
        z = predict(self, x, batch_size)
        upright = x.max(axis=2).min(axis=(1, 2)) > x.max(axis=1).min(axis=(1, 2))
        return np.where(upright[:, None], 5.0, -5.0).astype(z.dtype)

    monkeypatch.setattr(nn.Sequential, "predict", perfect)
    assert train(*out, "--epochs", 1, "--resume", "--report", tmp_path / "report") == 0
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "(12 of 12 images)" in capsys.readouterr().out
    assert "None: all 12 test images were recognised." in text
    assert not (tmp_path / "report" / "mistakes.png").exists()
    assert not (tmp_path / "report" / "attention.png").exists()


def test_worst_mistakes_come_first():
    labels = np.array([0, 1, 2, 0])
    probabilities = np.array([[0.3, 0.4, 0.3], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    assert worst_mistakes(labels, probabilities).tolist() == [2, 3, 0]
    assert worst_mistakes(labels[1:2], probabilities[1:2]).tolist() == []


def start(words, folder):
    # A shell ignores Ctrl-C on behalf of what it runs in the background, its children included.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _start(words, folder)
    finally:
        signal.signal(signal.SIGINT, ignored)


def _start(words, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "fastconv", "train", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_leaves_a_checkpoint_that_resumes(data, tmp_path, monkeypatch):
    common = ("--model", "binary_cnn", "--data", data.name, "--seed", 4)
    process = start([*common, "--epochs", 100000, "--out", "my run"], tmp_path)
    with process:
        for line in process.stderr:
            if line.startswith("epoch      3/"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait() == 130
    message, command = rest[rest.index("interrupted after") :].splitlines()
    done = int(re.match(r"interrupted after (\d+) of 100000 epochs; ", message)[1])
    assert done >= 3
    assert "Traceback" not in rest
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "fastconv", "train"]
    assert words[-1] == "--resume"
    assert words[words.index("--out") + 1] == "my run"
    # That command, but with an end in sight, ends where an uninterrupted run does.
    words[words.index("--epochs") + 1] = str(done + 2)
    monkeypatch.chdir(tmp_path)
    assert main(words[3:]) == 0
    assert train(*common, "--epochs", done + 2, "--out", "whole") == 0
    assert_same_model(tmp_path / "my run" / "model.npz", tmp_path / "whole" / "model.npz")


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_sigkill_leaves_a_checkpoint_that_resumes(data, tmp_path):
    common = ("--model", "binary_cnn", "--data", data, "--seed", 4)
    process = start([*common, "--epochs", 100000, "--out", "run"], tmp_path)
    with process:
        for line in process.stderr:
            if line.startswith("epoch      2/"):
                time.sleep(0.013)  # somewhere between, or within, the writing of checkpoints
                process.kill()
                break
        process.stderr.read()
        assert process.wait() == -signal.SIGKILL
    done = nn.load_checkpoint(tmp_path / "run" / "checkpoint.npz").epoch
    assert done >= 1
    assert train(*common, "--epochs", done + 1, "--out", tmp_path / "run", "--resume") == 0
    assert train(*common, "--epochs", done + 1, "--out", tmp_path / "whole") == 0
    assert_same_model(tmp_path / "run" / "model.npz", tmp_path / "whole" / "model.npz")


def test_resume_says_what_differs(capsys, data, tmp_path):
    run = ("--data", data, "--out", tmp_path / "run")
    assert train(*run, "--model", "binary_cnn", "--epochs", 1) == 0
    capsys.readouterr()
    for words, expected in [
        (("--model", "binary_cnn", "--seed", 9), "was made with --seed 0, not 9"),
        (
            ("--model", "binary_cnn", "--lr", 9),
            f"was made with --lr {RECIPES['binary_cnn'].lr:g}, not 9",
        ),
        (("--model", "two_conv_cnn"), "was made with another --model than two_conv_cnn"),
    ]:
        assert train(*run, *words, "--resume") == 2
        err = capsys.readouterr().err
        assert expected in err
        assert err.count("\n") == 1
    checkpoint = tmp_path / "run" / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert train(*run, "--model", "binary_cnn", "--resume") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "checkpoint.previous.npz" in err


def test_resume_of_a_run_that_was_killed_before_its_first_checkpoint(capsys, data, tmp_path):
    (tmp_path / "run").mkdir()
    words = ("--model", "binary_cnn", "--data", data, "--epochs", 1, "--out", tmp_path / "run")
    assert train(*words, "--resume") == 0
    assert f"no checkpoint in {tmp_path / 'run'} yet: starting" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["run", "bars.npz"])
def test_another_run_is_not_replaced_unless_that_is_said(out, capsys, data, tmp_path):
    out = tmp_path / out if out == "run" else tmp_path / "models" / out
    words = ("--model", "binary_cnn", "--data", data, "--epochs", 1, "--out", out)
    assert train(*words) == 0
    folder = out if out.is_dir() else out.parent
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert len(before) == 3
    capsys.readouterr()
    other = ("--seed", 5, *words)
    assert train(*other) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for word in ("--out: ", "checkpoint.npz", "--resume", "--overwrite"):
        assert word in err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    # Any one of the three files is a run.
    for name in before:
        for path in folder.iterdir():
            path.unlink()
        (folder / name).write_bytes(before[name])
        assert train(*other) == 2
        assert name in capsys.readouterr().err
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {name: before[name]}
    for name, content in before.items():
        (folder / name).write_bytes(content)
    assert train(*words, "--resume") == 0
    assert train(*other, "--overwrite") == 0
    model = folder / next(name for name in before if "checkpoint" not in name)
    assert model.read_bytes() != before[model.name]
    assert train(*other, "--overwrite", "--resume") == 2
    assert "not allowed with" in capsys.readouterr().err


def test_the_images_are_not_written_over(capsys, data, tmp_path):
    before, link = data.read_bytes(), tmp_path / "link.npz"
    link.symlink_to(data)
    for out in (data, link):
        for option in ((), ("--overwrite",), ("--resume",)):
            assert train("--model", "binary_cnn", "--data", data, "--out", out, *option) == 2
            assert f"--out: {out} holds the images of --data" in capsys.readouterr().err
    assert data.read_bytes() == before


@pytest.mark.parametrize("name", ["bars.npz", "bars.checkpoint.npz"])
def test_folders_where_files_are_to_be(name, capsys, data, tmp_path):
    (tmp_path / "models" / name).mkdir(parents=True)
    for option in ((), ("--overwrite",), ("--resume",)):
        assert train("--data", data, "--out", tmp_path / "models" / "bars.npz", *option) == 2
        err = capsys.readouterr().err
        assert f"{name} is a folder; a file name is needed" in err
        assert err.count("\n") == 1
    assert [path.name for path in (tmp_path / "models").iterdir()] == [name]


def test_overwrite_of_nothing_and_resume_of_a_model_alone(capsys, data, tmp_path):
    words = ("--model", "binary_cnn", "--data", data, "--epochs", 1, "--out", tmp_path / "run")
    assert train(*words, "--overwrite") == 0
    for path in (tmp_path / "run").glob("checkpoint*"):
        path.unlink()
    model = (tmp_path / "run" / "model.npz").read_bytes()
    capsys.readouterr()
    assert train(*words, "--resume") == 2
    assert "model.npz, but no checkpoint" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.npz").read_bytes() == model


def bars(folder, labels, **arrays):
    rng = np.random.default_rng(0)
    path = folder / "bars.npz"
    np.savez(path, x=rng.integers(0, 256, (60, 8, 8), np.uint8), y=labels, **arrays)
    return path


@pytest.mark.parametrize("model", RECIPES)
@pytest.mark.parametrize("label", [0, "cat"])
def test_one_class(model, label, capsys, tmp_path):
    path = bars(tmp_path, np.full(60, label))
    words = ("--model", model, "--data", path, "--out", tmp_path / "run")
    assert train(*words, "--epochs", 20, "--report", tmp_path / "report") == 0
    assert capsys.readouterr().out.endswith("test accuracy 1.0000 (12 of 12 images)\n")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "None: all 12 test images were recognised." in page


@pytest.mark.parametrize(
    ("labels", "unused"),
    [
        (np.arange(60) % 10 + 1, "has the label 0: labels count from 0, and the network has 11 cl"),
        (np.arange(60) % 3 * 2, "has the label 1, 3: "),
        (np.arange(60) % 3 * 10, "has the label 1, 2, 3, 4, 5, 6, 7, 8, ... (18 of 21 classes): "),
        (np.arange(60) % 3, None),
        (np.array(["a", "b", "c"])[np.arange(60) % 3], None),
        (np.eye(4)[np.arange(60) % 3], "has the label 3: "),
    ],
)
def test_classes_without_an_image_are_said_in_one_line(labels, unused, capsys, tmp_path):
    path = bars(tmp_path, labels)
    assert train("--data", path, "--epochs", 1, "--out", tmp_path / "run") == 0
    err = capsys.readouterr().err.splitlines()
    notes = [line for line in err if not line.startswith("epoch ")]
    assert len(notes) == (unused is not None)
    if unused:
        assert notes[0].startswith(f"note: no training image {unused}")


def test_a_name_that_only_the_test_has_is_named(capsys, tmp_path):
    y = np.array(["ant", "bee"])[np.arange(60) % 2]
    test = {"x_test": np.zeros((2, 8, 8), np.uint8), "y_test": np.array(["ant", "fly"])}
    assert train("--data", bars(tmp_path, y, **test), "--epochs", 1, "--out", tmp_path / "r") == 0
    assert "note: no training image has the label fly: " in capsys.readouterr().err


def test_floats_in_another_scale_are_said_in_one_line(capsys, data, tmp_path):
    x = np.load(data)["x"].astype(np.float32)
    for factor, said in ((1.0, True), (1 / 255, False)):
        np.savez(tmp_path / "a.npz", x=x * np.float32(factor), y=np.arange(60) % 2)
        words = ("--data", tmp_path / "a.npz", "--out", tmp_path / "run", "--epochs", 1)
        assert train("--model", "binary_cnn", *words, "--overwrite") == 0
        assert ("note: pixels are floats up to 255, " in capsys.readouterr().err) == said


def test_names_of_classes_in_the_report(tmp_path, monkeypatch):
    from fastconv.cli.training import figures as report_figures

    names = ["<b>ant</b>", "$x_1$", "a name that is too long for any figure"]
    path = bars(tmp_path, np.array(names)[np.arange(60) % 3])
    drawn = {}
    matrix, mistakes = report_figures.confusion_matrix, report_figures.mistakes
    monkeypatch.setattr(
        report_figures, "confusion_matrix", lambda *a: matrix(*drawn.setdefault("matrix", a))
    )
    monkeypatch.setattr(
        report_figures, "mistakes", lambda *a: mistakes(*drawn.setdefault("mistakes", a))
    )
    words = ("--data", path, "--epochs", 1, "--out", tmp_path / "run")
    assert train(*words, "--report", tmp_path / "report") == 0
    shown = drawn["matrix"][2]
    assert shown == ["$x_1$", "<b>ant</b>", "a name that is too lo..."]  # in order
    assert all(re.match(r"is .*: [\d.]+%\nfound .*: [\d.]+%$", t) for t in drawn["mistakes"][1])
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;ant&lt;/b&gt;" in text
    assert "<b>ant" not in text
    assert names[2] in text


def test_wrong_data(capsys, tmp_path):
    path = tmp_path / "wrong.npz"
    cases = [
        ({"x": np.zeros((20, 8, 8))}, "y"),
        ({"x": np.zeros((20, 9, 9)), "y": np.arange(20) % 2}, "images of 8x8x1"),
        ({"x": np.zeros((30, 8, 8)), "y": np.arange(30) % 3}, "takes the labels 0 and 1, found 3"),
        ({"x": np.zeros((20, 8, 8)), "y": np.zeros(20)}, "y: expected integer labels"),
        ({"x": np.zeros((20, 8, 8)), "y": np.zeros(19, int)}, "one label per image"),
    ]
    for arrays, expected in cases:
        np.savez(path, **arrays)
        assert train("--model", "binary_cnn", "--data", path, "--out", tmp_path / "run") == 2
        err = capsys.readouterr().err
        assert expected in err
        assert err.count("\n") == 1
    path.write_text("not a zip file", encoding="utf-8")
    assert train("--data", path, "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err.count("\n") == 1
    np.savez(path, x=np.zeros((20, 3, 3)), y=np.arange(20) % 2)
    assert train("--data", path, "--out", tmp_path / "run") == 2
    assert "--model digits_cnn: the images do not fit: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_diverging_training_is_one_line(capsys, data, tmp_path):
    words = ("--model", "two_conv_cnn", "--data", data, "--out", tmp_path, "--lr", 1e38)
    assert train(*words, "--epochs", 5) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("fastconv train: error: loss is ")
    assert "smaller lr" in last


def test_without_the_extra(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("sklearn", "sklearn.datasets", "rich", "rich.console", "rich_argparse"):
        monkeypatch.setitem(sys.modules, name, None)
    assert train() == 1
    err = capsys.readouterr().err
    assert MISSING in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_report_without_matplotlib_fails_before_training(capsys, data, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ("--data", data, "--model", "binary_cnn", "--out", tmp_path / "run")
    assert train(*words, "--report", tmp_path / "report") == 1
    assert MISSING in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    # Own data need no extra at all.
    for name in ("sklearn", "sklearn.datasets", "rich", "rich.console"):
        monkeypatch.setitem(sys.modules, name, None)
    assert train(*words, "--epochs", 1) == 0


@pytest.mark.parametrize("rich", [True, False])
def test_progress_on_a_terminal(rich, capsys, data, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    kind = type(Progress().bar).__name__
    assert kind == ("_RichBar" if rich else "_PlainBar")
    words = ("--data", data, "--model", "binary_cnn", "--epochs", 2, "--batch-size", 4)
    assert train(*words, "--out", tmp_path / "run") == 0
    err = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"epoch 2/2 .*44/44", err)  # 60 images less a fifth and a tenth
    assert len(re.findall(r"epoch \d/2  loss .* images/s", err)) == 2


def test_filters_of_colour_images_are_in_colour():
    w = np.random.default_rng(0).normal(size=(3, 3, 3, 2))
    tile = figures.filters(w).axes[1].images[0].get_array()
    assert tile.shape == (3, 3, 3)
    np.testing.assert_allclose(tile, 0.5 + w[..., 1] / (2 * np.abs(w[..., 1]).max()))
    for channels in (1, 2):
        grey = figures.filters(w[:, :, :channels]).axes[1].images[0].get_array()
        np.testing.assert_allclose(grey, w[:, :, :channels, 1].mean(axis=2))


def test_maps_lie_over_the_images():
    image, maps = np.zeros((4, 5, 1)), [np.eye(4, 5), np.ones((4, 5))]
    found = figures.attention([image] * 2, [maps] * 2, ["is 1", "is 2"], ["image", "a", "b"])
    assert [len(ax.images) for ax in found.axes] == [1, 2, 2] * 2
    np.testing.assert_array_equal(found.axes[1].images[1].get_array(), maps[0])
    assert found.axes[3].get_ylabel() == "is 2"


def test_figures_per_class_are_scikit_learns(data):
    setup = prepare("digits_cnn", str(data), 1e-3, 0)
    setup.y_test, setup.classes = np.array([0, 0, 0, 1]), 3
    text = report._per_class(setup, np.array([0, 0, 1, 1]))
    rows = [re.findall(r">([^<]+)</td>", row) for row in text.split("<tr>")[2:]]
    assert rows == [["0", "3", "66.7%", "100.0%", "80.0%"], ["1", "1", "100.0%", "50.0%", "66.7%"],
                    ["2", "0", "-", "-", "-"]]  # fmt: skip
    counts = [
        text.get_text()
        for text in figures.confusion_matrix(setup.y_test, np.array([0, 0, 1, 1]), "abc")
        .axes[0]
        .texts
    ]
    assert counts == ["2", "1", "1"]


def test_ranks_without_mpi4py_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    assert main(["train", "--distributed", "--out", str(tmp_path / "run")]) == 1
    expected = 'error: --distributed: mpi4py.MPI is not installed: pip install "fastconv[mpi]"'
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
