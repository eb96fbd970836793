"""The model of the best epoch so far, as a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, real_number
from fastconv.nn.files import new_file
from fastconv.nn.history import EarlyStopping, Row
from fastconv.nn.storage import architecture, save_model

__all__ = ["BestModel", "held_out"]


class BestModel:
    """Saves a model whenever its figure is better than in all epochs before.

    Parameters
    ----------
    path : path
    model : Layer
    rule : EarlyStopping or None
        Whose `monitor` counts; without one val_loss, or loss where nothing is validated.
    validated : bool

    Raises
    ------
    TypeError, ValueError
        If the model or the path is none that can be saved, or the figure needs validation data.
    """

    def __init__(
        self, path: Any, model: Layer, rule: EarlyStopping | None, validated: bool
    ) -> None:
        self.path = new_file("best_checkpoint", path)
        try:
            architecture(model)
        except TypeError as error:
            raise TypeError(f"best_checkpoint: {error}") from error
        self.model = model
        asked = None if rule is None else rule.monitor
        self.monitor = asked or ("val_loss" if validated else "loss")

    def update(self, row: dict[str, Any], before: list[Row]) -> None:
        """Look at a finished epoch, and at those before it."""
        value = self._value(row)
        if value < min(map(self._value, before), default=np.inf):  # not so for NaN
            save_model(self.model, self.path)

    def _value(self, row: dict[str, Any]) -> float:
        """The figure, lower is better; infinity for none and for NaN."""
        value = row[self.monitor]
        if value is None or value != value:
            return float("inf")
        return -float(value) if self.monitor.endswith("accuracy") else float(value)


def held_out(fraction: Any, images: int, seed: int) -> tuple[Array, Array]:
    """Numbers of the images to train on, and of those that are held out, both ascending.

    Examples
    --------
    >>> train, held = held_out(0.25, 8, seed=0)
    >>> len(train), len(held), len({*train.tolist(), *held.tolist()})
    (6, 2, 8)
    """
    share = real_number("validation_fraction", fraction)
    count = round(share * images)
    if not 0 < share < 1:
        raise ValueError(f"validation_fraction: must be between 0 and 1, got {fraction!r}")
    if not 0 < count < images:
        raise ValueError(
            f"validation_fraction: {fraction!r} of {images} images leaves none to "
            f"{'validate with' if count == 0 else 'train on'}"
        )
    rng = np.random.default_rng([seed, *b"validation"])
    order = rng.permutation(images)
    return np.sort(order[count:]), np.sort(order[:count])
