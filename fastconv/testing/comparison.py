"""Output and gradients of a convolution against the naive loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

import numpy as np

from fastconv import reference
from fastconv.testing.report import EXACT, expect_array, worst
from fastconv.typing import Activation, Array, ConvOptions, Operand

__all__ = ["assert_conv_backward_equal", "assert_conv_equal"]


class ForwardOptions(ConvOptions, total=False):
    """What the convolution under test was asked for."""

    activation: Activation | None


EPS = {"float16": 2.0**-23, "float32": 2.0**-23, "float64": 2.0**-52}


def assert_conv_equal(
    y: Array | Callable[..., Array],
    x: Array,
    w: Array,
    b: Array | None = None,
    **options: Unpack[ForwardOptions],
) -> None:
    """Assert that y is the convolution of x and w: exact on integers, within a bound on reals.

    With integer operands whose sums the dtype holds exactly (`integer_operands`), every element
    must be exact. Otherwise it may differ from the result in float64 by ``16 * eps * G``, where
    ``G = conv(abs(x), abs(w)) + abs(b)`` and eps is 2**-23 or 2**-52. float16 is summed in
    float32, and one rounding to float16 comes on top. NaN and infinity must be where they belong.

    Parameters
    ----------
    y : ndarray (m, OH, OW, F), or callable
        The output under test, or a function called as ``y(x, w, b, **options)``, without `b` if
        that is None.
    x, w, b : ndarray
        ``(m, H, W, C)``, ``(KH, KW, C/G, F)`` and ``(F,)``, of one dtype, which y must have too.
    **options
        stride, padding, dilation, groups, data_format, activation, as for `fastconv.conv`.

    Raises
    ------
    AssertionError
        Naming the number of wrong elements and the worst.

    Notes
    -----
    The bound is that of the reference BLAS tests, ``16 * eps * sum(abs(a) * abs(b))``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.standard_normal((1, 5, 5, 2)), rng.standard_normal((1, 1, 2, 3))
    >>> assert_conv_equal(x @ w[0, 0], x, w)
    >>> assert_conv_equal(reference.conv, x, w, stride=2)
    """
    operands = [x, w] if b is None else [x, w, b]
    actual = y(*operands, **options) if callable(y) else y
    exact = reference.conv(*_wide(*operands), **options)
    plain: Any = {key: value for key, value in options.items() if key != "activation"}
    G = reference.conv(*(abs(a) for a in _wide(*operands)), **plain)
    _compare("y", actual, exact, G, operands)


def assert_conv_backward_equal(
    grads: Sequence[Array | None] | Callable[..., Sequence[Array | None]],
    dy: Array,
    x: Array,
    w: Array,
    *,
    need: Operand | Iterable[Operand] = ("x", "w", "b"),
    **options: Unpack[ConvOptions],
) -> None:
    """Assert that ``grads = (dx, dw, db)`` are the gradients of the convolution of x and w.

    Each is compared as `assert_conv_equal` compares y, with a G of its own: the same sum over
    absolute values.

    Parameters
    ----------
    grads : sequence of three arrays, or callable
        ``(dx, dw, db)``, or a function called as ``grads(dy, x, w, **options)``.
    dy, x, w : ndarray
        ``(m, OH, OW, F)``, ``(m, H, W, C)`` and ``(KH, KW, C/G, F)``.
    need : iterable of {"x", "w", "b"}
        The gradients to compare; the other entries are ignored.
    **options
        stride, padding, dilation, groups, data_format, as for `fastconv.conv`.

    Raises
    ------
    AssertionError
        Naming the gradient, the number of wrong elements and the worst.
    ValueError
        If nothing is to be compared.

    Examples
    --------
    >>> from fastconv.testing import integer_operands
    >>> x, w, b, dy = integer_operands((2, 6, 6, 2), (3, 3, 2, 4))
    >>> db = dy.sum(axis=(0, 1, 2))
    >>> assert_conv_backward_equal((None, None, db), dy, x, w, need="b")
    """
    actual = grads(dy, x, w, **options) if callable(grads) else grads
    wanted: set[str] = set(need)
    if not wanted or not wanted <= {"x", "w", "b"}:
        raise ValueError(f"need must hold some of 'x', 'w' and 'b'; got {wanted!r}")
    exact = reference.conv_backward(*_wide(dy, x, w), **options)
    G = reference.conv_backward(*(abs(a) for a in _wide(dy, x, w)), **options)
    pairs = {"x": [dy, w], "w": [x, dy], "b": [dy]}
    for name, got, expected, bound in zip("xwb", actual, exact, G, strict=True):
        if name in wanted:
            _compare(f"d{name}", got, expected, bound, pairs[name])


def _wide(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays in float64; one that the functions under test refuse is refused here too."""
    dtypes = {np.asarray(a).dtype.newbyteorder("=") for a in arrays}
    if len(dtypes) != 1 or dtypes.copy().pop().name not in EPS:
        raise TypeError(f"operands must share a dtype, one of {list(EPS)}; got {dtypes}")
    return [np.asarray(a, np.float64) for a in arrays]


@np.errstate(all="ignore")
def _compare(name: str, actual: Any, exact: Any, G: Any, operands: Sequence[np.ndarray]) -> None:
    """Compare with ``exact``; ``G`` is the sum of the magnitudes that went into each element."""
    dtype = np.asarray(operands[0]).dtype.newbyteorder("=")
    expect_array(name, actual, dtype, exact.shape)
    # Where no partial sum can round, none may have.
    whole = all(np.all(a == np.round(np.asarray(a, np.float64))) for a in operands)
    strict = whole and bool(np.max(G, initial=0) <= EXACT[dtype.name])
    bound = np.zeros_like(G) if strict else 16 * EPS[dtype.name] * G
    if dtype == np.float16 and not strict:
        bound += 2.0**-11 * (abs(exact) + bound) + 2.0**-25  # half a unit, normal or subnormal
    expected = exact.astype(dtype)
    error = abs(actual.astype(np.float64) - exact)
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    wrong = ~(same | (np.isfinite(exact) & (error <= bound)))
    if wrong.any():
        at = worst(wrong, error - bound)
        limit = "exactly" if strict else f"within {bound[at]:.3g} (16 * eps * G)"
        raise AssertionError(
            f"{name}: {wrong.sum()} of {wrong.size} elements wrong, worst at {at}: "
            f"got {actual[at]}, expected {expected[at]}, {limit}"
        )
