"""Right answers, from the definitions, in float64 NumPy that shares nothing with any library.

Pooling is computed in full; of a convolution, the first and the last image, or some taps of the
kernel's gradient. The rest of the array is covered by comparing the libraries with each other.
"""

from __future__ import annotations

import math
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
    """Positions in the result, and the exact values there: the first and last image; some taps."""
    g, (x, w, _, dy) = case.problem.geometry, case.operands
    if case.product == "kernel":
        taps = list(np.ndindex(g.window))
        some = {0, len(taps) - 1, *np.random.default_rng(1).integers(0, len(taps), TAPS - 2)}
        for tap in sorted(some):
            yield taps[tap], _kernel_at(g, x, dy, taps[tap])
        return
    for n in sorted({0, g.m - 1}):
        yield (n,), _forward(g, x[n], w) if case.product == "forward" else _input(g, dy[n], w)


def _met(g: Geometry, tap: tuple[int, ...]) -> tuple[Any, Any]:
    """Of a tap: the outputs o that have an input i = o s + tap d - lo, and those inputs."""
    outputs, inputs = [], []
    for t, (n, _, s, d, lo, count) in zip(tap, g.axes, strict=True):
        cells = np.arange(count) * s + t * d - lo
        inside = (cells >= 0) & (cells < n)
        outputs.append(np.flatnonzero(inside))
        inputs.append(cells[inside])
    return np.ix_(*outputs), np.ix_(*inputs)


def _groups(g: Geometry, a: np.ndarray) -> np.ndarray:
    """``(..., G c)`` as ``(G, rows, c)`` in float64."""
    return a.astype(np.float64).reshape(-1, g.G, a.shape[-1] // g.G).swapaxes(0, 1)


def _forward(g: Geometry, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``y[o] = sum over taps of x[i] @ w[tap]`` of one image: (OH, OW, F)."""
    y = np.zeros((*g.y_size, g.F))
    for tap in np.ndindex(g.window):
        outputs, inputs = _met(g, tap)
        product = _groups(g, x[inputs]) @ _groups(g, w[tap])
        y[outputs] += product.swapaxes(0, 1).reshape(y[outputs].shape)
    return y


def _input(g: Geometry, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``dx[i] = sum over taps of dy[o] @ w[tap].T`` of one image: (H, W, C)."""
    dx = np.zeros((*g.x_size, g.C))
    for tap in np.ndindex(g.window):
        outputs, inputs = _met(g, tap)
        product = _groups(g, dy[outputs]) @ _groups(g, w[tap]).swapaxes(1, 2)
        dx[inputs] += product.swapaxes(0, 1).reshape(dx[inputs].shape)
    return dx


def _kernel_at(g: Geometry, x: np.ndarray, dy: np.ndarray, tap: tuple[int, ...]) -> np.ndarray:
    """``dw[tap] = sum over images and pixels of x[i].T @ dy[o]``: (C/G, F)."""
    outputs, inputs = _met(g, tap)
    dw = np.zeros((g.G, g.C // g.G, g.F // g.G))
    images = max(1, BLOCK // max(math.prod(g.x_shape[1:]), math.prod(g.y_shape[1:])))
    for n in range(0, g.m, images):
        block = slice(n, n + images)
        rows, errors = x[(block, *inputs)], dy[(block, *outputs)]
        dw += _groups(g, rows).swapaxes(1, 2) @ _groups(g, errors)
    return dw.swapaxes(0, 1).reshape(g.C // g.G, g.F)


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
