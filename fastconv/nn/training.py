"""The training loop."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.nn import fit_arguments as arguments
from fastconv.nn import identity, trial
from fastconv.nn.base import Layer
from fastconv.nn.checkpoint import Checkpoint, capture, load_checkpoint, restore, save_checkpoint
from fastconv.nn.checks import LONGEST, Array, cut, positive_int, quiet
from fastconv.nn.container import Sequential, predict
from fastconv.nn.describe import describe, fingerprint
from fastconv.nn.history import EarlyStopping, FitState, History
from fastconv.nn.losses import Loss
from fastconv.nn.normalisation import OneValueError
from fastconv.nn.optimizers import Optimizer
from fastconv.nn.step import forget, step_of
from fastconv.nn.stopping import Stopper
from fastconv.plans.algorithm import algorithm as algorithm_of
from fastconv.plans.algorithm import chosen
from fastconv.typing import Algorithm

Augment = Callable[[Array, np.random.Generator], Array]


@quiet
def train_step(
    model: Layer, loss: Loss, optimizer: Optimizer, x: Array, y: Array
) -> tuple[float, Array]:
    """One step on one batch: forward, loss, backward, update.

    Parameters
    ----------
    model, loss, optimizer
        As in `fit`.
    x, y : ndarray (m, ...)
        Images and labels of the batch.

    Returns
    -------
    value : float
        The loss before the update. When it is not finite, nothing is updated.
    z : ndarray
        The network's outputs before the update.

    Raises
    ------
    TypeError, ValueError
        Naming the layer or the argument; the parameters are as before.

    Examples
    --------
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x, y = np.ones((6, 2, 2, 1), np.float32), np.array([0, 1, 0, 1, 0, 0])
    >>> value, z = train_step(model, nn.SoftmaxCrossEntropy(), nn.SGD(model.parameters()), x, y)
    >>> round(value, 4), z.shape
    (0.6931, (6, 2))
    """
    step = step_of(model, loss, optimizer, x)
    if step is not None:
        value, z = step(x, y)
        return value, z.copy()
    z = model.forward(x)
    value = loss.forward(z, y)
    if math.isfinite(value):
        model.backward_parameters(loss.backward())
        optimizer.step()
    return value, z


@quiet
def evaluate(
    model: Sequential, loss: Loss, x: Array, y: Array, batch_size: int = 256
) -> tuple[float, float | None]:
    """Loss and accuracy (None where the loss has none) on data, in evaluation mode.

    Neither the model nor the loss changes: it may be called while another thread trains them.

    Parameters
    ----------
    model, loss
        As in `fit`.
    x, y : ndarray (m, ...)
        Images and labels.
    batch_size : int
        How many images go through the network at a time.

    Returns
    -------
    loss, accuracy : float
        Of all images; the accuracy is a share.

    Raises
    ------
    ValueError, TypeError
        Naming the argument; also where there is no image.

    Examples
    --------
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x, y = np.ones((6, 2, 2, 1), np.float32), np.array([0, 1, 0, 1, 0, 0])
    >>> nn.evaluate(model, nn.SoftmaxCrossEntropy(), x, y)[1]
    0.6666666666666666
    """
    arguments.check_model(model)
    arguments.check_loss(loss)
    x, y = arguments.check_data("x", "y", x, y)
    whole = isinstance(model, Sequential)
    z = model.predict(x, batch_size) if whole else predict(model, x, batch_size)
    loss = copy.copy(loss)  # its forward keeps what backward needs: in the copy
    correct = loss.correct(z, y)
    value = loss.forward(z, y)
    return value, None if correct is None else correct / len(z)


@quiet
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
    algorithm: Algorithm | None = None,
) -> History:
    """Train a model.

    Parameters
    ----------
    model, loss, optimizer
        The optimizer must hold the model's parameters. Layers that are in evaluation mode stay in
        it: ``model.layers[1].eval()`` freezes the statistics of a BatchNorm, or switches a Dropout
        off. A model that is in evaluation mode as a whole is an error.
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
        Seed of the order, of `augment` and of the layers that were made without a seed (Dropout).
        The same seed, data and model give the same weights, bit for bit.
    augment : callable, optional
        `augment(x, rng) -> x` for each training batch.
    early_stopping : EarlyStopping or int, optional
        An int is the patience.
    callbacks : iterable of objects
        Any of the methods on_fit_begin, on_epoch_begin, on_batch_end, on_epoch_end, on_fit_end,
        each called with the `FitState`. One that influences the training should have a method
        `settings()`, which a resumed run compares, and no state of its own.
    checkpoint : path, optional
        Written before the first epoch and after every one (after on_epoch_end).
    resume : bool
        Continue from `checkpoint`. The result is bit for bit that of an uninterrupted run.
        `epochs` may be larger than it was; everything else must be equal: data, layers, loss,
        optimizer and `augment`, by class, attributes and (of functions, and of classes of your
        own) code. An object with a method `settings()` is compared by what that returns.
    algorithm : {"exact", "fast"}, optional
        Of the convolutions, unless a layer has one of its own; by default that of the
        ``with fastconv.algorithm(...)`` around this call. A resumed run compares it.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before the first step; also for a resume with other settings, and
        where a BatchNorm would see one value per channel in the last batch.
    FloatingPointError
        If the loss is not finite, with epoch and step. With early stopping the weights are those of
        the best epoch. Nothing else raises it, whatever `numpy.seterr` says.
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
    arguments.check_model(model)
    options = {"batch_size": batch_size, "shuffle": bool(shuffle), "seed": seed}
    with algorithm_of(chosen(algorithm)):
        run = _Run(model, loss, optimizer, x, y, epochs, options)
        run.prepare(validation, augment, early_stopping, callbacks)
        try:
            return run.train(checkpoint, resume)
        finally:
            run.set_modes()


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
        arguments.check_trains(model)
        arguments.check_loss(loss)
        arguments.check_optimizer(optimizer, model)
        self.x, self.y = arguments.check_data("x", "y", x, y)
        self.batch_size = positive_int("batch_size", options["batch_size"])
        self.seed = positive_int("seed", options["seed"], minimum=0)
        self.shuffle = options["shuffle"]
        epochs = positive_int("epochs", epochs, minimum=0)
        steps = -(-len(self.x) // self.batch_size)
        self.state = FitState(model, loss, optimizer, epochs, steps, len(self.x))
        self.generator = np.random.default_rng(self.seed)
        self.modes = [(layer, layer.training) for _, layer in model.walk()]
        self.written: trial.Written = {}

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
            given: Any = validation
            if not isinstance(given, (tuple, list)) or len(given) != 2:
                raise ValueError("validation: a pair (x, y) is needed")
            self.validation = arguments.check_data("validation x", "validation y", *validation)
        arguments.check_augment(augment)
        self.augment = augment
        self.callbacks = arguments.callback_list(callbacks)
        rule = arguments.early_stopping_rule(early_stopping)
        self.stopper = Stopper(rule, self.model, validation is not None)
        self._try_images()
        if self.validation is not None:
            trial.check_validation(self.model, self.loss, *self.validation)

    def _try_images(self) -> None:
        """Try the smallest batch; with `augment`, which may change the images' size, try later."""
        self.tried = False
        last = len(self.x) % self.batch_size or min(len(self.x), self.batch_size)
        try:
            z, self.written = trial.try_forward(self.model, self.x[:last])
        except (ValueError, TypeError) as error:
            if self.augment is not None:
                return
            if isinstance(error, OneValueError):
                raise trial.one_value(error, len(self.x), self.batch_size) from error
            raise
        self._try_labels(z, self.y[:last])
        self.tried = True

    def _try_labels(self, z: Array, y: Array) -> None:
        trial.check_labels(self.loss, z, self.y, "y")
        self.written |= trial.try_loss(self.loss, z, y)

    def set_modes(self) -> None:
        """Put every layer into the mode, training or evaluation, that it had when `fit` began."""
        for layer, mode in self.modes:
            layer.training = mode

    def train(self, checkpoint: Any, resume: bool) -> History:
        """All epochs, with a checkpoint around each."""
        self.checkpoint = checkpoint
        if resume and checkpoint is None:
            raise ValueError("resume: needs the checkpoint to resume from, got checkpoint=None")
        self.settings = {} if checkpoint is None else self._describe()
        if resume:
            self._load()
        else:
            self.model.reseed(self.seed)
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
        except FloatingPointError as error:
            if self.stopper.finish():
                error.add_note("early_stopping: the weights are those of the best epoch again")
            raise
        finally:
            forget(self.model)  # the memory of its steps
        self.stopper.finish()
        self._call("on_fit_end")
        return state.history

    def _epoch(self) -> None:
        state = self.state
        state.epoch += 1
        state.step = state.images_seen = 0
        state.metrics = {}
        self._call("on_epoch_begin")
        if not any(layer.training for _, layer in self.model.walk()):
            self.set_modes()  # a callback has evaluated the model and left it so
        start = time.perf_counter()
        self._batches()
        seconds = time.perf_counter() - start
        row = {"epoch": state.epoch, **state.metrics, "val_loss": None, "val_accuracy": None}
        if self.validation is not None:
            size = max(self.batch_size, 256)
            found = evaluate(self.model, self.loss, *self.validation, size)
            row["val_loss"], row["val_accuracy"] = found
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
            if not self.tried:
                self._try_augmented(x, y)
            value, z = train_step(self.model, self.loss, self.optimizer, x, y)
            state.step += 1
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"loss is {value} in epoch {state.epoch}, step {state.step} of "
                    f"{state.steps_per_epoch}, with {cut(repr(self.optimizer), 120)}: look for NaN "
                    f"or inf in x, or try a smaller lr"
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

    def _try_augmented(self, x: Array, y: Array) -> None:
        last = len(self.x) % self.batch_size or len(x)
        try:
            z, _ = trial.try_forward(self.model, x[:last])
        except OneValueError as error:
            raise trial.one_value(error, len(self.x), self.batch_size) from error
        self._try_labels(z, y[:last])
        self.tried = True

    def _call(self, method: str) -> None:
        for callback in self.callbacks:
            function = getattr(callback, method, None)
            if function is not None:
                function(self.state)

    # Checkpoints --------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        """Everything that must be equal for a resumed run to be the same run."""
        validation, model = self.validation, self.model
        settings = {
            "form": 2,
            "model": identity.model_identity(model, self.written),
            "loss": identity.loss_identity(self.loss, model, self.written),
            "optimizer": identity.optimizer_identity(self.optimizer, model),
            "data": fingerprint(self.x, self.y),
            "validation": None if validation is None else fingerprint(*validation),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "algorithm": chosen(None),
            "augment": describe(self.augment, model),
            "early_stopping": describe(self.stopper.rule, model),
            "callbacks": [describe(callback, model) for callback in self._comparable()],
        }
        return identity.as_json(settings)

    def _comparable(self) -> list[Any]:
        """Callbacks with `settings()`; the others only look on: a progress bar may come and go."""
        return [c for c in self.callbacks if callable(getattr(c, "settings", None))]

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
        # older checkpoints know of no algorithm but the exact one
        before, now = {"algorithm": "exact", **found.settings}, self.settings
        if "form" not in before:
            now = identity.old_form(
                now, self.state, self.augment, self.stopper.rule, self._comparable()
            )
            before = identity.as_old_form(before)
        if wrong := identity.differences(before, now):
            name = str(self.checkpoint)
            name = name if len(name) <= 100 else Path(name).name
            text = f"resume: {name} belongs to another run: " + "; ".join(wrong)
            raise ValueError(cut(text, LONGEST))
        restore(found, self.model, self.optimizer, self.generator)
        self.stopper.load(found.stopping, found.arrays)
        self.state.epoch = found.epoch
        self.state.history.epochs[:] = found.history
