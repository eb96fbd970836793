"""The way through Python of a call from compiled code, and what both have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from numba import types

import fastconv as fc

__all__ = ["TEXT", "asking", "form_of_sources", "learn"]

TEXT = types.unicode_type


@lru_cache(1)
def asking() -> Any:
    """The module `request`, which brings in a part of the engine, when it is first needed."""
    return import_module("fastconv.adapters.numba.request")


@lru_cache(1)
def form_of_sources() -> int:
    """A number for the sources that compiled code and kept calls have in common; 0 if unknown."""
    sources = import_module("fastconv.compiler.sources")
    try:
        return int(sources.number_of(__file__, str(import_module("fastconv.plans").__file__)))
    except sources.NoCodeError:
        return 0


def learn(
    form: int, request: int, words: int, function: Callable[..., Any], given: tuple[Any, ...],
    out: Any, **options: Any,
) -> tuple[Any, str, int]:  # fmt: skip
    """Call a public function on this thread alone, which may be one of a ``prange``, and keep it.

    Returns the result, "" and the place of kept calls; or something of the result's type, what a
    ValueError said, and 0: nopython code can catch only what nopython code raises.

    Parameters
    ----------
    form : int
        `form_of_sources` of the sources that the caller was compiled for.
    request, words : int
        Address of a request, and the length of its key; 0 if it has none.
    function : callable
    given : tuple
        Its operands, by position.
    out, options
        Its keywords.
    """
    try:
        with fc.num_threads(1):
            found = function(*given, out=out, **options)
    except ValueError as error:
        nothing = np.empty((0,) * given[0].ndim, given[0].dtype.newbyteorder("="))
        y = nothing if out is None else out
        pair = options.get("return_argmax", False)
        return (y, nothing.astype(np.int64)) if pair else y, str(error), 0
    if not words or not form or form != form_of_sources():
        return found, "", 0
    results = found if isinstance(found, tuple) else (found,)
    key = asking().key_of(request, words)
    calls = import_module("fastconv.plans.calls")
    calls.keep(key, function.__name__, given, results, out is not None, **options)
    return found, "", calls.shelf().address
