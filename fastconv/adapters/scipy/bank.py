"""Many filters over many images in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.adapters.scipy.arguments import MODES
from fastconv.operands import as_array
from fastconv.typing import ArrayLike

__all__ = ["filter_bank"]


def filter_bank(
    images: ArrayLike, kernels: Sequence[ArrayLike] | ArrayLike, *, mode: str = "reflect"
) -> np.ndarray:
    """Correlate every image with every kernel.

    Parameters
    ----------
    images : array (..., H, W)
        float32 and float16 are computed in float32; float64, integers and bool in float64.
    kernels : sequence of arrays (KH, KW), or array (F, KH, KW)
        Real or complex; their sizes may differ.
    mode : {"reflect", "constant", "nearest", "mirror", "wrap"}
        What the windows see beyond an edge, in SciPy's words; "constant" is 0.

    Returns
    -------
    responses : array (..., H, W, F)
        ``responses[..., f]`` is that of ``scipy.ndimage.correlate(image, kernels[f], mode=mode)``,
        which conjugates complex kernels. Complex if a kernel is.

    Raises
    ------
    TypeError
        If images are neither real numbers nor bool, or kernels not numbers.
    ValueError
        If an image or a kernel has not two axes, or no cell, or for another mode.

    Examples
    --------
    >>> photographs = np.ones((10, 64, 64), np.float32)
    >>> filter_bank(photographs, [np.ones((3, 3)), np.ones((5, 7))]).shape
    (10, 64, 64, 2)
    """
    if not isinstance(mode, str) or mode not in MODES:  # type: ignore[redundant-expr]
        raise ValueError(f"mode={mode!r} must be one of {', '.join(map(repr, MODES))}")
    x = as_array("images", images)
    if x.dtype.kind not in "biuf" or x.dtype.itemsize > 8:
        raise TypeError(f"images have dtype {x.dtype}: real numbers are needed")
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"images have shape {x.shape}: (..., H, W), with cells, is needed")
    narrow = x.dtype.kind == "f" and x.dtype.itemsize <= 4
    x = x.astype(np.float32 if narrow else np.float64, copy=False)
    try:
        given = list(kernels)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"kernels={kernels!r} must be a sequence of arrays") from None
    bank = [_kernel(f"kernels[{f}]", kernel) for f, kernel in enumerate(given)]
    has_complex = any(w.dtype.kind == "c" for w in bank)
    dtype = np.result_type(x.dtype, np.complex64) if has_complex else x.dtype
    responses = np.zeros((*x.shape, len(bank)), dtype)
    batch = x.reshape(-1, *x.shape[-2:])[..., None]
    for size in dict.fromkeys(w.shape for w in bank):
        chosen = [f for f, w in enumerate(bank) if w.shape == size]
        filters = np.stack([bank[f] for f in chosen], axis=-1)[:, :, None]
        pads = [(k // 2, k - 1 - k // 2) for k in size]
        parts = {"real": filters.real}
        if filters.dtype.kind == "c":
            parts["imag"] = -filters.imag
        for part, w in parts.items():
            y = _padded_conv(batch, w.astype(x.dtype), pads, mode)
            target = getattr(responses, part) if has_complex else responses
            target[..., chosen] = y.reshape(*x.shape, len(chosen))
    return responses


def _kernel(name: str, value: Any) -> np.ndarray:
    w = as_array(name, value)
    if w.dtype.kind not in "biufc":
        raise TypeError(f"{name} has dtype {w.dtype}: numbers are needed")
    if w.ndim != 2 or not w.size:
        raise ValueError(f"{name} has shape {w.shape}: (KH, KW), with cells, is needed")
    return w


def _padded_conv(x: np.ndarray, w: np.ndarray, pads: list[tuple[int, int]], mode: str) -> Any:
    name: Any = MODES[mode]
    return fc.conv(x, w, padding=pads, padding_mode=name)
