"""The functions of the Deep Learning Specialization's notebook on convolutional networks.

Same names, arguments, caches and rules for ties: a learner's code changes one import.

Symbols: ``A_prev (m, n_H_prev, n_W_prev, n_C_prev)``, ``W (f, f, n_C_prev, n_C)``,
``b (1, 1, 1, n_C)``, ``Z`` and ``A (m, n_H, n_W, n_C)``. Arrays that are not of one floating-point
dtype are converted to float64, in which the notebook computes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

import fastconv as fc
from fastconv.adapters.shared.course import floats, tied
from fastconv.typing import Array, ArrayLike

__all__ = [
    "compute_mask",
    "conv_backward",
    "conv_forward",
    "conv_single_step",
    "create_mask_from_window",
    "distribute_value",
    "pool_backward",
    "pool_forward",
    "zero_pad",
]

Mode = Literal["max", "average"]
Parameters = dict[str, int]
ConvCache = tuple[ArrayLike, ArrayLike, ArrayLike, Parameters]
PoolCache = tuple[ArrayLike, Parameters]

MODES: tuple[Mode, ...] = ("max", "average")


def zero_pad(X: ArrayLike, pad: int) -> Array:
    """Zeros around every image, in height and width.

    Parameters
    ----------
    X : array (m, n_H, n_W, n_C)
    pad : int

    Returns
    -------
    X_pad : array (m, n_H + 2*pad, n_W + 2*pad, n_C)

    Raises
    ------
    ValueError
        If `X` has not four axes, or `pad` is negative.

    Examples
    --------
    >>> zero_pad(np.ones((4, 3, 3, 2)), 2).shape
    (4, 7, 7, 2)
    """
    (x,) = floats(X=X)
    if x.ndim != 4:
        raise ValueError(f"X: expected (m, n_H, n_W, n_C), got {x.shape}")
    if pad < 0:
        raise ValueError(f"pad: must be at least 0, got {pad}")
    return np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


def conv_single_step(a_slice_prev: ArrayLike, W: ArrayLike, b: ArrayLike) -> float:
    """One filter on one patch: the sum of the products, and the bias.

    Parameters
    ----------
    a_slice_prev, W : array (f, f, n_C_prev)
    b : array (1, 1, 1), or a number

    Returns
    -------
    Z : float

    Raises
    ------
    ValueError
        If the patch and the filter differ in shape, or `b` is not one number.

    Examples
    --------
    >>> float(conv_single_step(np.ones((3, 3, 2)), np.ones((3, 3, 2)), np.array([[[0.5]]])))
    18.5
    """
    patch, w, bias = floats(a_slice_prev=a_slice_prev, W=W, b=b)
    if patch.shape != w.shape:
        raise ValueError(f"W: expected the patch's shape {patch.shape}, got {w.shape}")
    if bias.size != 1:
        raise ValueError(f"b: one number is needed, got {bias.shape}")
    total: float = np.sum(patch * w) + bias.reshape(())
    return total


def create_mask_from_window(x: ArrayLike) -> NDArray[np.bool_]:
    """True where a window has its maximum; every one of several equal maxima counts.

    Parameters
    ----------
    x : array (f, f)

    Returns
    -------
    mask : array of bool, of the same shape

    Raises
    ------
    ValueError
        If the window is empty.

    Examples
    --------
    >>> create_mask_from_window([[1.0, 7.0], [7.0, 0.0]])
    array([[False,  True],
           [ True, False]])
    """
    (window,) = floats(x=x)
    if not window.size:
        raise ValueError(f"x: a window with cells is needed, got {window.shape}")
    mask: NDArray[np.bool_] = window == window.max()
    return mask


def compute_mask(x: ArrayLike) -> NDArray[np.bool_]:
    """:func:`create_mask_from_window`, as some copies of the notebook call it.

    Parameters
    ----------
    x : array (f, f)

    Returns
    -------
    mask : array of bool, of the same shape

    Raises
    ------
    ValueError
        If the window is empty.

    Examples
    --------
    >>> compute_mask([[1.0, 2.0]])
    array([[False,  True]])
    """
    return create_mask_from_window(x)


def distribute_value(dz: float, shape: tuple[int, int]) -> Array:
    """An error spread evenly over a window, as the mean of the window spreads it.

    Parameters
    ----------
    dz : float
    shape : (n_H, n_W)
        Of the window.

    Returns
    -------
    a : array (n_H, n_W)
        ``dz / (n_H * n_W)`` everywhere.

    Raises
    ------
    ValueError
        If the window has no cell.

    Examples
    --------
    >>> distribute_value(2, (2, 2))
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    n_H, n_W = shape
    if n_H < 1 or n_W < 1:
        raise ValueError(f"shape: a window with cells is needed, got {shape}")
    return np.full((n_H, n_W), dz / (n_H * n_W))


def conv_forward(
    A_prev: ArrayLike, W: ArrayLike, b: ArrayLike, hparameters: Parameters
) -> tuple[Array, ConvCache]:
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


def conv_backward(dZ: ArrayLike, cache: ConvCache) -> tuple[Array, Array, Array]:
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

    Raises
    ------
    ValueError
        If the sizes do not fit together.

    Examples
    --------
    >>> A_prev, W, b = np.ones((2, 4, 4, 1)), np.ones((3, 3, 1, 8)), np.zeros((1, 1, 1, 8))
    >>> Z, cache = conv_forward(A_prev, W, b, {"pad": 0, "stride": 1})
    >>> [gradient.shape for gradient in conv_backward(Z, cache)]
    [(2, 4, 4, 1), (3, 3, 1, 8), (1, 1, 1, 8)]
    """
    A_prev, W, b, hparameters = cache
    dy, x, w = floats(dZ=dZ, A_prev=A_prev, W=W)
    s, p = hparameters["stride"], hparameters["pad"]
    dx, dw, db = fc.conv_backward(dy, x, w, stride=s, padding=p)
    return dx, dw, db.reshape(np.shape(b))


def pool_forward(
    A_prev: ArrayLike, hparameters: Parameters, mode: Mode = "max"
) -> tuple[Array, PoolCache]:
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


def pool_backward(dA: ArrayLike, cache: PoolCache, mode: Mode = "max") -> Array:
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

    Raises
    ------
    ValueError
        If the sizes do not fit together.

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
