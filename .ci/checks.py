"""Everything that a change has to pass, in fresh virtual environments; run by `.ci/run`.

Plain Python of the standard library, so that it runs wherever fastconv does.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of the network that README's first command trains, on images that it has not seen.
ACCURACY = 0.98
BEGIN = time.monotonic()
IMPORTS = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
# What a user of the wheel relies on: the compiled call, the typed marker, the tables, the command.
SMOKE = """
import numpy as np, fastconv as fc
from importlib import resources
x, w = np.ones((2, 8, 8, 3), "float32"), np.ones((3, 3, 3, 4), "float32")
assert fc.conv(x, w).max() == 27
package = resources.files("fastconv")
assert package.joinpath("py.typed").is_file()
assert any(file.name.endswith(".txt") for file in package.joinpath("tables").iterdir())
from fastconv.explain import explain
from fastconv.explain.notebooks import lessons
from fastconv.guide import PAGES, page
assert "<script>" in explain(np.eye(8), 1).html() and len(lessons()) == 4
assert all(map(page, PAGES))
"""


def say(what: str) -> None:
    """Head a section of the output."""
    print(f"\n== {what} ({time.monotonic() - BEGIN:.0f} s)", flush=True)


class Environment:
    """A virtual environment: its programs come first on the path."""

    def __init__(self, folder: Path, kernels: Path) -> None:
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
        programs = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = str(programs / ("python.exe" if os.name == "nt" else "python"))
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.variables = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(folder)}
        self.variables["FASTCONV_CACHE_DIR"] = str(kernels)
        self.variables["PYTHONUTF8"] = "1"
        # Files of tests side by side: README's command as it is, in half of the time.
        self.variables["PYTEST_ADDOPTS"] = "-n auto --dist loadfile"
        self.variables.pop("PYTHONPATH", None)  # what is installed is tested

    def run(self, *words: str, folder: Path = ROOT) -> str:
        """Run Python with these arguments; what it printed, which is shown as it comes."""
        return self._run([self.python, *words], folder)

    def shell(self, line: str) -> str:
        """Run a line of README as a user's shell does."""
        return self._run(line, ROOT, shell=True)

    def _run(self, command: str | list[str], folder: Path, shell: bool = False) -> str:
        process = subprocess.Popen(
            command, cwd=folder, env=self.variables, shell=shell, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        lines = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
        if process.wait():
            sys.exit(f"exit status {process.returncode}: {command}")
        return "".join(lines)


def setup_commands() -> tuple[str, str]:
    """README's own two commands: its first fenced block of shell commands."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```sh\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    commands = block[1].splitlines() if block else []
    if len(commands) != 2:
        sys.exit(f"README.md: expected two set-up commands, found {commands}")
    return commands[0], commands[1]


def check(work: Path) -> None:
    """All checks, in the order in which a newcomer would meet them."""
    install, test = setup_commands()
    main = Environment(work / "venv", work / "kernels")

    say(install)
    found = re.search(r"test accuracy ([0-9.]+)", main.shell(install))
    if found is None or float(found[1]) < ACCURACY:
        sys.exit(f"README's first command: {found and found[0]}, at least {ACCURACY} is needed")

    say(test)
    closing = main.shell(test).rstrip().splitlines()[-1]

    say("format, lint, types, imports")
    main.run("-m", "ruff", "check", ".")
    main.run("-m", "ruff", "format", "--check", ".")
    main.run("-m", "mypy")
    for folder in (ROOT, ROOT / "benchmarks"):
        main.run("-c", IMPORTS, folder=folder)

    say("wheel and source distribution")
    main.run("-m", "pip", "install", "--quiet", "build")
    main.run("-m", "build", "--outdir", str(work / "dist"))
    for kind in ("*.whl", "*.tar.gz"):
        (built,) = (work / "dist").glob(kind)
        user = Environment(work / f"user{kind[1:]}", work / "kernels")
        user.run("-m", "pip", "install", "--quiet", str(built))
        user.run("-W", "error", "-c", SMOKE, folder=work)
        user.run("-m", "fastconv", "info", folder=work)

    say("asv")
    main.run("-m", "pip", "install", "--quiet", "-e", ".[test,bench]")
    suites = ROOT / "benchmarks"
    main.run("-m", "asv", "machine", "--yes", folder=suites)
    main.run("-m", "asv", "check", "--python=same", folder=suites)
    timed = main.run("-m", "asv", "run", "--quick", "--python=same", "--show-stderr", folder=suites)
    if re.search(r"\bfailed\b", timed):  # asv's own exit status does not tell
        sys.exit("a benchmark failed")

    say("done")
    print(closing)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder))
