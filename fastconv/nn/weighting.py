"""How much images count in a run of `fit`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.checks import Array
from fastconv.nn.describe import fingerprint
from fastconv.nn.labels import class_weights, sample_weights, takes_weights

__all__ = ["Weights"]


class Weights:
    """Weights of images, from those of samples and of classes: their product.

    Parameters
    ----------
    sample_weight : array (m,), optional
    class_weight : mapping of int to float, or sequence, optional
        Of a mapping, classes that it does not name have 1.
    loss : Loss
    images : int, or None
        How many images there are; None where they come in batches of the caller's.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> from fastconv.nn import SoftmaxCrossEntropy
    >>> weights = Weights([1.0, 0.5, 2.0], {1: 10}, SoftmaxCrossEntropy(), 3)
    >>> weights.of(np.array([1, 0]), np.array([2, 1])).tolist()
    [20.0, 0.5]
    """

    def __init__(
        self, sample_weight: Any, class_weight: Any, loss: Any, images: int | None
    ) -> None:
        given = {"class_weight": class_weight, "sample_weight": sample_weight}
        for name, value in given.items():
            if value is not None and not takes_weights(loss):
                raise TypeError(
                    f"{name}: {type(loss).__name__}.forward takes no weights; give it a third "
                    "argument, sample_weight=None"
                )
        self.samples = None
        if sample_weight is not None:
            if images is None:
                raise ValueError(
                    "sample_weight: images that come in batches have no numbers, by which each "
                    "would find its weight; give x and y as arrays"
                )
            self.samples = sample_weights((images,), sample_weight)
        self.classes = None if class_weight is None else class_weights(class_weight)

    @property
    def active(self) -> bool:
        """Whether there are any."""
        return self.samples is not None or self.classes is not None

    def part(self, chosen: Array) -> None:
        """Keep the weights of these images only."""
        if self.samples is not None:
            self.samples = self.samples[chosen]

    def check(self, y: Array) -> None:
        """Raise, naming `class_weight`, unless the labels are classes that have weights."""
        if self.classes is None:
            return
        if y.dtype.kind not in "biu" and y.size != len(y):
            raise TypeError(f"class_weight: integer labels are needed, got y {y.shape} {y.dtype}")
        if isinstance(self.classes, tuple) and y.size and y.max() >= len(self.classes):
            raise ValueError(
                f"class_weight: expected one for each class, got {len(self.classes)}, and a "
                f"label {y.max()}"
            )

    def of(self, y: Array, chosen: Array | None) -> Array | None:
        """Weights of a batch, by its labels and its images' numbers; None where all are equal."""
        if not self.active:
            return None
        # one for each label where their classes have weights, else for each image
        weights = np.ones(y.shape if self.classes is not None and y.size != len(y) else len(y))
        if self.classes is not None:
            self.check(y)
            labels = y.reshape(weights.shape)
            named = isinstance(self.classes, dict)
            table: Any = self.classes if named else dict(enumerate(self.classes))
            for label, weight in table.items():
                weights[labels == label] = weight
        if self.samples is not None and chosen is not None:
            weights *= self.samples[chosen].reshape(-1, *(1,) * (weights.ndim - 1))
        return weights

    def identity(self) -> dict[str, Any]:
        """What a resumed run compares."""
        classes: Any = self.classes
        if isinstance(classes, dict):
            classes = {str(k): v for k, v in sorted(classes.items())}
        samples = None if self.samples is None else fingerprint(self.samples)
        return {"class_weight": classes, "sample_weight": samples}
