"""Known problems that the loops of losses and optimizers solve before they are trusted."""

from __future__ import annotations

import numpy as np

__all__ = ["training_works"]


def training_works(address: int, name: str, dtype: np.dtype) -> bool:
    """Whether an entry of `entries.TRAINING` gives a known answer."""
    return _optimizer_works(address, name, dtype)


def _optimizer_works(address: int, name: str, dtype: np.dtype) -> bool:
    """Two parameters, of which neither is a whole number of vectors, and powers of 2: exactly."""
    from fastconv.engine import optimizers
    from fastconv.engine.call import perform

    value = [np.arange(n, dtype=dtype) for n in (67, 5)]
    grad = [np.full(v.shape, 4, dtype) for v in value]
    first, second = ([np.full(v.shape, n, dtype) for v in value] for n in (8, 16))
    if name == "sgd":
        # g = 4 + w / 2; velocity = 8 / 2 + g; w - g / 4 - velocity / 8
        scalars = np.array([0.25, 0.5, 0.125, 0.5, 1.0])
        perform(optimizers.sgd(optimizers.pieces(value, grad, [first]), scalars, address))
        start = [np.arange(v.size, dtype=dtype) for v in value]
        return all(
            np.array_equal(v, w - (4 + w / 2) / 4 - (8 + w / 2) / 8)
            and np.array_equal(f, 8 + w / 2)
            for v, f, w in zip(value, first, start, strict=True)
        )
    # mean = 8 / 2 + 4 / 2 = 6; square = 16 * 3 / 4 + 16 / 4 = 16; w / 2 - 6 / (4 / 2 + 1) * 2
    scalars = np.array([0.5, 0.5, 0.75, 0.25, 0.5, 1.0, 2.0, 0.5])
    perform(optimizers.adam(optimizers.pieces(value, grad, [first, second]), scalars, address))
    return all(
        np.array_equal(v, np.arange(v.size) / 2 - 4) and (f == 6).all() and (q == 16).all()
        for v, f, q in zip(value, first, second, strict=True)
    )
