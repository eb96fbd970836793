"""What losses are given beside the outputs: labels and weights, checked and in one form."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.nn.checks import Array, as_array, foreign, real_number, shown

__all__ = ["class_labels", "class_weights", "is_soft", "one_weight_each", "sample_weights",
           "soft_labels", "takes_weights", "targets"]  # fmt: skip

ROWS_ADD_UP = 1e-3  # soft labels of float16 are this far from 1


def targets(z: Array, y: Any, name: str = "y") -> Array:
    """`y` in the shape and dtype of `z`, contiguous; (m,) stands for (m, 1)."""
    y = as_array(name, y)
    if y.dtype.kind not in "biuf":
        raise TypeError(f"{name}: numbers are needed, got {y.dtype}")
    if y.shape != z.shape and not (z.shape == (len(z), 1) and y.shape == (len(z),)):
        raise ValueError(f"{name}: expected the shape of z, {z.shape}, got {y.shape}")
    return np.ascontiguousarray(y.reshape(z.shape), z.dtype)


def is_soft(z_shape: tuple[int, ...], y: Any, name: str = "y") -> bool:
    """Whether labels hold a number for each class instead of the class."""
    shape = y.shape if hasattr(y, "shape") else as_array(name, y).shape
    return len(z_shape) > 1 and tuple(shape) == z_shape


def class_labels(z: Array, y: Any, ignored: int | None = None, name: str = "y") -> Array:
    """Integer labels ``y (...)`` for ``z (..., classes)`` as int64, contiguous.

    All are in ``0 .. classes - 1``, or are `ignored`.
    """
    if z.ndim < 2:
        raise ValueError(f"z: expected (m, classes), got {z.shape}")
    y = as_array(name, y)
    if y.shape != z.shape[:-1]:
        wanted = f"({len(z)},)" if z.ndim == 2 else str(z.shape[:-1])
        raise ValueError(f"{name}: expected {wanted} labels for z {z.shape}, got {y.shape}")
    if y.dtype.kind not in "iu":
        raise TypeError(f"{name}: integer labels are needed, got {y.dtype}")
    kept = y if ignored is None else y[y != ignored]
    if kept.size and (kept.min() < 0 or kept.max() >= z.shape[-1]):
        but = "" if ignored is None else f", or {ignored}"
        raise ValueError(
            f"{name}: labels must be in 0 .. {z.shape[-1] - 1}{but}, got {kept.min()} .. "
            f"{kept.max()}"
        )
    return np.ascontiguousarray(y, np.int64)


def soft_labels(z: Array, y: Any, name: str = "y") -> Array:
    """Labels ``y (..., classes)`` that hold a share of each class, in the dtype of `z`."""
    y = targets(z, y, name)
    if not (y.min() >= 0 and y.max() <= 1):  # not so for NaN
        raise ValueError(f"{name}: soft labels must be in 0 .. 1, got {y.min()} .. {y.max()}")
    sums = y.sum(axis=-1)
    if np.abs(sums - 1).max() > ROWS_ADD_UP:
        worst = sums.flat[np.abs(sums - 1).argmax()]
        raise ValueError(f"{name}: soft labels of an image must add up to 1, got {worst:g}")
    return y


def class_weights(value: Any, name: str = "class_weight") -> tuple[float, ...] | dict[int, float]:
    """A weight for each class as a tuple; or as a dictionary, where the others have 1.

    Raises
    ------
    TypeError, ValueError
        If a weight is no number, or negative, or not finite; or a class no integer.
    """
    if isinstance(value, Mapping):
        found = {}
        for key, weight in value.items():
            if isinstance(key, bool | np.bool_) or not hasattr(key, "__index__") or key < 0:
                raise TypeError(f"{name}: classes are integers from 0 on, got {shown(key)}")
            found[int(key)] = real_number(name, weight, minimum=0.0)
        return found
    if error := foreign(name, value):
        raise error
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
        raise TypeError(f"{name}: a number for each class is needed, got {shown(value)}")
    if np.ndim(value) != 1 or not len(value):
        raise ValueError(f"{name}: a number for each class is needed, got {shown(value)}")
    return tuple(real_number(name, weight, minimum=0.0) for weight in value)


def one_weight_each(
    found: tuple[float, ...] | dict[int, float] | None, classes: int, name: str = "class_weight"
) -> Array:
    """What `class_weights` gave as an array (classes,) of float64; ones for None."""
    weights = np.ones(classes)
    if isinstance(found, dict):
        if max(found, default=0) >= classes:
            raise ValueError(f"{name}: class {max(found)} is none of the {classes} of z")
        for key, weight in found.items():
            weights[key] = weight
    elif found is not None:
        if len(found) != classes:
            raise ValueError(f"{name}: expected {classes} weights, one per class, got {len(found)}")
        weights[:] = found
    return weights


def sample_weights(z_shape: tuple[int, ...], value: Any, name: str = "sample_weight") -> Array:
    """A weight for each row of ``z (..., n)`` as an array (rows,) of float64; ones for None.

    `value` is one for each image, ``(m,)``, or one for each row, ``z_shape[:-1]``.
    """
    each = z_shape[:-1] if len(z_shape) > 1 else z_shape
    if value is None:
        return np.ones(int(np.prod(each)))
    weights = as_array(name, value)
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"{name}: numbers are needed, got {weights.dtype}")
    if weights.shape not in (each, z_shape[:1]):
        raise ValueError(
            f"{name}: expected {z_shape[0]} weights, one per image, got shape {weights.shape}"
        )
    if weights.size and not (weights.min() >= 0 and np.isfinite(weights.max())):
        raise ValueError(f"{name}: weights must be finite and at least 0, got {weights.min()} .. "
                         f"{weights.max()}")  # fmt: skip
    shape = (*weights.shape, *(1 for _ in each[weights.ndim :]))
    return np.broadcast_to(weights.reshape(shape), each).astype(np.float64).reshape(-1)


def takes_weights(loss: Any) -> bool:
    """Whether a loss's `forward` has the argument `sample_weight`.

    Examples
    --------
    >>> from fastconv.nn import MeanSquaredError
    >>> takes_weights(MeanSquaredError())
    True
    """
    parameters = inspect.signature(loss.forward).parameters.values()
    return any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters)
