"""An average of the weights over the steps of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, assign, unit_interval
from fastconv.nn.history import FitState

__all__ = ["ParameterAverage", "averaged"]


class ParameterAverage:
    """Callback: the model ends with an exponential moving average of its weights.

    After each step ``average = decay * average + (1 - decay) * value``, from the weights with
    which `fit` begins (Polyak and Juditsky 1992, in the form that forgets). The steps themselves go
    on from the plain weights. The average is what is validated, what early stopping and
    `best_checkpoint` keep, and what the model has after `fit`. Buffers, as the statistics of a
    BatchNorm, are not averaged. A checkpoint keeps the average.

    Where `fit` raises, the model has the plain weights of its last step, and `averages` those of
    all steps before; but after a FloatingPointError early stopping puts the best epoch's average
    back.

    Parameters
    ----------
    decay : float in [0, 1)
        Share of the old average that a step keeps: 0.99 looks back about 100 steps.

    Attributes
    ----------
    averages : dict of str to ndarray
        By the parameters' paths; empty before `fit`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x, y = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), np.array([0, 0, 1, 1])
    >>> optimizer, average = nn.SGD(model.parameters(), lr=1.0), nn.ParameterAverage(0.5)
    >>> _ = nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y, epochs=1, callbacks=[average])
    >>> model.layers[1].w.value[0].tolist()  # half of the way of the only step
    [0.0625, -0.0625]
    """

    def __init__(self, decay: float) -> None:
        self.decay = unit_interval("decay", decay)
        self.averages: dict[str, Array] = {}
        self._loaded = False

    def settings(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        return {"decay": self.decay}

    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps."""
        return self.averages

    def load_state(self, state: dict[str, Array]) -> None:
        """Go on with what `state` returned."""
        self.averages = {path: array.copy() for path, array in state.items()}
        self._loaded = True

    def on_fit_begin(self, state: FitState) -> None:
        """Begin with the weights as they are, or go on with those of a checkpoint."""
        start = {path: p.value.copy() for path, p in state.model.named_parameters().items()}
        if self._loaded:
            for path, array in start.items():
                assign(array, self.averages.get(path), f"checkpoint: average of {path}")
        self.averages, self._loaded = start, False

    def on_batch_end(self, state: FitState) -> None:
        """Move the average."""
        for path, parameter in state.model.named_parameters().items():
            average = self.averages[path]
            average *= self.decay
            average += parameter.value * (1 - self.decay)

    def use(self, model: Layer) -> None:
        """Give the model the average as its weights."""
        for path, parameter in model.named_parameters().items():
            if path in self.averages:
                parameter.value[...] = self.averages[path]

    @contextmanager
    def used(self, model: Layer) -> Iterator[None]:
        """Have the model use the average inside a ``with`` block."""
        plain = {path: p.value.copy() for path, p in model.named_parameters().items()}
        self.use(model)
        try:
            yield
        finally:
            for path, parameter in model.named_parameters().items():
                parameter.value[...] = plain[path]


@contextmanager
def averaged(callbacks: Iterable[Any], model: Layer) -> Iterator[None]:
    """The weights that are validated: those of a `ParameterAverage`, if there is one."""
    with ExitStack() as stack:
        for callback in callbacks:
            if isinstance(callback, ParameterAverage):
                stack.enter_context(callback.used(model))
        yield
