"""What ranks share in a step: the loss, and the gradients between backward pass and update.

A rank has the mean of its own images. The mean of all is that of the ranks' means, each times how
much its images count, over how much all do::

    loss = sum_r(counted_r * loss_r) / sum_r(counted_r)

So each rank's ``dz`` is multiplied by ``counted_r / sum_r(counted_r)`` before it goes backward, and
the gradients of all ranks, added up, are those of the whole batch. Both parts, layer by layer and
as operations of a program, are calls of the same two functions here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.nn.checks import Array
from fastconv.nn.loss import Loss, labels_form
from fastconv.nn.lowering import Labels
from fastconv.nn.optimizer import BeforeStep
from fastconv.nn.ranks import Ranks
from fastconv.program.graph import Graph, Value

__all__ = ["SharedLoss", "SharedOptimizer"]

# What ranks tell of a step; see `SharedLoss._exchange`.
TOLD = 6


class SharedLoss:
    """The loss of all ranks' images.

    Parameters
    ----------
    loss : Loss
        The caller's.
    ranks : Ranks
    buffers : sequence of ndarray
        Running statistics that each rank has moved by its own images in the forward pass: they
        become the means of all ranks', weighted by their images; whole numbers rank 0's.

    Attributes
    ----------
    share : float
        This rank's share of the step's images; to be set before the step.
    weight : float
        How much the images of the last step counted beside other steps, those of all ranks.
    share_right : float, or None
        Which part of them is predicted right; None where the loss does not say.
    """

    def __init__(self, loss: Any, ranks: Ranks, buffers: Sequence[Array]) -> None:
        self._loss, self._ranks, self._buffers = loss, ranks, buffers
        self.share, self.weight = 0.0, 0.0
        self.share_right: float | None = None
        self._counted = getattr(loss, "counted", partial(Loss.counted, loss))
        self._judged = getattr(loss, "judged", partial(Loss.judged, loss))
        self._part = 0.0  # of what counts in the loss
        self._told = np.zeros(TOLD + sum(buffer.size for buffer in buffers))

    def absent(self) -> float:
        """The loss of a step in which this rank has no image."""
        return self._exchange(0.0, 0.0, 0.0, 0.0, 0.0, False)

    def forward(self, z: Array, y: Array, sample_weight: ArrayLike | None = None) -> float:
        """The loss of all; `z`, `y` and the weights are this rank's."""
        weights = () if sample_weight is None else (sample_weight,)
        return self._of(self._loss.forward(z, y, *weights), z, y, sample_weight)

    def backward(self) -> Array:
        """``dz`` of the rank's images, as a part of all."""
        dz: Array = self._loss.backward()
        return dz * dz.dtype.type(self._part)

    def labels_form(self, z_shape: tuple[int, ...], y: Any, sample_weight: Any) -> Hashable:
        """That of the caller's loss."""
        return labels_form(self._loss, z_shape, y, sample_weight)

    def lower(self, graph: Graph, z: Value, labels: Labels) -> tuple[Value, Value]:
        """The same as operations of a program, which goes on if the loss of all is finite."""
        start = len(graph.operations)
        result, dz = getattr(self._loss, "lower", partial(Loss.lower, self._loss))(graph, z, labels)
        # a rank whose own loss is not finite must still tell the others
        own = graph.operations[start:]
        graph.operations[start:] = [replace(operation, checked=False) for operation in own]

        def work(z: Array, dz: Array, result: Array, *_: Array) -> None:
            result[0] = self._of(float(result[0]), z, labels.given, labels.weights)
            dz *= dz.dtype.type(self._part)

        graph.python("loss of all ranks", work, (z, dz, result), (dz, result), checked=True)
        return result, dz

    def _of(self, value: float, z: Array, y: Any, sample_weight: Any) -> float:
        """The loss of all ranks, of which this rank's is `value`."""
        counted = self._counted(z, y, sample_weight)
        weight = Loss.counted(self._loss, z, y, sample_weight)
        correct, judged = self._loss.correct(z, y), self._judged(z, y)
        right = (correct or 0.0) * judged / len(z)
        return self._exchange(value * counted, counted, weight, right, judged, correct is None)

    def _exchange(self, *own: float) -> float:
        """One sum of everything that is known after the forward pass.

        Of the images, the loss times how much they count, that, their weight, what is right, of how
        much, and whether the loss does not say so; then the buffers.
        """
        told, at = self._told, TOLD
        told[:at] = own
        for buffer in self._buffers:
            part = self.share if buffer.dtype.kind == "f" else float(self._ranks.first)
            told[at : at + buffer.size] = buffer.reshape(-1) * np.float64(part)
            at += buffer.size
        self._ranks.sum(told)
        total, counted, self.weight, right, judged, unknown = told[:TOLD].tolist()
        at = TOLD
        for buffer in self._buffers:
            buffer[...] = told[at : at + buffer.size].reshape(buffer.shape)
            at += buffer.size
        self.share_right = None if unknown else right / max(judged, 1.0)
        self._part = own[1] / counted if counted else 0.0
        return total / counted if counted else 0.0


class SharedOptimizer(BeforeStep):
    """An optimizer that adds up the gradients of all ranks before its step.

    Parameters
    ----------
    optimizer : Optimizer
        If gradients are cut there, that is done to the sums.
    ranks : Ranks
    """

    def __init__(self, optimizer: Any, ranks: Ranks) -> None:
        super().__init__(optimizer, "allreduce", self._add_up)
        self._ranks = ranks
        self._flat: dict[Any, Array] = {}

    def _add_up(self) -> None:
        """Replace gradients by the sums of all ranks': one buffer, one exchange, for each dtype."""
        grads = [parameter.grad for parameter in self.parameters]
        for dtype in dict.fromkeys(grad.dtype for grad in grads):
            chosen = [grad for grad in grads if grad.dtype == dtype]
            ends = np.cumsum([grad.size for grad in chosen])
            flat = self._flat.get(dtype)
            if flat is None or flat.size != ends[-1]:
                flat = self._flat[dtype] = np.empty(ends[-1], dtype)
            np.concatenate([grad.reshape(-1) for grad in chosen], out=flat)
            self._ranks.sum(flat)
            for grad, end in zip(chosen, ends, strict=True):
                grad[...] = flat[end - grad.size : end].reshape(grad.shape)
