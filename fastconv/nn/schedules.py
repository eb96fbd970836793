"""Schedules of the learning rate: callbacks of `fit` that set the optimizer's `lr`.

None has a state: a rate is computed from the epoch and the step, or from the history, so that a
resumed run continues the same curve. Of several, the last one in the list decides.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from fastconv.nn.checks import positive_int, real_number
from fastconv.nn.history import FitState, Row

__all__ = [
    "CosineDecay",
    "ExponentialDecay",
    "OneCycle",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
]

Per = Literal["epoch", "step"]


class Schedule:
    """A rate that depends on the epoch, or on the step, alone.

    A schedule of one's own derives from it and writes `at` and `settings`.

    Parameters
    ----------
    per : {"epoch", "step"}
        Whether the rate is set before each epoch or before each step.

    Raises
    ------
    ValueError
        If `per` is something else.

    Examples
    --------
    >>> class Halves(Schedule):
    ...     def settings(self):
    ...         return {}
    ...     def at(self, unit, units):
    ...         return 0.5 ** (unit / units)
    >>> Halves().rate(3), Halves("step").rate(3, step=0, steps=50)
    (0.25, 0.25)
    """

    def __init__(self, per: Per = "epoch") -> None:
        if per not in ("epoch", "step"):
            raise ValueError(f"per: must be 'epoch' or 'step', got {per!r}")
        self.per = per

    def settings(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        raise NotImplementedError(f"{type(self).__name__} has no settings")

    def at(self, unit: int, units: int) -> float:
        """Rate of a unit, an epoch or a step, counted from 0; an epoch has so many `units`."""
        raise NotImplementedError(f"{type(self).__name__} has no rate")

    def rate(self, epoch: int, step: int = 0, steps: int = 1) -> float:
        """Learning rate of an epoch, counted from 1, or of a step in it, counted from 0.

        Parameters
        ----------
        epoch, step : int
        steps : int
            How many steps an epoch has; only looked at by a schedule that goes by steps.
        """
        if self.per == "epoch":
            return self.at(epoch - 1, 1)
        return self.at((epoch - 1) * steps + step, steps)

    def on_epoch_begin(self, state: FitState) -> None:
        """Set the optimizer's rate for the epoch, or for its first step."""
        if self.per == "step" and not state.steps_per_epoch:
            raise ValueError(
                f"callbacks: {type(self).__name__} goes by steps, and nobody knows how many an "
                "epoch of this data has; with per='epoch' it needs no such number"
            )
        state.optimizer.lr = self.rate(state.epoch, 0, state.steps_per_epoch)

    def on_batch_end(self, state: FitState) -> None:
        """Set the rate of the next step."""
        if self.per == "step" and state.step < state.steps_per_epoch:
            state.optimizer.lr = self.rate(state.epoch, state.step, state.steps_per_epoch)


class ExponentialDecay(Schedule):
    """Callback: each epoch's learning rate is `factor` times the one before.

    It depends on the epoch alone: a resumed run continues the same curve, and may have more epochs
    than were planned.

    Parameters
    ----------
    lr : float
        Rate of the first epoch.
    factor : float in (0, 1]

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> ExponentialDecay(0.1, 0.5).rate(3)
    0.025
    """

    def __init__(self, lr: float, factor: float) -> None:
        super().__init__()
        self.lr = real_number("lr", lr, minimum=0.0)
        self.factor = _factor(factor)

    def settings(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        return {"lr": self.lr, "factor": self.factor}

    def at(self, unit: int, units: int) -> float:
        """Rate of an epoch, counted from 0."""
        rate: float = self.lr * self.factor**unit
        return rate


class StepDecay(Schedule):
    """Callback: after every `every` epochs the learning rate is multiplied by `factor`.

    Parameters
    ----------
    lr : float
        Rate of the first epochs.
    every : int
        Epochs between two changes.
    factor : float in (0, 1]

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> schedule = StepDecay(0.1, every=2, factor=0.5)
    >>> [schedule.rate(epoch) for epoch in (1, 2, 3, 4, 5)]
    [0.1, 0.1, 0.05, 0.05, 0.025]
    """

    def __init__(self, lr: float, every: int, factor: float) -> None:
        super().__init__()
        self.lr = real_number("lr", lr, minimum=0.0)
        self.every = positive_int("every", every)
        self.factor = _factor(factor)

    def settings(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        return {"lr": self.lr, "every": self.every, "factor": self.factor}

    def at(self, unit: int, units: int) -> float:
        """Rate of an epoch, counted from 0."""
        rate: float = self.lr * self.factor ** (unit // self.every)
        return rate


class CosineDecay(Schedule):
    """Callback: the rate falls from `lr` to 0 along half a cosine, after a linear warm-up.

    With t epochs (or parts of one, per step) gone and T = epochs - warmup, the rate is
    ``lr * (1 + cos(pi * (t - warmup) / T)) / 2``: Loshchilov and Hutter 2017, without restarts.
    During the warm-up it grows by equal amounts up to `lr`. Behind the last epoch it stays 0.

    Parameters
    ----------
    lr : float
        The highest rate.
    epochs : int
        Length of the curve, the warm-up included: usually `fit`'s `epochs`.
    warmup : int
        Epochs in which the rate grows, less than `epochs`.
    per : {"epoch", "step"}
        Whether the rate changes with every epoch or with every step.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> schedule = CosineDecay(0.1, epochs=6, warmup=2)
    >>> [round(schedule.rate(epoch), 4) for epoch in range(1, 7)]
    [0.05, 0.1, 0.1, 0.0854, 0.05, 0.0146]
    """

    def __init__(self, lr: float, epochs: int, warmup: int = 0, *, per: Per = "epoch") -> None:
        super().__init__(per)
        self.lr = real_number("lr", lr, minimum=0.0)
        self.epochs = positive_int("epochs", epochs)
        self.warmup = positive_int("warmup", warmup, minimum=0)
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: must be less than epochs={self.epochs}, got {warmup!r}")

    def settings(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        return {"lr": self.lr, "epochs": self.epochs, "warmup": self.warmup, "per": self.per}

    def at(self, unit: int, units: int) -> float:
        """Rate of an epoch or a step, counted from 0."""
        first, last = self.warmup * units, self.epochs * units
        if unit < first:
            return self.lr * (unit + 1) / first
        return _along_cosine(self.lr, 0.0, (unit - first) / (last - first))


class OneCycle(Schedule):
    """Callback: up to `lr` and down again to nearly nothing, in one cycle: Smith and Topin 2018.

    The first `rise` of all steps lead from ``lr / 25`` to `lr`, the others from there to
    ``lr / 250000``, both along half a cosine: the curve of PyTorch's ``OneCycleLR``. The momentum
    stays what it is.

    Parameters
    ----------
    lr : float
        The highest rate.
    epochs : int
        Length of the cycle: usually `fit`'s `epochs`. Behind it the rate stays the last one.
    rise : float in (0, 1)
        Share of the steps on the way up.
    per : {"epoch", "step"}
        Whether the rate changes with every step or with every epoch.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> schedule = OneCycle(0.1, epochs=10)
    >>> [round(schedule.rate(epoch, 0, steps=5), 4) for epoch in (1, 3, 4, 10)]
    [0.004, 0.0819, 0.0998, 0.0032]
    """

    def __init__(self, lr: float, epochs: int, *, rise: float = 0.3, per: Per = "step") -> None:
        super().__init__(per)
        self.lr = real_number("lr", lr, minimum=0.0)
        self.epochs = positive_int("epochs", epochs)
        self.rise = real_number("rise", rise)
        if not 0 < self.rise < 1:
            raise ValueError(f"rise: must be in (0, 1), got {rise!r}")

    def settings(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        return {"lr": self.lr, "epochs": self.epochs, "rise": self.rise, "per": self.per}

    def at(self, unit: int, units: int) -> float:
        """Rate of a step or an epoch, counted from 0."""
        steps = self.epochs * units
        top, last = max(self.rise * steps - 1, 0.0), steps - 1
        start, end = self.lr / 25, self.lr / 25 / 1e4
        if unit < top:
            return _along_cosine(start, self.lr, unit / top)
        return _along_cosine(self.lr, end, (unit - top) / (last - top) if last > top else 0.0)


class ReduceOnPlateau:
    """Callback: the rate is multiplied by `factor` where the loss no longer falls.

    It looks at val_loss where there is validation data, else at loss. After `patience` epochs in
    a row without a new lowest value the rate is reduced, and the counting begins anew.

    Parameters
    ----------
    lr : float
        Rate of the first epochs.
    factor : float in (0, 1)
    patience : int
    min_delta : float
        What counts as lower.
    min_lr : float
        The rate is never reduced below it.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> schedule = ReduceOnPlateau(0.1, factor=0.5, patience=2)
    >>> schedule.rate([{"loss": 3.0}, {"loss": 2.0}, {"loss": 2.5}, {"loss": 2.0}])
    0.05
    """

    def __init__(
        self,
        lr: float,
        factor: float = 0.5,
        patience: int = 3,
        *,
        min_delta: float = 0.0,
        min_lr: float = 0.0,
    ) -> None:
        self.lr = real_number("lr", lr, minimum=0.0)
        self.factor = _factor(factor)
        if self.factor == 1:
            raise ValueError(f"factor: must be in (0, 1), got {factor!r}")
        self.patience = positive_int("patience", patience)
        self.min_delta = real_number("min_delta", min_delta, minimum=0.0)
        self.min_lr = real_number("min_lr", min_lr, minimum=0.0)

    def settings(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        names = ("lr", "factor", "patience", "min_delta", "min_lr")
        return {name: getattr(self, name) for name in names}

    def rate(self, rows: list[Row]) -> float:
        """Rate of the epoch after those of a history."""
        rate, best, waited = self.lr, math.inf, 0
        for row in rows:
            value = row.get("val_loss")
            value = row["loss"] if value is None else value
            if value is not None and value < best - self.min_delta:
                best, waited = value, 0
                continue
            waited += 1
            if waited >= self.patience:
                rate, waited = max(rate * self.factor, min(rate, self.min_lr)), 0
        return rate

    def on_epoch_begin(self, state: FitState) -> None:
        """Set the optimizer's rate."""
        state.optimizer.lr = self.rate(state.history.epochs)


def _factor(value: Any) -> float:
    factor = real_number("factor", value, minimum=0.0)
    if not 0 < factor <= 1:
        raise ValueError(f"factor: must be in (0, 1], got {value!r}")
    return factor


def _along_cosine(start: float, end: float, share: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
