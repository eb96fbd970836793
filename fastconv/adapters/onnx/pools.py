"""Poolings: MaxPool, AveragePool, LpPool, their global forms, and MaxUnpool."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.adapters.onnx.op import DATA_FORMAT, Op, Window
from fastconv.adapters.shared.numbers import as_float
from fastconv.geometry import effective, output_size

__all__ = [
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
]


def _options(window: Window) -> dict[str, Any]:
    return {"stride": window.s, "dilation": window.d, "data_format": DATA_FORMAT}


def _legal(window: Window) -> bool:
    """Whether fastconv pads so far: at most half the window."""
    return all(2 * max(p) <= r for p, r in zip(window.pads, window.reach, strict=True))


def _padded(x: np.ndarray, window: Window, value: float) -> np.ndarray:
    """`x` with as much padding written out as its windows reach."""
    pads = [(0, 0), (0, 0)]
    for n, k, s, d, (lo, hi) in zip(
        x.shape[2:], window.k, window.s, window.d, window.pads, strict=True
    ):
        windows = output_size(n, k, s, d, lo, hi, window.ceil)
        pads.append((lo, max(0, (windows - 1) * s + effective(k, d) - n - lo)))
    return np.pad(x, pads, constant_values=value)


def _max_pool(x: np.ndarray, window: Window, indices: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Maxima, and their flat spatial index if it is wanted: -1 where no cell is in the window."""
    options = _options(window) | {"return_argmax": indices}
    if _legal(window):
        found = fc.max_pool(x, window.k, padding=window.pads, ceil_mode=window.ceil, **options)
        return found if indices else (found, None)
    wide = _padded(x, window, -np.inf)
    found = fc.max_pool(wide, window.k, **options)
    if not indices:
        return found, None
    y, argmax = found
    places = np.unravel_index(np.maximum(argmax, 0), wide.shape[2:])
    places = tuple(i - lo for i, (lo, _) in zip(places, window.pads, strict=True))
    axes = list(zip(places, x.shape[2:], strict=True))
    inside = (argmax >= 0) & np.logical_and.reduce([(i >= 0) & (i < n) for i, n in axes])
    flat = np.ravel_multi_index([np.where(inside, i, 0) for i in places], x.shape[2:])
    return y, np.where(inside, flat, -1)


def _mean_pool(x: np.ndarray, window: Window, include_pad: bool) -> np.ndarray:
    """Means over the cells inside the input, or inside the padded input."""
    options = _options(window)
    if _legal(window):
        y: np.ndarray = fc.avg_pool(
            x,
            window.k,
            padding=window.pads,
            ceil_mode=window.ceil,
            count_include_pad=include_pad,
            **options,
        )
        return y
    wide, size = _wide(x), x.shape[2:]
    if include_pad:
        size = tuple(n + lo + hi for n, (lo, hi) in zip(size, window.pads, strict=True))
    means = fc.avg_pool(_padded(wide, window, 0), window.k, **options)
    counted = np.zeros((1, 1, *_padded(x[:1, :1], window, 0).shape[2:]), wide.dtype)
    starts = [0 if include_pad else lo for lo, _ in window.pads]
    inside = tuple(slice(a, a + n) for a, n in zip(starts, size, strict=True))
    counted[0, 0][inside] = 1
    share = fc.avg_pool(counted, window.k, **options)
    means = np.divide(means, share, out=np.zeros_like(means), where=share > 0)
    return means.astype(x.dtype, copy=False)


def _back(y: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Maxima in the input's dtype; integers have no minus infinity for an empty window."""
    if dtype.kind in "iu":
        y = np.maximum(y, np.iinfo(dtype).min)
    return y.astype(dtype, copy=False)


class MaxPool(Op):
    """Maximum of each window, and its index in the whole tensor if the model asks for it."""

    def _run(  # type: ignore[no-untyped-def]
        self, x, kernel_shape=None, storage_order=None, **attributes
    ) -> tuple[np.ndarray, ...]:
        window = Window.of(x, kernel_shape, **attributes)
        wanted = len(self.output) > 1
        y, argmax = _max_pool(as_float(x), window, wanted)
        y = _back(y, x.dtype)
        return (y,) if argmax is None else (y, _in_tensor(argmax, x.shape, bool(storage_order)))


def _in_tensor(argmax: np.ndarray, shape: tuple[int, ...], column_major: bool) -> np.ndarray:
    """Indices within one image and channel as indices into the tensor; -1 stays."""
    m, C, *size = shape
    cells: Any = argmax
    if column_major:
        places = np.unravel_index(np.maximum(argmax, 0), size)
        cells = np.ravel_multi_index(places, size, order="F")
    image = np.arange(m * C).reshape(m, C, *(1 for _ in size)) * math.prod(size)
    return np.where(argmax < 0, -1, cells + image)


class AveragePool(Op):
    """Mean of each window."""

    def _run(  # type: ignore[no-untyped-def]
        self, x, kernel_shape=None, count_include_pad=None, **attributes
    ) -> tuple[np.ndarray]:
        window = Window.of(x, kernel_shape, **attributes)
        y = _mean_pool(as_float(x), window, bool(count_include_pad))
        return (y.astype(x.dtype, copy=False),)


class LpPool(Op):
    """The p-norm of each window: a mean of powers, times their number."""

    def _run(  # type: ignore[no-untyped-def]
        self, x, kernel_shape=None, p=None, **attributes
    ) -> tuple[np.ndarray]:
        window = Window.of(x, kernel_shape, **attributes)
        powers, root = _powers(x, p)
        means = fc.avg_pool(_padded(powers, window, 0), window.k, **_options(window))
        return (((means * math.prod(window.k)) ** root).astype(x.dtype),)


class MaxUnpool(Op):
    """Every element back to the place that MaxPool's indices name; zero elsewhere.

    The result has the shape of MaxPool's input: what `output_shape` says, or else the smallest that
    the windows fit. The indices count in it. In ONNX's own example for `output_shape` they count in
    the smallest one instead: such are known by the windows that they would lie outside of.
    """

    def _run(  # type: ignore[no-untyped-def]
        self, X, indices, output_shape=None, kernel_shape=None, pads=None, strides=None
    ) -> tuple[np.ndarray]:
        window = Window.of(X, kernel_shape, pads=pads, strides=strides)
        least = X.shape[:2] + tuple(
            (n - 1) * s + k - lo - hi
            for n, s, k, (lo, hi) in zip(X.shape[2:], window.s, window.k, window.pads, strict=True)
        )
        shape = least if output_shape is None else tuple(int(n) for n in output_shape)
        counted = shape
        if shape != least:
            if len(shape) != X.ndim or shape[:2] != X.shape[:2] or min(shape) < 0:
                raise ValueError(
                    f"output_shape: {list(shape)} must have {X.ndim} entries, the first two those "
                    f"of X, {X.shape}"
                )
            smaller = all(a <= b for a, b in zip(least, shape, strict=True))
            if smaller and not _in_windows(indices, shape, window):
                counted = least if _in_windows(indices, least, window) else shape
        places, y = indices.reshape(-1), np.zeros(counted, X.dtype)
        if places.size and not 0 <= places.min() <= places.max() < y.size:
            raise ValueError(
                f"indices: {places.min()} to {places.max()} must lie in an output of {counted}"
            )
        y.reshape(-1)[places] = X.reshape(-1)
        if counted == shape:
            return (y,)
        wide = np.zeros(shape, X.dtype)
        wide[tuple(slice(0, n) for n in least)] = y
        return (wide,)


def _in_windows(indices: np.ndarray, shape: tuple[int, ...], window: Window) -> bool:
    """Whether each index, counted in a tensor of `shape`, lies in its own window."""
    if indices.size and not 0 <= indices.min() <= indices.max() < math.prod(shape):
        return False
    places: Any = np.unravel_index(indices, shape)
    own: Any = np.indices(indices.shape, sparse=True)
    (image, channel, *cells), (m, C, *outputs) = places, own
    inside = (image == m) & (channel == C)
    axes = zip(cells, outputs, window.s, window.k, window.pads, strict=True)
    for cell, output, s, k, (lo, _) in axes:
        start = output * s - lo
        inside &= (cell >= start) & (cell < start + k)
    return bool(inside.all())


class GlobalAveragePool(Op):
    """Mean of each channel."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        y = _wide(x).mean(axis=tuple(range(2, x.ndim)), keepdims=True)
        return (y.astype(x.dtype, copy=False),)


class GlobalMaxPool(Op):
    """Maximum of each channel."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(Op):
    """The p-norm of each channel."""

    def _run(self, x: np.ndarray, p: float | None = None) -> tuple[np.ndarray]:
        powers, root = _powers(x, p)
        sums = powers.sum(axis=tuple(range(2, x.ndim)), keepdims=True)
        return ((sums**root).astype(x.dtype),)


def _wide(x: np.ndarray) -> np.ndarray:
    """`x` in a dtype for sums: float32 or float64."""
    x = as_float(x)
    return x.astype(np.result_type(x, np.float32), copy=False)


def _powers(x: np.ndarray, p: float | None) -> tuple[np.ndarray, float]:
    """``|x|**p``, and the exponent that undoes it; p is 2 if the model does not say."""
    exponent = 2.0 if p is None else float(p)
    return np.abs(_wide(x)) ** exponent, 1 / exponent
