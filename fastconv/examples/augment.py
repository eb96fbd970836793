"""Small random changes of the training images that leave their labels true."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.checks import Array, real_number


class RandomShift:
    """Move each image by a random fraction of a pixel, with linear interpolation.

    The digits fill their 8x8 pixels: a whole pixel would cut strokes off, half a pixel only moves
    the sampling grid.

    Parameters
    ----------
    pixels : float in [0, 1]
        Largest shift along each axis, to either side.

    Raises
    ------
    TypeError, ValueError
        If it is no number in [0, 1].

    Examples
    --------
    >>> x = np.ones((5, 8, 8, 1), np.float32)
    >>> RandomShift(0.5)(x, np.random.default_rng(0)).shape
    (5, 8, 8, 1)
    """

    def __init__(self, pixels: float) -> None:
        self.pixels = real_number("pixels", pixels, minimum=0.0)
        if self.pixels > 1:
            raise ValueError(f"pixels: must be in [0, 1], got {pixels!r}")

    def settings(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        return {"pixels": self.pixels}

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the shifted images; `x` (m, H, W, C) is not changed."""
        for axis in (1, 2):
            shift = rng.uniform(-self.pixels, self.pixels, (len(x), 1, 1, 1)).astype(x.dtype)
            x = _shift(x, shift, axis)
        return x


def _shift(x: Array, shift: Array, axis: int) -> Array:
    """x[i - t] between the pixels: (1 - |t|) x[i] + |t| x[i - sign t], zero outside the image."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = (1, 1)
    wide = np.pad(x, padding)
    size = x.shape[axis]
    before = wide.take(range(size), axis=axis)  # x[i - 1]
    after = wide.take(range(2, size + 2), axis=axis)  # x[i + 1]
    part = np.abs(shift)
    moved: Array = (1 - part) * x + part * np.where(shift > 0, before, after)
    return moved
