"""Import the project that an adapter serves, or say how to install it."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["host"]


def host(module: str, extra: str) -> ModuleType:
    """Return `module`, imported.

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra of fastconv that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} is not installed: pip install "fastconv[{extra}]"') from error
