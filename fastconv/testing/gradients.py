"""Gradients without a reference: the adjoint identity and central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.testing.report import EXACT, expect_array, worst

__all__ = ["assert_adjoint", "gradcheck"]


def assert_adjoint(*pairs: tuple[NDArray[Any], NDArray[Any]]) -> None:
    """Assert that all pairs of arrays have the same inner product, exactly.

    A gradient of a linear map is its adjoint: ``<conv(x, w), dy> = <x, dx> = <w, dw>``, where y
    has no bias and no activation. The same holds for im2col and col2im, ``<cols, dcols> =
    <x, dx>``, for transposed convolution and for max pooling.

    Parameters
    ----------
    *pairs : two or more pairs of ndarray
        Arrays of one shape each, holding integers (`integer_operands`), such as
        ``(y, dy), (x, dx), (w, dw)``.

    Raises
    ------
    AssertionError
        If the inner products differ, or the two arrays of a pair have different shapes.
    ValueError
        For fewer than two pairs, or values that are not integers or too large to be exact.

    Notes
    -----
    The inner products are Python integers: nothing rounds.

    Examples
    --------
    >>> from fastconv import reference
    >>> from fastconv.testing import integer_operands
    >>> x, w, b, dy = integer_operands((2, 6, 6, 2), (3, 3, 2, 4))
    >>> dx, dw, db = reference.conv_backward(dy, x, w)
    >>> assert_adjoint((reference.conv(x, w), dy), (x, dx), (w, dw))
    >>> assert_adjoint((reference.conv(x, w), dy), (x, dx + 1))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: the inner products differ: [..., ...]
    """
    if len(pairs) < 2:
        raise ValueError(f"assert_adjoint compares two pairs of arrays or more; got {len(pairs)}")
    products = [_inner(k, *pair) for k, pair in enumerate(pairs)]
    if len(set(products)) > 1:
        raise AssertionError(f"the inner products differ: {products}")


def _inner(k: int, a: np.ndarray, b: np.ndarray) -> int:
    """Inner product of two arrays of integers, as a Python integer."""
    if a.shape != b.shape:
        raise AssertionError(f"the arrays of pair {k} have shapes {a.shape} and {b.shape}")
    for array in (a, b):
        limit = EXACT.get(array.dtype.newbyteorder("=").name, 2**53)
        if not np.all((abs(array) <= limit) & (array == np.round(array))):
            raise ValueError(f"pair {k} must hold integers of at most {limit} to be exact")
    # 2**53 * 2**53 does not fit int64: Python's integers do.
    return sum(int(p) * int(q) for p, q in zip(a.flat, b.flat, strict=True))


def gradcheck(
    function: Callable[..., Any],
    gradient: Callable[..., Any],
    *inputs: NDArray[np.float64],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
) -> None:
    """Assert that a gradient agrees with central differences, element by element, in float64.

    The loss is ``sum(function(*inputs) * dy)`` with a random dy.

    Parameters
    ----------
    function : callable
        ``function(*inputs)`` gives y, a float64 array.
    gradient : callable
        ``gradient(dy, *inputs)`` gives one array per input, in their order (one array for one
        input). An entry None is not checked.
    *inputs : ndarray of float64
        Where to check; for a max pool or a ReLU, away from ties and kinks (`untied`).
    eps : float
        Step of the differences.
    atol, rtol : float
        An element may differ from the differences n by ``atol + rtol * abs(n)``.
    seed : int
        For dy.

    Raises
    ------
    AssertionError
        Naming the input, the number of wrong elements and the worst.
    TypeError
        If an input or y is not float64.
    ValueError
        If nothing is to be checked.

    Examples
    --------
    >>> gradcheck(np.sin, lambda dy, x: dy * np.cos(x), np.linspace(0.0, 1.0, 5))
    >>> from fastconv import reference
    >>> from fastconv.testing import untied
    >>> gradcheck(lambda x: reference.max_pool(x, 2),
    ...           lambda dy, x: reference.max_pool_backward(
    ...               dy, reference.max_pool(x, 2, return_argmax=True)[1], x.shape, 2),
    ...           untied((1, 4, 4, 2)))
    """
    points = [np.array(a) for a in inputs]
    y = np.asarray(function(*(a.copy() for a in points)))
    for name, a in [*((f"input {k}", a) for k, a in enumerate(points)), ("y", y)]:
        if a.dtype != np.float64:
            raise TypeError(f"gradcheck works in float64; {name} is {a.dtype}")
    dy = np.asarray(np.random.default_rng(seed).standard_normal(y.shape))
    grads = gradient(dy.copy(), *(a.copy() for a in points))
    grads = grads if isinstance(grads, (tuple, list)) else (grads,)
    if len(grads) != len(points):
        raise AssertionError(f"{len(points)} inputs have {len(points)} gradients; got {len(grads)}")
    if not any(g is not None and a.size for g, a in zip(grads, points, strict=True)) or not y.size:
        raise ValueError("gradcheck has nothing to check: no gradient, or empty arrays")
    for k, got in enumerate(grads):
        if got is not None:
            numeric = _differences(function, points, k, dy, eps)
            _check_gradient(f"gradient of input {k}", got, numeric, atol, rtol)


def _differences(
    function: Callable[..., Any], points: list[np.ndarray], k: int, dy: np.ndarray, eps: float
) -> np.ndarray:
    """Central differences of ``sum(y * dy)`` by every element of input k."""
    numeric = np.empty_like(points[k])
    for at in np.ndindex(points[k].shape):
        ends = []
        for step in (eps, -eps):
            moved = [a.copy() for a in points]
            moved[k][at] += step
            ends.append(np.asarray(function(*moved)))
        # Differences first, then the sum: the sum of y would swallow digits of a small step.
        numeric[at] = np.sum((ends[0] - ends[1]) * dy) / (2 * eps)
    return numeric


def _check_gradient(name: str, got: Any, numeric: np.ndarray, atol: float, rtol: float) -> None:
    expect_array(name, got, np.dtype(np.float64), numeric.shape)
    allowed = atol + rtol * abs(numeric)
    wrong = ~(abs(got - numeric) <= allowed)
    if wrong.any():
        at = worst(wrong, abs(got - numeric) - allowed)
        raise AssertionError(
            f"{name}: {wrong.sum()} of {wrong.size} elements wrong, worst at {at}: got {got[at]}, "
            f"central differences say {numeric[at]}, allowed is a difference of {allowed[at]:.3g}"
        )
