"""The compiled loops of losses and optimizers: known answers, and warming up."""

import ctypes

import numpy as np
import pytest

import fastconv
from fastconv.engine.entries import LOOPS, loop_address
from fastconv.engine.known_loops import loop_works


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOOPS)
def test_known_answers(name, dtype):
    dtype = np.dtype(dtype)
    assert loop_works(loop_address(name, dtype), name, dtype)
    idle = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(lambda call, thread: None)
    address = ctypes.cast(idle, ctypes.c_void_p).value
    assert not loop_works(address, name, dtype)


def test_warmup_compiles_them(monkeypatch):
    asked = []
    monkeypatch.setattr("fastconv.config._calls", lambda dtype: {})
    monkeypatch.setattr(
        "fastconv.engine.warm.loop_address", lambda name, dtype: asked.append((name, dtype))
    )
    fastconv.warmup(dtypes=("float64", "float16"))
    names = [name for name in LOOPS if name != "columns"]  # which no layer needs
    assert asked == [(name, np.dtype(d)) for d in ("float64", "float32") for name in names]
