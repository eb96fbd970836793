"""DataArrays: names, coordinates and attributes stay, and numbers are those of the arrays."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import fastconv as fc
from fastconv import nn
from fastconv.adapters import xarray as adapter

RNG = np.random.default_rng(0)
SIZES = {"run": 2, "time": 3, "y": 8, "x": 7, "band": 3}
W = RNG.normal(size=(3, 3, 3, 4)).astype("float32")


def labelled(sizes=SIZES):
    return xr.DataArray(
        RNG.normal(size=tuple(sizes.values())).astype("float32"),
        dims=tuple(sizes),
        coords={
            **{name: 10 * np.arange(n) for name, n in sizes.items() if name != "band"},
            "band": ["red", "green", "blue"],
            "note": "kept",
        },
        attrs={"units": "K"},
        name="temperature",
    )


def model():
    return nn.Sequential(nn.Conv(3, 4, 3, padding="same", rng=0), nn.BatchNorm(4), nn.ReLU())


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("leading", [("run", "time"), ("time",), ()])
def test_convolution(leading, lazy):
    x = labelled({name: n for name, n in SIZES.items() if name in (*leading, "y", "x", "band")})
    given = x.chunk(dict.fromkeys(leading, 1)) if lazy else x
    y = adapter.conv(given, W, padding="same")
    assert (y.chunks is not None) == lazy
    assert (y.dims, y.name, y.attrs, y.dtype) == (x.dims, x.name, x.attrs, x.dtype)
    for name in (*leading, "y", "x", "note"):
        assert y.coords[name].equals(x.coords[name])
    assert "band" not in y.coords  # they are other channels
    whole = fc.conv(x.values.reshape(-1, 8, 7, 3), W, padding="same")
    assert np.array_equal(y.values, whole.reshape(y.shape))


def test_an_axis_of_another_length_has_no_coordinates():
    x = labelled()
    y = adapter.conv(x, W, padding=((1, 1), (0, 0)))
    assert dict(y.sizes) == {"run": 2, "time": 3, "y": 8, "x": 5, "band": 4}
    assert set(y.coords) == {"run", "time", "y", "note"}
    lazy = adapter.conv(x.chunk({"run": 1}), W, padding=((1, 1), (0, 0)))
    assert lazy.shape == y.shape
    assert lazy.compute().identical(y)


def test_images_whose_axes_lie_anywhere():
    x = labelled()
    turned = x.transpose("band", "run", "y", "time", "x")
    y = adapter.conv(turned, W, dims=("y", "x", "band"))
    assert y.dims == ("run", "time", "y", "x", "band")
    assert y.identical(adapter.conv(x, W).assign_coords(y.coords))
    lines = adapter.conv(x, W[0], dims=("x", "band"))
    assert lines.sizes["x"] == 5


@pytest.mark.parametrize("lazy", [False, True])
def test_a_model(lazy):
    x = labelled()
    given = x.chunk({"run": 1, "time": 2}) if lazy else x
    y = adapter.predict(model(), given)
    assert y.dims == x.dims
    assert y.attrs == x.attrs
    assert y.coords["time"].equals(x.coords["time"])
    assert np.array_equal(
        y.values.reshape(6, 8, 7, 4), model().predict(x.values.reshape(6, 8, 7, 3))
    )


@pytest.mark.parametrize("lazy", [False, True])
def test_a_model_that_gives_one_vector_an_image(lazy):
    network = nn.Sequential(model(), nn.GlobalAvgPool(), nn.Dense(4, 2, rng=0))
    x = labelled()
    y = adapter.predict(network, x.chunk({"run": 1}) if lazy else x)
    assert dict(y.sizes) == {"run": 2, "time": 3, "band": 2}
    assert set(y.coords) == {"run", "time", "note"}
    whole = network.predict(x.values.reshape(6, 8, 7, 3))
    assert np.array_equal(y.values.reshape(6, 2), whole)


def test_bytes_are_scaled():
    x = labelled().astype("uint8")
    y = adapter.predict(model(), x.chunk({"run": 1}), scale=1 / 255)
    whole = model().predict(x.values.reshape(6, 8, 7, 3), scale=1 / 255)
    assert np.array_equal(y.values.reshape(whole.shape), whole)


def test_lazy_results_keep_the_weights_of_their_making():
    network, x = model(), labelled()
    lazy, now = adapter.predict(network, x.chunk({"run": 1})), adapter.predict(network, x)
    network[0].w.value[...] = 0
    assert lazy.compute().identical(now)


X = labelled()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: adapter.predict(model(), X.values), TypeError, "^x: a DataArray"),
        (lambda: adapter.predict(model(), X[0, 0, 0]), ValueError, "^x: an image has 3 axes"),
        (lambda: adapter.predict(model(), X, dims=("y", "x", "c")), ValueError, "^dims: .*'c'"),
        (lambda: adapter.predict(model(), X, dims="band"), TypeError, "^dims"),
        (lambda: adapter.predict(model(), X, dims=("x", "x", "band")), ValueError, "^dims"),
        (lambda: adapter.predict(model(), X.chunk({"y": 4})), ValueError, r"x.chunk\({'y': -1}\)"),
        (lambda: adapter.predict(model(), X[..., :2]), ValueError, r"in layer 0 \(Conv\)"),
        (lambda: adapter.predict(model(), X.astype("u1")), TypeError, "^x: .*scale="),
        (lambda: adapter.predict("m.npz", X), TypeError, "^model"),
        (lambda: adapter.conv(X, W, padding="SAME"), ValueError, "^padding"),
        (lambda: adapter.conv(X, xr.DataArray(W)), TypeError, "^w is of xarray"),
        (lambda: fc.conv(X, W), TypeError, "^x is of xarray: .*fastconv.adapters.xarray"),
        (lambda: model().predict(X), TypeError, "fastconv.adapters.xarray"),
    ],
)
def test_errors_come_before_anything_is_computed(call, error, says):
    with pytest.raises(error, match=says):
        call()
