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
    shown = [text for text in fenced("text") if not text.startswith(("python ", "asv "))]
    assert shown
    assert all(text in lines for text in shown)


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


def test_the_comparison_has_the_tables_that_it_names():
    """PyTorch is not there in the tests, so the tables that the command names are looked up."""
    from fastconv.problems import find_table, read_problems

    lines = [text for text in fenced("text") if text.startswith("python ")]
    commands = [shlex.split(line) for text in lines for line in text.splitlines()]
    assert len(commands) == 4
    assert all((ROOT / words[1]).exists() for words in commands)
    tables = commands[0][2 : commands[0].index("--peers")]
    assert len(tables) == 4
    assert all(read_problems(find_table(name)) for name in tables)


def test_set_up_is_two_commands():
    first = fenced("sh")[0].splitlines()
    assert first == [
        'python -m pip install ".[examples]" && python -m fastconv train',
        'python -m pip install -e ".[test]" && python -m pytest',
    ]


def test_the_tests_that_the_guarantees_name_exist():
    """A whole path, a file of tests/robustness, a test of it, or words from names of its tests."""
    rows = re.findall(r"^\| [^|]+ \| (`.*`) \|$", README.split("## Guarantees")[1], re.MULTILINE)
    assert len(rows) > 15
    for row in rows:
        file, names = None, []
        for word in re.findall(r"`([^`]+)`", row):
            path, _, name = word.partition("::")
            if path.endswith(".py"):
                file = ROOT / ("" if "/" in path else "tests/robustness") / path
                names = re.findall(r"^(?:def |class |)([Tt]est\w+)", file.read_text(), re.MULTILINE)
                assert names, word
                assert not name or name in names, word
            else:
                assert any(word in test for test in names), f"{word} in {file}"


@pytest.mark.parametrize("path", [".github/CONTRIBUTING.md", ".ci/run"])
def test_paths_exist(path):
    assert path in README
    assert (ROOT / path).exists()


def test_paths_of_contributing_exist():
    text = (ROOT / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")
    words = [w for w in re.findall(r"`([\w./]+)`", text) if "/" in w or w.endswith((".py", ".md"))]
    assert len(words) > 40
    for word in words:
        assert (ROOT / word).exists() or (ROOT / "fastconv" / word).exists(), word
