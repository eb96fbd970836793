"""The one decorator of compiled kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numba

__all__ = ["kernel"]


def kernel(function: Callable[..., Any] | None = None, *, parallel: bool = False) -> Any:
    """Compile `function` at its first call and keep the machine code on disk.

    ``contract`` is the only relaxation of floating-point rules: the others would delete the tests
    for NaN or change the order of sums. Where no folder is writable the kernel is compiled anew
    in every process, with a warning.
    """
    if function is None:
        return lambda f: kernel(f, parallel=parallel)
    options: dict[str, Any] = {
        "nogil": True,
        "parallel": parallel,
        "error_model": "numpy",
        "fastmath": {"contract"},
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError as error:  # "cannot cache function …: no locator available"
        warnings.warn(f"kernels are not kept on disk: {error}", RuntimeWarning, stacklevel=2)
        return numba.njit(**options)(function)
