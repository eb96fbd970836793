"""The project that an adapter belongs to: imported, or an error that says what to install."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def host(module: str, extra: str) -> ModuleType:
    """Import and return a host project's module.

    Parameters
    ----------
    module : str
        Its dotted name.
    extra : str
        The extra of fastconv that installs it.

    Raises
    ------
    ImportError
        Naming the extra, if the module is not installed.

    Examples
    --------
    >>> host("numpy", "examples").__name__
    'numpy'
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} is not installed: pip install "fastconv[{extra}]"') from error
