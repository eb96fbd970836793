"""Right answers, from the definitions, in float64 NumPy that shares nothing with any library.

Pooling is computed in full. A convolution is computed at samples: output pixels, input pixels, or
taps, corners first. The rest of the array is covered by comparing the libraries with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from comparison.cases import Case, ConvCase, PoolCase
from comparison.networks import NetworkCase
from comparison.windows import max_pool, windows
from fastconv import reference
from fastconv.geometry import Geometry

EPS = {"float16": 2.0**-23, "float32": 2.0**-23, "float64": 2.0**-52}
# Of a network's outputs, or the losses of ten training steps; PyTorch's batch normalisation is off
# by 2e-5 on images with a constant background.
NETWORK_BOUND = 1e-4
ROUNDED = ("avg_pool", "avg_pool_backward", "bias_grad")
PIXELS = 16
TAPS = 3
BLOCK = 2**22  # elements of a block of images in float64, 32 MiB


class WrongAnswerError(Exception):
    """A result differs from the definition, or from another library's."""


def check_by_definition(case: Case, got: Any) -> None:
    """Raise WrongAnswerError if an element is not what the definition says; of conv, a sample."""
    if not isinstance(case, ConvCase):
        compare(case, got, answer(case), magnitude(case))
        return
    expect_shape(case, got)
    for at, values in conv_samples(case):
        wrong = got[at].astype(np.float64) != values
        if wrong.any():
            raise WrongAnswerError(
                f"{wrong.sum()} of {wrong.size} values at {at} differ from the definition"
            )


def compare(case: Case, got: Any, expected: Any, magnitude: Any) -> None:
    """Raise WrongAnswerError where ``abs(got - expected) > 16 eps G``, G being `magnitude`.

    `magnitude` may be a function, which is called only where results differ at all.
    """
    if isinstance(expected, tuple):
        compare(case, got[0], expected[0], magnitude)
        compare(case, got[1], expected[1], np.zeros(expected[1].shape))
        return
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise WrongAnswerError(
            f"{got.dtype} {got.shape} instead of {expected.dtype} {expected.shape}"
        )
    if np.array_equal(got, expected):
        return
    bound = 16 * EPS[case.dtype] * (magnitude() if callable(magnitude) else magnitude)
    error = np.abs(got.astype(np.float64) - expected)
    wrong = ~(error <= bound)
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(wrong, error - bound, -np.inf)), error.shape)
        at = tuple(int(i) for i in worst)
        raise WrongAnswerError(
            f"{wrong.sum()} of {wrong.size} elements, worst at {at}: "
            f"{got[at]} instead of {expected[at]}"
        )


def first_prediction(case: NetworkCase) -> np.ndarray:
    """What the naive loops predict for the first image."""
    model = case.network.model()
    model.ops = reference
    return model.predict(case.batches[0][0][:1])


def check_network(got: np.ndarray, expected: np.ndarray | None) -> None:
    """Raise WrongAnswerError for outputs or losses that differ by more than rounding.

    The bound is a share of the largest: a sum of many layers may cancel.
    """
    if not np.isfinite(got).all():
        raise WrongAnswerError(f"{got} is not finite")
    if expected is None:
        return
    if got.shape != expected.shape:
        raise WrongAnswerError(f"shape {got.shape} instead of {expected.shape}")
    error = np.abs(got.astype(np.float64) - expected) / np.abs(expected).max()
    if error.max() > NETWORK_BOUND:
        at = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
        raise WrongAnswerError(f"{got[at]} instead of {expected[at]} at {at}")


def expect_shape(case: ConvCase, got: np.ndarray) -> None:
    """Raise WrongAnswerError for an array of another shape or dtype."""
    x, w, _, dy = case.operands
    shape = {"forward": dy.shape, "kernel": w.shape, "input": x.shape}[case.product]
    if got.shape != shape or got.dtype != case.dtype:
        raise WrongAnswerError(f"{got.dtype} {got.shape} instead of {case.dtype} {shape}")


def conv_samples(case: ConvCase) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Positions in the result and the exact values there."""
    g, (x, w, _, dy) = case.problem.geometry, case.operands
    if case.product == "kernel":
        for at in _positions(g.window, TAPS):
            yield at, _kernel_at(g, x, dy, at)
    elif case.product == "forward":
        for at in _positions((g.m, *g.y_size), PIXELS):
            yield at, _forward_at(g, x, w, at)
    else:
        for at in _positions((g.m, *g.x_size), PIXELS):
            yield at, _input_at(g, dy, w, at)


def _positions(shape: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """The first and the last position, and random ones, without repetition."""
    size = int(np.prod(shape))
    flat = {0, size - 1, *np.random.default_rng(1).integers(0, size, count - 2).tolist()}
    return [tuple(int(i) for i in np.unravel_index(n, shape)) for n in sorted(flat)]


def _tap(g: Geometry, w: np.ndarray, tap: tuple[int, ...]) -> np.ndarray:
    """One tap of the kernel as (C/G, G, F/G)."""
    return w[tap].astype(np.float64).reshape(g.C // g.G, g.G, g.F // g.G)


def _forward_at(g: Geometry, x: np.ndarray, w: np.ndarray, at: tuple[int, ...]) -> np.ndarray:
    """``y[n, o] = sum over taps of x[n, o s + tap d - lo] @ w[tap]``: (F,)."""
    y = np.zeros((g.G, g.F // g.G))
    for tap in np.ndindex(g.window):
        where = [
            o * s + t * d - lo
            for o, t, (_, _, s, d, lo, _) in zip(at[1:], tap, g.axes, strict=True)
        ]
        if all(0 <= i < n for i, n in zip(where, g.x_size, strict=True)):
            pixel = x[(at[0], *where)].astype(np.float64).reshape(g.G, g.C // g.G)
            y += np.einsum("gc,cgf->gf", pixel, _tap(g, w, tap))
    return y.ravel()


def _input_at(g: Geometry, dy: np.ndarray, w: np.ndarray, at: tuple[int, ...]) -> np.ndarray:
    """``dx[n, i]``: the sum over all (o, tap) with ``o s + tap d - lo = i``: (C,)."""
    dx = np.zeros((g.G, g.C // g.G))
    for tap in np.ndindex(g.window):
        steps = [
            divmod(i + lo - t * d, s)
            for i, t, (_, _, s, d, lo, _) in zip(at[1:], tap, g.axes, strict=True)
        ]
        if all(rest == 0 and 0 <= o < n for (o, rest), n in zip(steps, g.y_size, strict=True)):
            error = dy[(at[0], *(o for o, _ in steps))].astype(np.float64)
            dx += np.einsum("gf,cgf->gc", error.reshape(g.G, g.F // g.G), _tap(g, w, tap))
    return dx.ravel()


def _kernel_at(g: Geometry, x: np.ndarray, dy: np.ndarray, tap: tuple[int, ...]) -> np.ndarray:
    """``dw[tap] = sum over pixels of x[n, o s + tap d - lo].T @ dy[n, o]``: (C/G, F)."""
    inputs, outputs = [], []
    for t, (n, _, s, d, lo, count) in zip(tap, g.axes, strict=True):
        first = max(0, -((t * d - lo) // s))  # the smallest o inside the input
        stop = min(count, -((t * d - lo - n) // s))
        start = first * s + t * d - lo
        inputs.append(slice(start, start + max(0, stop - first - 1) * s + 1, s))
        outputs.append(slice(first, max(first, stop)))
        if stop <= first:
            return np.zeros((g.C // g.G, g.F))
    dw = np.zeros((g.G, g.C // g.G, g.F // g.G))
    images = max(1, BLOCK // max(int(np.prod(g.x_shape[1:])), int(np.prod(g.y_shape[1:]))))
    for n in range(0, g.m, images):
        block = slice(n, n + images)
        rows = x[(block, *inputs)].astype(np.float64).reshape(-1, g.G, g.C // g.G)
        errors = dy[(block, *outputs)].astype(np.float64).reshape(-1, g.G, g.F // g.G)
        dw += rows.transpose(1, 2, 0) @ errors.transpose(1, 0, 2)
    return dw.transpose(1, 0, 2).reshape(g.C // g.G, g.F)


def _avg_pool(case: PoolCase, x: np.ndarray) -> np.ndarray:
    cells = windows(np.ones_like(x[:1, :, :, :1]), case.window, case.stride, case.padding, 0)
    sums = windows(x, case.window, case.stride, case.padding, 0).sum(-1, dtype=np.float64)
    return sums / cells.sum(-1)


def _max_pool_backward(case: PoolCase, dy: np.ndarray) -> np.ndarray:
    """Errors added up at the winners."""
    m, H, W, C = case.x.shape
    image = np.arange(m)[:, None, None, None]
    flat = (image * (H * W) + case.argmax) * C + np.arange(C)
    return np.bincount(flat.ravel(), dy.ravel(), case.x.size).reshape(case.x.shape)


def _avg_pool_backward(case: PoolCase, dy: np.ndarray) -> np.ndarray:
    """Every error divided over the cells of its window inside the image."""
    k, s, p = case.window, case.stride, case.padding
    m, H, W, C = case.x.shape
    cells = windows(np.ones((1, H, W, 1)), k, s, p, 0).sum(-1)
    share = dy / cells
    dx = np.zeros((m, H + 2 * p, W + 2 * p, C))
    for i, j in np.ndindex(k, k):
        rows, columns = slice(i, i + s * dy.shape[1], s), slice(j, j + s * dy.shape[2], s)
        dx[:, rows, columns] += share
    return dx[:, p : p + H, p : p + W]


def _exact(case: Case) -> Any:
    """The result of a pooling or a delta: float64 where it is a sum, a pair with argmax."""
    k, s, p = (getattr(case, name, 0) for name in ("window", "stride", "padding"))
    answers: dict[str, Callable[[], Any]] = {
        "max_pool": lambda: max_pool(case.x, k, s, p)[0],
        "max_pool_argmax": lambda: max_pool(case.x, k, s, p),
        "max_pool_backward": lambda: _max_pool_backward(case, case.dy),
        "avg_pool": lambda: _avg_pool(case, case.x),
        "avg_pool_backward": lambda: _avg_pool_backward(case, case.dy),
        "relu_backward": lambda: np.where(case.y > 0, case.dy, 0),
        "bias_grad": lambda: case.dy.sum(case.pixels, np.float64),
    }
    return answers[case.product]()


def answer(case: Case) -> Any:
    """The result of a pooling or a delta, in its dtype."""
    exact = _exact(case)
    return exact if isinstance(exact, tuple) else exact.astype(case.dtype)


def magnitude(case: Case) -> np.ndarray:
    """Sum of the magnitudes that went into each element; 0 where nothing may round."""
    return _exact(case.magnitude()) if case.product in ROUNDED else np.zeros(1)
