"""fastconv's functions in place of SciPy's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import scipy.ndimage
import scipy.signal

from fastconv.adapters.scipy import extrema, filters, planes, signal, smoothing
from fastconv.adapters.scipy.own import NDIMAGE, SIGNAL, SIGNAL_MODULE, own

__all__ = ["functions", "install", "uninstall"]

_lock = threading.Lock()


def install() -> None:
    """Put fastconv's functions in place of SciPy's in `scipy.ndimage` and `scipy.signal`.

    Whoever looks a name up there at each call, as scikit-image does (``ndimage.correlate(...)``),
    gets fastconv's from now on. A name that was imported before (``from scipy.ndimage import
    correlate``) stays SciPy's: install first. A second call changes nothing; threads may call it.

    Examples
    --------
    >>> import scipy.ndimage
    >>> from fastconv.adapters import scipy as fast
    >>> fast.install()
    >>> scipy.ndimage.correlate is fast.correlate
    True
    >>> fast.uninstall()
    >>> scipy.ndimage.correlate is fast.correlate
    False
    """
    with _lock:
        for module, name, ours in functions():
            if getattr(module, name) is own(module, name):
                setattr(module, name, ours)


def uninstall() -> None:
    """Give SciPy its own functions back.

    Where another function was put in fastconv's place since, it stays. Names that were imported
    from SciPy in the meantime stay fastconv's. Without :func:`install` it changes nothing.

    Examples
    --------
    >>> uninstall()
    """
    with _lock:
        for module, name, ours in functions():
            if getattr(module, name) is ours:
                setattr(module, name, own(module, name))


def functions() -> list[tuple[ModuleType, str, Callable[..., Any]]]:
    """Where each is put: SciPy's module, the name, fastconv's function."""
    sources = (
        (scipy.ndimage, NDIMAGE, vars(filters) | vars(smoothing) | vars(extrema)),
        (scipy.signal, SIGNAL, vars(planes)),
        (scipy.signal, SIGNAL_MODULE, vars(signal)),
    )
    return [(module, n, ours[n]) for module, names, ours in sources for n in names]
