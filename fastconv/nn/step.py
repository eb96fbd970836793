"""A training step as one program, made once for a model and the shape of a batch.

The path of a step: lower (every layer says what it does, forward and backward) -> place (values
into one arena) -> bind (calls of compiled entries) -> run (one launch). See `fastconv.program`.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import threads
from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, positive_int, quiet
from fastconv.nn.losses import Loss
from fastconv.nn.lowering import Labels, lowered
from fastconv.nn.optimizers import Optimizer
from fastconv.program.graph import Graph

__all__ = ["StepPlan", "plan_step", "step_of"]

# Plans that a model keeps for `train_step`, and programs that a plan keeps for shorter batches.
KEPT = 8


class _Batch:
    """The program of a step on batches of one size."""

    def __init__(
        self, model: Layer, loss: Loss, optimizer: Optimizer, x_shape: tuple[int, ...], dtype: Any
    ) -> None:
        graph = self.graph = Graph()
        self.labels = Labels()
        x = graph.value(x_shape, dtype, kept=True)
        z, backward = lowered(model, graph, x)
        z.root.kept = True
        value, dz = loss.lower(graph, z, self.labels)
        value.kept = True
        backward(dz, False)
        optimizer.lower(graph)
        with threads.building:  # brings in the engine, and with it Numba
            from fastconv.program.machine import Program

            self.program = Program(graph)
        self.x, self.z, self.value = map(self.program.array, (x, z, value))

    def run(self, x: Array, y: Any) -> tuple[float, Array]:
        """One step."""
        self.labels.take(y, self.program.array)
        np.copyto(self.x, x)
        for function in self.graph.before:
            function()
        if self.program.run():
            for function in self.graph.after:
                function()
        self.labels.given = None
        return float(self.value[0]), self.z


class StepPlan:
    """A training step, ready to run: made by :func:`plan_step`.

    Attributes
    ----------
    x_shape : tuple of int
        ``(m, ...)``; batches of fewer images work, too.
    """

    def __init__(
        self, model: Layer, loss: Loss, optimizer: Optimizer, x_shape: tuple[int, ...]
    ) -> None:
        self.model, self.loss, self.optimizer, self.x_shape = model, loss, optimizer, x_shape
        self.dtype = _dtype(model)
        self._batches: OrderedDict[int, _Batch] = OrderedDict()
        self._layers = [layer for _, layer in model.walk() if hasattr(layer, "_cache")]
        self._lock = _lock(model)
        self._batch(x_shape[0])

    @quiet
    def __call__(self, x: Array, y: Any) -> tuple[float, Array]:
        """One step: forward, loss, backward, update.

        Parameters
        ----------
        x : ndarray (m, ...)
            At most as many images as were planned.
        y : array
            Labels, as the loss wants them.

        Returns
        -------
        value : float
            The loss before the update. When it is not finite, nothing is updated.
        z : ndarray
            The outputs before the update; the plan's own array, until the next call.

        Raises
        ------
        ValueError, TypeError
            If `x` or `y` does not fit; nothing has changed then.
        RuntimeError
            If another thread is in a step of the model.
        """
        check_array("x", x, self.model)
        if x.dtype != self.dtype:
            raise TypeError(f"x: expected dtype {self.dtype}, got {x.dtype}")
        if x.shape[1:] != self.x_shape[1:] or not 1 <= len(x) <= self.x_shape[0]:
            raise ValueError(
                f"x: expected {self.x_shape} or fewer images, as the step was planned, "
                f"got {x.shape}"
            )
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("model: another thread is in a step of it")
        try:
            batch = self._batch(len(x))
            for layer in self._layers:  # what a plain pass has left there is no longer the last
                layer._cache = None
            return batch.run(x, y)
        finally:
            self._lock.release()

    def _batch(self, m: int) -> _Batch:
        """The program for `m` images; made anew if what it was made for has changed."""
        found = self._batches.get(m)
        if found is None or found.graph.changed():
            shape = (m, *self.x_shape[1:])
            found = _Batch(self.model, self.loss, self.optimizer, shape, self.dtype)
            self._batches[m] = found
            while len(self._batches) > KEPT:
                self._batches.popitem(last=False)
        self._batches.move_to_end(m)
        return found

    @property
    def workspace_nbytes(self) -> int:
        """Bytes that the step holds besides the model's own arrays."""
        return self._batch(self.x_shape[0]).program.nbytes

    @property
    def flops(self) -> int:
        """Multiplications and additions of the products of a step."""
        return self._batch(self.x_shape[0]).program.flops

    def __repr__(self) -> str:
        return f"StepPlan(x={self.x_shape}, {self.dtype}, {self.workspace_nbytes} bytes)"


_locks: weakref.WeakKeyDictionary[Layer, threading.Lock] = weakref.WeakKeyDictionary()
_plans: weakref.WeakKeyDictionary[Layer, OrderedDict[Any, StepPlan]] = weakref.WeakKeyDictionary()


def _lock(model: Layer) -> threading.Lock:
    """The lock of a model's steps: one for all plans of it."""
    return _locks.setdefault(model, threading.Lock())


def _dtype(model: Layer) -> np.dtype[Any]:
    """The dtype of a model's images: that of its parameters."""
    return next((p.dtype for p in model.parameters()), np.dtype(np.float32))


def plan_step(model: Layer, loss: Loss, optimizer: Optimizer, x_shape: Sequence[int]) -> StepPlan:
    """Prepare a training step that will be run many times."""
    shape = tuple(positive_int("x_shape", n) for n in x_shape)
    return StepPlan(model, loss, optimizer, shape)


def step_of(model: Layer, loss: Loss, optimizer: Optimizer, x: Array) -> StepPlan:
    """The kept plan of a step on batches like `x`."""
    kept = _plans.setdefault(model, OrderedDict())
    key = (id(loss), id(optimizer), x.shape, threads.get_num_threads())
    found = kept.get(key)
    if found is None:
        found = kept[key] = StepPlan(model, loss, optimizer, x.shape)
        while len(kept) > KEPT:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return found
