"""The focal loss."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.nn.checks import Array, quiet, real_number
from fastconv.nn.labels import class_labels, sample_weights, targets
from fastconv.nn.loss import Loss, of_labels
from fastconv.nn.losses import BinaryCrossEntropy, SoftmaxCrossEntropy
from fastconv.nn.lowering import Labels, overrides
from fastconv.program.graph import Graph, Value
from fastconv.program.ops import weighted_losses as weighted

__all__ = ["FocalLoss"]


class FocalLoss(Loss):
    """-(1 - p)**gamma log p, where p is the probability of the label (Lin et al. 2017).

    What is already right counts little: for classes of which one is everywhere. With one column,
    `z` (m, 1) or (m,), p is sigmoid(z) and `y` is 0 or 1; with more, `z` (..., classes), p is
    softmax(z)[y] and `y` (...) are integer labels, of images or of pixels.

    Parameters
    ----------
    gamma : float
        At least 0, which is the cross-entropy.

    Raises
    ------
    TypeError, ValueError
        If it is not.

    Examples
    --------
    >>> loss = FocalLoss(gamma=2.0)
    >>> round(loss.forward(np.zeros((2, 4)), np.array([0, 3])), 4)  # (3 / 4)**2 log 4
    0.7798
    >>> loss.backward().shape
    (2, 4)
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = real_number("gamma", gamma, minimum=0.0)

    def labels_form(self, z_shape: tuple[int, ...], y: object, sample_weight: object) -> Hashable:
        """One for all: weights of 1 stand for none."""
        return None

    def lower(self, graph: Graph, z: Value, labels: Labels) -> tuple[Value, Value]:
        """The loss and its gradient `dz` as an operation of a program."""
        if overrides(self, FocalLoss, "forward", "backward"):
            return super().lower(graph, z, labels)
        binary = _is_binary(z.shape)
        rows = z.shape[:1] if binary else z.shape[:-1]
        dtype, shape = (z.dtype, z.shape) if binary else (np.dtype(np.int64), rows)
        return of_labels(graph, z, labels, dtype, shape, self._checked, rows, self._weighted)

    @quiet
    def forward(self, z: Array, y: Array, sample_weight: ArrayLike | None = None) -> float:
        """Mean over the labels.

        Parameters
        ----------
        z, y : ndarray
        sample_weight : array, optional
            Of each image, (m,), or of each label.

        Raises
        ------
        ValueError, TypeError
            If `y` has another shape or holds something else than labels, or a weight is negative.
        """
        z = self._check_z(z)
        y = self._checked(z, y)
        weights = sample_weights((len(z),) if _is_binary(z.shape) else z.shape, sample_weight)
        self._dz = np.empty(z.shape, z.dtype)
        return self._weighted(np.ascontiguousarray(z), y, weights, self._dz)

    def _weighted(self, z: Array, y: Array, weights: Array, dz: Array) -> float:
        columns = 1 if _is_binary(z.shape) else z.shape[-1]
        rows, out = z.reshape(-1, columns), dz.reshape(-1, columns)
        if columns == 1:
            function = weighted.binary_focal(self.gamma)
            return weighted.elementwise(function, rows, y.reshape(rows.shape), weights, out)
        return weighted.focal(rows, y.reshape(-1), weights, self.gamma, out)

    def predict(self, z: Array) -> Array:
        """sigmoid(z) or softmax(z)."""
        return self._like(z).predict(z)

    def correct(self, z: Array, y: Array) -> float | None:
        """Images that are predicted right; of pixels, the share that is right counts."""
        return self._like(z).correct(z, y)

    def check(self, z: Array, y: Array, name: str = "y") -> None:
        """Raise unless `y` holds a label for each row of `z`."""
        self._checked(z, y, name)

    @staticmethod
    def _like(z: Array) -> Loss:
        return BinaryCrossEntropy() if _is_binary(z.shape) else SoftmaxCrossEntropy()

    @staticmethod
    def _checked(z: Array, y: Any, name: str = "y") -> Array:
        if not _is_binary(z.shape):
            return class_labels(z, y, None, name)
        y = targets(z, y, name)
        if not np.isin(y, (0, 1)).all():
            raise ValueError(f"{name}: labels must be 0 or 1, got {y.min()} .. {y.max()}")
        return y


def _is_binary(z_shape: tuple[int, ...]) -> bool:
    return len(z_shape) == 1 or (len(z_shape) == 2 and z_shape[1] == 1)
