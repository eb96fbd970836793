"""SciPy's own functions, and how a call that is not for fastconv reaches them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import scipy.ndimage
import scipy.signal

__all__ = ["NDIMAGE", "SIGNAL", "SIGNAL_MODULE", "own", "taking"]

NDIMAGE = (
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "gaussian_filter",
    "gaussian_laplace",
    "laplace",
    "maximum_filter",
    "minimum_filter",
    "prewitt",
    "sobel",
    "uniform_filter",
)
SIGNAL = ("convolve2d", "correlate2d", "oaconvolve")
SIGNAL_MODULE = ("convolve", "correlate")  # whose names SciPy has in both modules

# As they were when this module was imported: `install` comes after it.
_OWN: dict[tuple[str, str], Callable[..., Any]] = {
    (module.__name__, name): getattr(module, name)
    for module, names in (
        (scipy.ndimage, NDIMAGE),
        (scipy.signal, (*SIGNAL, *SIGNAL_MODULE)),
    )
    for name in names
}


def own(module: ModuleType, name: str) -> Callable[..., Any]:
    """SciPy's function of that name."""
    return _OWN[module.__name__, name]


def taking(module: ModuleType) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function with one that calls SciPy's own where it returns NotImplemented.

    It raises nothing for arguments that are wrong: SciPy's own does, in SciPy's words.
    """

    def decorate(fast: Callable[..., Any]) -> Callable[..., Any]:
        theirs = own(module, fast.__name__)

        @functools.wraps(fast)
        def function(*args: Any, **options: Any) -> Any:
            result = fast(*args, **options)
            return theirs(*args, **options) if result is NotImplemented else result

        return function

    return decorate
