"""`filter_bank`: each response is SciPy's correlation of one image with one kernel."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from fastconv.adapters.scipy import filter_bank

MODES = ["reflect", "constant", "nearest", "mirror", "wrap"]
rng = np.random.default_rng(0)


def stacked(images, kernels, mode):
    """Image by image and kernel by kernel."""
    rows = images.reshape(-1, *images.shape[-2:])
    y = [[scipy.ndimage.correlate(x, w, mode=mode) for w in kernels] for x in rows]
    return np.moveaxis(np.array(y), 1, -1).reshape(*images.shape, len(kernels))


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4),
    st.sampled_from(MODES),
    st.lists(st.integers(1, 3), max_size=2),
    st.tuples(st.integers(2, 9), st.integers(2, 9)),
)
def test_kernels_of_different_sizes(sizes, mode, batch, image):
    images = rng.normal(size=(*batch, *image))
    kernels = [rng.normal(size=size) for size in sizes]
    y = filter_bank(images, kernels, mode=mode)
    assert y.shape == (*batch, *image, len(kernels))
    np.testing.assert_allclose(y, stacked(images, kernels, mode), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_complex_kernels_are_conjugated_as_scipys(dtype):
    images = rng.normal(size=(2, 8, 9)).astype(dtype)
    kernels = [np.ones((3, 3)), rng.normal(size=(5, 3)) + 1j * rng.normal(size=(5, 3))]
    y = filter_bank(images, kernels)
    assert y.dtype == np.result_type(dtype, np.complex64)
    atol = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(
        y[..., 0], stacked(images, kernels[:1], "reflect")[..., 0], atol=atol
    )
    np.testing.assert_allclose(
        y[..., 1], stacked(images, kernels[1:], "reflect")[..., 0], atol=atol
    )


def test_dtypes():
    kernels = np.ones((4, 3, 3))
    for dtype, expected in [
        ("float32", "float32"),
        ("float16", "float32"),
        (">f4", "float32"),
        ("float64", "float64"),
        ("uint8", "float64"),
        ("bool", "float64"),
    ]:
        y = filter_bank(np.ones((5, 5), dtype), kernels)
        assert y.dtype == expected
        assert (y == 9).all()
    assert filter_bank([[1, 2], [3, 4]], [[[1]]])[..., 0].tolist() == [[1, 2], [3, 4]]


def test_empty_batch_and_no_kernels():
    assert filter_bank(np.ones((0, 5, 5)), [np.ones((3, 3))]).shape == (0, 5, 5, 1)
    assert filter_bank(np.ones((2, 5, 5)), []).shape == (2, 5, 5, 0)


def test_inputs_are_not_changed():
    images, kernels = rng.normal(size=(2, 6, 6)), [rng.normal(size=(3, 3))]
    before = images.copy(), kernels[0].copy()
    images.flags.writeable = kernels[0].flags.writeable = False
    filter_bank(images, kernels)
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(kernels[0], before[1])


@pytest.mark.parametrize(
    ("images", "kernels", "options", "error", "message"),
    [
        (np.ones((5, 5)), [np.ones((3, 3))], {"mode": "same"}, ValueError, "mode='same' must be"),
        (np.ones((5, 5)), [np.ones((3, 3))], {"mode": None}, ValueError, "mode=None must be"),
        (np.ones((5, 5)), [np.ones((3, 3))], {"mode": ["wrap"]}, ValueError, "mode=['wrap'] must"),
        (np.ones(5), [np.ones((3, 3))], {}, ValueError, "images have shape (5,): (..., H, W)"),
        (np.ones((2, 0, 5)), [np.ones((3, 3))], {}, ValueError, "images have shape (2, 0, 5)"),
        (
            np.ones((5, 5)),
            [np.ones((3, 3)), np.ones(3)],
            {},
            ValueError,
            "kernels[1] has shape (3,)",
        ),
        (np.ones((5, 5)), np.ones((3, 3)), {}, ValueError, "kernels[0] has shape (3,)"),
        (np.ones((5, 5)), [np.ones((0, 3))], {}, ValueError, "kernels[0] has shape (0, 3)"),
        (np.ones((5, 5)), 3, {}, TypeError, "kernels=3 must be"),
        (
            np.ones((5, 5), complex),
            [np.ones((3, 3))],
            {},
            TypeError,
            "images have dtype complex128",
        ),
        (np.array([["a"]]), [np.ones((3, 3))], {}, TypeError, "images have dtype <U1"),
        (np.ones((5, 5)), [[["a"]]], {}, TypeError, "kernels[0] has dtype <U1"),
    ],
)
def test_bad_input_names_the_argument(images, kernels, options, error, message):
    with pytest.raises(error) as raised:
        filter_bank(images, kernels, **options)
    assert message in str(raised.value)
