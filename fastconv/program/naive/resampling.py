"""The functions of `program.ops.resampling` as loops over pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["bilinear", "bilinear_backward", "nearest", "nearest_backward", "pad", "pad_backward",
           "pixel_shuffle", "pixel_shuffle_backward"]  # fmt: skip

Pairs = Sequence[tuple[int, int]]
Pixel = tuple[int, ...]


def _pixels(sizes: Sequence[int]) -> Iterator[Pixel]:
    return itertools.product(*map(range, sizes))


def at(pixel: Sequence[Any], *channel: int) -> Any:
    """The index of a pixel, or of a channel of it, in all images."""
    return (slice(None), *pixel, *channel)


def _sizes(array: np.ndarray) -> Pixel:
    return array.shape[1:-1]


def nearest(x: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Every pixel, `factors` times on each axis."""
    sizes = [n * f for n, f in zip(_sizes(x), factors, strict=True)]
    y = np.empty((len(x), *sizes, x.shape[-1]), x.dtype)
    for pixel in _pixels(sizes):
        source = tuple(i // f for i, f in zip(pixel, factors, strict=True))
        y[at(pixel)] = x[at(source)]
    return y


def nearest_backward(dy: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """The sum of the errors of each pixel's copies."""
    sizes = [n // f for n, f in zip(_sizes(dy), factors, strict=True)]
    dx = np.zeros((len(dy), *sizes, dy.shape[-1]), dy.dtype)
    for pixel in _pixels(_sizes(dy)):
        source = tuple(i // f for i, f in zip(pixel, factors, strict=True))
        dx[at(source)] += dy[at(pixel)]
    return dx


def _between(pixel: Pixel, factors: Sequence[int], sizes: Pixel) -> Iterator[tuple[Pixel, float]]:
    """The pixels that an interpolated one lies between, and their shares."""
    ways = []
    for i, factor, n in zip(pixel, factors, sizes, strict=True):
        at = (i + 0.5) / factor - 0.5
        low = math.floor(at)
        share = at - low
        ways.append([(max(low, 0), 1 - share), (min(low + 1, n - 1), share)])
    for way in itertools.product(*ways):
        yield tuple(place for place, _ in way), math.prod(share for _, share in way)


def bilinear(x: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Linear interpolation on each axis between the centres of pixels, constant at the edges."""
    sizes = tuple(n * f for n, f in zip(_sizes(x), factors, strict=True))
    y = np.zeros((len(x), *sizes, x.shape[-1]), x.dtype)
    for pixel in _pixels(sizes):
        for source, share in _between(pixel, factors, _sizes(x)):
            y[at(pixel)] += x[at(source)] * x.dtype.type(share)
    return y


def bilinear_backward(dy: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """The adjoint of `bilinear`."""
    sizes = tuple(n // f for n, f in zip(_sizes(dy), factors, strict=True))
    dx = np.zeros((len(dy), *sizes, dy.shape[-1]), dy.dtype)
    for pixel in _pixels(_sizes(dy)):
        for source, share in _between(pixel, factors, sizes):
            dx[at(source)] += dy[at(pixel)] * dy.dtype.type(share)
    return dx


def _moves(sizes: Pixel, channels: int, factor: int) -> Iterator[tuple[Pixel, int, Pixel, int]]:
    """Pixel and channel before, pixel and channel after."""
    for pixel in _pixels(sizes):
        for c in range(channels // factor ** len(sizes)):
            for k, inside in enumerate(_pixels([factor] * len(sizes))):
                target = tuple(i * factor + j for i, j in zip(pixel, inside, strict=True))
                yield pixel, c * factor ** len(sizes) + k, target, c


def pixel_shuffle(x: np.ndarray, factor: int) -> np.ndarray:
    """Channels to the pixels of a larger image, in PyTorch's order."""
    sizes, channels = _sizes(x), x.shape[-1]
    shape = (*(n * factor for n in sizes), channels // factor ** len(sizes))
    y = np.empty((len(x), *shape), x.dtype)
    for source, channel, target, c in _moves(sizes, channels, factor):
        y[at(target, c)] = x[at(source, channel)]
    return y


def pixel_shuffle_backward(dy: np.ndarray, factor: int) -> np.ndarray:
    """The inverse of `pixel_shuffle`."""
    sizes = tuple(n // factor for n in _sizes(dy))
    dx = np.empty((len(dy), *sizes, dy.shape[-1] * factor ** len(sizes)), dy.dtype)
    for source, channel, target, c in _moves(sizes, dx.shape[-1], factor):
        dx[at(source, channel)] = dy[at(target, c)]
    return dx


def pad(x: np.ndarray, pairs: Pairs, mode: str) -> np.ndarray:
    """NumPy's own."""
    whole = ((0, 0), *pairs, (0, 0))
    if not len(x):  # which some of its modes refuse
        return np.empty((0, *np.pad(np.empty((1, *x.shape[1:])), whole).shape[1:]), x.dtype)
    y: np.ndarray = np.pad(x, whole, mode)  # type: ignore[call-overload]
    return y


def pad_backward(dy: np.ndarray, sizes: Sequence[int], pairs: Pairs, mode: str) -> np.ndarray:
    """The adjoint: the error of every copy goes to its cell."""
    numbers = np.arange(1, math.prod(sizes) + 1).reshape(1, *sizes, 1)  # 0 is no cell
    dx = np.zeros((len(dy), *sizes, dy.shape[-1]), dy.dtype)
    for pixel, number in np.ndenumerate(pad(numbers, pairs, mode)[0, ..., 0]):
        if number:
            dx[at(np.unravel_index(number - 1, sizes))] += dy[at(pixel)]
    return dx
