"""What random changes of training images have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.checks import Array, shown


class Augmentation:
    """What all of this module have in common; one of your own is any ``augment(x, rng) -> x``.

    Attributes
    ----------
    mixes_labels : bool
        Whether it is called as ``augment(x, rng, y)`` and gives images and labels.
    """

    mixes_labels = False

    def __call__(self, x: Array, rng: np.random.Generator) -> Any:
        """Return what becomes of a batch of images (m, H, W, C), which is not changed."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        return dict(vars(self))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


def as_images(x: Any) -> Array:
    """`x`, if it is a batch of images of floats; else a TypeError."""
    if not isinstance(x, np.ndarray) or x.ndim != 4 or x.dtype.kind != "f":
        raise TypeError(f"x: images (m, H, W, C) of floats are needed, got {shown(x)}")
    return x
