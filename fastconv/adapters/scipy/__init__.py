"""SciPy's filters and convolutions, computed by fastconv: same names, arguments and errors.

`scipy.ndimage`'s: `correlate`, `convolve`, `correlate1d`, `convolve1d`, `uniform_filter`,
`gaussian_filter`, `sobel`, `prewitt`, `laplace`, `gaussian_laplace`, `maximum_filter`,
`minimum_filter`; `scipy.signal`'s: `convolve2d`, `correlate2d`, `oaconvolve`, and, in the module
`signal` here, `convolve` and `correlate`. :func:`install` puts all of them in place of SciPy's.

float32 is computed in float32, where SciPy computes in float64 and rounds at the end; float64 gives
SciPy's results to the last bits, and integers give exactly SciPy's. What is not known to be faster
SciPy computes itself: small arrays, and what is seldom asked for, such as lists, footprints with
holes, integers with weights that are not whole, and arrays with a NaN or an infinity. So it does
where an argument is wrong, and raises its own errors.

Examples
--------
>>> import numpy as np
>>> from fastconv.adapters import scipy as fast
>>> image = np.ones((512, 512), np.float32)
>>> fast.correlate(image, np.ones((5, 5)), mode="nearest").dtype
dtype('float32')
"""

from fastconv.adapters.scipy import signal as signal
from fastconv.adapters.scipy.bank import filter_bank
from fastconv.adapters.scipy.extrema import maximum_filter, minimum_filter
from fastconv.adapters.scipy.filters import (
    convolve,
    convolve1d,
    correlate,
    correlate1d,
    laplace,
    prewitt,
    sobel,
)
from fastconv.adapters.scipy.planes import convolve2d, correlate2d, oaconvolve
from fastconv.adapters.scipy.smoothing import gaussian_filter, gaussian_laplace, uniform_filter
from fastconv.adapters.scipy.switch import install, uninstall

__all__ = [
    "convolve",
    "convolve1d",
    "convolve2d",
    "correlate",
    "correlate1d",
    "correlate2d",
    "filter_bank",
    "gaussian_filter",
    "gaussian_laplace",
    "install",
    "laplace",
    "maximum_filter",
    "minimum_filter",
    "oaconvolve",
    "prewitt",
    "sobel",
    "uniform_filter",
    "uninstall",
]
