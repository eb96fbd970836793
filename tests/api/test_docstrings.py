"""Docstrings of what users call: parameters, results and errors are named, an example runs."""

import importlib
import inspect
import re

import pytest

# `reference` is written to be read: it says all that its functions share at its top.
MODULES = [
    "fastconv",
    "fastconv.nn",
    "fastconv.testing",
    "fastconv.examples",
    "fastconv.cache",
    "fastconv.explain",
    "fastconv.guide",
    "fastconv.adapters.coursera",
    "fastconv.adapters.cs231n",
    "fastconv.adapters.dlfs",
    "fastconv.adapters.scipy",
    "fastconv.adapters.scipy.signal",
]
HEADINGS = "Parameters|Returns|Attributes|Raises|Notes|Examples|Yields"


def documented():
    """(name, object) of the public functions and classes."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                yield f"{module.__name__}.{name}", value


PUBLIC = dict(documented())
# Handed to the user or derived from, never made: what is in them is described, no more.
HANDED = {"ConvGrads", "ConvPlan", "Operands", "Dataset", "Checkpoint", "FitState", "Recipe"}
HANDED |= {"InferencePlan", "StepPlan", "Explanation"}
BASES = {"Layer", "Loss", "Optimizer"}
# Of what arises in them, nothing is their own.
NO_ERRORS = {"History", "evaluating", "previous_path", "sigmoid", "load_digits"}
# An example would train or write: `fit` has it.
NO_EXAMPLE = {"load_checkpoint", "save_checkpoint"}


def but(*exceptions):
    """Names of what is not among the exceptions."""
    without = set().union(*exceptions)
    return [name for name in PUBLIC if name.rpartition(".")[2] not in without]


def sections(value):
    """The text below each heading of numpydoc, by heading; what stands first has the key ""."""
    text = inspect.getdoc(value) or ""
    parts = re.split(rf"^({HEADINGS})\n-+\n", text, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(section):
    """Names that a section describes: ``stride, padding : int`` has two."""
    heads = [line for line in section.splitlines() if line and not line.startswith(" ")]
    return {
        name.strip(" *") for head in heads for name in re.split(r" ?: | as in ", head)[0].split(",")
    }


def parameters(value):
    if inspect.isclass(value) and "__init__" not in vars(value) and not hasattr(value, "_fields"):
        return set()
    return set(inspect.signature(value).parameters) - {"self"}


@pytest.mark.parametrize(
    "name", but({"ConvPlan", "Explanation", "InferencePlan", "Optimizer", "StepPlan"})
)
def test_parameters_are_those_of_the_signature(name):
    value = PUBLIC[name]
    described = entries(sections(value).get("Parameters", ""))
    described |= entries(sections(value).get("Attributes", "")) if inspect.isclass(value) else set()
    if "Parameters" in sections(value):
        extra = entries(sections(value)["Parameters"]) - parameters(value)
        assert not extra, f"no parameters: {extra}"
    assert not parameters(value) - described, "not described"


@pytest.mark.parametrize("name", [n for n, v in PUBLIC.items() if inspect.isfunction(v)])
def test_results_are_described(name):
    value = PUBLIC[name]
    nothing = value.__annotations__.get("return") in ("None", "Iterator[None]")
    assert nothing or "Returns" in sections(value)


@pytest.mark.parametrize("name", [n for n in but(HANDED, NO_ERRORS) if parameters(PUBLIC[n])])
def test_errors_are_named(name):
    assert re.search(r"\w+Error", sections(PUBLIC[name]).get("Raises", ""))


@pytest.mark.parametrize("name", but(HANDED, BASES, NO_EXAMPLE))
def test_there_is_an_example(name):
    assert ">>> " in sections(PUBLIC[name]).get("Examples", "")
