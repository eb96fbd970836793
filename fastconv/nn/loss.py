"""What a loss is, and how one becomes an operation of a program."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.nn.base import Watched
from fastconv.nn.checks import Array, cut
from fastconv.nn.labels import sample_weights, takes_weights
from fastconv.nn.lowering import Labels
from fastconv.program.graph import Graph, Value

__all__ = ["Loss", "labels_form", "of_labels"]


class Loss(Watched):
    """`forward(z, y) -> float`, then `backward() -> dz`; `predict(z)` gives probabilities.

    A loss of one's own that `fit` may give weights takes them as `forward`'s third argument,
    ``sample_weight=None``: an array (m,), or None.
    """

    def __init__(self) -> None:
        self._dz: Array | None = None

    def forward(self, z: Array, y: Array, sample_weight: ArrayLike | None = None) -> float:
        """Return the loss of the outputs `z` for the labels `y`, and keep what `backward` needs."""
        raise NotImplementedError

    def lower(self, graph: Graph, z: Value, labels: Labels) -> tuple[Value, Value]:
        """The loss and its gradient `dz` as operations of a program: by default, called back."""
        value, dz = graph.value((1,), np.float64), graph.value(z.shape, z.dtype)

        def forward(z: np.ndarray, value: np.ndarray) -> None:
            weights = () if labels.weights is None else (labels.weights,)
            value[...] = self.forward(z, labels.given, *weights)

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

    def labels_form(self, z_shape: tuple[int, ...], y: object, sample_weight: object) -> Hashable:
        """What of the labels and weights a lowered loss depends on: a program is for one of them.

        By default whether there are weights.
        """
        return sample_weight is not None

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

    def correct(self, z: Array, y: Array) -> float | None:
        """How many images' predictions are right; None where the word has no meaning.

        Of an image whose pixels have labels of their own it is a share.
        """
        return None

    def counted(self, z: Array, y: Array, sample_weight: ArrayLike | None = None) -> float:
        """How much a batch counts beside others of the same run: what its mean divides by.

        By default its images, or the sum of their weights. It is needed where several processes
        train together, and each has the mean of its own part.
        """
        if sample_weight is None:
            return float(len(z))
        return float(np.sum(sample_weight, dtype=np.float64))

    def judged(self, z: Array, y: Array) -> float:
        """Of how many images or labels `correct` tells the share that is right: by default all."""
        return float(len(z))

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
        given = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = vars(self).get(name, parameter.default)
            if value is not parameter.default and value != parameter.default:
                given.append(f"{name}={cut(repr(value), 60)}")
        return f"{type(self).__name__}({', '.join(given)})"


def labels_form(loss: Any, z_shape: tuple[int, ...], y: Any, sample_weight: Any) -> Hashable:
    """`Loss.labels_form` of any loss.

    Raises
    ------
    TypeError
        If there are weights and its `forward` takes none.
    """
    if sample_weight is not None and not takes_weights(loss):
        raise TypeError(
            f"sample_weight: {type(loss).__name__}.forward takes none; give it a third argument, "
            f"sample_weight=None"
        )
    form = getattr(loss, "labels_form", partial(Loss.labels_form, loss))
    return form(z_shape, y, sample_weight)


def of_labels(
    graph: Graph, z: Value, labels: Labels, dtype: Any, shape: Sequence[int],
    converted: Callable[[Array, Any], Array], weights: tuple[int, ...],
    function: Callable[[Array, Array, Array, Array], float],
) -> tuple[Value, Value]:  # fmt: skip
    """A loss in NumPy as an operation of a program; labels and weights are checked before it runs.

    Parameters
    ----------
    dtype, shape
        Of the labels in one form, which ``converted(z, y)`` gives for an array like `z`.
    weights : tuple of int
        The shape that `labels.sample_weights` is asked for.
    function : callable
        ``function(z, y, weights, dz) -> loss``, which writes `dz`.
    """
    value, dz = graph.value((1,), np.float64), graph.value(z.shape, z.dtype)
    like = np.broadcast_to(z.dtype.type(0), z.shape)
    y = graph.value(shape, dtype)
    rows = graph.value((int(np.prod(weights)),), np.float64)
    labels.place(y, lambda given: converted(like, given))
    labels.place(rows, lambda given: sample_weights((*weights, 1), labels.weights))

    def work(z: Array, y: Array, rows: Array, dz: Array, value: Array) -> None:
        value[...] = function(z, y, rows, dz)

    graph.python("loss", work, (z, y, rows), (dz, value), checked=True)
    return value, dz
