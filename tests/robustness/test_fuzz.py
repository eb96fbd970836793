"""Drawn calls: the bits of the naive loops, or a clear error and nothing changed.

`python -m pytest -m soak tests/robustness/test_fuzz.py -s` tries 40,000 instead of some hundred.
"""

from __future__ import annotations

import re
import warnings
from importlib import import_module

import numpy as np
import pytest
from drawn import WithPlans, calls, outside
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from spoilt import spoils

import fastconv as fc
from fastconv.engine import minimal
from fastconv.engine.tables import winograd
from fastconv.plans import fast
from fastconv.plans.compiled import products
from fastconv.selfcheck.deep import GRAINS
from fastconv.selfcheck.deep.layouts import INPUT_LAYOUTS, LAYOUTS, SENTINEL, arranged

HEALTH = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
QUICK = settings(max_examples=250, **HEALTH)
LONG = settings(max_examples=20_000, derandomize=False, print_blob=True, **HEALTH)
tried = {"legal": 0, "does not fit": 0, "spoilt": 0}

# What a message names: an argument, at its start or before its value.
NAMES = re.compile(
    r"^(x|w|b|dy|y|cols|argmax|out|window|stride|padding|dilation|groups|output_padding|dtype"
    r"|ceil_mode|count_include_pad|return_argmax|activation|data_format|need|x_shape|w_shape)\b"
)


@pytest.fixture(autouse=True)
def _every_part_is_worth_a_thread(monkeypatch):
    for module, grain in GRAINS:
        monkeypatch.setattr(f"{module}.{grain}", 1)


@pytest.fixture(scope="module", autouse=True)
def _say_how_many():
    yield
    print("\ninputs tried:", tried)


def arrays_of(result):
    return list(result) if isinstance(result, tuple) else [result]


def laid_out(data, call):
    """The call's operands in drawn layouts, each with what surrounds it in memory."""
    rooms = {}
    for name, array in call.operands.items():
        chosen = data.draw(st.sampled_from(INPUT_LAYOUTS), label=f"layout of {name}")
        rooms[name] = arranged(array, chosen)
    call.operands = {name: view for name, (view, _) in rooms.items()}
    return rooms


def check_call(data):
    call = data.draw(calls(), label="call")
    plain = {name: a.copy() for name, a in call.operands.items()}
    try:
        expected = arrays_of(call.run(WithPlans()))
    except ValueError:
        expected = None
    laid_out(data, call)
    threads = data.draw(st.integers(1, 3), label="threads")
    with fc.num_threads(threads):
        if expected is None:
            with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at
                call.run(fc)
            assert NAMES.match(str(caught.value)), caught.value
        else:
            compare(data, call, expected)
    tried["does not fit" if expected is None else "legal"] += 1
    for name, before in plain.items():
        assert_array_equal(call.operands[name], before, err_msg=f"the input {name} was changed")


def compare(data, call, expected):
    """Run with or without `out`; every element is written, and nothing around it."""
    many = "backward" in call.function and call.function.startswith(("conv", "plan"))
    takes = not call.function.startswith(("im2col", "col2im"))
    if not (takes and data.draw(st.booleans(), label="out")):
        got = arrays_of(call.run(fc))
    else:
        empty = [np.full(a.shape, SENTINEL, a.dtype) for a in expected[: 3 if many else 1]]
        layouts = [data.draw(st.sampled_from(LAYOUTS), label="layout of out") for _ in empty]
        pairs = [arranged(a, name) for a, name in zip(empty, layouts, strict=True)]
        before = [outside(*pair) for pair in pairs]
        outs = [view for view, _ in pairs]
        for view in outs:
            view[...] = np.nan
        got = arrays_of(call.run(fc, out=tuple(outs) if many else outs[0]))
        assert all(a is b for a, b in zip(got, outs, strict=False))
        assert [outside(*pair) for pair in pairs] == before, "memory around out was written"
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert_array_equal(a, b, strict=True)


@QUICK
@given(st.data())
def test_drawn_calls(data):
    check_call(data)


@pytest.mark.soak
@LONG
@given(st.data())
def test_many_drawn_calls(data):
    check_call(data)


@pytest.fixture
def fast_everywhere(monkeypatch):
    """`"fast"` around every call; 3x3 windows of stride 1 by 2x2 results: exact on integers."""
    monkeypatch.setattr(minimal, "edge_of", two_by_two)
    for name in ("functional.conv", "functional.conv_transpose", "plans.conv"):
        module = import_module(f"fastconv.{name}")  # which keep no plan
        monkeypatch.setattr(module, "planned", module.planned.__wrapped__)
    for cached in (products, fast._fast):
        cached.cache_clear()
    with fc.algorithm("fast"):
        yield
    for cached in (products, fast._fast):
        cached.cache_clear()


def two_by_two(name, g, dtype):
    """R of `engine.tables.winograd.edge_of`, whatever the channels."""
    return 2 * (name != "kernel_grad" and winograd.is_minimal(g))


@settings(QUICK, max_examples=60)
@given(st.data())
def test_drawn_calls_by_minimal_filtering(fast_everywhere, data):
    check_call(data)


def check_spoilt(data):
    call = data.draw(calls(), label="call")
    try:
        call.run(WithPlans())
        fits = True
    except ValueError:
        fits = False
    error, change = data.draw(spoils(call, fits), label="spoilt")
    if not fits:
        error = (TypeError, ValueError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # numpy.matrix
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN as an integer
        out = change(call)
    before = {name: np.array(a, subok=False).tobytes() for name, a in call.operands.items()}
    kept = None if out is None else np.array(out, copy=True)
    more = {} if out is None else {"out": out}
    with pytest.raises(error) as caught:
        call.run(fc, **more)
    assert NAMES.match(str(caught.value)), caught.value
    for name, a in call.operands.items():
        assert np.array(a, subok=False).tobytes() == before[name]
    if kept is not None:
        assert_array_equal(out, kept, err_msg="out was touched")
    tried["spoilt"] += 1


@QUICK
@given(st.data())
def test_spoilt_calls(data):
    check_spoilt(data)


@pytest.mark.soak
@LONG
@given(st.data())
def test_many_spoilt_calls(data):
    check_spoilt(data)
