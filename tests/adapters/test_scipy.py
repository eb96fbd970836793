"""SciPy's filters by fastconv: drawn arguments give what SciPy gives, and its errors."""

import inspect
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.adapters import scipy as fast
from fastconv.adapters.scipy import gain
from fastconv.adapters.scipy.own import NDIMAGE, SIGNAL, SIGNAL_MODULE

MODES = ["reflect", "constant", "nearest", "mirror", "wrap"]
FLOATS = ["float32", "float64"]
INTEGERS = ["uint8", "int8", "uint16", "int16", "int32", "int64"]
DTYPES = [*FLOATS, "complex64", "complex128", *INTEGERS]
# Of the largest sum of absolute terms that is drawn: values below 5, up to 4**3 weights below 5.
ROUNDING = {"float32": 1e-3, "complex64": 1e-3, "float64": 1e-11, "complex128": 1e-11}


@pytest.fixture(autouse=True, scope="module")
def always():
    """Small arrays are not handed over."""
    before = dict(gain.RANGES)
    gain.RANGES.update({kind: gain.Range(0, 0, 0, math.inf) for kind in before})
    yield
    gain.RANGES.update(before)


def pairs():
    """(SciPy's module, name, fastconv's function)."""
    yield from ((scipy.ndimage, name, getattr(fast, name)) for name in NDIMAGE)
    yield from ((scipy.signal, name, getattr(fast, name)) for name in SIGNAL)
    yield from ((scipy.signal, name, getattr(fast.signal, name)) for name in SIGNAL_MODULE)


def compare(module, function, *args, taken=True, **options):
    """As SciPy's; with `taken`, computed by fastconv."""
    theirs = getattr(module, function.__name__)(*args, **options)
    ours = function.__wrapped__(*args, **options)
    if taken:
        assert ours is not NotImplemented
    elif ours is NotImplemented:
        return
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert ours.flags.c_contiguous
    atol = ROUNDING.get(ours.dtype.name, 0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def drawn_array(draw, dtype, shape):
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 120, shape).astype(dtype)
    x = rng.uniform(-4, 4, shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.uniform(-4, 4, shape)
    return x.astype(dtype)


@st.composite
def images(draw, dtypes=DTYPES):
    """An array of one to three axes, some of a single cell; of any order in memory."""
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    x = drawn_array(draw, draw(st.sampled_from(dtypes)), shape)
    return np.asfortranarray(x) if draw(st.booleans()) else x


@st.composite
def windows(draw):
    """(image, weights, options) of `correlate`: kernels may be larger than the image."""
    x = draw(images())
    axes = sorted(draw(st.sets(st.integers(0, x.ndim - 1), min_size=1)))
    sizes = [draw(st.integers(1, 4)) for _ in axes]
    if x.dtype.kind in "iu":
        w = drawn_array(draw, "int64", sizes) % 7 - 3
    else:
        w = drawn_array(draw, draw(st.sampled_from(["float64", "complex128"])), sizes)
    options = {
        "mode": draw(st.sampled_from(MODES)),
        "cval": draw(st.sampled_from([0.0, 3.0])),
        "axes": tuple(axes),
    }
    return x, w, options


@given(windows(), st.data())
def test_correlate_and_convolve(problem, data):
    x, w, options = problem
    origins = [data.draw(st.integers(-(k // 2), (k - 1) // 2)) for k in w.shape]
    compare(scipy.ndimage, fast.correlate, x, w, origin=origins, **options)
    # Of a convolution, the window lies the other way round.
    flipped = [-o - (k % 2 == 0) for o, k in zip(origins, w.shape, strict=True)]
    inside = all(-(k // 2) <= o <= (k - 1) // 2 for o, k in zip(flipped, w.shape, strict=True))
    if inside:
        compare(scipy.ndimage, fast.convolve, x, w, origin=flipped, **options)


@given(images(), st.data())
def test_correlate1d_and_convolve1d(x, data):
    k, axis = data.draw(st.integers(1, 9)), data.draw(st.integers(-x.ndim, x.ndim - 1))
    mode = data.draw(st.sampled_from(MODES))
    w = np.arange(k) - 2 if x.dtype.kind in "iu" else drawn_array(data.draw, "float64", (k,))
    origin = data.draw(st.integers(-(k // 2), (k - 1) // 2)) if k % 2 else 0
    options = {"axis": axis, "mode": mode, "cval": 2.0, "origin": origin}
    for function in (fast.correlate1d, fast.convolve1d):
        compare(scipy.ndimage, function, x, w, **options)


@given(images(), st.data())
def test_filters_of_several_axes(x, data):
    modes = [data.draw(st.sampled_from(MODES)) for _ in range(x.ndim)]
    axis, sigma = data.draw(st.integers(0, x.ndim - 1)), data.draw(st.sampled_from([0.5, 1, 1.4]))
    order = data.draw(st.integers(0, 3))
    for function in (fast.sobel, fast.prewitt):
        compare(scipy.ndimage, function, x, axis, mode=modes)
    compare(scipy.ndimage, fast.laplace, x, mode=modes, cval=3.0)
    if x.dtype.kind in "iu":  # SciPy cuts off between two axes
        assert fast.gaussian_filter.__wrapped__(x, sigma) is NotImplemented
        assert fast.uniform_filter.__wrapped__(x) is NotImplemented
        return
    some = sorted(data.draw(st.sets(st.integers(0, x.ndim - 1), min_size=1)))
    options = {"mode": [modes[a] for a in some], "cval": 0.5, "axes": tuple(some)}
    compare(scipy.ndimage, fast.gaussian_filter, x, sigma, order, **options)
    compare(scipy.ndimage, fast.gaussian_filter, x, np.full(len(some), sigma), order, **options)
    size = [data.draw(st.integers(2, 9)) for _ in some]
    origin = [data.draw(st.integers(-(k // 2), (k - 1) // 2)) for k in size]
    compare(scipy.ndimage, fast.uniform_filter, x, size, origin=origin, **options)
    compare(scipy.ndimage, fast.gaussian_laplace, x, sigma, mode=modes[0])


@given(images([*FLOATS, "uint8", "int16", "int32", "uint32"]), st.data())
def test_maximum_and_minimum(x, data):
    some = sorted(data.draw(st.sets(st.integers(0, x.ndim - 1), min_size=1)))
    size = [data.draw(st.integers(1, 9)) for _ in some]
    origin = [data.draw(st.integers(-(k // 2), (k - 1) // 2)) for k in size]
    modes = [data.draw(st.sampled_from(MODES)) for _ in some]
    options = {
        "mode": modes,
        "origin": origin,
        "axes": tuple(some),
        "cval": 2,
        "taken": max(size) > 1,
    }
    for function in (fast.maximum_filter, fast.minimum_filter):
        compare(scipy.ndimage, function, x, size, **options)
        footprint = np.ones(size, bool)
        compare(scipy.ndimage, function, x, footprint=footprint, **options)


@given(images([*FLOATS, "complex64", "complex128", "int32", "int16"]), st.data())
@settings(max_examples=60)
def test_convolutions_of_signal(x, data):
    sizes = [data.draw(st.integers(1, n)) for n in x.shape]
    w = drawn_array(data.draw, x.dtype, sizes)
    mode = data.draw(st.sampled_from(["full", "same", "valid"]))
    taken = x.dtype != np.int16  # sums may wrap around there as the processor likes
    for function in (fast.signal.convolve, fast.signal.correlate):
        for method in ("auto", "direct"):
            compare(scipy.signal, function, x, w, mode, method, taken=taken)
    if x.dtype.kind not in "iu":
        compare(scipy.signal, fast.oaconvolve, x, w, mode)
    if x.ndim == 2:
        boundary = data.draw(st.sampled_from(["fill", "wrap", "symm"]))
        for function in (fast.convolve2d, fast.correlate2d):
            compare(scipy.signal, function, x, w, mode, boundary, 2, taken=taken)


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8", "int16"])
@pytest.mark.parametrize("output", ["float32", np.float64, np.dtype("int32"), "uint8"])
def test_output_dtypes(dtype, output):
    x = np.random.default_rng(0).integers(0, 50, (6, 7)).astype(dtype)
    w = np.array([[0, 1, -2], [3, 1, 1]])
    kinds = np.dtype(output).kind + x.dtype.kind
    taken = kinds not in ("if", "uf")  # of sums that are rounded, SciPy cuts off
    for function in (fast.correlate, fast.convolve):
        compare(scipy.ndimage, function, x, w, output=output, taken=taken)


def test_output_arrays_of_any_strides_and_the_input_itself():
    x = np.random.default_rng(0).normal(size=(8, 9))
    expected = scipy.ndimage.correlate(x, np.ones((3, 3)))
    wide = np.full((8, 18), np.nan)
    out = wide[:, ::2]
    assert fast.correlate(x, np.ones((3, 3)), output=out) is out
    np.testing.assert_allclose(out, expected, atol=1e-13)
    assert np.isnan(wide[:, 1::2]).all()
    assert fast.correlate(x, np.ones((3, 3)), output=x) is x
    np.testing.assert_allclose(x, expected, atol=1e-13)


def test_integers_wrap_around_as_theirs_do():
    x = np.full((5, 5), 200, np.uint8)
    for w in (np.full((3, 3), 3), np.full((3, 3), -1), np.full((3, 3), 100.0)):
        compare(scipy.ndimage, fast.correlate, x, w)
    compare(scipy.ndimage, fast.sobel, x.cumsum(0, np.uint8))


@pytest.mark.parametrize(
    "x",
    [
        np.array([[1.0, np.nan, 2.0, 0.0]] * 3),
        np.array([[np.inf, 1.0, 2.0, 0.0]] * 3),
        np.ones((3, 4), ">f4"),
        np.ones((3, 4), bool),
        np.ma.masked_array(np.ones((3, 4))),
        [[1.0, 2.0], [3.0, 4.0]],
        np.ones((0, 4)),
        np.full((4, 4), 2**62, np.int64),
    ],
    ids=["nan", "inf", "byte order", "bool", "masked", "list", "empty", "large integers"],
)
def test_what_is_handed_over_is_scipys(x):
    w = np.array([[0.0, 1.0, 0.0]])
    for function, args in [(fast.correlate, (x, w)), (fast.maximum_filter, (x, 3))]:
        theirs = getattr(scipy.ndimage, function.__name__)(*args)
        ours = function(*args)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_weights_as_small_as_a_rounding_error_are_left_out_as_scipy_does():
    x = np.full((4, 4), 1e30)
    compare(scipy.ndimage, fast.correlate, x, np.array([[1e-20, 1.0, 0.0]]))


def test_a_window_of_one_cell_copies():
    x = np.ones((300, 300))
    for function, args in [
        (fast.maximum_filter, 1),
        (fast.uniform_filter, 1),
        (fast.correlate, np.ones((1, 1))),
    ]:
        y = function(x, args)
        assert not np.shares_memory(x, y)
        np.testing.assert_array_equal(x, y)


WRONG = [
    ("correlate", ([1.0], [1.0]), {"mode": "wrong"}),
    ("correlate", (np.ones((3, 3)), np.ones(3)), {}),
    ("correlate", (np.ones((3, 3)), np.ones((3, 3))), {"origin": 2}),
    ("correlate", (np.ones((3, 3)), np.ones((3, 3))), {"output": np.ones((2, 3))}),
    ("correlate", (np.ones((3, 3)), np.ones((3, 3))), {"mode": ["reflect", "wrap"]}),
    ("correlate", (np.ones(3, np.float16), np.ones(3)), {}),
    ("correlate", (np.ones(3), np.ones(3)), {"cval": 1j, "mode": "constant", "output": complex}),
    ("convolve", (np.ones((3, 3)), np.ones((3, 3))), {"axes": (0, 0)}),
    ("correlate1d", (np.ones(3), np.ones((3, 3))), {}),
    ("correlate1d", (np.ones(3), np.ones(3)), {"axis": 1}),
    ("convolve1d", (np.ones(3), np.ones(3)), {"origin": 2}),
    ("uniform_filter", (np.ones((3, 3)), (3, 3, 3)), {}),
    ("gaussian_filter", (np.ones(3), 1.0), {"order": -1}),
    ("gaussian_filter", (np.ones(3), 1.0), {"radius": 1.5}),
    ("gaussian_filter", (np.ones(3), np.inf), {}),
    ("gaussian_filter", (np.ones(3), 1j), {}),
    ("sobel", (np.ones((3, 3)),), {"mode": "constant", "cval": "1"}),
    ("correlate", (np.ones((3, 3)), np.ones((3, 3))), {"cval": [1, 2]}),
    ("gaussian_filter", (np.ones((3, 3)), (1.0, 1.0, 1.0)), {}),
    ("gaussian_laplace", (np.ones(3), 1.0), {"size": 3}),
    ("sobel", (np.ones((3, 3)), 2), {}),
    ("laplace", (np.ones((3, 3)),), {"mode": ("reflect",)}),
    ("maximum_filter", (np.ones((3, 3)),), {}),
    ("maximum_filter", (np.ones(3, complex), 3), {}),
    ("minimum_filter", (np.ones((3, 3)), 3), {"origin": 2}),
    ("convolve2d", (np.ones(3), np.ones(3)), {}),
    ("correlate2d", (np.ones((3, 3)), np.ones((3, 3)), "sam"), {}),
    ("convolve2d", (np.ones((3, 3)), np.ones((3, 3))), {"boundary": "mirror"}),
    ("oaconvolve", (np.ones((3, 3)), np.ones(3)), {}),
    ("sobel", (np.ones((3, 3)),), {"axes": 3}),
]


@pytest.mark.parametrize(("name", "args", "options"), WRONG)
def test_bad_input_raises_scipys_error(name, args, options):
    theirs = getattr(scipy.signal if name in SIGNAL else scipy.ndimage, name)
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever SciPy raises
        theirs(*args, **options)
    with pytest.raises(type(expected.value)) as error:
        getattr(fast, name)(*args, **options)
    assert str(error.value) == str(expected.value)


@pytest.mark.parametrize(("module", "name", "function"), list(pairs()))
def test_signatures_are_scipys(module, name, function):
    theirs = inspect.signature(getattr(module, name)).parameters
    ours = inspect.signature(function).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


@pytest.mark.parametrize(
    ("cells", "window", "expected"),
    [
        (99, (11,), False),  # cells
        (100, (9,), False),  # products
        (112, (9,), True),
        (1000, (2,), False),  # taps
        (1000, (3, 11), False),  # a long side
    ],
)
def test_the_rule_of_what_stays_with_scipy(monkeypatch, cells, window, expected):
    monkeypatch.setitem(gain.RANGES, "window", gain.Range(100, 1000, 3, 9))
    assert gain.gains("window", cells, window) is expected
