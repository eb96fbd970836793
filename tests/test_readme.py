"""README and the guide: every Python snippet runs, every command works, links are whole."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastconv.cli import main
from fastconv.guide import PAGES, page

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "fastconv" / "guide"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {"README": README} | {name: page(name) for name in PAGES}

LINES = r"(?:(?!```)[^\n]*\n)+"  # of a fenced block


def fenced(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_pages_are_those_of_the_guide():
    assert {path.stem for path in GUIDE.glob("*.md")} == set(PAGES)
    assert all(page(name).startswith("# ") for name in PAGES)
    with pytest.raises(ValueError, match="name: must be one of learn, "):
        page("speeed")


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if "```python\n" in text])
def test_python_snippets_run_one_after_another(name, tmp_path, monkeypatch):
    """What a comment or a block behind a snippet says is printed is printed."""
    monkeypatch.chdir(tmp_path)
    text = TEXTS[name]
    printed, namespace = io.StringIO(), {"__name__": "readme"}
    with contextlib.redirect_stdout(printed):
        for snippet in fenced("python", text):
            exec(compile(snippet, f"{name}.md", "exec"), namespace)
    lines = printed.getvalue()
    comments = re.findall(r"^print\(.*\)  # (.*)$", text, re.MULTILINE)
    shown = re.findall(rf"^```python\n{LINES}```\n\n```text\n({LINES})```$", text, re.MULTILINE)
    assert all(comment in lines for comment in comments)
    assert all(block in lines for block in shown)
    if name == "README":
        assert len(comments) == 2
        assert len(shown) == 1


def commands(text):
    lines = "".join(fenced("sh", text)).splitlines()
    return [line for line in lines if line.startswith("python -m fastconv ")]


def test_commands_work(tmp_path):
    """In the order of the page, in one folder: the second resumes the first."""
    found = commands(TEXTS["commands"])
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


@pytest.mark.parametrize("name", ["README", "learn"])
def test_the_two_questions_are_answered_by_one_command_each(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = commands(TEXTS[name])
    assert len(found) >= 3
    answers = []
    for line in found:
        assert main(shlex.split(line)[3:]) == 0
        answers.append(" ".join(capsys.readouterr().out.split()))
    assert "All of a window's error goes to its [winner]. The other three did not" in answers[0]
    assert "Both are equal: col2im(delta2 @ w2.T) differs from ds1 by at most" in answers[1]
    assert len(list((tmp_path / "notebooks").glob("*.ipynb"))) == 4


def test_the_comparison_has_the_tables_that_it_names():
    """PyTorch is not there in the tests, so the tables that the command names are looked up."""
    from fastconv.problems import find_table, read_problems

    lines = [text for text in fenced("text", TEXTS["speed"]) if text.startswith("python ")]
    commands = [shlex.split(line) for text in lines for line in text.splitlines()]
    assert len(commands) == 4
    assert all((ROOT / words[1]).exists() for words in commands)
    tables = commands[0][2 : commands[0].index("--peers")]
    assert len(tables) == 4
    assert all(read_problems(find_table(name)) for name in tables)


def test_figures_of_readme_are_those_of_the_page_about_speed():
    rows = dict(re.findall(r"^\| (.*?) \| (.*) \|$", TEXTS["speed"], re.MULTILINE))
    found = dict(re.findall(r"^\| (.*?) \| ([\d., |]*) \|$", README, re.MULTILINE))
    assert len(found) == 4
    for head, figures in found.items():
        of = "LeNet-5" if "LeNet" in head else "ResNet-8"
        names = [
            row for row in rows if row.startswith(of) and ("," in rows[row]) == ("," in figures)
        ]
        assert figures in [rows[row] for row in names], head


def test_set_up_is_two_commands():
    first = fenced("sh")[0].splitlines()
    assert first == [
        'python -m pip install ".[examples]" && python -m fastconv train',
        'python -m pip install -e ".[test]" && python -m pytest',
    ]


def test_the_tests_that_the_guarantees_name_exist():
    """A whole path, a file of tests/robustness, a test of it, or words from names of its tests."""
    rows = re.findall(r"^\| [^|]+ \| (`.*`) \|$", TEXTS["guarantees"], re.MULTILINE)
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


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    folder = ROOT if name == "README" else GUIDE
    links = re.findall(r"\]\(([^)]+)\)", TEXTS[name])
    links = [link for link in links if not link.startswith("http")]
    assert all((folder / link).exists() for link in links)
    if name == "README":
        assert {f"fastconv/guide/{page}.md" for page in PAGES} < set(links)
        assert ".github/images/explain.png" in links


def test_the_tables_of_the_versions_page_are_those_of_the_package():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = TEXTS["versions"]
    for name, version in re.findall(r'"(numpy|numba|scipy)>=([\d.]+)"', project):
        assert re.search(rf"^\| {name} \| {version} and later", text, re.MULTILINE | re.IGNORECASE)
    python = re.search(r'requires-python = ">=([\d.]+)"', project)[1]
    assert f"| Python | {python} and later" in text
    hosts = dict(re.findall(r'"(onnx|keras|autograd|mygrad|jax)>=([\d.]+)"', project))
    assert len(hosts) == 5
    for name, version in hosts.items():
        assert re.search(rf"\b{name} {re.escape(version)}\b", text, re.IGNORECASE), name


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
