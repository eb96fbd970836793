"""A text that two models share exactly when they are the same layers with the same numbers."""

from __future__ import annotations

import hashlib
import json

from fastconv.nn.base import Layer
from fastconv.nn.describe import OF_LAYERS, describe_object, full_name
from fastconv.nn.registry import registered
from fastconv.nn.storage import model_arrays

__all__ = ["digest"]


def digest(model: Layer) -> str:
    """Digest of a model's layers, parameters and buffers.

    What a layer of one's own keeps besides, counts as far as a resumed run compares it.

    Examples
    --------
    >>> from fastconv.examples import binary_cnn
    >>> digest(binary_cnn(seed=0)) == digest(binary_cnn(seed=0)) != digest(binary_cnn(seed=1))
    True
    """
    found = hashlib.blake2b(digest_size=16)
    for path, layer in model.walk():
        kind = type(layer)
        if not (registered(layer) and kind.__module__.startswith("fastconv.")):
            described = describe_object(layer, model, OF_LAYERS)
        else:
            described = {} if layer.children() else layer.config()
        found.update(json.dumps([path, full_name(kind), described], default=repr).encode())
    for name, array in model_arrays(model).items():
        found.update(f"{name} {array.shape} {array.dtype.str}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
