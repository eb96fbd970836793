"""Adapters read no array of dask, xarray or a gradient's tape in silence; the error names it."""

import importlib

import dask.array
import numpy as np
import pytest
import xarray

import fastconv
from fastconv import nn
from fastconv.explain import explain
from fastconv.sklearn import CNNClassifier

X = dask.array.ones((1, 1, 4, 4), dtype="float32")
W = np.ones((1, 1, 2, 2), "float32")
STEPS = {"stride": 1, "pad": 0}
CALLS = {
    "autograd": lambda m: m.conv(X, W),
    "autograd pool": lambda m: m.max_pool(X, 1),
    "coursera": lambda m: m.conv_forward(X, W, W, STEPS),
    "cs231n": lambda m: m.conv_forward_fast(X, W, W, STEPS),
    "jax": lambda m: m.conv(X, W),
    "jax pool": lambda m: m.avg_pool(X, 1),
    "mygrad": lambda m: m.conv_nd(X, W, stride=1),
    "mygrad pool": lambda m: m.avg_pool(X, 2, 2),
}

computed = []


def never(block):
    computed.append(block)
    return block


def lazy(*shape, dtype="float32"):
    made = dask.array.zeros(shape, dtype=dtype).map_blocks(never, dtype=dtype, meta=np.zeros(0))
    return made


class Named(xarray.DataArray):
    """A class of one's own, as geo libraries have them."""

    __slots__ = ()


IMAGE, LABEL = lazy(4, 4, 1), lazy(dtype=int)
SEVERAL = {
    "list": [IMAGE, IMAGE],
    "tuple": (IMAGE, IMAGE),
    "late": [np.zeros((4, 4, 1), np.float32), IMAGE],
    "nested": [[[lazy(1)] * 4] * 4] * 2,
    "xarray": [xarray.DataArray(np.zeros((4, 4, 1), np.float32))] * 2,
    "subclass": Named(np.zeros((2, 4, 4, 1), np.float32)),
    "subclasses": [Named(np.zeros((4, 4, 1), np.float32))] * 2,
}
KERNEL = np.ones((2, 2, 1, 1), np.float32)
MODEL = nn.Sequential(nn.Flatten(), nn.Dense(16, 2, rng=0))
IMAGES, LABELS = np.zeros((2, 4, 4, 1), np.float32), np.arange(2)


def fit(y=LABELS, **options):
    optimizer = nn.SGD(MODEL.parameters())
    nn.fit(MODEL, nn.SoftmaxCrossEntropy(), optimizer, IMAGES, y, epochs=1, **options)


READ_IMAGES = {
    "conv": lambda x: fastconv.conv(x, KERNEL),
    "kernel": lambda w: fastconv.conv(IMAGES, w),
    "max_pool": lambda x: fastconv.max_pool(x, 2),
    "im2col": lambda x: fastconv.im2col(x, 2),
    "jax": lambda x: importlib.import_module("fastconv.adapters.jax").conv(x, KERNEL),
    "mygrad": lambda x: importlib.import_module("fastconv.adapters.mygrad").max_pool(x, 2, 2),
    "evaluate": lambda x: nn.evaluate(MODEL, nn.SoftmaxCrossEntropy(), x, LABELS),
    "forward": MODEL.forward,
    "explain": explain,
    "sklearn": lambda x: CNNClassifier(max_iter=1).fit(x, LABELS),
}


@pytest.mark.parametrize("call", READ_IMAGES)
@pytest.mark.parametrize("given", SEVERAL)
def test_images_in_lists(given, call):
    computed.clear()
    with pytest.raises(TypeError, match=r"^[xwX]"):
        READ_IMAGES[call](SEVERAL[given])
    assert not computed


READ_NUMBERS = {
    "b": lambda b: fastconv.conv(IMAGES, np.ones((2, 2, 1, 2), np.float32), b),
    "y": fit,
    "validation": lambda y: fit(validation=(IMAGES, y)),
    "sample_weight": lambda weights: fit(sample_weight=weights),
    "class_weight": lambda weights: fit(class_weight=weights),
    "w": lambda w: setattr(MODEL[1], "b", w),
    "sklearn": lambda y: CNNClassifier(max_iter=1).fit(IMAGES, y),
    "weights": lambda w: CNNClassifier(max_iter=1).fit(IMAGES, LABELS, sample_weight=w),
}


@pytest.mark.parametrize("call", READ_NUMBERS)
@pytest.mark.parametrize("given", [lazy(2, dtype=int), [LABEL] * 2, (1, LABEL)], ids=type)
def test_numbers_in_lists(given, call):
    computed.clear()
    with pytest.raises(TypeError, match="dask"):
        READ_NUMBERS[call](given)
    assert not computed


def test_lists_that_hold_themselves():
    endless = []
    endless.append(endless)
    with pytest.raises((TypeError, ValueError), match=r"^x"):
        fastconv.conv(endless, KERNEL)


def test_the_cure_names_the_argument():
    with pytest.raises(TypeError, match=r"^x\[1\] is of dask.* x\[1\]\.compute\(\)$"):
        fastconv.conv(SEVERAL["late"], KERNEL)
    with pytest.raises(TypeError, match=r"^x: batch 0: .* batch\.compute\(\)$"):
        MODEL.predict(SEVERAL["list"])  # batches


@pytest.mark.parametrize("name", CALLS)
def test_dask(name):
    module = importlib.import_module(f"fastconv.adapters.{name.split()[0]}")
    with pytest.raises(TypeError, match=r"^(x|A_prev) is of dask.*compute it first, \w+\.compute"):
        CALLS[name](module)
