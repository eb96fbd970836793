"""Losses: a number for the network's output, and its gradient.

All are means over the batch, so the gradient carries a factor 1/m. The two cross-entropies take
logits `z`, the network's output before the sigmoid or softmax: fused with the logarithm, the
exponential never overflows and the gradient is simply prediction minus label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.nn.activations import sigmoid
from fastconv.nn.base import Watched
from fastconv.nn.checks import Array, as_array, quiet
from fastconv.nn.lowering import Labels, overrides
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import loss
from fastconv.program.ops import losses as ops


class Loss(Watched):
    """`forward(z, y) -> float`, then `backward() -> dz`; `predict(z)` gives probabilities."""

    def __init__(self) -> None:
        self._dz: Array | None = None

    def forward(self, z: Array, y: Array) -> float:
        """Return the loss of the outputs `z` for the labels `y`, and keep what `backward` needs."""
        raise NotImplementedError

    def lower(self, graph: Graph, z: Value, labels: Labels) -> tuple[Value, Value]:
        """The loss and its gradient `dz` as operations of a program: by default, called back."""
        value, dz = graph.value((1,), np.float64), graph.value(z.shape, z.dtype)

        def forward(z: np.ndarray, value: np.ndarray) -> None:
            value[...] = self.forward(z, labels.given)

        def backward(z: np.ndarray, dz: np.ndarray) -> None:
            found = self.backward()
            if np.shape(found) != dz.shape:
                raise ValueError(f"dz: expected the shape of z, {dz.shape}, got {np.shape(found)}")
            if np.asarray(found).dtype != dz.dtype:
                raise TypeError(f"dz: expected dtype {dz.dtype}, got {np.asarray(found).dtype}")
            np.copyto(dz, found)

        graph.python("loss forward", forward, (z,), (value,), checked=True)
        graph.python("loss backward", backward, (z,), (dz,))
        return value, dz

    def _numbers(self, z: Value) -> Callable[[Any], Array]:
        """What checks labels for outputs `z`, and gives them the shape and dtype of those."""
        like = np.broadcast_to(z.dtype.type(0), z.shape)

        def converted(given: Any) -> Array:
            y = _targets(like, given)
            self._check_range(y, "y")
            return y

        return converted

    def _check_range(self, y: Array, name: str) -> None:
        """Raise unless the loss has a meaning for the numbers `y`: for all, if not overridden."""

    def backward(self) -> Array:
        """Return `dz`, the gradient of the last `forward`, in the dtype of `z`."""
        if self._dz is None:
            raise ValueError(f"{type(self).__name__}: backward was called before forward")
        return self._dz

    def predict(self, z: Array) -> Array:
        """What the outputs mean: probabilities for the cross-entropies, `z` itself otherwise."""
        return z

    def correct(self, z: Array, y: Array) -> int | None:
        """Number of images whose prediction is right; None where the word has no meaning."""
        return None

    def check(self, z: Array, y: Array, name: str = "y") -> None:
        """Raise ValueError or TypeError, naming `name`, if the labels `y` do not fit the outputs.

        `fit` calls it with all labels before its first step; only the shape and dtype of `z` count
        there. A loss of one's own with other labels than the loss it derives from overrides it.
        """

    def _check_z(self, z: Any) -> Array:
        if not isinstance(z, np.ndarray) or z.dtype not in (np.float32, np.float64):
            kind = getattr(z, "dtype", type(z).__name__)
            raise TypeError(f"z: a float32 or float64 array is needed, got {kind}")
        if z.ndim < 1 or z.size == 0:
            raise ValueError(f"z: at least one image is needed, got shape {z.shape}")
        return z

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class SoftmaxCrossEntropy(Loss):
    """-log softmax(z)[y]: one of several classes.

    `z` (m, classes) logits, `y` (m,) integer labels in 0 .. classes - 1.

    Examples
    --------
    >>> loss = SoftmaxCrossEntropy()
    >>> round(loss.forward(np.zeros((2, 10)), np.array([3, 7])), 4)
    2.3026
    >>> loss.backward().shape
    (2, 10)
    """

    def lower(self, graph: Graph, z: Value, labels: Labels) -> tuple[Value, Value]:
        """The loss and its gradient `dz` as an operation of a program."""
        if overrides(self, SoftmaxCrossEntropy, "forward", "backward"):
            return super().lower(graph, z, labels)
        y = graph.value(z.shape[:1], np.int64)
        like = np.broadcast_to(z.dtype.type(0), z.shape)
        labels.place(y, lambda given: self._checked(like, given, "y"))
        return loss(graph, "softmax_cross_entropy", z, y)

    @quiet
    def forward(self, z: Array, y: Array) -> float:
        """Mean of -log p[label].

        Raises
        ------
        ValueError, TypeError
            If `y` has another length, is not integer, or holds a label outside the classes.
        """
        z = self._check_z(z)
        y = self._checked(z, y, "y")
        value, self._dz, _ = ops.softmax_cross_entropy(np.ascontiguousarray(z), y)
        return value

    @quiet
    def predict(self, z: Array) -> Array:
        """softmax(z), row by row."""
        z = self._check_z(z)
        exponentials = np.exp(z - z.max(axis=1, keepdims=True))
        probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
        return probabilities

    @quiet
    def correct(self, z: Array, y: Array) -> int:
        """Images whose largest logit is the label's."""
        return int(np.count_nonzero(z.argmax(axis=1) == as_array("y", y)))

    def check(self, z: Array, y: Array, name: str = "y") -> None:
        """Raise unless `y` holds an integer class for each row of `z`."""
        self._checked(z, y, name)

    @staticmethod
    def _checked(z: Array, y: Array, name: str) -> Array:
        if z.ndim != 2:
            raise ValueError(f"z: expected (m, classes), got {z.shape}")
        y = as_array(name, y)
        if y.shape != z.shape[:1]:
            raise ValueError(f"{name}: expected ({len(z)},) labels for z {z.shape}, got {y.shape}")
        if y.dtype.kind not in "iu":
            raise TypeError(f"{name}: integer labels are needed, got {y.dtype}")
        if y.min() < 0 or y.max() >= z.shape[1]:
            raise ValueError(
                f"{name}: labels must be in 0 .. {z.shape[1] - 1}, got {y.min()} .. {y.max()}"
            )
        return np.ascontiguousarray(y, np.int64)


class BinaryCrossEntropy(Loss):
    """-y log p - (1 - y) log(1 - p) with p = sigmoid(z): yes or no.

    `z` (m, 1) or (m,) logits, `y` as many labels in 0 .. 1. With several columns the mean goes
    over them too.

    Examples
    --------
    >>> loss = BinaryCrossEntropy()
    >>> round(loss.forward(np.zeros((2, 1)), np.array([0, 1])), 4)
    0.6931
    >>> loss.backward().tolist()  # (p - y) / m
    [[0.25], [-0.25]]
    """

    def lower(self, graph: Graph, z: Value, labels: Labels) -> tuple[Value, Value]:
        """The loss and its gradient `dz` as an operation of a program."""
        if overrides(self, BinaryCrossEntropy, "forward", "backward"):
            return super().lower(graph, z, labels)
        y = graph.value(z.shape, z.dtype)
        labels.place(y, self._numbers(z))
        return loss(graph, "binary_cross_entropy", z, y)

    @quiet
    def forward(self, z: Array, y: Array) -> float:
        """Mean of max(z, 0) - z y + log(1 + exp(-|z|)).

        Raises
        ------
        ValueError, TypeError
            If `y` has another size, is not numeric, or leaves 0 .. 1.
        """
        z = self._check_z(z)
        self.check(z, y)
        y = _targets(z, y)
        value, self._dz, _ = ops.binary_cross_entropy(np.ascontiguousarray(z), y)
        return value

    def check(self, z: Array, y: Array, name: str = "y") -> None:
        """Raise unless `y` holds a number in 0 .. 1 for each element of `z`."""
        self._check_range(_targets(z, y, name), name)

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
        right = (z > 0) == (_targets(z, y) > 0.5)
        return int(np.count_nonzero(right.reshape(len(z), -1).all(axis=1)))


class MeanSquaredError(Loss):
    """Mean over all elements of (z - y)**2.

    Examples
    --------
    >>> loss = MeanSquaredError()
    >>> loss.forward(np.array([[1.0, 3.0]]), np.array([[0.0, 0.0]]))
    5.0
    >>> loss.backward().tolist()  # 2 (z - y) / size
    [[1.0, 3.0]]
    """

    def lower(self, graph: Graph, z: Value, labels: Labels) -> tuple[Value, Value]:
        """The loss and its gradient `dz` as an operation of a program."""
        if overrides(self, MeanSquaredError, "forward", "backward"):
            return super().lower(graph, z, labels)
        y = graph.value(z.shape, z.dtype)
        labels.place(y, self._numbers(z))
        return loss(graph, "mean_squared_error", z, y)

    @quiet
    def forward(self, z: Array, y: Array) -> float:
        """Mean of (z - y)**2; `y` must have the size of `z`."""
        z = self._check_z(z)
        y = _targets(z, y)
        value, self._dz, _ = ops.mean_squared_error(np.ascontiguousarray(z), y)
        return value

    def check(self, z: Array, y: Array, name: str = "y") -> None:
        """Raise unless `y` holds a number for each element of `z`."""
        _targets(z, y, name)


def _targets(z: Array, y: Array, name: str = "y") -> Array:
    """`y` in the shape and dtype of `z`, contiguous; (m,) stands for (m, 1)."""
    y = as_array(name, y)
    if y.dtype.kind not in "biuf":
        raise TypeError(f"{name}: numbers are needed, got {y.dtype}")
    if y.shape != z.shape and not (z.shape == (len(z), 1) and y.shape == (len(z),)):
        raise ValueError(f"{name}: expected the shape of z, {z.shape}, got {y.shape}")
    return np.ascontiguousarray(y.reshape(z.shape), z.dtype)
