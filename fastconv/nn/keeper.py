"""The checkpoint of a run of `fit`: what it compares, keeps and restores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.nn import identity
from fastconv.nn.checkpoint import Checkpoint, capture, load_checkpoint, restore, save_checkpoint
from fastconv.nn.checks import LONGEST, Array, cut
from fastconv.nn.describe import describe
from fastconv.nn.feed import Batches
from fastconv.nn.files import new_file
from fastconv.plans.algorithm import chosen

if TYPE_CHECKING:
    from fastconv.nn.run import Run

__all__ = ["Keeper"]

# The setting of `fit` that one process does not have.
SYNC = "sync_batch_norm"


class Keeper:
    """Writes and reads the checkpoint of a run.

    Parameters
    ----------
    run : Run
        Whose arguments are all checked.
    path : path, or None
        Without one nothing is written.

    Attributes
    ----------
    due : bool
        Whether the state has changed since it was written.
    """

    due = False

    def __init__(self, run: Run, path: Any) -> None:
        self.run = run
        self.path: Any = None if path is None else new_file("checkpoint", path)
        self.settings = {} if path is None else self.describe()

    def describe(self) -> dict[str, Any]:
        """Everything that must be equal for a resumed run to be the same run."""
        validation, model = self.run.validation, self.run.model
        settings = {
            "form": 2,
            "model": identity.model_identity(model, self.run.written),
            "loss": identity.loss_identity(self.run.loss, model, self.run.written),
            "optimizer": identity.optimizer_identity(self.run.optimizer, model),
            "data": describe(self.run.feed.identity()),
            "validation": None if validation is None else describe(validation.identity()),
            "scale": self.run.prepared.scale,
            "transform": describe(self.run.prepared.transform, model),
            "batch_size": self.run.batch_size,
            "shuffle": self.run.shuffle,
            "seed": self.run.seed,
            "algorithm": chosen(None),
            "augment": describe(self.run.augment, model),
            "early_stopping": describe(self.run.stopper.rule, model),
            "callbacks": [describe(callback, model) for callback in self._comparable()],
            **({} if self.run.sync is None else {SYNC: self.run.sync}),
            **self.run.limits,
            **self.run.weights.identity(),
        }
        return identity.as_json(settings)

    def _as_data_were(self, before: dict[str, Any]) -> dict[str, Any]:
        """The settings, the data told as a checkpoint does: all of them, or a sample."""
        now = dict(self.settings)
        for key, feed in (("data", self.run.feed), ("validation", self.run.validation)):
            text = before.get(key)
            if isinstance(text, str) and isinstance(feed, Batches):
                sampled = text.startswith("sample")
                if sampled != now[key].startswith("sample"):
                    now[key] = feed.identity(sampled)
        return now

    def _comparable(self) -> list[Any]:
        """Callbacks with `settings()`; the others only look on: a progress bar may come and go."""
        return [c for c in self.run.callbacks if callable(getattr(c, "settings", None))]

    def _with_state(self) -> dict[str, Any]:
        """Callbacks that learn on the way, by the prefix of their arrays in a checkpoint."""
        found = {f"callback{i}/": callback for i, callback in enumerate(self._comparable())}
        return {k: c for k, c in found.items() if hasattr(c, "state") and hasattr(c, "load_state")}

    def _callback_arrays(self) -> dict[str, Array]:
        if not self.run.state.epoch:  # they begin with on_fit_begin
            return {}
        return {
            f"{prefix}{name}": np.asarray(array)
            for prefix, callback in self._with_state().items()
            for name, array in callback.state().items()
        }

    def save_if_due(self) -> None:
        """Write the state, if it has changed since it was written."""
        if not self.due or self.path is None:
            return
        save_checkpoint(self.path, self.state())
        self.due = False

    def state(self) -> Checkpoint:
        """The run as it is now."""
        random: dict[str, Any] = {"fit": self.run.generator.bit_generator.state}
        arrays = capture(self.run.model, self.run.optimizer, random)
        return Checkpoint(
            epoch=self.run.state.epoch,
            settings=self.settings,
            history=self.run.state.history.epochs,
            random=random,
            stopping=self.run.stopper.state(),
            arrays=arrays | self.run.stopper.arrays() | self._callback_arrays(),
        )

    def load(self) -> None:
        """Put the run where the checkpoint left it; an error if it belongs to another."""
        found = load_checkpoint(self.path)
        # older checkpoints know of no algorithm but the exact one
        before, now = {"algorithm": "exact", **found.settings}, self._as_data_were(found.settings)
        if "form" not in before:
            now = identity.old_form(
                now, self.run.state, self.run.augment, self.run.stopper.rule, self._comparable()
            )
            before = identity.as_old_form(before)
        if not (SYNC in before and SYNC in now):  # one process has all images: it takes either
            before.pop(SYNC, None)
            now.pop(SYNC, None)
        if wrong := identity.differences(before, now):
            name = str(self.path)
            name = name if len(name) <= 100 else self.path.name
            text = f"resume: {name} belongs to another run: " + "; ".join(wrong)
            raise ValueError(cut(text, LONGEST))
        self.put(found)

    def put(self, found: Checkpoint) -> None:
        """Put the run where a checkpoint says."""
        restore(found, self.run.model, self.run.optimizer, self.run.generator)
        self.run.stopper.load(found.stopping, found.arrays)
        for prefix, callback in self._with_state().items() if found.epoch else ():
            arrays = {k.removeprefix(prefix): a for k, a in found.arrays.items()
                      if k.startswith(prefix)}  # fmt: skip
            callback.load_state(arrays)
        self.run.state.epoch = found.epoch
        self.run.state.history.epochs[:] = found.history
