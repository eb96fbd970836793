"""One call of `fit`: its loop over epochs and batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from fastconv.nn import fit_arguments as arguments
from fastconv.nn import trial
from fastconv.nn.averages import ParameterAverage, averaged
from fastconv.nn.best import BestModel, held_out
from fastconv.nn.checks import Array, cut, positive_int
from fastconv.nn.clipping import clipped, limit
from fastconv.nn.container import Sequential
from fastconv.nn.feed import Batch, Batches, Cut, Feed, Preparation, feed_of, is_batches
from fastconv.nn.history import EarlyStopping, FitState, History
from fastconv.nn.keeper import Keeper
from fastconv.nn.loss import Loss
from fastconv.nn.normalisation import OneValueError
from fastconv.nn.optimizer import Optimizer
from fastconv.nn.passes import evaluated, train_step
from fastconv.nn.programs import dtype_of
from fastconv.nn.progress import progress_of
from fastconv.nn.sources import Data
from fastconv.nn.step import forget
from fastconv.nn.stopping import Stopper
from fastconv.nn.weighting import Weights

__all__ = ["Run", "Seen", "Weighted"]

Augment = Callable[..., Any]
Weighted = tuple[Array, Array, Array | None]  # images, labels, how much each counts
Seen = tuple[int, float, float | None]  # images of a step, how much they count, right ones


class Run:
    """One call of `fit`."""

    cut: Cut | None = None  # which part of each batch is this process's
    sync: bool | None = None  # whether a BatchNorm takes all processes' images; None of one process

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

    def clip(self, clip_norm: float | None, clip_value: float | None) -> None:
        """Check and keep the limits of the gradients."""
        self.limits = {
            "clip_norm": limit("clip_norm", clip_norm),
            "clip_value": limit("clip_value", clip_value),
        }
        self.stepper = clipped(self.optimizer, **self.limits)

    def weigh(self, class_weight: Any, sample_weight: Any) -> None:
        """Check and keep the weights of the images."""
        images = self.feed.images if isinstance(self.feed, Batches) else None
        self.weights = Weights(sample_weight, class_weight, self.loss, images)
        labels = self.feed.labels()
        if labels is not None:
            self.weights.check(labels)

    def hold_out(self, fraction: float, validation: Any) -> Feed:
        """Take a share of the images away, as validation data."""
        if validation is not None:
            raise ValueError("validation_fraction: validation is given, too; one of them is needed")
        if not isinstance(self.feed, Batches):
            raise ValueError(
                "validation_fraction: images that come in batches cannot be held out; give "
                "validation, or x and y as arrays"
            )
        train, held = held_out(fraction, self.feed.images, self.seed)
        parts = self.feed.part(train), self.feed.part(held)
        self.feed = parts[0]
        self.weights.part(train)
        self.state.images, self.state.steps_per_epoch = self.feed.images, self.feed.steps
        return parts[1]

    def watch(self, verbose: Any, best_checkpoint: Any) -> None:
        """Check and keep what only looks on."""
        self.best = None
        if best_checkpoint is not None:
            validated = self.validation is not None
            self.best = BestModel(best_checkpoint, self.model, self.stopper.rule, validated)
        self.progress = progress_of(verbose)
        if self.progress is not None:
            self.callbacks.append(self.progress)

    def close(self) -> None:
        """Leave the layers' modes and the terminal as they were when `fit` began."""
        self.set_modes()
        if self.progress is not None:
            self.progress.close()

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
        if self.weights.classes is not None and getattr(augment, "mixes_labels", False):
            raise ValueError(
                "class_weight: labels that augment mixes are of no one class; a loss that knows "
                "the weights takes them: nn.SoftmaxCrossEntropy(class_weight=...)"
            )
        self.callbacks = arguments.callback_list(callbacks)
        rule = arguments.early_stopping_rule(early_stopping)
        self.stopper = Stopper(rule, self.model, validation is not None)
        self._try_images()
        if self.validation is not None:
            trial.check_validation(self.model, self.loss, self.validation)

    def _validation(self, given: Any) -> Feed:
        if isinstance(given, Feed):
            feed = given
        elif isinstance(given, (tuple, list)) and len(given) == 2 and given[1] is not None:
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
        keeper = self.keeper = self._keeper(checkpoint, resume)
        self._begin(resume)
        state = self.state
        try:
            self._save()
            self._call("on_fit_begin")
            while state.epoch < state.epochs and not (state.stop or self.stopper.exhausted):
                self._epoch()
                self._call("on_epoch_end")
                self._save()
        except KeyboardInterrupt:
            keeper.save_if_due()
            raise
        except FloatingPointError as error:
            if self.stopper.finish():
                error.add_note("early_stopping: the weights are those of the best epoch again")
            raise
        finally:
            forget(self.model)  # the memory of its steps
        for callback in self.callbacks:
            if isinstance(callback, ParameterAverage):
                callback.use(self.model)
        self.stopper.finish()
        self._call("on_fit_end")
        return state.history

    def _keeper(self, checkpoint: Any, resume: bool) -> Keeper:
        if resume and checkpoint is None:
            raise ValueError("resume: needs the checkpoint to resume from, got checkpoint=None")
        return Keeper(self, checkpoint)

    def _begin(self, resume: bool) -> None:
        """Begin where the checkpoint ends, or anew."""
        if resume:
            self.keeper.load()
        else:
            self.model.reseed(self.seed)
            self.keeper.due = True

    def _save(self) -> None:
        self.keeper.save_if_due()

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
        row |= {"lr": self.optimizer.lr, "seconds": seconds}
        row["images_per_second"] = state.images_seen / max(seconds, 1e-9)
        with averaged(self.callbacks, self.model):
            self._judge(row)
        state.metrics = row
        state.history.epochs.append(row)
        self.keeper.due = True

    def _judge(self, row: dict[str, Any]) -> None:
        """Validate, and let early stopping and the best model's file see the epoch's figures."""
        if self.validation is not None:
            row["val_loss"], row["val_accuracy"] = self._validate(self.validation)
        self.stopper.update(row)
        self._keep_best(row)

    def _validate(self, feed: Feed) -> tuple[float, float | None]:
        return evaluated(self.model, self.loss, feed)

    def _keep_best(self, row: dict[str, Any]) -> None:
        if self.best is not None:
            self.best.update(row, self.state.history.epochs)

    def _batches(self) -> None:
        state = self.state
        made = self.feed.epoch(state.epoch, self.generator, self.augment, self.shuffle, self.cut)
        with closing(made) as batches:
            self._steps(batches)
        state.images, state.steps_per_epoch = self.feed.images, self.feed.steps

    def _steps(self, batches: Iterable[Batch]) -> None:
        state = self.state
        loss_sum, weight_sum, correct_sum = 0.0, 0.0, 0.0
        for x, y, weights in self._ready(batches):
            value, found = self._step(x, y, weights)
            state.step += 1
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"loss is {value} in epoch {state.epoch}, step {state.step} of "
                    f"{state.steps_per_epoch}, with {cut(repr(self.optimizer), 120)}: look for NaN "
                    f"or inf in x, or try a smaller lr"
                )
            images, weight, correct = found()
            state.images_seen += images
            loss_sum, weight_sum = loss_sum + value * weight, weight_sum + weight
            state.metrics["loss"] = loss_sum / weight_sum if weight_sum else 0.0
            state.metrics["accuracy"] = None
            if correct is not None:
                correct_sum += correct
                state.metrics["accuracy"] = correct_sum / state.images_seen
            self._call("on_batch_end")

    def _ready(self, batches: Iterable[Batch]) -> Iterator[Weighted]:
        """The batches with their weights; the first is tried before, if no image has been yet."""
        for x, y, chosen in batches:
            if not self.tried:
                self._try_augmented(x, y)
            yield x, y, self.weights.of(y, chosen)

    def _step(self, x: Array, y: Array, weights: Array | None) -> tuple[float, Callable[[], Seen]]:
        """One step: its loss, and what gives its images, their weight and how many are right."""
        value, z = train_step(self.model, self.loss, self.stepper, x, y, weights)

        def seen() -> Seen:
            weight = float(len(x)) if weights is None else float(weights.sum())
            return len(x), weight, self.loss.correct(z, y)

        return value, seen

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
