"""The compiled loops of losses and optimizers: known answers, and warming up."""

import ctypes

import numpy as np
import pytest

import fastconv
from fastconv.engine.entries import TRAINING, training_address
from fastconv.engine.known_training import training_works


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TRAINING)
def test_known_answers(name, dtype):
    dtype = np.dtype(dtype)
    assert training_works(training_address(name, dtype), name, dtype)
    idle = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(lambda call, thread: None)
    address = ctypes.cast(idle, ctypes.c_void_p).value
    assert not training_works(address, name, dtype)


def test_warmup_compiles_them(monkeypatch):
    asked = []
    monkeypatch.setattr("fastconv.config._calls", lambda dtype: {})
    monkeypatch.setattr(
        "fastconv.engine.entries.training_address", lambda name, dtype: asked.append((name, dtype))
    )
    fastconv.warmup(dtypes=("float64", "float16"))
    assert asked == [(name, np.dtype(d)) for d in ("float64", "float32") for name in TRAINING]
