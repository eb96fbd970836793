"""The reference: built without a warning, with a page, an example and the errors of each name."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastconv.guide import PAGES
from fastconv.guide.__main__ import MODULES, main, with_tables

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder that README's command makes."""
    pytest.importorskip("pdoc")
    folder = tmp_path_factory.mktemp("reference")
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastconv.guide", str(folder)],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.strip() == str(folder / "index.html")
    return folder


def test_every_public_name_has_a_place(built):
    for module in MODULES:
        text = (built / f"{module.replace('.', '/')}.html").read_text(encoding="utf-8")
        for name in getattr(importlib.import_module(module), "__all__", ()):
            if module == "fastconv" or not hasattr(importlib.import_module(module), name):
                continue
            assert f'id="{name}"' in text, f"{module}.{name}"
    assert (built / "search.js").stat().st_size > 100_000


@pytest.mark.parametrize(
    "module", ["fastconv", "fastconv.nn", "fastconv.testing", "fastconv.explain"]
)
def test_each_has_its_example_and_its_errors(built, module):
    """As far as the docstrings have them: `tests/api/test_docstrings.py` says which must."""
    text = (built / f"{module.replace('.', '/')}.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<section id="([\w]+)">(.*?)</section>', text, re.DOTALL))
    owner = importlib.import_module(module)
    for name in owner.__all__:
        said = getattr(owner, name).__doc__
        if ">>> " in said:
            assert '<span class="gp">&gt;&gt;&gt;' in sections[name], name
        for error in re.findall(r"\b\w+Error\b", said.partition("Raises\n")[2]):
            assert error in sections[name], f"{name}: {error}"


def test_the_pages_of_the_guide_are_there(built):
    for name in PAGES:
        text = (built / "fastconv" / "guide" / f"{name}.html").read_text(encoding="utf-8")
        assert "<h1" in text
        assert "| ---" not in text
        links = re.findall(r'href="([^":#$]+)"', text)  # `$` is the search's
        assert all((built / "fastconv" / "guide" / link).resolve().exists() for link in links)
    first = (built / "fastconv.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="(fastconv/[^"#]+\.html)"', first)
    assert {f"fastconv/guide/{name}.html" for name in PAGES} < set(links)
    assert len(links) > len(PAGES) + 10
    assert all((built / link).exists() for link in links)
    assert "fastconv.html" in (built / "index.html").read_text(encoding="utf-8")


def test_tables_of_docstrings_become_those_of_markdown():
    text = "Head.\n\n== =====\na  b\n== =====\nm  count\nH  rows\n== =====\n\nTail.\n"
    assert with_tables(text).split("\n\n\n") == [
        "Head.", "| a | b |\n| --- | --- |\n| m | count |\n| H | rows |", "Tail.\n"
    ]  # fmt: skip
    bare = with_tables("== =====\nm  count\n== =====")
    assert bare.strip() == "|  |  |\n| --- | --- |\n| m | count |"


def test_without_pdoc_the_extra_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("fastconv.guide.__main__.find_spec", lambda name: None)
    assert main([str(tmp_path / "reference")]) == 1
    assert 'pip install "fastconv[docs]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
