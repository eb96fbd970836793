"""The notebooks: written by one command, kept where they are the user's, executed cell by cell."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fastconv.cli import main
from fastconv.explain.notebooks import lessons, notebook, write_notebooks

ROOT = Path(__file__).parents[2]
NAMES = ["1_max_pool", "2_two_convolutions", "3_im2col", "4_fashion_mnist"]


def test_one_command_writes_them(tmp_path, capsys):
    assert main(["explain", "--notebook", str(tmp_path / "new" / "folder")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.stem for path in paths] == NAMES
    nbformat = pytest.importorskip("nbformat")
    for path in paths:
        nbformat.validate(nbformat.read(path, as_version=4))


def test_what_the_user_changed_is_kept(tmp_path, capsys):
    paths = write_notebooks(tmp_path)
    assert write_notebooks(tmp_path) == paths
    paths[2].write_text("mine")
    paths[0].unlink()
    assert main(["explain", "--notebook", str(tmp_path)]) == 2
    assert "3_im2col.ipynb is there and differs: it is kept" in capsys.readouterr().err
    assert paths[2].read_text() == "mine"
    assert not paths[0].exists()
    (tmp_path / "file").write_text("")
    assert main(["explain", "--notebook", str(tmp_path / "file")]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs(name, tmp_path):
    """In a fresh kernel and an empty folder; the fourth with the digits, which are everywhere."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    cells = nbformat.reads(json.dumps(notebook(lessons()[name])), as_version=4)
    variables = {**os.environ, "FASHION_MNIST": str(tmp_path / "none"), "PYTHONPATH": str(ROOT)}
    client = nbclient.NotebookClient(
        cells, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=variables)
    shown = [output for cell in cells.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert not [output for output in shown if output.output_type == "error"]
    wanted = {"1_max_pool": "text/html", "2_two_convolutions": "image/png"}
    assert wanted.get(name, "text/plain") in kinds
