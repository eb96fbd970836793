"""Losses: a number for the network's output, and its gradient.

All are means over the batch, so the gradient carries a factor 1/m. The two cross-entropies take
logits `z`, the network's output before the sigmoid or softmax: fused with the logarithm, the
exponential never overflows and the gradient is simply prediction minus label.

`sample_weight` is a number of at least 0 for each image; the mean then divides by the sum of the
weights, so that an image of weight 2 counts as if it were there twice. A batch in which nothing
counts has the loss 0, and no gradient.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.nn.activations import sigmoid
from fastconv.nn.checks import Array, as_array, positive_int, quiet, real_number, unit_interval
from fastconv.nn.labels import (
    class_labels,
    class_weights,
    is_soft,
    one_weight_each,
    sample_weights,
    soft_labels,
    targets,
)
from fastconv.nn.loss import Loss, of_labels
from fastconv.nn.lowering import Labels, overrides
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import loss
from fastconv.program.ops import losses as ops
from fastconv.program.ops import weighted_losses as weighted

__all__ = ["BinaryCrossEntropy", "Elementwise", "Huber", "Loss", "MeanSquaredError",
           "SoftmaxCrossEntropy"]  # fmt: skip


class SoftmaxCrossEntropy(Loss):
    """-log softmax(z)[y]: one of several classes, for each image or for each of its pixels.

    `z` (..., classes) are logits: (m, classes), or (m, H, W, classes) for segmentation. `y` (...)
    are integer labels in 0 .. classes - 1, or soft labels (..., classes): shares that add up to 1,
    as `Mixup` makes them.

    Parameters
    ----------
    class_weight : sequence of float or dict, optional
        What the loss of a label of each class is multiplied by; of a dictionary, classes that it
        does not name have 1. The mean divides by the sum of the labels' weights (of soft labels, by
        their number, as PyTorch does).
    label_smoothing : float in [0, 1)
        This share of each label is spread evenly over all classes (Szegedy et al. 2016).
    ignore_index : int, optional
        Labels of this value do not count: their pixels have no loss and no gradient.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> loss = SoftmaxCrossEntropy()
    >>> round(loss.forward(np.zeros((2, 10)), np.array([3, 7])), 4)
    2.3026
    >>> loss.backward().shape
    (2, 10)
    >>> loss = SoftmaxCrossEntropy(class_weight=[1, 1, 5], ignore_index=255)
    >>> round(loss.forward(np.zeros((1, 2, 2, 3)), np.array([[[0, 2], [255, 255]]])), 4)
    1.0986
    """

    def __init__(
        self,
        *,
        class_weight: Sequence[float] | Array | Mapping[int, float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.class_weight = None if class_weight is None else class_weights(class_weight)
        self.label_smoothing = unit_interval("label_smoothing", label_smoothing)
        self.ignore_index = None
        if ignore_index is not None:
            self.ignore_index = positive_int("ignore_index", ignore_index, minimum=-(2**63))

    def labels_form(self, z_shape: tuple[int, ...], y: object, sample_weight: object) -> Hashable:
        """Whether there are weights, and whether the labels are soft."""
        return sample_weight is not None, is_soft(z_shape, y)

    def lower(self, graph: Graph, z: Value, labels: Labels) -> tuple[Value, Value]:
        """The loss and its gradient `dz` as an operation of a program."""
        if overrides(self, SoftmaxCrossEntropy, "forward", "backward"):
            return super().lower(graph, z, labels)
        for name in ("class_weight", "label_smoothing", "ignore_index"):
            graph.setting(self, name)
        soft = is_soft(z.shape, labels.given)
        if self._plain and not soft and labels.weights is None:
            shape, classes = z.shape[:-1], z.shape[-1]
            y = graph.value(shape, np.int64)
            like = np.broadcast_to(z.dtype.type(0), z.shape)
            labels.place(y, lambda given: self._checked(like, given, "y"))
            rows = int(np.prod(shape))
            value, dz = loss(graph, "softmax_cross_entropy", graph.view(z, (rows, classes)), y)
            return value, graph.view(dz, z.shape)
        dtype, shape = (z.dtype, z.shape) if soft else (np.dtype(np.int64), z.shape[:-1])
        return of_labels(
            graph, z, labels, dtype, shape, lambda z, y: self._checked(z, y, "y"), z.shape[:-1],
            lambda z, y, weights, dz: self._weighted(z, y, weights, dz),
        )  # fmt: skip

    @property
    def _plain(self) -> bool:
        return self.class_weight is None and self.label_smoothing == 0 and self.ignore_index is None

    @quiet
    def forward(self, z: Array, y: Array, sample_weight: ArrayLike | None = None) -> float:
        """Mean of -log p[label].

        Parameters
        ----------
        z : ndarray (..., classes)
        y : array (...) or (..., classes)
        sample_weight : array (m,) or (...), optional
            Of each image, or of each label.

        Raises
        ------
        ValueError, TypeError
            If `y` has another length, is not integer, or holds a label outside the classes; or a
            weight is negative.
        """
        z = self._check_z(z)
        y = self._checked(z, y, "y")
        rows = np.ascontiguousarray(z).reshape(-1, z.shape[-1])
        if self._plain and sample_weight is None and y.ndim < z.ndim:
            value, dz, _ = ops.softmax_cross_entropy(rows, y.reshape(-1))
        else:
            weights = sample_weights(z.shape, sample_weight)
            dz = np.empty_like(rows)
            value = self._weighted(rows, y, weights, dz)
        self._dz = dz.reshape(z.shape)
        return value

    def _weighted(self, z: Array, y: Array, weights: Array, dz: Array) -> float:
        classes = z.shape[-1]
        z, dz = z.reshape(-1, classes), dz.reshape(-1, classes)
        each = one_weight_each(self.class_weight, classes)
        if y.dtype.kind != "i":
            y = y.reshape(-1, classes)
            return weighted.softmax_soft(z, y, weights, each, self.label_smoothing, dz)
        y = y.reshape(-1)
        if self.ignore_index is not None:
            weights = np.where(y == self.ignore_index, 0.0, weights)
        return weighted.softmax_hard(z, y, weights, each, self.label_smoothing, dz)

    @quiet
    def predict(self, z: Array) -> Array:
        """softmax(z), row by row."""
        z = self._check_z(z)
        exponentials = np.exp(z - z.max(axis=-1, keepdims=True))
        probabilities: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return probabilities

    @quiet
    def correct(self, z: Array, y: Array) -> float:
        """Images whose largest logit is the label's; of pixels, the share that is right counts."""
        y = as_array("y", y)
        right = z.argmax(axis=-1) == (y.argmax(axis=-1) if is_soft(z.shape, y) else y)
        if z.ndim == 2 and self.ignore_index is None:
            return int(np.count_nonzero(right))
        counted = right.size
        if self.ignore_index is not None and not is_soft(z.shape, y):
            kept = y != self.ignore_index
            counted, right = int(np.count_nonzero(kept)), right & kept
        return len(z) * int(np.count_nonzero(right)) / max(counted, 1)

    def counted(self, z: Array, y: Array, sample_weight: ArrayLike | None = None) -> float:
        """The sum of the weights of all labels; of soft labels, and of plain ones, the images'."""
        if is_soft(z.shape, y) or (self.class_weight is None and self.ignore_index is None):
            return super().counted(z, y, sample_weight)
        labels = self._checked(z, y, "y").reshape(-1)
        weights = sample_weights(z.shape, sample_weight)
        if self.ignore_index is not None:
            weights = np.where(labels == self.ignore_index, 0.0, weights)
        labels = np.where(weights > 0, labels, 0)
        each = one_weight_each(self.class_weight, z.shape[-1])
        return float((weights * each[labels]).sum())

    def judged(self, z: Array, y: Array) -> float:
        """All images, or the labels that are not ignored."""
        if self.ignore_index is None or is_soft(z.shape, y):
            return float(len(z))
        return float(np.count_nonzero(as_array("y", y) != self.ignore_index))

    def check(self, z: Array, y: Array, name: str = "y") -> None:
        """Raise unless `y` holds an integer class for each row of `z`, or shares of all classes."""
        self._checked(z, y, name)

    def _checked(self, z: Array, y: Array, name: str) -> Array:
        if z.ndim > 1:
            one_weight_each(self.class_weight, z.shape[-1])
        if not is_soft(z.shape, y, name):
            return class_labels(z, y, self.ignore_index, name)
        if self.ignore_index is not None:
            raise ValueError(f"ignore_index: soft labels have none, but {name} is {np.shape(y)}")
        return soft_labels(z, y, name)


class Elementwise(Loss):
    """A mean over all elements of the loss of each, which a function in float64 gives.

    A class derived from it has `_pointwise`, see `fastconv.program.ops.weighted_losses`; and, if
    there is a compiled loop for it without weights, that loop's name.
    """

    compiled: str | None = None
    arguments: tuple[str, ...] = ()  # names of the attributes on which it depends which loop serves

    def _pointwise(self, columns: int) -> weighted.Pointwise:
        raise NotImplementedError

    def _compiled(self) -> str | None:
        return self.compiled

    def lower(self, graph: Graph, z: Value, labels: Labels) -> tuple[Value, Value]:
        """The loss and its gradient `dz` as an operation of a program."""
        kind = next(k for k in type(self).__mro__ if "_pointwise" in vars(k))
        if overrides(self, kind, "forward", "backward"):
            return super().lower(graph, z, labels)
        for argument in self.arguments:
            graph.setting(self, argument)
        if labels.weights is None and (name := self._compiled()):
            y = graph.value(z.shape, z.dtype)
            like = np.broadcast_to(z.dtype.type(0), z.shape)
            labels.place(y, lambda given: self._checked(like, given))
            return loss(graph, name, z, y)
        return of_labels(
            graph, z, labels, z.dtype, z.shape, self._checked, z.shape[:1],
            lambda z, y, weights, dz: self._weighted(z, y, weights, dz),
        )  # fmt: skip

    @quiet
    def forward(self, z: Array, y: Array, sample_weight: ArrayLike | None = None) -> float:
        """Mean over all elements; `y` has the size of `z`.

        Parameters
        ----------
        z, y : ndarray (m, ...)
        sample_weight : array (m,), optional

        Raises
        ------
        ValueError, TypeError
            If `y` has another size, is not numeric, or leaves the numbers that the loss takes; or a
            weight is negative.
        """
        z = self._check_z(z)
        y = self._checked(z, y)
        if sample_weight is None and (name := self._compiled()):
            value, self._dz, _ = getattr(ops, name)(np.ascontiguousarray(z), y)
            return float(value)
        weights = sample_weights(z.shape[:1], sample_weight)
        self._dz = np.empty(z.shape, z.dtype)
        return self._weighted(z, y, weights, self._dz)

    def _weighted(self, z: Array, y: Array, weights: Array, dz: Array) -> float:
        rows, out = z.reshape(len(z), -1), dz.reshape(len(z), -1)
        function = self._pointwise(rows.shape[1])
        return weighted.elementwise(function, rows, y.reshape(rows.shape), weights, out)

    def check(self, z: Array, y: Array, name: str = "y") -> None:
        """Raise unless `y` holds a number that the loss takes for each element of `z`."""
        self._checked(z, y, name)

    def _checked(self, z: Array, y: Any, name: str = "y") -> Array:
        y = targets(z, y, name)
        self._check_range(y, name)
        return y


class BinaryCrossEntropy(Elementwise):
    """-y log p - (1 - y) log(1 - p) with p = sigmoid(z): yes or no.

    `z` (m, 1) or (m,) logits, `y` as many labels in 0 .. 1. With several columns the mean goes
    over them too.

    Parameters
    ----------
    pos_weight : float or sequence of float, optional
        What the loss of a yes is multiplied by: one number, or one for each column of `z`. The mean
        still divides by the number of elements, as in PyTorch.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> loss = BinaryCrossEntropy()
    >>> round(loss.forward(np.zeros((2, 1)), np.array([0, 1])), 4)
    0.6931
    >>> loss.backward().tolist()  # (p - y) / m
    [[0.25], [-0.25]]
    """

    compiled, arguments = "binary_cross_entropy", ("pos_weight",)

    def __init__(self, *, pos_weight: float | Sequence[float] | Array | None = None) -> None:
        super().__init__()
        self.pos_weight: float | tuple[float, ...] | None = None
        if isinstance(pos_weight, Sequence | np.ndarray) and np.ndim(pos_weight):
            found = class_weights(pos_weight, "pos_weight")
            self.pos_weight = tuple(found)
        elif pos_weight is not None:
            self.pos_weight = real_number("pos_weight", pos_weight, minimum=0.0)

    def _compiled(self) -> str | None:
        return self.compiled if self.pos_weight is None else None

    def _pointwise(self, columns: int) -> weighted.Pointwise:
        found = 1.0 if self.pos_weight is None else self.pos_weight
        if isinstance(found, tuple) and len(found) != columns:
            raise ValueError(f"pos_weight: expected {columns} weights, one per column of z, "
                             f"got {len(found)}")  # fmt: skip
        return weighted.weighted_binary(np.asarray(found))

    def _check_range(self, y: Array, name: str) -> None:
        if not (y.min() >= 0 and y.max() <= 1):  # not so for NaN
            raise ValueError(f"{name}: labels must be in 0 .. 1, got {y.min()} .. {y.max()}")

    @quiet
    def predict(self, z: Array) -> Array:
        """sigmoid(z)."""
        return sigmoid(self._check_z(z))

    @quiet
    def correct(self, z: Array, y: Array) -> int:
        """Images all of whose outputs are on the label's side of one half."""
        right = (z > 0) == (targets(z, y) > 0.5)
        return int(np.count_nonzero(right.reshape(len(z), -1).all(axis=1)))


class MeanSquaredError(Elementwise):
    """Mean over all elements of (z - y)**2.

    Examples
    --------
    >>> loss = MeanSquaredError()
    >>> loss.forward(np.array([[1.0, 3.0]]), np.array([[0.0, 0.0]]))
    5.0
    >>> loss.backward().tolist()  # 2 (z - y) / size
    [[1.0, 3.0]]
    """

    compiled = "mean_squared_error"

    def _pointwise(self, columns: int) -> weighted.Pointwise:
        return weighted.squared


class Huber(Elementwise):
    """Squares of small errors, sizes of large ones (Huber 1964): outliers do not rule.

    The mean over all elements of ``e**2 / 2`` where ``|e| <= delta``, else of
    ``delta (|e| - delta / 2)``, for the error ``e = z - y``.

    Parameters
    ----------
    delta : float
        Above 0.

    Raises
    ------
    TypeError, ValueError
        If it is not.

    Examples
    --------
    >>> Huber(1.0).forward(np.array([[0.5, 3.0]]), np.zeros((1, 2)))  # (0.125 + 2.5) / 2
    1.3125
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = real_number("delta", delta)
        if self.delta <= 0:
            raise ValueError(f"delta: must be above 0, got {delta!r}")

    def _pointwise(self, columns: int) -> weighted.Pointwise:
        return weighted.huber(self.delta)
