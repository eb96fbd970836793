"""The sums under SciPy's functions: windows over some axes of an array, by `fastconv.conv`.

An array is seen as ``(m, H, W, 1)``: its filtered axes are spatial, all others are images. Complex
numbers are two images or two filters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.adapters.scipy.arguments import COMPLEX, FLOATS

__all__ = [
    "LIMIT",
    "Pads",
    "correlated",
    "exact_dtype",
    "finite",
    "padded",
    "rounding",
]

Pads = Sequence[tuple[int, int]]

WRAPS = 2**31  # sums up to here wrap around in every integer dtype as SciPy's do
FLOAT32_EXACT = 2**24  # whole numbers up to here
LIMIT = 3  # spatial axes


def padded(x: np.ndarray, pads: Pads, modes: Sequence[str], cval: Any) -> np.ndarray:
    """`x` with what its windows see beyond it, in NumPy's words for each axis."""
    for mode in dict.fromkeys(modes):
        here = [p if m == mode else (0, 0) for p, m in zip(pads, modes, strict=True)]
        if any(map(any, here)):
            fill: dict[str, Any] = {"constant_values": cval} if mode == "constant" else {}
            x = np.pad(x, here, mode, **fill)  # type: ignore[call-overload]
    return x


def correlated(
    x: np.ndarray, w: np.ndarray, pads: Pads, modes: Sequence[str], cval: Any
) -> np.ndarray:
    """Sums of products over all windows inside the padded `x`, in its dtype.

    Parameters
    ----------
    x : array
        float32, float64 or complex.
    w : array
        As many axes as `x`; those longer than 1 are filtered, at most three.
    pads : sequence of (int, int)
        Cells before and behind `x`, for each axis.
    modes : sequence of str
        What stands there, in NumPy's words.
    cval : number
        That of "constant".
    """
    spatial = [axis for axis, k in enumerate(w.shape) if k > 1]
    used = {mode for mode, pair in zip(modes, pads, strict=True) if any(pair)}
    if len(spatial) < 2 or len(used) > 1 or ("constant" in used and cval != 0):
        x = padded(x, pads, modes, cval)
        pads, used = [(0, 0)] * x.ndim, set()
    mode = next(iter(used), "constant")
    filters = [w.real, w.imag] if w.dtype.kind == "c" else [w]
    filters = [f.astype(x.real.dtype) for f in filters]
    if x.dtype.kind != "c" and len(filters) == 1:
        return _real(x, filters, spatial, pads, mode)[0]
    images = np.stack([x.real, x.imag]) if x.dtype.kind == "c" else x[None]
    parts = _real(
        images, [f[None] for f in filters], [a + 1 for a in spatial], [(0, 0), *pads], mode
    )
    return _joined(parts, x.dtype.kind == "c", w.dtype.kind == "c")


def _joined(parts: list[np.ndarray], complex_x: bool, complex_w: bool) -> np.ndarray:
    """The complex sums from those of the parts: a list by filter, in each the images."""
    if not complex_w:
        real, imag = parts[0]
    elif not complex_x:
        real, imag = parts[0][0], parts[1][0]
    else:
        real, imag = parts[0][0] - parts[1][1], parts[0][1] + parts[1][0]
    y = np.empty(real.shape, np.promote_types(real.dtype, np.complex64))
    y.real, y.imag = real, imag
    return y


def _real(
    x: np.ndarray, filters: list[np.ndarray], spatial: list[int], pads: Pads, mode: Any
) -> list[np.ndarray]:
    """One result for each filter."""
    shape = [
        n + lo + hi - k + 1 for n, k, (lo, hi) in zip(x.shape, filters[0].shape, pads, strict=True)
    ]
    if len(spatial) <= 1:  # the axes before and behind it need not move; it is padded
        (axis,) = spatial or [x.ndim - 1]
        before, n, behind = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
        taps = filters[0].size
        images = x.reshape((1, before, n) if behind == 1 else (before, n, behind))
        window = (1, taps) if behind == 1 else (taps, 1)
        w = np.stack([f.reshape(window) for f in filters], axis=-1)[:, :, None]
        y = fc.conv(images[..., None], w)
        return [y[..., f].reshape(shape) for f in range(len(filters))]
    others = [axis for axis in range(x.ndim) if axis not in spatial]
    order = others + spatial
    images = x.transpose(order).reshape(-1, *(x.shape[a] for a in spatial), 1)
    w = np.stack([f.reshape([f.shape[a] for a in spatial]) for f in filters], axis=-1)
    y = fc.conv(
        images, np.expand_dims(w, -2), padding=[pads[a] for a in spatial], padding_mode=mode
    )
    moved = [shape[a] for a in order]
    back = np.argsort(order)
    return [y[..., f].reshape(moved).transpose(back) for f in range(len(filters))]


def rounding(x: np.ndarray, dtype: np.dtype) -> np.dtype | None:
    """The real dtype to compute in where the result is of floats: the wider of the two."""
    if dtype not in COMPLEX and (dtype not in FLOATS or x.dtype.kind == "c"):
        return None
    if x.dtype.kind in "biu":
        return np.dtype(np.float64)
    return np.dtype(np.promote_types(x.dtype, dtype).type(0).real.dtype)


def exact_dtype(x: np.ndarray, weights: Sequence[np.ndarray], cval: Any) -> np.dtype | None:
    """The dtype in which integers are computed exactly, if there is one.

    SciPy cuts off what is behind the point: so only sums of whole numbers are sure to be its own.
    """
    if x.dtype.kind not in "biu" or any(w.dtype.kind == "c" for w in weights):
        return None
    if isinstance(cval, complex | np.complexfloating) or not float(cval).is_integer():
        return None
    bound = max(_largest(x), abs(int(cval)))
    for w in weights:
        if w.dtype.kind == "f" and not (np.isfinite(w).all() and (w == np.trunc(w)).all()):
            return None
        bound *= max(1, int(np.abs(w.astype(np.float64)).sum()))
    if bound >= WRAPS:
        return None
    return np.dtype(np.float32 if bound <= FLOAT32_EXACT else np.float64)


def _largest(x: np.ndarray) -> int:
    """A bound of the absolute values: of small dtypes, without looking."""
    if x.dtype.kind == "b":
        return 1
    if x.dtype.itemsize <= 2:
        limits = np.iinfo(x.dtype)
        return max(limits.max, -limits.min)
    return max(int(x.max()), -int(x.min()))


def finite(y: np.ndarray) -> bool:
    """Whether all is finite. Otherwise SciPy answers, which leaves out cells with weight 0."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(y.sum()))
