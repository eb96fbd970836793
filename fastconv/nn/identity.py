"""What makes a training run the run it is: a checkpoint keeps it, and a resumed run compares it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from fastconv.nn.base import Array


def as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` as they come back from a file: tuples are lists.

    Raises
    ------
    TypeError
        If they hold something that JSON does not know.

    Examples
    --------
    >>> as_json({"betas": (0.9, 0.999)})
    {'betas': [0.9, 0.999]}
    """
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def identity(thing: Any) -> list[Any]:
    """Name of a function or of an object's class, and what its `settings()` tells.

    Examples
    --------
    >>> from fastconv.nn import ExponentialDecay
    >>> identity(ExponentialDecay(0.1, 0.5))[1]
    {'lr': 0.1, 'factor': 0.5}
    """
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    settings = thing.settings() if hasattr(thing, "settings") else {}
    return [f"{kind.__module__}.{kind.__qualname__}", settings]


def fingerprint(*arrays: Array) -> str:
    """Digest of shapes, dtypes and elements (BLAKE2b, about 1 GB/s).

    Examples
    --------
    >>> len(fingerprint(np.zeros((3, 2))))
    32
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        for row in array:  # row by row: a strided array is never copied whole
            digest.update(np.ascontiguousarray(row).data)
    return digest.hexdigest()


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One sentence for each setting that is not what it was.

    Examples
    --------
    >>> differences({"seed": 0, "shuffle": True}, {"seed": 1, "shuffle": True})
    ['seed was 0, is 1']
    """
    keys = sorted(set(before) | set(now))
    pairs = [(key, before.get(key), now.get(key)) for key in keys]
    return [f"{key} was {old!r}, is {new!r}" for key, old, new in pairs if old != new]
