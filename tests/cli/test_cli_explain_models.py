"""``fastconv explain --model two_conv`` and others: files of every kind, labels, kernels, pages."""

import json

import numpy as np
import pytest

from fastconv.cli import main
from fastconv.examples import load_npz
from fastconv.explain import explain
from fastconv.explain.drawings import framed

RNG = np.random.default_rng(0)


def numbers(capsys, *words):
    assert main(["explain", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return {k: np.array(v) if isinstance(v, list) else v for k, v in found.items()}


def refused(capsys, *words, status=2):
    assert main(["explain", *words]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_the_command_is_a_thin_face_of_the_function(capsys, tmp_path):
    """All of the issue's options at once, on a picture."""
    image = pytest.importorskip("PIL.Image")
    pixels = RNG.integers(0, 256, (16, 13)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "any.png")
    np.save(tmp_path / "w.npy", RNG.normal(size=(3, 3, 1, 2)))
    words = ["--model", "two_conv", "--pool", "mean", "--kernel", str(tmp_path / "w.npy")]
    words += ["--label", "1", "--image", str(tmp_path / "any.png")]
    found = numbers(capsys, *words)
    e = explain(
        pixels, 1, model="two_conv", pool="mean", w1=np.load(tmp_path / "w.npy"), seed=2
    )  # fmt: skip
    assert set(e) <= set(found)
    for name, value in e.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    np.testing.assert_array_equal(found["x"][0, :, :, 0], pixels / 255)
    assert found["equations"] == e.equations
    assert main(["explain", *words]) == 0
    assert capsys.readouterr().out == str(
        explain(
            pixels, 1, model="two_conv", pool="mean", w1=np.load(tmp_path / "w.npy"),
            source=f"read from {tmp_path / 'any.png'}",
        )
    ) + "\n"  # fmt: skip


@pytest.mark.parametrize("kind", ["npy", "csv"])
@pytest.mark.parametrize(
    "pixels",
    [
        RNG.integers(0, 17, (12, 14)),
        RNG.integers(0, 60000, (12, 14)),
        RNG.uniform(size=(12, 14)),
    ],
)
def test_numbers_are_scaled_as_the_data_loader_scales_them(kind, pixels, capsys, tmp_path):
    path = tmp_path / f"own.{kind}"
    if kind == "npy":
        np.save(path, pixels)
    else:
        path.write_text("\n".join(",".join(map(str, row)) for row in pixels.tolist()) + "\n")
    found = numbers(capsys, "--model", "two_conv_cnn", "--image", str(path))
    np.savez(tmp_path / "own.npz", x=[pixels] * 10, y=[0] * 10)
    loaded = load_npz(tmp_path / "own.npz").x_train[0]
    np.testing.assert_array_equal(found["x"][0].astype(np.float32), loaded)


def test_pictures_of_16_bits_and_of_colours(capsys, tmp_path):
    image = pytest.importorskip("PIL.Image")
    deep = RNG.integers(0, 60000, (14, 14)).astype(np.uint16)
    image.fromarray(deep).save(tmp_path / "deep.png")
    found = numbers(capsys, "--model", "two_conv", "--image", str(tmp_path / "deep.png"))
    np.testing.assert_array_equal(found["x"][0, :, :, 0], deep / deep.max())
    colours = image.fromarray(RNG.integers(0, 256, (14, 14, 3)).astype(np.uint8))
    colours.save(tmp_path / "colours.png")
    found = numbers(capsys, "--model", "two_conv", "--image", str(tmp_path / "colours.png"))
    np.testing.assert_array_equal(found["x"][0, :, :, 0], np.array(colours.convert("L")) / 255)


def test_several_patterns_with_their_labels(capsys, tmp_path):
    np.save(tmp_path / "three.npy", RNG.uniform(size=(3, 14, 14)))
    words = ["--model", "two_conv", "--filters", "3", "--image", str(tmp_path / "three.npy")]
    found = numbers(capsys, *words, "--label", "0", "2", "1")
    assert found["y"].tolist() == [0, 2, 1]
    assert found["delta1"].shape == (3, 12, 12, 3)
    assert numbers(capsys, *words)["y"].shape == (3,)
    assert "expected 3 labels" in refused(capsys, *words, "--label", "1")


def test_digits_are_framed_and_labelled(capsys):
    small = numbers(capsys, "--digit", "0", "--image", "2")
    large = numbers(capsys, "--digit", "0", "--image", "2", "--model", "two_conv")
    np.testing.assert_array_equal(large["x"][0, :, :, 0], framed(small["x"]))
    assert large["y"].tolist() == [0]
    other = numbers(
        capsys, "--digit", "0", "--label", "1", "--activation", "relu", "--model", "two_conv"
    )
    assert other["y"].tolist() == [1]
    np.testing.assert_array_equal(other["a1"], np.maximum(other["z1"], 0))


def test_a_kernel_of_ones_own_in_binary_cnn(capsys, tmp_path):
    (tmp_path / "w.csv").write_text("1,0,-1\n2,0,-2\n1,0,-1\n")
    found = numbers(capsys, "--kernel", str(tmp_path / "w.csv"))
    np.testing.assert_array_equal(found["w1"], [[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    mean = numbers(capsys, "--kernel", str(tmp_path / "w.csv"), "--pool", "mean")
    np.testing.assert_array_equal(mean["da1"][0, ::2, ::2], mean["da2"][0] / 4)


def test_pages_and_figures_are_written(capsys, tmp_path):
    for model in ("binary_cnn", "two_conv"):
        page, figure = tmp_path / f"{model}.html", tmp_path / f"{model}.png"
        assert main(["explain", "--model", model, "--html", str(page), "--png", str(figure)]) == 0
        out = capsys.readouterr().out
        assert f"Page written to {page}." in out
        text = page.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert "http" not in text
        assert "<script src" not in text
        assert figure.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "No such file" in refused(capsys, "--html", str(tmp_path / "none" / "x.html"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image", "none.npy"], "--image: none.npy: No such file or directory"),
        (["--image", "none.png"], "--image: none.png: No such file or directory"),
        (["--kernel", "none.npy"], "--kernel: none.npy: No such file or directory"),
        (["--label", "7"], "--label: binary_cnn says yes or no: 0 or 1, got [7]"),
        (["--filters", "2"], "--filters: binary_cnn has one filter, ReLU and one output; got 2"),
        (["--model", "twoconv"], "invalid choice: 'twoconv'"),
    ],
)
def test_what_is_wrong_is_named_as_the_user_calls_it(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"1,2\n3\n", "expected rows of equally many numbers"),
        ("x.csv", b"1,b\n", "expected rows of equally many numbers"),
        ("x.csv", b"", "expected rows of equally many numbers"),
        ("x.csv", b"\xff\xfe\x00", "not a text of numbers"),
        ("x.csv", b"1," * 2_000_001, "bytes are too many to read"),
        ("x.png", b"no picture", "cannot identify image file"),
        ("x.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "x.png"),
        ("x.npy", b"\x93NUMPY\x01\x00", "not an .npy file"),
    ],
)
def test_hostile_files(name, content, message, capsys, tmp_path):
    pytest.importorskip("PIL.Image")
    path = tmp_path / name
    path.write_bytes(content)
    assert message in refused(capsys, "--model", "two_conv", "--image", str(path))


def test_huge_files_are_refused_by_their_headers(capsys, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("1", (4000, 4000)).save(tmp_path / "x.png")
    text = refused(capsys, "--model", "two_conv", "--image", str(tmp_path / "x.png"))
    assert "4000x4000 pixels are too many to read" in text
    with (tmp_path / "x.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**5, 10**4)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(8 * 10**9 + file.tell())  # sparse
    text = refused(capsys, "--model", "two_conv", "--image", str(tmp_path / "x.npy"))
    assert "too many to read" in text
