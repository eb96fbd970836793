"""A training step as one program, made once for a model and the shape of a batch.

The path of a step: lower (every layer says what it does, forward and backward) -> place (values
into one arena) -> bind (calls of compiled entries) -> run (one launch). See `fastconv.program`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import threads
from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, positive_int, quiet
from fastconv.nn.fit_arguments import (
    check_loss,
    check_model,
    check_optimizer,
    check_stepper,
)
from fastconv.nn.loss import Loss, labels_form
from fastconv.nn.lowering import Labels, check_images, lowered
from fastconv.nn.optimizer import Optimizer
from fastconv.nn.programs import KEPT, dtype_of, images_shape, kept, new_program, programs, table
from fastconv.plans.algorithm import algorithm as algorithm_of
from fastconv.plans.algorithm import chosen
from fastconv.program.graph import Graph, Timing
from fastconv.typing import Algorithm

__all__ = ["StepPlan", "forget", "plan_step", "step_of"]


class _Batch:
    """The program of a step on batches of one size."""

    def __init__(
        self, model: Layer, loss: Loss, optimizer: Optimizer, x_shape: tuple[int, ...], dtype: Any,
        y: Any, weights: Any,
    ) -> None:  # fmt: skip
        graph = self.graph = Graph()
        self.labels = Labels()
        self.labels.given, self.labels.weights = y, weights  # the first, not checked yet
        x = graph.value(x_shape, dtype, kept=True)
        for owner, name in ((loss, "forward"), (loss, "backward"), (optimizer, "step")):
            graph.setting(owner, name)
        z, backward = lowered(model, graph, x)
        z.root.kept = True
        self.form = labels_form(loss, z.shape, y, weights)
        # a loss or an optimizer by its methods alone is called back
        lower_loss = getattr(loss, "lower", partial(Loss.lower, loss))
        result, dz = lower_loss(graph, z, self.labels)
        result.kept = True
        backward(dz, False)
        getattr(optimizer, "lower", partial(Optimizer.lower, optimizer))(graph)
        # what plain passes have left there belongs to none of the program's
        caches = [(vars(layer), "_cache") for _, layer in model.walk()]
        caches.append((getattr(loss, "__dict__", {}), "_dz"))
        self._caches = [(held, name) for held, name in caches if name in held]
        self.program = new_program(graph)
        self.x, self.z, self.result = map(self.program.array, (x, z, result))

    def run(self, x: Array, y: Any, weights: Any) -> tuple[float, Array]:
        """One step."""
        self.take(x, y, weights)
        for held, name in self._caches:
            held[name] = None
        if self.program.run():
            for function in self.graph.after:
                function()
        return float(self.result[0]), self.z

    def take(self, x: Array, y: Any, weights: Any = None) -> None:
        """Check and write what the next run begins with."""
        self.labels.take(y, self.program.array, weights)
        np.copyto(self.x, x)
        for function in self.graph.before:
            function()


class StepPlan:
    """A training step, ready to run: made by :func:`plan_step`.

    It holds programs and what they compute with; parameters, gradients and the optimizer's state
    stay the arrays that they are. Printed, it shows its operations.

    Attributes
    ----------
    x_shape : tuple of int
        ``(m, ...)``; batches of fewer images work, too.
    dtype : numpy.dtype
        Of the images: the model's.
    algorithm : {"exact", "fast"}
        The one that it was made with, of the layers that have none of their own.
    """

    def __init__(
        self, model: Layer, loss: Loss, optimizer: Optimizer, x_shape: tuple[int, ...]
    ) -> None:
        self.model, self.loss, self.optimizer, self.x_shape = model, loss, optimizer, x_shape
        self.algorithm = chosen(None)
        self.dtype = dtype_of(model)
        self._batches: OrderedDict[int, _Batch] = OrderedDict()
        self._lock = programs(model).lock
        self._batch(x_shape[0])

    @quiet
    def __call__(
        self, x: Array, y: Array, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Array]:
        """One step: forward, loss, backward, update.

        Parameters
        ----------
        x : ndarray (m, ...)
            At most as many images as were planned.
        y : array
            Labels, as the loss wants them.
        sample_weight : array (m,), optional
            How much each image counts, as in the loss's `forward`.

        Returns
        -------
        value : float
            The loss before the update. When it is not finite, nothing is updated.
        z : ndarray
            The outputs before the update; the plan's own array, until the next call.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit, or the loss takes no weights; nothing has changed then.
        RuntimeError
            If another thread is in a step of the model.
        """
        with self._alone(x):
            return self._batch(len(x), (y, sample_weight)).run(x, y, sample_weight)

    @contextmanager
    def _alone(self, x: Array) -> Iterator[None]:
        """Images that have been checked, and no other thread in a step."""
        check_array("x", x)
        if x.dtype != self.dtype:
            raise TypeError(f"x: expected dtype {self.dtype}, got {x.dtype}")
        if x.shape[1:] != self.x_shape[1:] or x.ndim == 0 or not 1 <= len(x) <= self.x_shape[0]:
            raise ValueError(
                f"x: expected {self.x_shape}, as planned, or fewer images, got {x.shape}"
            )
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("model: another thread is in a training step of it")
        try:
            yield
        finally:
            self._lock.release()

    def _batch(self, m: int, given: tuple[Any, Any] | None = None) -> _Batch:
        """The program for `m` images, made anew if what it was made for has changed.

        `given` are labels and weights that it must be for, where that matters to the loss.
        """
        found = self._batches.get(m)
        if found is not None and given is not None:
            same = labels_form(self.loss, found.z.shape, *given) == found.form
            found = found if same else None
        if found is None or found.graph.changed():
            shape = (m, *self.x_shape[1:])
            labels = given or (None, None)
            with algorithm_of(self.algorithm):
                found = _Batch(self.model, self.loss, self.optimizer, shape, self.dtype, *labels)
            self._batches[m] = found
            while len(self._batches) > KEPT:
                self._batches.popitem(last=False)
        self._batches.move_to_end(m)
        return found

    @property
    def workspace_nbytes(self) -> int:
        """Bytes that a step of the planned size holds besides the model's own arrays."""
        return self._batch(self.x_shape[0]).program.nbytes

    @property
    def flops(self) -> int:
        """Multiplications and additions of the convolutions and dense layers of a step."""
        return self._batch(self.x_shape[0]).program.flops

    @quiet
    def profile(self, x: Array, y: Array, repeats: int = 5) -> list[Timing]:
        """Time of every operation of a step on `x` and `y`; the model stays as it is.

        Operations are run one at a time, so they take a little longer than in a step, and those
        that read what an earlier one wrote find it in the cache less often.

        Returns
        -------
        list of Timing
            With ``label``, ``seconds`` (the least of the repeats), ``flops`` and ``nbytes``.

        Examples
        --------
        >>> from fastconv import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, rng=0))
        >>> loss, sgd = nn.SoftmaxCrossEntropy(), nn.SGD(model.parameters())
        >>> step = nn.plan_step(model, loss, sgd, (8, 2, 2, 1))
        >>> rows = step.profile(np.ones((8, 2, 2, 1), np.float32), np.zeros(8, int))
        >>> [row.label for row in rows]
        ['1 Dense forward', 'loss', '1 Dense kernel gradient', '1 Dense bias gradient', 'update']
        """
        positive_int("repeats", repeats)
        with self._alone(x):
            batch, held = self._batch(len(x), (y, None)), _Held(self.model, self.optimizer)
            try:
                found: list[list[Timing]] = []
                for _ in range(repeats):
                    batch.take(x, y)
                    found.append(batch.program.profile())
                    held.restore()
            finally:
                held.restore()
        return [min(rows, key=lambda row: row.seconds) for rows in zip(*found, strict=True)]

    def __repr__(self) -> str:
        return f"StepPlan(x={self.x_shape}, {self.dtype}, {self.workspace_nbytes} bytes)"

    def __str__(self) -> str:
        program = self._batch(self.x_shape[0]).program
        rows = [(o.label, f"{o.flops:,}", f"{o.nbytes:,}") for o in program.operations]
        total = ("all", f"{program.flops:,}", f"{sum(o.nbytes for o in program.operations):,}")
        return table([("operation", "flops", "bytes"), *rows, total])


class _Held:
    """What a step changes of a model and an optimizer, as it was."""

    def __init__(self, model: Layer, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._state = optimizer.state() if hasattr(optimizer, "load_state") else None
        arrays = [p.value for p in model.parameters()] + [p.grad for p in model.parameters()]
        arrays += model.named_buffers().values()
        self._arrays = [(array, array.copy()) for array in arrays]
        self._generators = [
            (generator, generator.bit_generator.state)
            for generator in model.named_generators().values()
        ]

    def restore(self) -> None:
        """Undo the step."""
        for array, copied in self._arrays:
            array[...] = copied
        for generator, state in self._generators:
            generator.bit_generator.state = state
        if self._state is not None:
            self._optimizer.load_state(self._state)


@quiet
def plan_step(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer,
    x_shape: Sequence[int],
    *,
    algorithm: Algorithm | None = None,
) -> StepPlan:
    """Prepare a training step that will be run many times, as one program.

    `fit` and `train_step` do it themselves; by hand it saves their checks. The numbers are those of
    the layers' own passes, bit for bit. A layer, loss or optimizer of one's own is called back from
    between the parts of the program.

    Parameters
    ----------
    model, loss, optimizer
        The optimizer holds the model's parameters, which stay the arrays that they are.
    x_shape : sequence of int
        ``(m, H, W, C)``, of the largest batch.
    algorithm : {"exact", "fast"}, optional
        Of its convolutions, unless a layer has one of its own; by default that of the
        ``with fastconv.algorithm(...)`` around this call.

    Returns
    -------
    StepPlan
        ``value, z = step(x, y)``; ``print(step)`` shows its operations, ``step.profile(x, y)``
        where the time goes.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, and the layer where the images do not fit.

    Examples
    --------
    >>> from fastconv import nn
    >>> from fastconv.examples import binary_cnn
    >>> model, loss = binary_cnn(), nn.BinaryCrossEntropy()
    >>> step = nn.plan_step(model, loss, nn.SGD(model.parameters(), lr=0.1), (32, 8, 8, 1))
    >>> x, y = np.ones((32, 8, 8, 1), np.float32), np.arange(32) % 2
    >>> value, z = step(x, y)
    >>> z.shape
    (32, 1)
    """
    check_model(model)
    check_loss(loss)
    check_optimizer(optimizer, model)
    shape = images_shape(x_shape)
    with algorithm_of(chosen(algorithm)):
        check_images(model, shape, dtype_of(model), Graph())
        return StepPlan(model, loss, optimizer, shape)


def step_of(model: Layer, loss: Loss, optimizer: Optimizer, x: Any) -> StepPlan | None:
    """The kept plan of a step on batches like `x`; None where the plain passes must do it.

    That is on naive loops, and for images that do not fit: their errors are those of the layers.

    Raises
    ------
    TypeError
        If model, loss or optimizer is none.
    """
    check_model(model)
    check_loss(loss, ("forward", "backward"))
    check_stepper(optimizer)
    if type(x) is not np.ndarray or not len(x.shape) or not len(x) or x.dtype != dtype_of(model):
        return None
    if any(layer._ops is not None for _, layer in model.walk()):
        return None
    own = programs(model)
    key = (id(loss), id(optimizer), x.shape, threads.get_num_threads(), chosen(None))
    found = own.steps.get(key)
    if found is None:
        try:
            found = StepPlan(model, loss, optimizer, x.shape)
        except (ValueError, TypeError):  # raised again by the plain pass, as a user knows it
            return None
        own.steps = kept(own.steps, key, found)
    return found


def forget(model: Layer) -> None:
    """Free what `step_of` keeps for a model."""
    programs(model).steps = {}
