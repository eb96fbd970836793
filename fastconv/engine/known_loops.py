"""Known problems that the loops of `entries.LOOPS` solve before they are trusted.

Integers and powers of 2, so that answers are exact wherever nothing is divided and no exponential
is taken; numbers of elements that are no whole number of vectors; and a guard behind results.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastconv.engine import array_words as aw
from fastconv.engine import channels, columns, deltas, elementwise, losses, optimizers
from fastconv.engine.call import perform
from fastconv.engine.known_plans import integers
from fastconv.geometry.resolve import window_geometry

__all__ = ["loop_works"]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _below(x: np.ndarray) -> np.ndarray:
    """The normal distribution's share below each number, in float64."""
    return np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x.tolist()])


def _bell(x: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * np.square(x, dtype="f8")) / math.sqrt(2 * math.pi)


EACH: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": lambda a, b: a + b,
    "add_relu": lambda a, b: np.maximum(a + b, 0),
    "multiply": lambda a, b: a * b,
    "relu": lambda a, b: np.maximum(a, 0),
    "sigmoid": lambda a, b: 1 / (1 + np.exp(-a)),
    "sigmoid_delta": lambda a, b: a * (b * (1 - b)),
    "tanh": lambda a, b: np.tanh(a),
    "tanh_delta": lambda a, b: a * (1 - b * b),
    "leaky_relu": lambda a, b: np.where(a > 0, a, a * NUMBER),
    "leaky_relu_delta": lambda a, b: np.where(b > 0, a, a * NUMBER),
    "elu": lambda a, b: np.where(a > 0, a, np.expm1(a) * NUMBER),
    "elu_delta": lambda a, b: np.where(b > 0, a, a * NUMBER * np.exp(b)),
    "silu": lambda a, b: a * _sigmoid(a),
    "silu_delta": lambda a, b: a * _sigmoid(b) * (1 + b * _sigmoid(-b)),
    "softplus": lambda a, b: np.logaddexp(a, 0),
    "softplus_delta": lambda a, b: a * _sigmoid(b),
    "hardswish": lambda a, b: a * np.clip(a + 3, 0, 6) / 6,
    "hardswish_delta": lambda a, b: a * np.where(abs(b) < 3, b / 3 + 0.5, b > 0),
    "gelu": lambda a, b: a * _below(a),
    "gelu_delta": lambda a, b: a * (_below(b) + b * _bell(b)),
}
EXACT = ("add", "add_relu", "multiply", "relu", "sigmoid_delta", "tanh_delta", "leaky_relu",
         "leaky_relu_delta")  # fmt: skip
NUMBER = 0.5  # what those with a number get
GUARD = -77


def loop_works(address: int, name: str, dtype: np.dtype) -> bool:
    """Whether an entry of `entries.LOOPS` gives a known answer."""
    if name in EACH:
        return _each_works(address, name, dtype)
    if name in OTHERS:
        return OTHERS[name](address, dtype)
    if name in ("sgd", "adam", "rmsprop"):
        return _update_works(address, name, dtype)
    if name.startswith("norm"):
        # rows of one pixel, and rows of several with a rest
        return all(_norm_works(address, name, dtype, *shape) for shape in ((9, 21), (139, 3)))
    return _loss_works(address, name, dtype)


def _guarded(dtype: np.dtype, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """An array, and the array of one element more that it begins."""
    memory = np.full(int(np.prod(shape)) + 1, GUARD, dtype)
    return memory[:-1].reshape(shape), memory


def _close(found: np.ndarray, right: np.ndarray) -> bool:
    """Whether an answer is right to some roundings."""
    return np.allclose(found, right, rtol=16 * np.finfo(found.dtype).eps, atol=0)


def _each_works(address: int, name: str, dtype: np.dtype) -> bool:
    a, b = integers(dtype, 67), integers(dtype, 67)[::-1].copy()
    y, memory = _guarded(dtype, 67)
    perform(elementwise.each_call(address, name, a, y, b, NUMBER))
    right = EACH[name](a, b)
    same = np.array_equal(y, right) if name in EXACT else _close(y, right)
    return same and memory[-1] == GUARD


def _bias_grad_works(address: int, dtype: np.dtype) -> bool:
    for F in (3, 23):
        dy = integers(dtype, 3, 6, F)
        sums = np.empty(channels.bias_sums_nbytes(dy.shape) // 8)
        db, memory = _guarded(dtype, F)
        perform(channels.bias_grad_call(address, dy, sums.ctypes.data, db))
        if not np.array_equal(db, dy.sum((0, 1))) or memory[-1] != GUARD:
            return False
    return True


def _image_means_works(address: int, dtype: np.dtype) -> bool:
    x = integers(dtype, 3, 4, 85)
    y, memory = _guarded(dtype, 3, 85)
    perform(channels.image_means_call(address, x, y))
    return np.array_equal(y, x.sum(1) / 4) and memory[-1] == GUARD


def _relu_delta_works(address: int, dtype: np.dtype) -> bool:
    """Whether an entry masks an error; float16 comes as int16."""
    dy = integers(dtype, 2, 6, 23)
    y = dy[::-1].copy()
    dx, memory = _guarded(dtype, *dy.shape)
    deltas.relu_delta(address, dy, y, dx)
    positive = (y.view(np.float16) if dtype == np.int16 else y) > 0
    return np.array_equal(dx, np.where(positive, dy, 0)) and memory[-1] == GUARD


def _bias_plane_sums_works(address: int, dtype: np.dtype) -> bool:
    dy, sums = integers(dtype, 2, 6, 23), np.full((2, 6), np.nan)
    deltas.bias_plane_sums(address, dy, sums)
    return np.array_equal(sums, dy.sum(2, np.float64))


def _fill_rows_works(address: int, dtype: np.dtype) -> bool:
    b = integers(dtype, 23)
    for bias, relu, row in ((None, False, 0 * b), (b, False, b), (b, True, np.maximum(b, 0))):
        y, memory = _guarded(dtype, 3, 5, 23)
        perform(channels.fill_call(address, y, bias, relu))
        if not (y == row).all() or memory[-1] != GUARD:
            return False
    return True


def _columns_works(address: int, dtype: np.dtype) -> bool:
    """Windows of 2 with a cell of padding: as runs, and one by one where channels are apart."""
    for x in (integers(dtype, 2, 5, 23), integers(dtype, 23, 5, 2).T):
        g = window_geometry(x.shape, 2, padding=((1, 0),))
        cols, memory = _guarded(dtype, 2, 5, 46)
        perform(columns.columns_call(address, g, x, cols))
        before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
        if not np.array_equal(cols, np.concatenate([before, x], axis=2)) or memory[-1] != GUARD:
            return False
    return True


OTHERS = {
    "columns": _columns_works,
    "bias_grad": _bias_grad_works,
    "bias_plane_sums": _bias_plane_sums_works,
    "fill_rows": _fill_rows_works,
    "image_means": _image_means_works,
    "relu_delta": _relu_delta_works,
}


def _norm_works(address: int, name: str, dtype: np.dtype, pixels: int, C: int) -> bool:
    x, dy = integers(dtype, pixels, C), integers(dtype, pixels, C)[::-1].copy()
    mean, scale, shift = (integers(dtype, n + C)[n:] for n in (1, 2, 3))
    inverse = np.full(C, 0.5, dtype)
    table = np.zeros(channels.table_shape(x.shape, dtype), dtype)
    repeats = table.shape[1] // C
    parts = np.empty(channels.norm_parts_nbytes(x.shape, dtype) // 8)
    result, memory = _guarded(dtype, pixels, C)
    if name in ("norm_statistics", "norm_frozen"):
        running = mean.copy(), np.full(C, 4, dtype)
        if name == "norm_frozen":
            perform(channels.norm_frozen_call(address, x.shape, table, scale, shift, *running, 0.0))
            right = [mean, inverse, scale, shift]
            return np.array_equal(table[: aw.TABLE_FACTOR], np.tile(right, repeats))
        perform(channels.norm_statistics_call(address, x, parts.ctypes.data, table, scale, shift,
                                              *running, 0.5, 0.25))  # fmt: skip
        seen, variance = x.mean(0, np.float64), x.var(0, np.float64)
        table_of = np.tile([seen, 1 / np.sqrt(variance + 0.25), scale, shift], repeats)
        moved = (mean + seen) / 2, (4 + variance * pixels / (pixels - 1)) / 2
        near = np.abs(running[0] - moved[0]).max() < 64 * np.finfo(dtype).eps
        off = np.abs(table[0] - table_of[0]).max() < 64 * np.finfo(dtype).eps
        rest = _close(table[1 : aw.TABLE_FACTOR], table_of[1:])
        return bool(near and off and rest and _close(running[1], moved[1]))
    table[: aw.TABLE_FACTOR] = np.tile([mean, inverse, scale, shift], repeats)
    normal = (x - mean) * inverse
    y = normal * scale + shift
    error = np.where(y > 0, dy, 0) if name.endswith("relu") else dy
    if name.startswith("norm_sums"):
        grads = np.empty(C, dtype), np.empty(C, dtype)
        perform(channels.norm_sums_call(address, dy, x, parts.ctypes.data, table, scale, *grads))
        sums = error.sum(0), (error * normal).sum(0)
        written = np.tile([scale * inverse, sums[0] / pixels, sums[1] / pixels], repeats)
        same = all(np.array_equal(a, b) for a, b in zip(grads, sums[::-1], strict=True))
        return same and _close(table[aw.TABLE_FACTOR :], written.astype(dtype))
    table[aw.TABLE_FACTOR :] = np.tile([scale, shift, inverse], repeats)
    if name.startswith("norm_forward"):
        perform(channels.norm_forward_call(address, x, table, result))
        answer = np.maximum(y, 0) if name.endswith("relu") else y
    else:
        perform(channels.norm_backward_call(address, dy, x, table, result))
        answer = error * scale
        if not name.startswith("norm_frozen"):
            answer = scale * ((error - shift) - normal * inverse)
    return np.array_equal(result, answer) and memory[-1] == GUARD


def _update_works(address: int, name: str, dtype: np.dtype) -> bool:
    """Two parameters, of which neither is a whole number of vectors, and powers of 2: exactly."""
    value = [np.arange(n, dtype=dtype) for n in (67, 5)]
    grad = [np.full(v.shape, 4, dtype) for v in value]
    first, second = ([np.full(v.shape, n, dtype) for v in value] for n in (8, 16))
    if name == "sgd":
        # g = 4 + w / 2; velocity = 8 / 2 + g; w - g / 4 - velocity / 8
        scalars = np.array([0.25, 0.5, 0.125, 0.5, 1.0, 0.0, 0.0, 0.0])
        perform(optimizers.update_call(address, optimizers.pieces(value, grad, [first]), scalars))
        start = [np.arange(v.size, dtype=dtype) for v in value]
        return all(
            np.array_equal(v, w - (4 + w / 2) / 4 - (8 + w / 2) / 8)
            and np.array_equal(f, 8 + w / 2)
            for v, f, w in zip(value, first, start, strict=True)
        )
    if name == "rmsprop":
        # square = 16 / 4 + 16 * 3 / 4 = 16; 4 / (4 + 4) = 1 / 2; velocity = 16 / 2 + 1 / 2
        scalars = np.array([2.0, 0.25, 0.75, 4.0, 0.5, 0.0, 0.0, 0.0])
        of = optimizers.pieces(value, grad, [second, [q.copy() for q in second]])
        perform(optimizers.update_call(address, of, scalars))
        return all(
            np.array_equal(v, np.arange(v.size) - 17.0) and (q == 16).all()
            for v, q in zip(value, second, strict=True)
        )
    # mean = 8 / 2 + 4 / 2 = 6; square = 16 * 3 / 4 + 16 / 4 = 16; w / 2 - 6 / (4 / 2 + 1) * 2
    scalars = np.array([0.5, 0.5, 0.75, 0.25, 0.5, 1.0, 2.0, 0.5])
    of = optimizers.pieces(value, grad, [first, second])
    perform(optimizers.update_call(address, of, scalars))
    return all(
        np.array_equal(v, np.arange(v.size) / 2 - 4) and (f == 6).all() and (q == 16).all()
        for v, f, q in zip(value, first, second, strict=True)
    )


def _loss_works(address: int, name: str, dtype: np.dtype) -> bool:
    """Rows of which neither is a whole number of vectors; exponentials are 1 or 0.

    Only the softmax's log(2) and the other's log(1 + 1) are not exact; then a bad label.
    """
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
    perform(losses.loss_call(address, name, z, y, dz, parts, result))
    fine = abs(result[0] - loss) <= 1e-12 * loss and result[1:].tolist() == [correct, -1]
    if name == "mean_squared_error":
        return fine and np.allclose(dz, answer, rtol=1e-6, atol=0)
    perform(losses.loss_call(address, name, z, wrong, np.empty_like(z), parts, result))
    return fine and np.array_equal(dz, answer) and result[2] == (name[0] == "s")
