"""Known problems that the loops of `entries.NETWORK` solve before they are trusted.

Integers and powers of 2, so that answers are exact wherever nothing is divided; numbers of elements
that are no whole number of vectors; and a guard behind every result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["network_works"]

EACH: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": lambda a, b: a + b,
    "add_relu": lambda a, b: np.maximum(a + b, 0),
    "copy": lambda a, b: a,
    "multiply": lambda a, b: a * b,
    "relu": lambda a, b: np.maximum(a, 0),
    "sigmoid": lambda a, b: 1 / (1 + np.exp(-a)),
    "sigmoid_delta": lambda a, b: a * (b * (1 - b)),
    "tanh": lambda a, b: np.tanh(a),
    "tanh_delta": lambda a, b: a * (1 - b * b),
}
GUARD = -77


def network_works(address: int, name: str, dtype: np.dtype) -> bool:
    """Whether an entry of `entries.NETWORK` gives a known answer."""
    if name == "bias_grad":
        return _bias_grad_works(address, dtype)
    if name == "image_means":
        return _image_means_works(address, dtype)
    if name in EACH:
        return _each_works(address, name, dtype)
    # rows of one pixel, and rows of several with a rest
    return all(_norm_works(address, name, dtype, *shape) for shape in ((9, 21), (139, 3)))


def _integers(dtype: np.dtype, *shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) * 5 % 13 - 6).astype(dtype)


def _guarded(dtype: np.dtype, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """An array, and the array of one element more that it begins."""
    memory = np.full(int(np.prod(shape)) + 1, GUARD, dtype)
    return memory[:-1].reshape(shape), memory


def _close(found: np.ndarray, right: np.ndarray) -> bool:
    """Whether an answer is right to some roundings."""
    return np.allclose(found, right, rtol=16 * np.finfo(found.dtype).eps, atol=0)


def _each_works(address: int, name: str, dtype: np.dtype) -> bool:
    from fastconv.engine.call import perform
    from fastconv.engine.elementwise import each_call

    a, b = _integers(dtype, 67), _integers(dtype, 67)[::-1].copy()
    y, memory = _guarded(dtype, 67)
    perform(each_call(name, a, y, b, entry=address))
    right = EACH[name](a, b)
    same = _close(y, right) if name in ("sigmoid", "tanh") else np.array_equal(y, right)
    return same and memory[-1] == GUARD


def _bias_grad_works(address: int, dtype: np.dtype) -> bool:
    from fastconv.engine.call import perform
    from fastconv.engine.channels import bias_grad_call, bias_sums_nbytes

    for F in (3, 23):
        dy = _integers(dtype, 3, 6, F)
        sums = np.empty(bias_sums_nbytes(dy.shape) // 8)
        db, memory = _guarded(dtype, F)
        perform(bias_grad_call(dy, sums.ctypes.data, db, entry=address))
        if not np.array_equal(db, dy.sum((0, 1))) or memory[-1] != GUARD:
            return False
    return True


def _image_means_works(address: int, dtype: np.dtype) -> bool:
    from fastconv.engine.call import perform
    from fastconv.engine.channels import image_means_call

    x = _integers(dtype, 3, 4, 85)
    y, memory = _guarded(dtype, 3, 85)
    perform(image_means_call(x, y, entry=address))
    return np.array_equal(y, x.sum(1) / 4) and memory[-1] == GUARD


def _norm_works(address: int, name: str, dtype: np.dtype, pixels: int, C: int) -> bool:
    from fastconv.engine import channels
    from fastconv.engine import words as s
    from fastconv.engine.call import perform

    x, dy = _integers(dtype, pixels, C), _integers(dtype, pixels, C)[::-1].copy()
    mean, scale, shift = (_integers(dtype, n + C)[n:] for n in (1, 2, 3))
    inverse = np.full(C, 0.5, dtype)
    table = np.zeros(channels.table_shape(x.shape, dtype), dtype)
    repeats = table.shape[1] // C
    parts = np.empty(channels.norm_parts_nbytes(x.shape, dtype) // 8)
    result, memory = _guarded(dtype, pixels, C)
    if name in ("norm_statistics", "norm_frozen"):
        running = mean.copy(), np.full(C, 4, dtype)
        if name == "norm_frozen":
            perform(channels.norm_frozen_call(x.shape, table, scale, shift, *running, 0.0,
                                              entry=address))  # fmt: skip
            right = [mean, inverse, scale, shift]
            return np.array_equal(table[: s.TABLE_FACTOR], np.tile(right, repeats))
        perform(channels.norm_statistics_call(x, parts.ctypes.data, table, scale, shift, *running,
                                              0.5, 0.25, entry=address))  # fmt: skip
        seen, variance = x.mean(0, np.float64), x.var(0, np.float64)
        table_of = np.tile([seen, 1 / np.sqrt(variance + 0.25), scale, shift], repeats)
        moved = (mean + seen) / 2, (4 + variance * pixels / (pixels - 1)) / 2
        near = np.abs(running[0] - moved[0]).max() < 64 * np.finfo(dtype).eps
        off = np.abs(table[0] - table_of[0]).max() < 64 * np.finfo(dtype).eps
        rest = _close(table[1 : s.TABLE_FACTOR], table_of[1:])
        return bool(near and off and rest and _close(running[1], moved[1]))
    table[: s.TABLE_FACTOR] = np.tile([mean, inverse, scale, shift], repeats)
    normal = (x - mean) * inverse
    y = normal * scale + shift
    error = np.where(y > 0, dy, 0) if name.endswith("relu") else dy
    if name.startswith("norm_sums"):
        grads = np.empty(C, dtype), np.empty(C, dtype)
        perform(channels.norm_sums_call(dy, x, parts.ctypes.data, table, scale, *grads,
                                        name.endswith("relu"), entry=address))  # fmt: skip
        sums = error.sum(0), (error * normal).sum(0)
        written = np.tile([scale * inverse, sums[0] / pixels, sums[1] / pixels], repeats)
        same = all(np.array_equal(a, b) for a, b in zip(grads, sums[::-1], strict=True))
        return same and _close(table[s.TABLE_FACTOR :], written.astype(dtype))
    table[s.TABLE_FACTOR :] = np.tile([scale, shift, inverse], repeats)
    if name.startswith("norm_forward"):
        perform(channels.norm_forward_call(x, table, result, entry=address))
        answer = np.maximum(y, 0) if name.endswith("relu") else y
    else:
        perform(channels.norm_backward_call(dy, x, table, result, entry=address))
        answer = error * scale
        if not name.startswith("norm_frozen"):
            answer = scale * ((error - shift) - normal * inverse)
    return np.array_equal(result, answer) and memory[-1] == GUARD
