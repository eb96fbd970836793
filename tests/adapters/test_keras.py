"""Keras on NumPy: every function against the naive loops, in every dtype."""

import inspect

import fastconv.adapters.keras as adapter

# Without JAX, Keras can be imported after it only.
# isort: split
import keras
import numpy as np
import pytest
from keras.src.backend.common.backend_utils import compute_conv_transpose_padding_args_for_jax
from numpy.testing import assert_array_equal

from fastconv import reference
from fastconv.adapters import _keras_functions

WINDOWS = [(3,), (3, 2), (2, 1, 3)]
LAYOUTS = ["channels_last", "channels_first"]


def integers(*shape, seed=0, dtype="float32", high=5):
    return np.random.default_rng(seed).integers(-high, high, shape).astype(dtype)


def images(size, channels, layout, seed=0):
    order = (2, *size, channels) if layout == "channels_last" else (2, channels, *size)
    return integers(*order, seed=seed)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("options", [{}, {"padding": "same"}, {"strides": 2, "padding": "same"}])
def test_conv(window, layout, options):
    x = images((7, 6, 5)[: len(window)], 4, layout)
    w = integers(*window, 2, 6, seed=1)  # half the input's channels: two groups
    expected = reference.conv(
        x,
        w,
        stride=options.get("strides", 1),
        padding=options.get("padding", "valid"),
        groups=2,
        data_format=layout,
    )
    assert_array_equal(keras.ops.conv(x, w, data_format=layout, **options), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", WINDOWS)
def test_depthwise_and_separable_conv(window, layout):
    x = images((7, 6, 5)[: len(window)], 3, layout)
    w, point = integers(*window, 3, 2, seed=1), integers(*(1 for _ in window), 6, 5, seed=2)
    options = {"dilation": 2, "padding": "same", "data_format": layout}
    between = reference.conv(x, w.reshape(*window, 1, 6), groups=3, **options)
    keywords = {"dilation_rate": 2, "padding": "same", "data_format": layout}
    assert_array_equal(keras.ops.depthwise_conv(x, w, **keywords), between)
    expected = reference.conv(between, point, data_format=layout)
    assert_array_equal(keras.ops.separable_conv(x, w, point, **keywords), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (4, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("output_padding", [None, 0, 1])
def test_conv_transpose(window, layout, padding, strides, dilation, output_padding):
    rank = len(window)
    x = images((4, 3, 2)[:rank], 3, layout)
    w = integers(*window, 2, 3, seed=1)  # *window, F, C
    options = {"strides": strides, "padding": padding, "output_padding": output_padding}
    y = keras.ops.conv_transpose(x, w, dilation_rate=dilation, data_format=layout, **options)
    # By the definition: stretch, pad, convolve with the flipped kernel.
    pads = compute_conv_transpose_padding_args_for_jax(
        x.shape, w.shape, dilation_rate=dilation, **options
    )
    last = x if layout == "channels_last" else np.moveaxis(x, 1, -1)
    sizes = [(n - 1) * strides + 1 for n in last.shape[1:-1]]
    wide = np.zeros((2, *sizes, 3), x.dtype)
    wide[(slice(None), *(slice(None, None, strides) for _ in window))] = last
    flipped = np.flip(w, range(rank)).swapaxes(-1, -2)
    expected = reference.conv(wide, flipped, padding=pads, dilation=dilation)
    assert_array_equal(y if layout == "channels_last" else np.moveaxis(y, 1, -1), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("options", [{}, {"padding": "same"}, {"strides": 2, "padding": "same"}])
def test_pooling(window, layout, options):
    x = images((7, 6, 5)[: len(window)], 4, layout)
    words = {
        "stride": options.get("strides"),
        "padding": options.get("padding", "valid"),
        "data_format": layout,
    }
    assert_array_equal(
        keras.ops.max_pool(x, window, data_format=layout, **options),
        reference.max_pool(x, window, **words),
    )
    np.testing.assert_allclose(
        keras.ops.average_pool(x, window, data_format=layout, **options),
        reference.avg_pool(x, window, **words),  # divides by the cells inside the image
        rtol=1e-6,
    )


def test_16_bit_floats_are_computed_in_float32():
    x, w = integers(1, 9, 9, 4), integers(3, 3, 4, 2, seed=1)
    exact = reference.conv(x, w)
    for dtype in ("float16", "bfloat16"):
        narrow = keras.ops.convert_to_tensor(x, dtype)
        y = keras.ops.conv(narrow, keras.ops.convert_to_tensor(w, dtype))
        assert y.dtype.name == dtype
        assert_array_equal(y, exact.astype(y.dtype))
        for pool in (keras.ops.max_pool, keras.ops.average_pool):
            y = pool(narrow, 2)
            assert y.dtype.name == dtype
            assert_array_equal(y, np.asarray(pool(x, 2)).astype(y.dtype))


def test_float64_stays_float64():
    x, w = integers(1, 9, 9, 4, dtype="float64"), integers(3, 3, 4, 2)
    y = keras.ops.conv(x + 1e-12, w)
    assert y.dtype == np.float64
    assert (y != reference.conv(x, w.astype("float64"))).any()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_integers_wrap_around(dtype):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    x = rng.integers(limits.min, limits.max, (2, 5, 5, 3), dtype, endpoint=True)
    w = rng.integers(limits.min, limits.max, (2, 2, 3, 4), dtype, endpoint=True)
    rows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (1, 2))  # m, OH, OW, C, KH, KW
    expected = np.einsum("nijcuv,uvcf->nijf", rows, w)  # in the dtype, modulo 2**bits
    y = keras.ops.conv(x, w)
    assert y.dtype == dtype
    assert_array_equal(y, expected)
    if limits.bits < 64:
        assert_array_equal(keras.ops.max_pool(x, 2, 1), rows.max((-1, -2))[..., :])
        mean = keras.ops.average_pool(x, 2, 1)
        assert mean.dtype == np.float64
        np.testing.assert_allclose(mean, rows.mean((-1, -2)), rtol=1e-12)
    else:
        with pytest.raises(ValueError, match="int64 values beyond"):
            keras.ops.max_pool(x, 2)


def test_bool():
    x, w = integers(1, 5, 5, 2) > 3, integers(2, 2, 2, 3, seed=1) > 3
    expected = reference.conv(x.astype("float32"), w.astype("float32")) > 0
    assert_array_equal(keras.ops.conv(x, w), expected)
    assert keras.ops.max_pool(x, 2).dtype == bool
    with pytest.raises(TypeError, match="bool"):
        keras.ops.average_pool(x, 2)


def test_variables_lists_default_layout_and_empty_batches():
    x, w = integers(2, 4, 4, 3), integers(3, 3, 3, 2, seed=1)
    expected = reference.conv(x, w)
    assert_array_equal(keras.ops.conv(keras.Variable(x), keras.Variable(w)), expected)
    assert keras.ops.max_pool(keras.Variable(x), 2).shape == (2, 2, 2, 3)
    assert keras.ops.conv(x[:0], w).shape == (0, 2, 2, 2)
    keras.config.set_image_data_format("channels_first")
    try:
        assert_array_equal(
            keras.ops.conv(x.transpose(0, 3, 1, 2), w), expected.transpose(0, 3, 1, 2)
        )
    finally:
        keras.config.set_image_data_format("channels_last")


def test_errors_say_what_is_wrong():
    x, w = integers(2, 4, 4, 3), integers(3, 3, 3, 2)
    with pytest.raises(ValueError, match="channels=3, kernel input channels=2"):
        keras.ops.conv(x, w[:, :, :2])
    with pytest.raises(ValueError, match="channels=3, kernel input channels=2"):
        adapter.FUNCTIONS["depthwise_conv"](x, w[:, :, :2])
    with pytest.raises(ValueError, match="channels=3, kernel input channels=2"):
        adapter.FUNCTIONS["conv_transpose"](x, w)
    with pytest.raises(TypeError, match="different dtypes, float32 and float16"):
        keras.ops.conv(x, w.astype("float16"))
    with pytest.raises(ValueError, match="larger than the padded input"):
        keras.ops.conv(x, np.ones((5, 5, 3, 1), "float32"))


def test_a_whole_model_predicts():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.SeparableConv2D(6, 3),
            keras.layers.Conv2DTranspose(2, 3, strides=2),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    x = integers(3, 12, 12, 2)
    y = model.predict(x, verbose=0)
    first, separable, back = (model.layers[i] for i in (0, 2, 3))
    a = np.maximum(reference.conv(x, *map(np.asarray, first.weights), padding="same"), 0)
    depth, point, bias = map(np.asarray, separable.weights)
    a = reference.conv(reference.max_pool(a, 2), depth.reshape(3, 3, 1, 4), groups=4)
    a = reference.conv_transpose(
        reference.conv(a, point, bias), *map(np.asarray, back.weights), stride=2
    )
    np.testing.assert_allclose(y, a.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_signatures_are_those_of_keras():
    """Whatever Keras's callers give by position arrives where it should."""
    functions = {**_keras_functions.FUNCTIONS, **_keras_functions.TRANSFORMS}
    seen = set()
    for _, name, own in adapter._originals:
        parameters = (inspect.signature(f).parameters.values() for f in (functions[name], own))
        mine, theirs = ([(p.name, p.kind, p.default) for p in each] for each in parameters)
        assert mine == theirs
        seen.add(name)
    assert seen >= set(_keras_functions.FUNCTIONS)
