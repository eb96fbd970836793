"""Known problems that the loops of losses and optimizers solve before they are trusted."""

from __future__ import annotations

import numpy as np

__all__ = ["training_works"]


def training_works(address: int, name: str, dtype: np.dtype) -> bool:
    """Whether an entry of `entries.TRAINING` gives a known answer."""
    works = _optimizer_works if name in ("sgd", "adam") else _loss_works
    return works(address, name, dtype)


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


def _loss_works(address: int, name: str, dtype: np.dtype) -> bool:
    """Rows of which neither is a whole number of vectors; exponentials are 1 or 0.

    Only the softmax's log(2) and the other's log(1 + 1) are not exact; then a bad label.
    """
    from fastconv.engine import losses
    from fastconv.engine.call import perform

    z = np.full((2, 37), -10000, dtype)
    result, dz = np.zeros(3), np.full_like(z, -77)
    parts = np.empty(losses.parts_of(name, *z.shape))
    if name == "softmax_cross_entropy":
        z[:, [3, 36]] = 5
        y, wrong = np.array([36, 3]), np.array([0, 37])
        loss, correct, answer = np.log(2.0), 1, np.zeros_like(z)
        answer[[0, 1], [3, 36]], answer[[0, 1], [36, 3]] = 0.25, -0.25
    else:
        z[0], z[1, 36] = 10000, 0
        y, error = np.ones_like(z), np.where(z < 0, -1, np.where(z > 0, 0, -0.5))
        wrong = np.where(z < 0, y, 2)
        loss, correct, answer = (36 * 10000 + np.log(2.0)) / z.size, 1, error.astype(dtype)
        if name == "mean_squared_error":
            z = (z / 2500).astype(dtype)
            loss, correct, answer = ((z - y) ** 2).mean(dtype="f8"), 0, z - y
            answer = answer * dtype.type(2)
        answer = answer / dtype.type(z.size)
    call = getattr(losses, name)
    perform(call(z, y, dz, parts, result, address))
    fine = abs(result[0] - loss) <= 1e-12 * loss and result[1:].tolist() == [correct, -1]
    if name == "mean_squared_error":
        return fine and np.allclose(dz, answer, rtol=1e-6, atol=0)
    perform(call(z, wrong, np.empty_like(z), parts, result, address))
    return fine and np.array_equal(dz, answer) and result[2] == (name[0] == "s")
