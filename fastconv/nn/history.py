"""What `fit` records and what it shows to callbacks."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

from fastconv import _html
from fastconv.nn.base import Layer
from fastconv.nn.checks import positive_int, real_number

if TYPE_CHECKING:
    from fastconv.nn.loss import Loss
    from fastconv.nn.optimizer import Optimizer

Row = dict[str, float | None]


@dataclass(repr=False)
class History:
    """One dictionary per finished epoch.

    Keys: epoch (from 1), loss, accuracy, val_loss, val_accuracy, lr, seconds, images_per_second.
    Loss and accuracy are means over the epoch's images, each taken before its step. A value that
    does not exist (no validation data, a regression's accuracy) is None.

    Attributes
    ----------
    epochs : list of dict

    Examples
    --------
    >>> history = History()
    >>> history.epochs.append({"epoch": 1, "loss": 0.5, "val_loss": None})
    >>> history.best_epoch
    1
    >>> [row["loss"] for row in history]
    [0.5]
    """

    epochs: list[Row] = field(default_factory=list)

    @property
    def best_epoch(self) -> int | None:
        """Epoch (from 1) with the lowest val_loss, or the lowest loss without validation.

        NaN is never the lowest; where there is nothing else, there is no best epoch (None).
        """
        if not self.epochs:
            return None
        key = "loss" if self.epochs[-1].get("val_loss") is None else "val_loss"
        rows: list[dict[str, Any]] = [*self.epochs]
        rows = [row for row in rows if row[key] is not None and row[key] == row[key]]
        return int(min(rows, key=lambda row: row[key])["epoch"]) if rows else None

    @overload
    def __getitem__(
        self, key: Literal["epoch", "loss", "lr", "seconds", "images_per_second"]
    ) -> list[float]: ...

    @overload
    def __getitem__(self, key: str) -> list[float | None]: ...

    @overload
    def __getitem__(self, key: int) -> Row: ...

    def __getitem__(self, key: str | int) -> list[Any] | Row:
        """One figure of all epochs, by its name, or all figures of one epoch, by its index."""
        if isinstance(key, str):
            return [row[key] for row in self.epochs]
        return self.epochs[key]

    def __iter__(self) -> Iterator[Row]:
        """The epochs' rows, so that ``pandas.DataFrame(history)`` is the table of the run."""
        return iter(self.epochs)

    def __len__(self) -> int:
        return len(self.epochs)

    def __repr__(self) -> str:
        if not self.epochs:
            return "<History: no epoch>"
        last = self.epochs[-1]
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        figures = [f"{name} {last[name]:.4g}" for name in names if last.get(name) is not None]
        epochs = f"{len(self)} epoch{'s' * (len(self) > 1)}"
        return f"<History: {', '.join([epochs, *figures])}>"

    def _repr_html_(self) -> str:
        """The curves of loss and accuracy."""
        drawn = [
            _html.curve(
                name, {key: [row.get(key) for row in self.epochs] for key in keys}, (380, 200)
            )
            for name, keys in (
                ("loss", ("loss", "val_loss")),
                ("accuracy", ("accuracy", "val_accuracy")),
            )
        ]
        title = f"<div><b>{html.escape(repr(self).strip('<>'))}</b></div>"
        return f"{title}<div>{' '.join(drawn)}</div>"


@dataclass
class FitState:
    """What callbacks see. They may set `stop`, or `optimizer.lr`.

    Attributes
    ----------
    model, loss, optimizer
        As given to `fit`.
    epochs : int
        Number of epochs asked for.
    epoch : int
        The running (then the last finished) epoch, from 1; 0 before the first.
    step, steps_per_epoch : int
        Finished steps of this epoch, and how many it has.
    images_seen, images : int
        Images trained on in this epoch, and how many it has. Of batches that are given one by one
        `images`, and without a length `steps_per_epoch`, are 0 until the first epoch has ended.
    metrics : dict
        Running loss and accuracy; after the epoch its whole row of the history.
    history : History
    stop : bool
        Set it to True to end the training after this epoch.
    """

    model: Layer
    loss: Loss
    optimizer: Optimizer
    epochs: int
    steps_per_epoch: int
    images: int
    history: History = field(default_factory=History)
    epoch: int = 0
    step: int = 0
    images_seen: int = 0
    metrics: Row = field(default_factory=dict)
    stop: bool = False


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a figure has not improved for `patience` epochs.

    Parameters
    ----------
    patience : int
        Epochs without improvement before the training ends.
    monitor : str, optional
        "loss", "accuracy", "val_loss" or "val_accuracy"; None means val_loss where there is
        validation data, else loss.
    min_delta : float
        What counts as improvement.
    restore_best : bool
        Whether the model ends with the weights of its best epoch.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> EarlyStopping(patience=3).restore_best
    True
    """

    patience: int = 5
    monitor: str | None = None
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        positive_int("patience", self.patience)
        real_number("min_delta", self.min_delta, minimum=0.0)
        legal = (None, "loss", "accuracy", "val_loss", "val_accuracy")
        if self.monitor not in legal:
            raise ValueError(f"monitor: must be one of {legal}, got {self.monitor!r}")
