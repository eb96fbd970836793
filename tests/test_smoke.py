"""Ten seconds over all floors: what is broken at large shows here first.

`python -m pytest tests/test_smoke.py`; the kernels are on disk after the first run.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from strategies import integers, layout, random_conv, random_pool

import fastconv as fc
from fastconv import nn, reference
from fastconv.cli import main
from fastconv.examples import binary_cnn

FORMATS = ("channels_last", "channels_first")


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("seed", range(6))
def test_products_equal_the_naive_loops(seed, data_format):
    rng = np.random.default_rng(seed)
    x_shape, w_shape, options = random_conv(rng)
    options["data_format"] = data_format
    x = integers(rng, *layout(x_shape, data_format), dtype="float32")
    w, b = (integers(rng, *shape, dtype="float32") for shape in (w_shape, w_shape[-1:]))
    y = fc.conv(x, w, b, **options)
    assert_array_equal(y, reference.conv(x, w, b, **options))
    plan = fc.plan_conv(x.shape, w.shape, x.dtype, **options)
    assert_array_equal(plan.forward(x, w, b), y)
    dy = integers(rng, *y.shape, dtype="float32")
    expected = reference.conv_backward(dy, x, w, **options)
    for found, wanted in zip(fc.conv_backward(dy, x, w, **options), expected, strict=True):
        assert_array_equal(found, wanted)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("seed", range(6))
def test_pools_equal_the_naive_loops(seed, data_format):
    rng = np.random.default_rng(seed)
    x_shape, window, options = random_pool(rng)
    options["data_format"] = data_format
    x = 216 * integers(rng, *layout(x_shape, data_format), dtype="float32")
    y, argmax = fc.max_pool(x, window, return_argmax=True, **options)
    for found, wanted in zip(
        (y, argmax), reference.max_pool(x, window, return_argmax=True, **options), strict=True
    ):
        assert_array_equal(found, wanted)
    back = (y, argmax, x.shape, window)
    assert_array_equal(
        fc.max_pool_backward(*back, **options), reference.max_pool_backward(*back, **options)
    )
    assert_array_equal(fc.avg_pool(x, window, **options), reference.avg_pool(x, window, **options))


def test_a_network_learns_is_saved_and_loaded(tmp_path):
    x = np.random.default_rng(0).random((64, 8, 8, 1), np.float32)
    y = (x[:, 2:4, 2:4].mean((1, 2, 3)) > 0.5).astype(np.int64)
    model = binary_cnn(seed=1)
    optimizer = nn.Adam(model.parameters(), lr=0.02)
    history = nn.fit(model, nn.BinaryCrossEntropy(), optimizer, x, y, epochs=5, seed=0)
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.npz")
    again = nn.Sequential.load(tmp_path / "model.npz", ops=reference)
    np.testing.assert_allclose(again.predict(x[:4]), model.predict(x[:4]), rtol=1e-4, atol=1e-5)


def test_a_wrong_argument_is_named():
    with pytest.raises(ValueError, match=r"^stride: 0 must be at least 1"):
        fc.conv(np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1)), stride=0)


@pytest.mark.parametrize("words", [["explain"], ["bench", "m1 h6w6c2 f3 k3", "--repeat", "1"]])
def test_commands(words, capsys):
    assert main(words) == 0
    assert len(capsys.readouterr().out) > 100
