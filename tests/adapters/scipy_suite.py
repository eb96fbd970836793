"""pytest plugin under which SciPy's own tests run with fastconv's functions in place of SciPy's."""

import math
import os

import pytest

# Tests of SciPy's that cannot hold, by the start of their names, and why.
CANNOT_HOLD = {
    "TestNdimageFilters::test_gauss03": "float32 is computed in float32: the sum of 10,000 cells "
    "is asked for to 8 digits",
    "test_multiple_modes[numpy-gaussian_laplace]": "asks for equal bits of two ways to the same "
    "number; ours are equal to the last bit but one",
    "test_multiple_modes_sequentially": "the same",
    "TestConvolve2d::test_large_array": "takes 4 GB of memory",
}
# Of SciPy's thousands of sizes, every so many: all of them with FASTCONV_ALL_SIZES=1.
THINNED = ("TestOAConvolve", "TestFFTConvolve")
EVERY = 20
# Other functions of the same files, which take seconds.
OTHERS = (
    "filtfilt",
    "median",
    "rank",
    "percentile",
    "generic",
    "vectorized",
    "decimate",
    "medfilt",
    "Vectorized",
    "lfilter",
    "sosfilt",
    "hilbert",
    "Hilbert",
    "resample",
    "Resample",
)


def pytest_configure():
    from scipy._lib import _array_api

    import fastconv.adapters.scipy as fast
    from fastconv.adapters.scipy import gain
    from fastconv.adapters.scipy.own import own
    from fastconv.adapters.scipy.switch import functions

    # Nothing is handed over because it is small: SciPy's tests are.
    gain.RANGES.update({kind: gain.Range(0, 0, 0, math.inf) for kind in gain.RANGES})
    fast.install()
    # What SciPy's tests want to know about each function.
    table = getattr(_array_api, "xp_capabilities_table", None)
    if table is not None:
        for module, name, ours in functions():
            table[ours] = table[own(module, name)]


def pytest_collection_modifyitems(config, items):
    every = 1 if os.environ.get("FASTCONV_ALL_SIZES") else EVERY
    kept, left = [], []
    for number, item in enumerate(items):
        name = item.nodeid.partition("::")[2]
        other = any(word in name for word in OTHERS)
        thinned = name.startswith(THINNED) and number % every
        (left if other or thinned else kept).append(item)
        for start, reason in CANNOT_HOLD.items():
            if name.startswith(start):
                item.add_marker(pytest.mark.skip(reason=reason))
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def pytest_sessionfinish():
    import scipy.ndimage

    import fastconv.adapters.scipy as fast

    assert scipy.ndimage.correlate is fast.correlate
