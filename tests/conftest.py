"""Settings of the suite, and a guard: a test may not leave the process changed."""

import sys

import hypothesis
import numpy as np
import pytest

import fastconv as fc

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100)
hypothesis.settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _nothing_leaks():
    """The caller's settings are the caller's: threads, Numba's threads, NumPy's error state."""
    threads, errors = fc.get_num_threads(), np.geterr()
    numba = sys.modules.get("numba")
    numba_threads = numba.get_num_threads() if numba else None
    yield
    assert fc.get_num_threads() == threads
    assert np.geterr() == errors
    if numba:
        assert numba.get_num_threads() == numba_threads
