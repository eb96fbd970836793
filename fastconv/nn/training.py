"""The training loop."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.nn import fit_arguments as arguments
from fastconv.nn import identity, trial
from fastconv.nn.base import Layer
from fastconv.nn.checkpoint import Checkpoint, capture, load_checkpoint, restore, save_checkpoint
from fastconv.nn.checks import LONGEST, Array, cut, positive_int, quiet
from fastconv.nn.container import Sequential, predict
from fastconv.nn.describe import describe
from fastconv.nn.feed import Batch, Batches, Feed, Preparation, feed_of, is_batches
from fastconv.nn.history import EarlyStopping, FitState, History
from fastconv.nn.losses import Loss
from fastconv.nn.normalisation import OneValueError
from fastconv.nn.optimizers import Optimizer
from fastconv.nn.programs import dtype_of
from fastconv.nn.sources import Data
from fastconv.nn.step import forget, step_of
from fastconv.nn.stopping import Stopper

Augment = Callable[..., Any]
Transform = Callable[[Array], Array]


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
    model: Sequential,
    loss: Loss,
    x: Data,
    y: Data | None = None,
    batch_size: int = 256,
    *,
    scale: float | None = None,
    transform: Transform | None = None,
) -> tuple[float, float | None]:
    """Loss and accuracy (None where the loss has none) on data, in evaluation mode.

    Neither the model nor the loss changes: it may be called while another thread trains them.

    Parameters
    ----------
    model, loss
        As in `fit`.
    x, y : ndarray (m, ...), or read like one
        Images and labels; or an iterable of batches (x, y), and None. Images are read a few
        batches at a time, the network's outputs for all of them are kept.
    batch_size : int
        How many images go through the network at a time.
    scale, transform
        As in `fit`.

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
    batch_size = positive_int("batch_size", batch_size)
    prepare = Preparation(scale, transform, dtype_of(model))
    return _evaluated(model, loss, feed_of(("x", "y"), x, y, batch_size, 1, prepare))


def _evaluated(model: Layer, loss: Loss, feed: Feed) -> tuple[float, float | None]:
    z, y = _outputs(model, feed)
    loss = copy.copy(loss)  # its forward keeps what backward needs: in the copy
    correct = loss.correct(z, y)
    value = loss.forward(z, y)
    return value, None if correct is None else correct / len(z)


def _outputs(model: Layer, feed: Feed) -> tuple[Array, Array]:
    """The network's outputs for all images of a feed, and their labels."""
    run = model.predict if isinstance(model, Sequential) else partial(predict, model)
    if isinstance(feed, Batches):
        made = feed.prepare
        options = {"scale": made.scale, "transform": made.transform} if made.active else {}
        return run(feed.x.given, feed.batch_size, **options), feed.y.whole()
    pairs = []
    with closing(feed.epoch(1, None, None, False)) as batches:
        for x, y, _ in batches:
            pairs.append((run(x), y))
    z, labels = zip(*pairs, strict=True)
    return np.concatenate(z), np.concatenate(labels)


@quiet
def fit(
    model: Sequential,
    loss: Loss,
    optimizer: Optimizer,
    x: Data,
    y: Data | None = None,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    validation: tuple[Data, Data] | Iterable[Any] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    scale: float | None = None,
    transform: Transform | None = None,
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
        The optimizer must hold the model's parameters. Layers that are in evaluation mode stay in
        it: ``model.layers[1].eval()`` freezes the statistics of a BatchNorm, or switches a Dropout
        off. A model that is in evaluation mode as a whole is an error.
    x : ndarray (m, ...), or read like one
        Images of the model's dtype; of another one with `scale` or `transform`. Whatever has
        ``shape``, ``dtype`` and ``[...]`` is read as needed, a few batches at a time: `np.memmap`,
        arrays of zarr and h5py, a folder that is read lazily. In files of chunks, chunks of few
        images are read fastest in random order. Or an iterable of batches (x, y), then without
        `y`; it is iterated once an epoch, in its own order and sizes, and a method
        ``set_epoch(epoch)`` of it is called before.
    y : ndarray (m,) or (m, ...), or read like one
        Labels as the loss wants them.
    epochs, batch_size : int
        The last batch of an epoch may be smaller.
    validation : (x, y), optional
        Evaluated after each epoch. Or an iterable of batches that is no list or tuple.
    shuffle : bool
        Whether each epoch takes the images in a new random order.
    seed : int
        Seed of the order, of `augment` and of the layers that were made without a seed (Dropout).
        The same seed, data and model give the same weights, bit for bit.
    scale : float, optional
        Images are converted to the model's dtype and multiplied by it: 1/255 for bytes.
    transform : callable, optional
        ``transform(x) -> x`` of each batch, after `scale`, also of `validation`: floats come back.
    augment : callable, optional
        ``augment(x, rng) -> x`` for each training batch; one with a true attribute `mixes_labels`
        is called as ``augment(x, rng, y) -> x, y``. Reading, `transform` and `augment` run in a
        thread of their own, up to three batches ahead of the training.
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
        `epochs` may be larger than it was; everything else must be equal: data (of those that
        are read as needed, 64 images spread over them; of batches, their class, shapes and
        `settings()`), `scale`, `transform`, layers, loss, optimizer and `augment`, by class,
        attributes and (of functions, and of classes of your own) code. An object with a method
        `settings()` is compared by what that returns.

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
    options: dict[str, Any] = {"batch_size": batch_size, "shuffle": bool(shuffle), "seed": seed}
    options |= {"scale": scale, "transform": transform}
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
        x: Data,
        y: Data | None,
        epochs: int,
        options: dict[str, Any],
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        arguments.check_trains(model)
        arguments.check_loss(loss)
        arguments.check_optimizer(optimizer, model)
        self.batch_size = positive_int("batch_size", options["batch_size"])
        self.seed = positive_int("seed", options["seed"], minimum=0)
        self.shuffle = options["shuffle"]
        self.epochs = positive_int("epochs", epochs, minimum=0)
        self.prepared = Preparation(options["scale"], options["transform"], dtype_of(model))
        self.feed = self._feed(("x", "y"), x, y)
        steps, images = self.feed.steps, self.feed.images
        self.state = FitState(model, loss, optimizer, self.epochs, steps, images)
        self.generator = np.random.default_rng(self.seed)
        self.modes = [(layer, layer.training) for _, layer in model.walk()]
        self.written: trial.Written = {}

    def _feed(self, names: tuple[str, str], x: Any, y: Any) -> Feed:
        return feed_of(names, x, y, self.batch_size, self.epochs, self.prepared)

    def prepare(
        self,
        validation: Any,
        augment: Augment | None,
        early_stopping: EarlyStopping | int | None,
        callbacks: Iterable[Any],
    ) -> None:
        """Check and keep the rest of `fit`'s arguments."""
        self.validation = None if validation is None else self._validation(validation)
        arguments.check_augment(augment)
        self.augment = augment
        self.callbacks = arguments.callback_list(callbacks)
        rule = arguments.early_stopping_rule(early_stopping)
        self.stopper = Stopper(rule, self.model, validation is not None)
        self._try_images()
        if self.validation is not None:
            trial.check_validation(self.model, self.loss, self.validation)

    def _validation(self, given: Any) -> Feed:
        if isinstance(given, (tuple, list)) and len(given) == 2 and given[1] is not None:
            feed = self._feed(("validation x", "validation y"), *given)
        elif is_batches(given) and not isinstance(given, (tuple, list)):
            feed = self._feed(("validation", "validation y"), given, None)
        else:
            raise ValueError("validation: a pair (x, y) is needed")
        if isinstance(feed, Batches) and not feed.x.stored:  # else a few batches are in memory
            feed.batch_size = max(self.batch_size, 256)
        return feed

    def _try_images(self) -> None:
        """Try the smallest batch; with `augment`, which may change the images' size, try later."""
        self.tried = False
        x, y = self.feed.sample()
        try:
            z, self.written = trial.try_forward(self.model, x)
        except (ValueError, TypeError) as error:
            if self.augment is not None:
                return
            if isinstance(error, OneValueError) and isinstance(self.feed, Batches):
                raise trial.one_value(error, self.state.images, self.batch_size) from error
            raise
        if getattr(self.augment, "mixes_labels", False):
            return
        self._try_labels(z, y)
        self.tried = True

    def _try_labels(self, z: Array, y: Array) -> None:
        mixed = getattr(self.augment, "mixes_labels", False)
        labels = None if mixed else self.feed.labels()
        trial.check_labels(self.loss, z, y if labels is None else labels, "y")
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
            found = _evaluated(self.model, self.loss, self.validation)
            row["val_loss"], row["val_accuracy"] = found
        row |= {"lr": self.optimizer.lr, "seconds": seconds}
        row["images_per_second"] = state.images_seen / max(seconds, 1e-9)
        state.metrics = row
        self.stopper.update(row)
        state.history.epochs.append(row)
        self.due = self.checkpoint is not None

    def _batches(self) -> None:
        state = self.state
        made = self.feed.epoch(state.epoch, self.generator, self.augment, self.shuffle)
        with closing(made) as batches:
            self._steps(batches)
        state.images, state.steps_per_epoch = self.feed.images, self.feed.steps

    def _steps(self, batches: Iterable[Batch]) -> None:
        state = self.state
        loss_sum, correct_sum = 0.0, 0
        for x, y, _ in batches:
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
        last = self.state.images % self.batch_size or len(x)
        try:
            z, _ = trial.try_forward(self.model, x[:last])
        except OneValueError as error:
            if not isinstance(self.feed, Batches):
                raise
            raise trial.one_value(error, self.state.images, self.batch_size) from error
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
            "data": describe(self.feed.identity()),
            "validation": None if validation is None else describe(validation.identity()),
            "scale": self.prepared.scale,
            "transform": describe(self.prepared.transform, model),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "augment": describe(self.augment, model),
            "early_stopping": describe(self.stopper.rule, model),
            "callbacks": [describe(callback, model) for callback in self._comparable()],
        }
        return identity.as_json(settings)

    def _as_data_were(self, before: dict[str, Any]) -> dict[str, Any]:
        """The settings, the data told as a checkpoint does: all of them, or a sample."""
        now = dict(self.settings)
        for key, feed in (("data", self.feed), ("validation", self.validation)):
            text = before.get(key)
            if isinstance(text, str) and isinstance(feed, Batches):
                sampled = text.startswith("sample")
                if sampled != now[key].startswith("sample"):
                    now[key] = feed.identity(sampled)
        return now

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
        before, now = found.settings, self._as_data_were(found.settings)
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
