"""A host that is not installed: the error names the extra that brings it."""

from __future__ import annotations

import importlib
import sys

import pytest

ADAPTERS = {
    "fastconv.adapters.autograd": "autograd",
    "fastconv.adapters.jax": "jax",
    "fastconv.adapters.mygrad": "mygrad",
    "fastconv.sklearn": "sklearn",
}


@pytest.mark.parametrize(("adapter", "host"), ADAPTERS.items())
def test_the_error_names_the_extra(adapter, host, monkeypatch):
    monkeypatch.delitem(sys.modules, adapter, raising=False)
    for name in list(sys.modules):
        if name == host or name.startswith(f"{host}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, host, None)  # as if it were not there
    says = rf'{host} is not installed: pip install "fastconv\[{host}\]"'
    with pytest.raises(ImportError, match=says):
        importlib.import_module(adapter)
