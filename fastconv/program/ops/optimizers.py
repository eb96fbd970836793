"""Steps of the optimizers over all parameters at once."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np

from fastconv.plans import compiled

__all__ = ["Update", "adam_scalars", "rmsprop_scalars", "sgd_scalars"]


def sgd_scalars(
    lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> tuple[float, ...]:
    """The doubles of a step of SGD, as `engine.loops.optimizers.sgd` takes them."""
    return lr, momentum, lr * momentum, weight_decay, float(nesterov)


def adam_scalars(
    lr: float, betas: tuple[float, float], epsilon: float, weight_decay: float, step: int
) -> tuple[float, ...]:
    """The doubles of Adam's step of number `step`, as `engine.loops.optimizers.adam` takes them."""
    beta1, beta2 = betas
    root = 1 / math.sqrt(1 - beta2**step)
    size = lr / (1 - beta1**step)
    return beta1, 1 - beta1, beta2, 1 - beta2, root, epsilon, size, 1 - lr * weight_decay


def rmsprop_scalars(
    lr: float, alpha: float, epsilon: float, momentum: float, weight_decay: float
) -> tuple[float, ...]:
    """The doubles of a step of RMSprop, as `engine.loops.optimizers.rmsprop` takes them."""
    return lr, alpha, 1 - alpha, epsilon, momentum, weight_decay


class Update:
    """One step of an optimizer, ready to be called many times.

    Parameters
    ----------
    name : str
        "sgd", "adam" or "rmsprop".
    values, grads : sequence of ndarray
        Float32 or float64, and both may occur. The values are changed where they lie.
    slots : sequence of sequences of ndarray
        Running averages, contiguous and like `values`: of SGD the velocities, or none where there
        is no momentum; of Adam the means and the squares; of RMSprop the squares, and the
        velocities where there is momentum.
    first : int
        Number of the first among all parameters, for messages.

    Attributes
    ----------
    calls : list of Call
        One for each dtype. They hold addresses: keep the object.
    scalars : ndarray (8,) of float64
        The numbers of the step, by `sgd_scalars` and its like: to be written before the calls
        are made, and read by them.

    Raises
    ------
    ValueError
        If a value cannot be written, is not float32 or float64, or is no longer of its running
        averages' shape and dtype.
    """

    def __init__(
        self,
        name: str,
        values: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        slots: Sequence[Sequence[np.ndarray]],
        first: int = 0,
    ) -> None:
        for k, value in enumerate(values):
            i = first + k
            if value.dtype not in (np.float32, np.float64):
                raise ValueError(f"parameters: parameter {i} is of dtype {value.dtype}")
            if not value.flags.writeable:
                raise ValueError(f"parameters: the value of parameter {i} is read-only")
            for slot in slots:
                if (slot[k].shape, slot[k].dtype) != (value.shape, value.dtype):
                    raise ValueError(
                        f"parameters: parameter {i} is {value.shape} of {value.dtype}; the "
                        f"optimizer was made for {slot[k].shape} of {slot[k].dtype}"
                    )
        self._arrays = [*values, *grads, *(array for slot in slots for array in slot)]
        # Whoever replaces an array by one of another layout pays for a copy of it.
        own_values = [_own(value, value) for value in values]
        own_grads = [_own(grad, value) for grad, value in zip(grads, values, strict=True)]
        pairs = [*zip(own_values, values, strict=True), *zip(own_grads, grads, strict=True)]
        self._in = [(own, array) for own, array in pairs if own is not array]
        self._out = [(own, array) for own, array in self._in if any(array is v for v in values)]
        self.scalars = np.zeros(8)
        engine = self._engine = compiled.engine()
        self.calls, self._kept = [], []
        for dtype in dict.fromkeys(value.dtype for value in own_values):
            chosen = [i for i, value in enumerate(own_values) if value.dtype == dtype]
            lists = [own_values, own_grads, *slots]
            v, g, *s = ([array[i] for i in chosen] for array in lists)
            pieces = engine.optimizers.pieces(v, g, s)
            self._kept.append((pieces, v, g, s))
            if pieces.elements:
                entry = engine.loop(name, dtype)
                self.calls.append(engine.optimizers.update_call(entry, pieces, self.scalars))

    @property
    def copies(self) -> bool:
        """Whether some array is of a layout that a loop cannot work on where it lies."""
        return bool(self._in)

    def serves(self, arrays: Sequence[np.ndarray]) -> bool:
        """Whether it was made of exactly these arrays: values, gradients, running averages."""
        kept = self._arrays
        return len(kept) == len(arrays) and all(map(operator.is_, kept, arrays))

    def run(self, scalars: tuple[float, ...]) -> None:
        """Make the step with these numbers."""
        self.scalars[: len(scalars)] = scalars
        for own, array in self._in:
            own[...] = array
        for call in self.calls:
            self._engine.perform(call)
        for own, array in self._out:
            array[...] = own


def _own(array: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`array` if a loop can work on it where it lies, else room for a copy like `like`."""
    native = like.dtype.newbyteorder("=")
    if array.dtype == native and array.shape == like.shape and array.flags.c_contiguous:
        return array
    return np.empty(like.shape, native)
