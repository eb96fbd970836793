"""``fastconv explain``: numbers that obey the equations, grids that show them, the figure."""

import json
import re
import sys

import numpy as np
import pytest

import fastconv
from fastconv import examples, nn, reference
from fastconv.cli import main
from fastconv.explain import explain
from fastconv.explain.drawings import drawing
from fastconv.explain.flow import EQUATIONS, Parameters, trace
from fastconv.explain.text import explanation

MISSING = 'run: python -m pip install "fastconv[examples]"'


def explained(capsys, *words):
    assert main(["explain", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return {k: np.array(v) if isinstance(v, list) else v for k, v in found.items()}


@pytest.mark.parametrize("words", [[], ["--digit", "0", "--seed", "5"], ["--image", "3"]])
def test_json_obeys_the_equations(words, capsys):
    """Every number again, from x, y and the parameters alone, in plain loops."""
    f = explained(capsys, *words)
    x, w1, y = f["x"], f["w1"], f["y"]
    z1 = np.array(
        [
            [
                f["b1"] + sum(x[i + u, j + v] * w1[u, v] for u in range(3) for v in range(3))
                for j in range(6)
            ]
            for i in range(6)
        ]
    )
    np.testing.assert_allclose(f["z1"], z1, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(f["a1"], np.maximum(f["z1"], 0))
    da1 = np.zeros((6, 6))
    for i, j in np.ndindex(3, 3):
        window = f["a1"][2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), (2, 2))
        assert f["winner_cells"][i, j].tolist() == [2 * i + row, 2 * j + column]
        assert f["winners"][i, j] == (2 * i + row) * 6 + 2 * j + column
        assert f["a2"][i, j] == window.max()
        assert f["passed"][i, j] == (window.max() > 0)
        da1[2 * i + row, 2 * j + column] = f["da2"][i, j]
    z3 = f["a2"].ravel() @ f["w3"] + f["b3"]
    assert f["z3"] == pytest.approx(z3, abs=1e-14)
    assert f["a3"] == pytest.approx(1 / (1 + np.exp(-f["z3"])), abs=1e-15)
    loss = -y * np.log(f["a3"]) - (1 - y) * np.log(1 - f["a3"])
    assert f["loss"] == pytest.approx(loss, abs=1e-14)
    assert f["dz3"] == f["db3"] == f["a3"] - y
    np.testing.assert_array_equal(f["da2"].ravel(), f["dz3"] * f["w3"])
    np.testing.assert_array_equal(f["dw3"], f["dz3"] * f["a2"].ravel())
    np.testing.assert_array_equal(f["da1"], da1)
    assert np.count_nonzero(f["da1"]) == 9
    np.testing.assert_array_equal(f["delta1"], f["da1"] * (f["z1"] > 0))
    for u, v in np.ndindex(3, 3):
        terms = (f["delta1"][i, j] * x[i + u, j + v] for i, j in np.ndindex(6, 6))
        assert f["dw1"][u, v] == pytest.approx(sum(terms), abs=1e-14)
    np.testing.assert_allclose(f["dw1_numeric"], f["dw1"], rtol=0, atol=1e-8)
    assert f["db1"] == pytest.approx(f["delta1"].sum(), abs=1e-15)
    assert f["equations"] == EQUATIONS


def test_numbers_are_those_of_training():
    """The same as the model's own forward and backward pass."""
    x = drawing(0)
    flow = explain(x, 0, seed=5).flow()
    model, loss = examples.binary_cnn(seed=5, dtype=np.float64), nn.BinaryCrossEntropy()
    activations = model.activations(x[None, :, :, None])
    assert flow.loss == pytest.approx(loss.forward(activations[-1], np.array([0])), abs=1e-14)
    deltas = model.deltas(loss.backward())
    w1, b1, w3, b3 = model.parameters()
    for found, wanted in [
        (flow.z1, activations[0]),
        (flow.a1, activations[1]),
        (flow.a2, activations[2]),
        (flow.z3, activations[4]),
        (flow.da2, deltas[3]),
        (flow.da1, deltas[2]),
        (flow.delta1, deltas[1]),
        (flow.dw1, w1.grad),
        (flow.db1, b1.grad),
        (flow.dw3, w3.grad),
        (flow.db3, b3.grad),
    ]:
        np.testing.assert_allclose(np.ravel(found), wanted.ravel(), rtol=0, atol=1e-14)


def test_naive_loops_give_the_same_flow():
    rng = np.random.default_rng(1)
    parameters = Parameters(rng.normal(size=(3, 3)), 0.1, rng.normal(size=9), -0.2)
    fast, naive = (trace(drawing(1), 1, parameters, ops) for ops in (fastconv, reference))
    np.testing.assert_array_equal(fast.winners, naive.winners)
    np.testing.assert_allclose(fast.dw1, naive.dw1, rtol=0, atol=1e-14)


def test_text_names_every_step_in_order(capsys):
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    steps = ["x: ", "z1: (1)", "a1: (2)", "a2: (3)", "z3: (4)", "a3: (5)", "loss: (6)"]
    steps += ["dL/dz3: (7)", "dL/da2: (8)", "dL/da1: (9)", "delta1: (10)", "dw1: (11)", "db1: (11)"]
    places = [out.index(f"\n{step}") for step in steps]
    assert places == sorted(places)
    assert max(map(len, out.splitlines())) <= 80
    assert out.isascii()


def cells(lines):
    """The 6x6 cells of a printed grid of windows, as text."""
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("i=")]
    return [[cell for pair in row for cell in pair.split()] for row in rows]


def test_grids_show_the_numbers_and_mark_the_winners():
    flow = explain(drawing(1), 1, seed=2).flow()
    assert 0 < flow.passed.sum() < 9
    text = explanation(flow, "a drawing")
    for title, values in [("a2: ", flow.a1), ("dL/da1: ", flow.da1), ("delta1: ", flow.delta1)]:
        block = text[text.index(f"\n{title}") + 1 :].split("\n\n")[0].splitlines()
        grid = cells(block)
        assert np.shape(grid) == (6, 6)
        passed = dict(zip(flow.winners.ravel(), flow.passed.ravel(), strict=True))
        for (i, j), value in np.ndenumerate(values):
            cell = grid[i][j]
            assert float(cell.strip("[]()")) == pytest.approx(value, abs=5e-4)
            if i * 6 + j not in passed:
                assert cell[0] not in "[("
            elif title == "delta1: " and not passed[i * 6 + j]:
                assert cell == "(0)"
            else:
                assert (cell[0], cell[-1]) == ("[", "]")
            if title == "dL/da1: ":
                assert (cell == "0") == (i * 6 + j not in passed)
        rules = {line.index("|") for line in block if line.startswith("i=")}
        assert rules == {4}
        assert len({len(line) for line in block if line.startswith(("i=", "    +"))}) == 1


def test_patches_sum_to_dw1():
    flow = explain(drawing(1), 1, seed=2).flow()
    text = explanation(flow, "a drawing")
    named = re.findall(r"delta1\[(\d),(\d)\] \* x\[(\d):\d,(\d):\d\]", text)
    assert {(int(i), int(j)) for i, j, _, _ in named} == set(map(tuple, np.argwhere(flow.delta1)))
    assert all((i, j) == (row, column) for i, j, row, column in named)


def test_an_error_that_dies_everywhere():
    """All z1 negative: every winner is stopped, and the kernel gets no gradient."""
    parameters = Parameters(-np.ones((3, 3)), -1.0, np.ones(9), 0.0)
    flow = trace(drawing(0), 0, parameters, fastconv)
    assert not flow.passed.any()
    assert not flow.dw1.any()
    text = " ".join(explanation(flow, "a drawing").split())
    assert "9 of the 9 winners had z1 <= 0" in text
    assert "the sum: here of none" in text


def test_figure(capsys, tmp_path):
    path = tmp_path / "flow.png"
    assert main(["explain", "--png", str(path)]) == 0
    assert f"Figure written to {path}." in capsys.readouterr().out
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") > 1500
    assert main(["explain", "--png", str(tmp_path / "flow.docx")]) == 2
    assert "is not supported" in capsys.readouterr().err
    assert main(["explain", "--png", str(tmp_path / "none" / "flow.png")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_figure_of_an_error_that_dies_everywhere(tmp_path):
    from fastconv.explain.figure import figure_of, write

    parameters = Parameters(-np.ones((3, 3)), -1.0, np.ones(9), 0.0)
    flow = trace(drawing(0), 0, parameters, fastconv)
    write(figure_of(flow, "a drawing"), tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 10_000


def test_own_image(capsys, tmp_path):
    path = tmp_path / "own.npy"
    np.save(path, np.eye(8, dtype=np.float32))
    found = explained(capsys, "--image", str(path))
    np.testing.assert_array_equal(found["x"], np.eye(8))
    np.save(path, np.eye(7))
    assert main(["explain", "--image", str(path)]) == 2
    assert "--image: binary_cnn takes images of 8x8x1, got 7x7x1" in capsys.readouterr().err
    np.save(path, np.full((8, 8), np.nan))
    assert main(["explain", "--image", str(path)]) == 2
    assert "--image: holds NaN or infinity" in capsys.readouterr().err
    np.save(path, np.array([{}]), allow_pickle=True)
    assert main(["explain", "--image", str(path)]) == 2
    assert "not an .npy file" in capsys.readouterr().err
    path.write_bytes(b"")
    assert main(["explain", "--image", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


BYTES = np.random.default_rng(0).integers(0, 200, (8, 8))


@pytest.mark.parametrize(
    ("image", "divisor"),
    [
        (BYTES.astype(np.uint8), 255), (BYTES, BYTES.max()), (BYTES.astype(">i2"), BYTES.max()),
        (BYTES % 17, 16), (BYTES > 99, 1), (BYTES / 255, 1), (np.zeros((8, 8), np.int64), 1),
    ],
)  # fmt: skip
def test_integers_are_scaled_as_the_data_loader_does(image, divisor, capsys, tmp_path):
    np.save(tmp_path / "own.npy", image)
    found = explained(capsys, "--image", str(tmp_path / "own.npy"))
    np.testing.assert_array_equal(found["x"], image / divisor)
    np.savez(tmp_path / "own.npz", x=[image] * 10, y=[0] * 10)
    loaded = examples.load_npz(tmp_path / "own.npz").x_train[0, :, :, 0]
    np.testing.assert_array_equal(found["x"].astype(np.float32), loaded)
    if image.any():
        assert found["delta1"].any()  # 0 .. 255 saturates the sigmoid: no error comes back


def test_floats_beyond_1_are_named(capsys, tmp_path):
    path = tmp_path / "own.npy"
    np.save(path, BYTES * 1.0)
    assert main(["explain", "--image", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    np.testing.assert_array_equal(json.loads(out)["x"], BYTES)
    assert err.startswith(f"note: x: read from {path}: floats up to {BYTES.max():g}, taken as they")
    assert err.count("\n") == 1


def test_a_figure_without_an_ending_is_a_png_of_that_name(tmp_path):
    assert main(["explain", "--png", str(tmp_path / "flow")]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["flow"]
    assert (tmp_path / "flow").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_extras(capsys, monkeypatch):
    for name in ("sklearn", "sklearn.datasets", "matplotlib", "matplotlib.figure", "rich"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "fastconv.explain.figure", raising=False)
    found = explained(capsys, "--digit", "0")
    np.testing.assert_array_equal(found["x"], drawing(0))
    assert found["image"] == "the built-in drawing of a 0"
    assert main(["explain"]) == 0
    assert "the built-in drawing of a 1" in capsys.readouterr().out
    assert main(["explain", "--image", "1"]) == 1
    assert MISSING in capsys.readouterr().err
    assert main(["explain", "--png", "x.png"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert MISSING in err
