"""The training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastconv.nn.base import Array, Layer, check_array, positive_int
from fastconv.nn.checkpoint import Checkpoint, capture, load_checkpoint, restore, save_checkpoint
from fastconv.nn.container import Sequential
from fastconv.nn.history import EarlyStopping, FitState, History
from fastconv.nn.identity import as_json, differences, fingerprint, identity
from fastconv.nn.losses import Loss
from fastconv.nn.optimizers import Optimizer
from fastconv.nn.stopping import Stopper

Augment = Callable[[Array, np.random.Generator], Array]


def train_step(
    model: Layer, loss: Loss, optimizer: Optimizer, x: Array, y: Array
) -> tuple[float, Array]:
    """One step on one batch: forward, loss, backward, update.

    Returns
    -------
    value : float
        The loss before the update. When it is not finite, nothing is updated.
    z : ndarray
        The network's outputs before the update.
    """
    z = model.forward(x)
    value = loss.forward(z, y)
    if math.isfinite(value):
        model.backward_parameters(loss.backward())
        optimizer.step()
    return value, z


def evaluate(
    model: Sequential, loss: Loss, x: Array, y: Array, batch_size: int = 256
) -> tuple[float, float | None]:
    """Loss and accuracy (None where the loss has none) on data, in evaluation mode.

    Examples
    --------
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x, y = np.ones((6, 2, 2, 1), np.float32), np.array([0, 1, 0, 1, 0, 0])
    >>> nn.evaluate(model, nn.SoftmaxCrossEntropy(), x, y)[1]
    0.6666666666666666
    """
    z = model.predict(x, batch_size)
    correct = loss.correct(z, y)
    with np.errstate(over="ignore", invalid="ignore"):
        value = loss.forward(z, y)
    return value, None if correct is None else correct / len(z)


def fit(
    model: Sequential,
    loss: Loss,
    optimizer: Optimizer,
    x: Array,
    y: Array,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    validation: tuple[Array, Array] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    augment: Augment | None = None,
    early_stopping: EarlyStopping | int | None = None,
    callbacks: Iterable[Any] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> History:
    """Train a model.

    Parameters
    ----------
    model, loss, optimizer
        The optimizer must hold the model's parameters.
    x : ndarray (m, ...)
        Images of the model's dtype.
    y : ndarray (m,) or (m, ...)
        Labels as the loss wants them.
    epochs, batch_size : int
        The last batch of an epoch may be smaller.
    validation : (x, y), optional
        Evaluated after each epoch.
    shuffle : bool
        Whether each epoch takes the images in a new random order.
    seed : int
        Seed of the order and of `augment`. The same seed, data and model give the same weights,
        bit for bit.
    augment : callable, optional
        `augment(x, rng) -> x` for each training batch.
    early_stopping : EarlyStopping or int, optional
        An int is the patience.
    callbacks : iterable of objects
        Any of the methods on_fit_begin, on_epoch_begin, on_batch_end, on_epoch_end, on_fit_end,
        each called with the `FitState`. One that influences the training should have a method
        `settings()` (JSON types), which a resumed run compares, and no state of its own.
    checkpoint : path, optional
        Written before the first epoch and after every one (after on_epoch_end).
    resume : bool
        Continue from `checkpoint`. The result is bit for bit that of an uninterrupted run.
        `epochs` may be larger than it was; everything else must be equal.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        Naming the argument; also for a resume with other settings.
    FloatingPointError
        If the loss is not finite, with epoch and step.
    KeyboardInterrupt
        Passed on, after the state of the last finished epoch is on the disk.

    Examples
    --------
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1)
    >>> y = np.array([0, 0, 1, 1])
    >>> optimizer = nn.SGD(model.parameters(), lr=1.0)
    >>> history = nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y, epochs=5)
    >>> history["accuracy"][-1]
    1.0
    """
    options = {"batch_size": batch_size, "shuffle": bool(shuffle), "seed": seed}
    run = _Run(model, loss, optimizer, x, y, epochs, options)
    run.prepare(validation, augment, early_stopping, callbacks)
    modes = [(layer, layer.training) for _, layer in model.walk()]
    try:
        return run.train(checkpoint, resume)
    finally:
        for layer, mode in modes:
            layer.training = mode


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        x: Array,
        y: Array,
        epochs: int,
        options: dict[str, Any],
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.x, self.y = _check_data("x", "y", x, y, model)
        self.batch_size = positive_int("batch_size", options["batch_size"])
        self.seed = positive_int("seed", options["seed"], minimum=0)
        self.shuffle = options["shuffle"]
        epochs = positive_int("epochs", epochs, minimum=0)
        held = {id(parameter) for parameter in model.parameters()}
        if any(id(parameter) not in held for parameter in optimizer.parameters):
            raise ValueError("optimizer: it holds parameters that are not the model's")
        steps = -(-len(self.x) // self.batch_size)
        self.state = FitState(model, loss, optimizer, epochs, steps, len(self.x))
        self.generator = np.random.default_rng(self.seed)

    def prepare(
        self,
        validation: tuple[Array, Array] | None,
        augment: Augment | None,
        early_stopping: EarlyStopping | int | None,
        callbacks: Iterable[Any],
    ) -> None:
        """Check and keep the rest of `fit`'s arguments."""
        self.validation = None
        if validation is not None:
            if not isinstance(validation, (tuple, list)) or len(validation) != 2:
                raise ValueError("validation: a pair (x, y) is needed")
            self.validation = _check_data("validation x", "validation y", *validation, self.model)
        self.augment = augment
        self.callbacks = list(callbacks)
        if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
            early_stopping = EarlyStopping(positive_int("early_stopping", early_stopping))
        self.stopper = Stopper(early_stopping, self.model, validation is not None)

    def train(self, checkpoint: Any, resume: bool) -> History:
        """All epochs, with a checkpoint around each."""
        self.checkpoint = checkpoint
        if resume and checkpoint is None:
            raise ValueError("resume: needs the checkpoint to resume from, got checkpoint=None")
        self.settings = {} if checkpoint is None else self._describe()
        if resume:
            self._load()
        state = self.state
        self.due = checkpoint is not None and not resume
        try:
            self._save_if_due()
            self._call("on_fit_begin")
            while state.epoch < state.epochs and not (state.stop or self.stopper.exhausted):
                self._epoch()
                self._call("on_epoch_end")
                self._save_if_due()
        except KeyboardInterrupt:
            self._save_if_due()
            raise
        self.stopper.finish()
        self._call("on_fit_end")
        return state.history

    def _epoch(self) -> None:
        state = self.state
        state.epoch += 1
        state.step = state.images_seen = 0
        state.metrics = {}
        self._call("on_epoch_begin")
        self.model.train()
        start = time.perf_counter()
        self._batches()
        seconds = time.perf_counter() - start
        row = {"epoch": state.epoch, **state.metrics, "val_loss": None, "val_accuracy": None}
        if self.validation is not None:
            row["val_loss"], row["val_accuracy"] = evaluate(
                self.model, self.loss, *self.validation, max(self.batch_size, 256)
            )
        row |= {"lr": self.optimizer.lr, "seconds": seconds}
        row["images_per_second"] = state.images / max(seconds, 1e-9)
        state.metrics = row
        self.stopper.update(row)
        state.history.epochs.append(row)
        self.due = self.checkpoint is not None

    def _batches(self) -> None:
        state = self.state
        m = state.images
        order = self.generator.permutation(m) if self.shuffle else np.arange(m)
        loss_sum, correct_sum = 0.0, 0
        for start in range(0, m, self.batch_size):
            chosen = order[start : start + self.batch_size]
            x, y = self.x[chosen], self.y[chosen]
            if self.augment is not None:
                x = self.augment(x, self.generator)
            with np.errstate(over="ignore", invalid="ignore"):
                value, z = train_step(self.model, self.loss, self.optimizer, x, y)
            state.step += 1
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"loss is {value} in epoch {state.epoch}, step {state.step} of "
                    f"{state.steps_per_epoch}, with {self.optimizer!r}: look for NaN or inf in x, "
                    f"or try a smaller lr"
                )
            state.images_seen += len(x)
            loss_sum += value * len(x)
            correct = self.loss.correct(z, y)
            state.metrics["loss"] = loss_sum / state.images_seen
            state.metrics["accuracy"] = None
            if correct is not None:
                correct_sum += correct
                state.metrics["accuracy"] = correct_sum / state.images_seen
            self._call("on_batch_end")

    def _call(self, method: str) -> None:
        for callback in self.callbacks:
            function = getattr(callback, method, None)
            if function is not None:
                function(self.state)

    # Checkpoints --------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        """Everything that must be equal for a resumed run to be the same run."""
        validation = self.validation
        settings = {
            "model": repr(self.model),
            "loss": repr(self.loss),
            "optimizer": self.optimizer.settings,
            "data": fingerprint(self.x, self.y),
            "validation": None if validation is None else fingerprint(*validation),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "augment": None if self.augment is None else identity(self.augment),
            "early_stopping": repr(self.stopper.rule),
            # Callbacks without settings() only look on: a progress bar may come and go.
            "callbacks": [identity(c) for c in self.callbacks if hasattr(c, "settings")],
        }
        return as_json(settings)

    def _save_if_due(self) -> None:
        if not self.due:
            return
        random: dict[str, Any] = {"fit": self.generator.bit_generator.state}
        arrays = capture(self.model, self.optimizer, random)
        found = Checkpoint(
            epoch=self.state.epoch,
            settings=self.settings,
            history=self.state.history.epochs,
            random=random,
            stopping=self.stopper.state(),
            arrays=arrays | self.stopper.arrays(),
        )
        save_checkpoint(self.checkpoint, found)
        self.due = False

    def _load(self) -> None:
        found = load_checkpoint(self.checkpoint)
        wrong = differences(found.settings, self.settings)
        if wrong:
            raise ValueError(
                f"resume: {self.checkpoint} belongs to another run: " + "; ".join(wrong)
            )
        restore(found, self.model, self.optimizer, self.generator)
        self.stopper.load(found.stopping, found.arrays)
        self.state.epoch = found.epoch
        self.state.history.epochs[:] = found.history


def _check_data(x_name: str, y_name: str, x: Any, y: Any, model: Layer) -> tuple[Array, Array]:
    check_array(x_name, x, model)
    y = np.asarray(y)
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(f"{x_name}: expected (m, ...) with m of at least 1, got {x.shape}")
    if y.ndim < 1 or len(y) != len(x):
        raise ValueError(f"{y_name}: expected {len(x)} labels, one per image, got {y.shape}")
    return x, y
