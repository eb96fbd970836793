"""A host that is not installed: the error names the extra that brings it."""

from __future__ import annotations

import importlib
import sys

import pytest

from fastconv import nn

MODEL = nn.Sequential(nn.Flatten(), nn.Dense(2, 2))
ADAPTERS = {
    "fastconv.adapters.autograd": "autograd",
    "fastconv.adapters.dask": "dask",
    "fastconv.adapters.xarray": "xarray",
    "fastconv.adapters.zarr": "zarr",
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


@pytest.mark.parametrize(
    ("host", "extra", "call"),
    [
        ("tensorboardX", "tensorboard", lambda path: nn.TensorBoard(path)),
        ("safetensors.numpy", "weights", lambda path: MODEL.save_weights(path / "a.safetensors")),
        ("safetensors", "weights", lambda path: MODEL.load_weights(path / "a.safetensors")),
        ("h5py", "weights", lambda path: MODEL.load_weights(path / "a.weights.h5")),
        ("onnx", "onnx", lambda path: nn.from_onnx(path / "a.onnx")),
    ],
)
def test_files_of_other_frameworks(host, extra, call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, host, None)
    says = rf'{host} is not installed: pip install "fastconv\[{extra}\]"'
    with pytest.raises(ImportError, match=says):
        call(tmp_path)
