"""SciPy: its filters and convolutions beside fastconv's, float32 and 8-bit integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage
import scipy.signal

from fastconv.adapters import scipy as fast

from . import Case


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    image, large = (rng.random((n, n), np.float32) for n in (512, 2048))
    volume = rng.random((64, 64, 64), np.float32)
    pixels = rng.integers(0, 256, (512, 512)).astype(np.uint8)
    w3, w5, w9 = (rng.random((k, k), np.float32) for k in (3, 5, 9))
    box = rng.random((5, 5, 7), np.float32)
    signal, taps = rng.random(1_000_000, np.float32), rng.random(30, np.float32)
    return [
        filtered("512x512, 5x5", "correlate", image, w5),
        filtered("2048x2048, 3x3", "correlate", large, w3),
        filtered("64x64x64, 5x5x7", "correlate", volume, box),
        filtered("512x512, sigma 2", "gaussian_filter", image, 2),
        filtered("512x512", "sobel", image),
        filtered("512x512", "laplace", image),
        filtered("512x512, uint8", "sobel", pixels),
        filtered("512x512, 9x9", "uniform_filter", image, 9),
        filtered("512x512, 9x9", "maximum_filter", image, 9),
        filtered("512x512, uint8, 9x9", "minimum_filter", pixels, 9),
        convolved("512x512, 9x9", "convolve2d", image, w9),
        convolved("512x512, 9x9", "oaconvolve", image, w9),
        convolved("512x512, 9x9", "convolve", image, w9),
        convolved("1,000,000, 30", "convolve", signal, taps),
        bank(rng.random((20, 128, 128), np.float32), [w3, w5, w9]),
    ]


def filtered(problem: str, name: str, *args: Any) -> Case:
    theirs, ours = getattr(scipy.ndimage, name), getattr(fast, name)
    return Case(f"ndimage.{name}, {problem}", lambda: theirs(*args), lambda: ours(*args))


def convolved(problem: str, name: str, *args: Any) -> Case:
    theirs = getattr(scipy.signal, name)
    ours = getattr(fast.signal if name == "convolve" else fast, name)
    return Case(
        f"signal.{name}, {problem}", lambda: theirs(*args, "same"), lambda: ours(*args, "same")
    )


def bank(images: np.ndarray, kernels: list[np.ndarray]) -> Case:
    def theirs() -> np.ndarray:
        each = [[scipy.ndimage.correlate(x, w) for w in kernels] for x in images]
        return np.moveaxis(np.array(each), 1, -1)

    return Case(
        "filter_bank, 20 of 128x128, 3 kernels", theirs, lambda: fast.filter_bank(images, kernels)
    )
