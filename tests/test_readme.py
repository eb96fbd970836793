"""README: every Python snippet runs, every command of the command line works, links are whole."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def fenced(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_python_snippets_run_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed, namespace = io.StringIO(), {"__name__": "readme"}
    with contextlib.redirect_stdout(printed):
        for snippet in fenced("python"):
            exec(compile(snippet, "README.md", "exec"), namespace)
    lines = printed.getvalue()
    comment = re.search(r"^print\(.*\)  # (.*)$", README, re.MULTILINE)
    assert comment[1] in lines
    (shown,) = fenced("text")
    assert shown in lines


def commands():
    lines = "".join(fenced("sh")).splitlines()
    return [line for line in lines if line.startswith("python -m fastconv ")]


def test_commands_work(tmp_path):
    """In the order of the page, in one folder: the second resumes the first."""
    found = commands()
    assert len(found) >= 6
    for line in found:
        words = shlex.split(line)
        result = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
    assert (tmp_path / "run" / "report" / "report.html").stat().st_size > 10_000


def test_set_up_is_two_commands():
    first = fenced("sh")[0].splitlines()
    assert first == [
        'python -m pip install ".[examples]" && python -m fastconv train',
        'python -m pip install -e ".[test]" && python -m pytest',
    ]


@pytest.mark.parametrize("path", ["fastconv/geometry.py", "CHANGELOG.md", ".ci/run"])
def test_paths_exist(path):
    assert path in README
    assert (ROOT / path).exists()


def test_every_function_is_in_the_table():
    import fastconv as fc

    table = README.split("## The functions")[1].split("## In a project")[0]
    for name in fc.__all__:
        assert name in table, name
