"""Random changes of training images: each takes a whole batch and draws from the generator given.

All are called as ``augment(x, rng) -> x`` with images (m, H, W, C) of floats, and leave `x` as it
is; `Mixup` changes the labels too. `Compose` applies several. What `fastconv.nn.fit` is given as
`augment` it calls with a generator of its own seed: runs repeat, and resume, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import numpy as np

from fastconv.examples.augmentation import Augmentation, as_images
from fastconv.examples.mixup import Mixup
from fastconv.nn.checks import Array, positive_int, real_number, shown, unit_interval

__all__ = [
    "Augmentation",
    "Compose",
    "Cutout",
    "Mixup",
    "RandomAffine",
    "RandomBrightness",
    "RandomCrop",
    "RandomFlip",
    "RandomShift",
]


class RandomShift(Augmentation):
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

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the shifted images; `x` (m, H, W, C) is not changed."""
        x = as_images(x)
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


class RandomCrop(Augmentation):
    """Add a border of zeros, and cut a part of the old size out of it, anywhere.

    Parameters
    ----------
    padding : int
        Width of the border in pixels: the largest shift along each axis, to either side.

    Raises
    ------
    TypeError, ValueError
        If it is no integer of at least 0.

    Examples
    --------
    >>> x = np.ones((5, 32, 32, 3), np.float32)
    >>> RandomCrop(4)(x, np.random.default_rng(0)).shape
    (5, 32, 32, 3)
    """

    def __init__(self, padding: int) -> None:
        self.padding = positive_int("padding", padding, minimum=0)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the cut images; `x` (m, H, W, C) is not changed."""
        m, H, W, _ = as_images(x).shape
        p = self.padding
        wide = np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)])
        top, left = rng.integers(0, 2 * p + 1, (2, m, 1))
        rows, columns = top + np.arange(H), left + np.arange(W)  # (m, H), (m, W)
        cut: Array = wide[np.arange(m)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return cut


class RandomFlip(Augmentation):
    """Mirror some of the images, left to right or upside down.

    Parameters
    ----------
    probability : float in [0, 1]
        Of each image.
    vertical : bool
        Whether top and bottom change places instead of left and right.

    Raises
    ------
    TypeError, ValueError
        If the probability is no number in [0, 1].

    Examples
    --------
    >>> x = np.arange(3, dtype=np.float32).reshape(1, 1, 3, 1)
    >>> RandomFlip(1)(x, np.random.default_rng(0)).ravel().tolist()
    [2.0, 1.0, 0.0]
    """

    def __init__(self, probability: float = 0.5, *, vertical: bool = False) -> None:
        self.probability = real_number("probability", probability, minimum=0.0)
        if self.probability > 1:
            raise ValueError(f"probability: must be in [0, 1], got {probability!r}")
        self.vertical = bool(vertical)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the images, some of them mirrored; `x` (m, H, W, C) is not changed."""
        chosen = rng.random(len(as_images(x))) < self.probability
        x = x.copy()
        x[chosen] = np.flip(x[chosen], axis=1 if self.vertical else 2)
        return x


class RandomAffine(Augmentation):
    """Turn, zoom and shift each image around its middle, with linear interpolation.

    Outside of the image there is zero. The interpolation is `scipy.ndimage.map_coordinates`.

    Parameters
    ----------
    rotation : float
        Largest angle in degrees, to either side.
    scale : float in [0, 1)
        Largest change of size: images become 1 - scale to 1 + scale times as large.
    shift : float
        Largest shift in pixels along each axis, to either side.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> x = np.ones((5, 28, 28, 1), np.float32)
    >>> RandomAffine(rotation=10, scale=0.1)(x, np.random.default_rng(0)).shape
    (5, 28, 28, 1)
    """

    def __init__(self, rotation: float = 10.0, scale: float = 0.1, shift: float = 0.0) -> None:
        self.rotation = real_number("rotation", rotation, minimum=0.0)
        self.scale = unit_interval("scale", scale)
        self.shift = real_number("shift", shift, minimum=0.0)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the changed images; `x` (m, H, W, C) is not changed."""
        from scipy.ndimage import map_coordinates

        m, H, W, C = as_images(x).shape
        angle, zoom, down, right = rng.uniform(-1, 1, (4, m, 1, 1))
        angle, zoom = np.deg2rad(angle * self.rotation), 1 + zoom * self.scale
        middle = (H - 1) / 2, (W - 1) / 2
        rows = np.arange(H)[:, None] - middle[0] - down * self.shift  # (m, H, 1)
        columns = np.arange(W) - middle[1] - right * self.shift  # (m, 1, W)
        # Where each pixel of the result comes from: the inverse turn and zoom.
        places = np.empty((3, m, H, W))
        places[0] = np.arange(m)[:, None, None]
        places[1] = (np.cos(angle) * rows + np.sin(angle) * columns) / zoom + middle[0]
        places[2] = (np.cos(angle) * columns - np.sin(angle) * rows) / zoom + middle[1]
        out = np.empty_like(x, order="C")
        for c in range(C):
            out[..., c] = map_coordinates(x[..., c], places, order=1, mode="grid-constant")
        return out


class Cutout(Augmentation):
    """Set a square of each image to zero: DeVries and Taylor 2017.

    Parameters
    ----------
    size : int
        Side of the square in pixels. Its middle is anywhere in the image, so that a part of it may
        lie outside.

    Raises
    ------
    TypeError, ValueError
        If it is no integer of at least 1.

    Examples
    --------
    >>> x = np.ones((5, 32, 32, 3), np.float32)
    >>> int((Cutout(8)(x, np.random.default_rng(0)) == 0).any(axis=3).sum(axis=(1, 2)).max())
    64
    """

    def __init__(self, size: int) -> None:
        self.size = positive_int("size", size)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the images with holes; `x` (m, H, W, C) is not changed."""
        m, H, W, _ = as_images(x).shape
        top = rng.integers(0, H, (m, 1, 1)) - self.size // 2
        left = rng.integers(0, W, (m, 1, 1)) - self.size // 2
        rows, columns = np.arange(H)[:, None] - top, np.arange(W) - left
        inside = (rows >= 0) & (rows < self.size) & (columns >= 0) & (columns < self.size)
        return np.where(inside[..., None], x.dtype.type(0), x)


class RandomBrightness(Augmentation):
    """Multiply the pixels of each image by a number around 1.

    Parameters
    ----------
    amount : float in [0, 1)
        The number is in 1 - amount .. 1 + amount. Nothing is cut off above.

    Raises
    ------
    TypeError, ValueError
        If it is no number in [0, 1).

    Examples
    --------
    >>> x = np.ones((5, 8, 8, 1), np.float32)
    >>> y = RandomBrightness(0.25)(x, np.random.default_rng(0))
    >>> bool((abs(y - 1) <= 0.25).all())
    True
    """

    def __init__(self, amount: float) -> None:
        self.amount = unit_interval("amount", amount)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the changed images; `x` (m, H, W, C) is not changed."""
        factor = rng.uniform(1 - self.amount, 1 + self.amount, (len(as_images(x)), 1, 1, 1))
        return x * factor.astype(x.dtype)


class Compose(Augmentation):
    """Several augmentations, one after the other.

    Parameters
    ----------
    *steps : callable, or one list of them
        Of this module, or any ``augment(x, rng) -> x``.

    Raises
    ------
    TypeError
        If there is none, or one cannot be called.

    Examples
    --------
    >>> augment = Compose(RandomFlip(), RandomCrop(2))
    >>> augment(np.ones((5, 28, 28, 1), np.float32), np.random.default_rng(0)).shape
    (5, 28, 28, 1)
    """

    def __init__(self, *steps: Callable[..., Any]) -> None:
        given: Any = steps
        if len(steps) == 1 and isinstance(given[0], (list, tuple)):
            given = given[0]
        if not given:
            raise TypeError("steps: at least one augmentation is needed")
        for step in given:
            if isinstance(step, type) or not callable(step):
                raise TypeError(f"steps: augment(x, rng) -> x is needed, got {shown(step)}")
        self.steps = tuple(given)

    @property
    def mixes_labels(self) -> bool:  # type: ignore[override]
        """Whether one of the steps does."""
        return any(getattr(step, "mixes_labels", False) for step in self.steps)

    @overload
    def __call__(self, x: Array, rng: np.random.Generator) -> Array: ...

    @overload
    def __call__(self, x: Array, rng: np.random.Generator, y: Array) -> tuple[Array, Array]: ...

    def __call__(
        self, x: Array, rng: np.random.Generator, y: Array | None = None
    ) -> Array | tuple[Array, Array]:
        """Return the changed images, and with labels given, those too."""
        labels = y
        for step in self.steps:
            if getattr(step, "mixes_labels", False):
                x, labels = step(x, rng, labels)
            else:
                x = step(x, rng)
        return x if y is None or labels is None else (x, labels)
