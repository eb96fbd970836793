"""Keeping the results of functions whose arguments are the caller's."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import numpy as np

__all__ = ["remembered"]

F = TypeVar("F", bound=Callable[..., Any])
EXACT = frozenset((int, str))
HASHED = frozenset((int, str, bool, type(None), *map(type, map(np.dtype, ("f2", "f4", "f8")))))


def remembered(maxsize: int) -> Callable[[F], F]:
    """Keep a function's results for arguments that are numbers and names, alone or in tuples.

    A plain cache would take True and 1.0 for the 1 that they equal, and cannot hash a list. Such
    calls go through, and no result of theirs is kept.
    """

    def decorate(function: F) -> F:
        cached = lru_cache(maxsize, typed=True)(function)

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            for value in args:
                if type(value) not in HASHED and not _exact(value):
                    return function(*args, **options)
            for value in options.values():
                if type(value) not in HASHED and not _exact(value):
                    return function(*args, **options)
            return cached(*args, **options)

        return cast(F, call)

    return decorate


def _exact(value: Any) -> bool:
    if type(value) is tuple:
        return EXACT.issuperset(map(type, value)) or all(map(_exact, value))
    return type(value) in EXACT
