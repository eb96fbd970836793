"""Images mixed with others, and their labels with theirs."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.examples.augmentation import Augmentation, as_images
from fastconv.nn.checks import Array, positive_int, quiet, real_number, shown


class Mixup(Augmentation):
    """Mix each image and its label with another one of the batch: Zhang et al. 2018.

    Labels become soft: (m, classes), the shares of the classes. The loss must take such labels, as
    `fastconv.nn.SoftmaxCrossEntropy` does.

    Parameters
    ----------
    alpha : float
        The shares are of a Beta distribution with both parameters alpha: below 1 most images are
        nearly whole, 1 makes all shares equally likely.
    classes : int, optional
        Number of classes. It is needed where labels are integers (m,); soft ones tell it.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> x, y = np.ones((4, 8, 8, 1), np.float32), np.array([0, 2, 1, 1])
    >>> mixed, soft = Mixup(classes=3)(x, np.random.default_rng(0), y)
    >>> mixed.shape, soft.shape, soft.dtype
    ((4, 8, 8, 1), (4, 3), dtype('float32'))
    """

    mixes_labels = True

    def __init__(self, alpha: float = 0.2, *, classes: int | None = None) -> None:
        self.alpha = real_number("alpha", alpha, minimum=0.0)
        if self.alpha == 0:
            raise ValueError(f"alpha: must be above 0, got {alpha!r}")
        self.classes = None if classes is None else positive_int("classes", classes)

    @quiet
    def __call__(
        self, x: Array, rng: np.random.Generator, y: Array | None = None
    ) -> tuple[Array, Array]:
        """Return mixed images and soft labels; `x` (m, H, W, C) and `y` are not changed."""
        soft = self._soft(as_images(x), y)
        m = len(x)
        share = rng.beta(self.alpha, self.alpha, m).astype(x.dtype)
        other = rng.permutation(m)
        wide, narrow = share[:, None, None, None], share[:, None]
        mixed = wide * x + (1 - wide) * x[other]
        return mixed, narrow * soft + (1 - narrow) * soft[other]

    def _soft(self, x: Array, y: Any) -> Array:
        if y is None:
            raise TypeError("y: Mixup changes labels too, and needs them: mixup(x, rng, y)")
        y = np.asarray(y)
        if y.shape[:1] != (len(x),):
            raise ValueError(f"y: expected {len(x)} labels, one per image, got {y.shape}")
        if y.ndim == 2:
            return y.astype(x.dtype)
        if y.ndim != 1 or y.dtype.kind not in "biu":
            raise TypeError(f"y: integers (m,) or shares (m, classes) are needed, got {shown(y)}")
        if self.classes is None:
            raise ValueError("classes: with integer labels it is needed, as in Mixup(classes=10)")
        if len(y) and (y.min() < 0 or y.max() >= self.classes):
            raise ValueError(
                f"y: labels must be in 0 .. {self.classes - 1}, got {y.min()} .. {y.max()}"
            )
        soft: Array = np.zeros((len(y), self.classes), x.dtype)
        soft[np.arange(len(y)), y.astype(np.int64)] = 1
        return soft
