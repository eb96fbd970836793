"""Keeping the results of functions whose arguments are the caller's."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

import numpy as np

__all__ = ["remembered"]

P = ParamSpec("P")
R = TypeVar("R")
EXACT = frozenset((int, str))
HASHED = frozenset((int, str, bool, type(None), *map(type, map(np.dtype, ("f2", "f4", "f8")))))


def remembered(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep a function's results for arguments that are numbers and names, alone or in tuples.

    A plain cache would take True and 1.0 for the 1 that they equal, and cannot hash a list. Such
    calls go through, and no result of theirs is kept.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        cached = cast(Callable[P, R], lru_cache(maxsize, typed=True)(function))

        @wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> R:
            for value in args:
                if type(value) not in HASHED and not _exact(value):
                    return function(*args, **options)
            for value in options.values():
                if type(value) not in HASHED and not _exact(value):
                    return function(*args, **options)
            return cached(*args, **options)

        return call

    return decorate


def _exact(value: object) -> bool:
    if type(value) is tuple:
        return EXACT.issuperset(map(type, value)) or all(map(_exact, value))
    return type(value) in EXACT
