"""The functions of the Deep Learning Specialization's notebook on convolutional networks.

Same names, arguments, caches and rules for ties: a learner's code changes one import.

Symbols: ``A_prev (m, n_H_prev, n_W_prev, n_C_prev)``, ``W (f, f, n_C_prev, n_C)``,
``b (1, 1, 1, n_C)``, ``Z`` and ``A (m, n_H, n_W, n_C)``. Arrays that are not of one floating-point
dtype are converted to float64, in which the notebook computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv as fc
from fastconv.adapters._course import floats, tied

__all__ = ["conv_backward", "conv_forward", "pool_backward", "pool_forward"]

MODES = ("max", "average")


def conv_forward(A_prev: Any, W: Any, b: Any, hparameters: dict[str, int]) -> tuple[Any, Any]:
    """Convolution, forward.

    Parameters
    ----------
    A_prev : array (m, n_H_prev, n_W_prev, n_C_prev)
    W : array (f, f, n_C_prev, n_C)
    b : array (1, 1, 1, n_C)
    hparameters : dict
        ``"stride"`` and ``"pad"``.

    Returns
    -------
    Z : array (m, n_H, n_W, n_C)
        ``n_H = floor((n_H_prev - f + 2*pad) / stride) + 1``.
    cache : tuple
        ``(A_prev, W, b, hparameters)``, for :func:`conv_backward`.

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> A_prev, W, b = np.ones((2, 5, 7, 4)), np.ones((3, 3, 4, 8)), np.zeros((1, 1, 1, 8))
    >>> conv_forward(A_prev, W, b, {"pad": 1, "stride": 2})[0].shape
    (2, 3, 4, 8)
    """
    x, w, bias = floats(A_prev=A_prev, W=W, b=b)
    Z = fc.conv(x, w, bias.reshape(-1), stride=hparameters["stride"], padding=hparameters["pad"])
    return Z, (A_prev, W, b, hparameters)


def conv_backward(dZ: Any, cache: Any) -> tuple[Any, Any, Any]:
    """Gradients of :func:`conv_forward`.

    Parameters
    ----------
    dZ : array (m, n_H, n_W, n_C)
    cache : tuple
        From :func:`conv_forward`.

    Returns
    -------
    dA_prev, dW, db : arrays
        Of the shapes of ``A_prev``, ``W`` and ``b``.

    Examples
    --------
    >>> A_prev, W, b = np.ones((2, 4, 4, 1)), np.ones((3, 3, 1, 8)), np.zeros((1, 1, 1, 8))
    >>> Z, cache = conv_forward(A_prev, W, b, {"pad": 0, "stride": 1})
    >>> [gradient.shape for gradient in conv_backward(Z, cache)]
    [(2, 4, 4, 1), (3, 3, 1, 8), (1, 1, 1, 8)]
    """
    A_prev, W, b, hparameters = cache
    dy, x, w = floats(dZ=dZ, A_prev=A_prev, W=W)
    steps = {"stride": hparameters["stride"], "padding": hparameters["pad"]}
    dx, dw, db = fc.conv_backward(dy, x, w, **steps)
    return dx, dw, np.asarray(db).reshape(np.shape(b))


def pool_forward(A_prev: Any, hparameters: dict[str, int], mode: str = "max") -> tuple[Any, Any]:
    """Pooling, forward.

    Parameters
    ----------
    A_prev : array (m, n_H_prev, n_W_prev, n_C_prev)
    hparameters : dict
        ``"f"``, the window's side, and ``"stride"``.
    mode : {"max", "average"}

    Returns
    -------
    A : array (m, n_H, n_W, n_C_prev)
        ``n_H = floor((n_H_prev - f) / stride) + 1``.
    cache : tuple
        ``(A_prev, hparameters)``, for :func:`pool_backward`.

    Raises
    ------
    ValueError
        For another mode, or sizes that do not fit.

    Examples
    --------
    >>> pool_forward(np.ones((2, 5, 5, 3)), {"f": 3, "stride": 1})[0].shape
    (2, 3, 3, 3)
    """
    (x,) = floats(A_prev=A_prev)
    pool = fc.max_pool if _is_max(mode) else fc.avg_pool
    return pool(x, hparameters["f"], stride=hparameters["stride"]), (A_prev, hparameters)


def pool_backward(dA: Any, cache: Any, mode: str = "max") -> Any:
    """Gradient of :func:`pool_forward`.

    With "max", every cell that equals its window's maximum gets the whole error, so tied maxima
    all do; with "average", each cell gets an equal share.

    Parameters
    ----------
    dA : array (m, n_H, n_W, n_C_prev)
    cache : tuple
        From :func:`pool_forward`.
    mode : {"max", "average"}
        As in the forward call.

    Returns
    -------
    dA_prev : array (m, n_H_prev, n_W_prev, n_C_prev)

    Examples
    --------
    >>> A, cache = pool_forward(np.array([[7.0, 7.0], [0.0, 1.0]]).reshape(1, 2, 2, 1),
    ...                         {"f": 2, "stride": 1})
    >>> pool_backward(np.array([[[[5.0]]]]), cache)[0, :, :, 0]
    array([[5., 5.],
           [0., 0.]])
    """
    A_prev, hparameters = cache
    f, stride = hparameters["f"], hparameters["stride"]
    x, dy = floats(A_prev=A_prev, dA=dA)
    if _is_max(mode):
        y = fc.max_pool(x, f, stride=stride)
        return tied(x, y, dy, (f, f), stride, share=False)
    return fc.avg_pool_backward(dy, x.shape, f, stride=stride)


def _is_max(mode: str) -> bool:
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} must be one of {', '.join(map(repr, MODES))}")
    return mode == "max"
