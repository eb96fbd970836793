"""What type checkers see: every public function typed, mistakes reported, signatures kept."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import fastconv as fc

HERE = Path(__file__).parent
ROOT = Path(fc.__file__).parents[1]
MODULES = {
    "fc": "fastconv",
    "nn": "fastconv.nn",
    "reference": "fastconv.reference",
    "testing": "fastconv.testing",
    "examples": "fastconv.examples",
    "cache": "fastconv.cache",
    "coursera": "fastconv.adapters.coursera",
    "cs231n": "fastconv.adapters.cs231n",
}
CONSTRUCTORS = ("__init__", "__call__", "__getitem__", "__iter__")


def public_functions():
    """(name, function) of all public functions, and of the public methods of classes."""
    for module in map(importlib.import_module, MODULES.values()):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value
            elif inspect.isclass(value):
                for method, member in vars(value).items():
                    member = getattr(member, "fget", getattr(member, "__func__", member))
                    public = not method.startswith("_") or method in CONSTRUCTORS
                    if public and inspect.isfunction(member):
                        yield f"{module.__name__}.{name}.{method}", member


FUNCTIONS = dict(public_functions())


def mypy(tmp_path, name):
    """What mypy says of a file beside this one, as a user of the installed package sees it."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
    command += ["--config-file", "", "--follow-imports", "silent", "--show-error-codes"]
    command += ["--cache-dir", str(tmp_path.parent / "mypy"), str(HERE / name)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def test_right_calls_are_typed(tmp_path):
    found = mypy(tmp_path, "typed_right.py")
    assert (found.stdout, found.stderr, found.returncode) == ("", "", 0)


def test_mistakes_are_reported(tmp_path):
    found = mypy(tmp_path, "typed_wrong.py")
    reported = {int(n) for n in re.findall(r"typed_wrong\.py:(\d+): error", found.stdout)}
    lines = (HERE / "typed_wrong.py").read_text(encoding="utf-8").splitlines()
    wrong = {n for n, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert reported == wrong, found.stdout + found.stderr


def test_right_calls_run():
    command = [sys.executable, "-W", "error", str(HERE / "typed_right.py")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_every_public_name_is_used():
    tree = ast.parse((HERE / "typed_right.py").read_text(encoding="utf-8"))
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for alias, module in MODULES.items():
        seen = {name for owner, name in used if owner == alias}
        assert not set(importlib.import_module(module).__all__) - seen, module


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_any(name):
    function = FUNCTIONS[name]
    known = {
        **vars(fc.nn),
        **inspect.unwrap(function).__globals__,
    }  # some are imported for type checkers alone
    hints = typing.get_type_hints(function, known)
    parameters = set(inspect.signature(function).parameters) - {"self", "cls"}
    assert not parameters - set(hints), "not annotated"
    assert not [key for key, hint in hints.items() if hint is typing.Any]


def test_signatures_survive_decorators():
    from fastconv.nn.checks import quiet
    from fastconv.plans.conv import planned

    assert list(inspect.signature(fc.max_pool).parameters)[:4] == [
        "x", "window", "stride", "padding",
    ]  # fmt: skip
    assert list(inspect.signature(planned).parameters)[:2] == ["x_shape", "w_shape"]
    assert str(inspect.signature(quiet(lambda x, *, y=1: x))) == "(x, *, y=1)"
    assert list(inspect.signature(fc.nn.fit).parameters)[:3] == ["model", "loss", "optimizer"]


@pytest.mark.parametrize("name", ["conv_backward", "conv_transpose_backward", "max_pool"])
@pytest.mark.parametrize("owner", [fc, fc.reference])
def test_overloads_have_the_keywords_of_the_function(owner, name):
    def names(function):
        found = dict(inspect.signature(function).parameters)
        options = found.pop("options", None)
        hints = typing.get_type_hints(function)
        extra = typing.get_type_hints(hints["options"].__args__[0]) if options else {}
        return set(found) | set(extra)

    function = getattr(owner, name)
    every = typing.get_overloads(inspect.unwrap(function))
    assert len(every) >= 2
    assert set().union(*map(names, every)) == names(function)


def test_the_package_says_that_it_is_typed():
    assert (Path(fc.__file__).parent / "py.typed").is_file()
    assert fc.typing.Array is importlib.import_module("fastconv.typing").Array
