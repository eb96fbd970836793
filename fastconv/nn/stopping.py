"""Early stopping as a state machine: the rule is the user's, the state belongs to one run."""

from __future__ import annotations

import math
from typing import Any

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array
from fastconv.nn.history import EarlyStopping
from fastconv.nn.storage import model_arrays


class Stopper:
    """Follows one figure over the epochs and keeps the best weights.

    Parameters
    ----------
    rule : EarlyStopping or None
        None never stops.
    model : Layer
    validated : bool
        Whether there is validation data.
    """

    def __init__(self, rule: EarlyStopping | None, model: Layer, validated: bool) -> None:
        self.rule = rule
        self.model = model
        self.best: float | None = None
        self.waited = 0
        self._best_arrays: dict[str, Array] = {}
        if rule is None:
            return
        self.monitor = rule.monitor or ("val_loss" if validated else "loss")
        if self.monitor.startswith("val_") and not validated:
            raise ValueError(f"early_stopping: {self.monitor} needs validation data")

    @property
    def exhausted(self) -> bool:
        """Whether the patience is used up."""
        return self.rule is not None and self.waited >= self.rule.patience

    def update(self, row: dict[str, Any]) -> None:
        """Look at a finished epoch's figures."""
        if self.rule is None:
            return
        value = row[self.monitor]
        if value is None:
            raise ValueError(f"early_stopping: the loss has no {self.monitor}")
        value = -value if self.monitor.endswith("accuracy") else value  # lower is better
        limit = math.inf if self.best is None else self.best - self.rule.min_delta
        if not value < limit:  # NaN and infinity are no improvement, in the first epoch neither
            self.waited += 1
            return
        self.best, self.waited = value, 0
        if self.rule.restore_best:
            arrays = model_arrays(self.model)
            self._best_arrays = {name: array.copy() for name, array in arrays.items()}

    def finish(self) -> bool:
        """Put the best weights back, if the rule says so and there are any."""
        for name, array in model_arrays(self.model).items():
            if name in self._best_arrays:
                array[...] = self._best_arrays[name]
        return bool(self._best_arrays)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps besides `arrays`."""
        return {"best": self.best, "waited": self.waited}

    def arrays(self) -> dict[str, Array]:
        """The best weights so far, under the names they have in a checkpoint."""
        return {f"best/{name}": array for name, array in self._best_arrays.items()}

    def load(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Restore what `state` and `arrays` returned."""
        self.best, self.waited = state["best"], state["waited"]
        if self.best is not None and math.isnan(self.best):
            self.best = None  # kept by a version that took NaN for the best epoch
            return
        self._best_arrays = {
            name.removeprefix("best/"): array
            for name, array in arrays.items()
            if name.startswith("best/")
        }
