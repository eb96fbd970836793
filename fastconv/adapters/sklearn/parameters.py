"""Arguments of the estimators, checked under the names that their users know."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from fastconv import nn
from fastconv.geometry.cures import foreign_array
from fastconv.nn.checks import positive_int, real_number

__all__ = ["Parameters", "as_numpy", "own_network"]

# What these hold is computed, or its coordinates lost, when NumPy takes it for an array.
NEEDS_A_CALL = {"dask": "compute()", "xarray": "to_numpy()"}


@dataclass(frozen=True)
class Parameters:
    """The parameters of `fastconv.sklearn.CNNClassifier`, as numbers and tuples."""

    filters: tuple[int, ...]
    hidden: tuple[int, ...]
    network: Callable[..., Any] | None
    image_shape: tuple[int, ...] | None
    learning_rate_init: float
    alpha: float
    batch_size: int | None  # None: by the number of images
    max_iter: int
    tol: float
    n_iter_no_change: int
    early_stopping: bool
    validation_fraction: float
    verbose: bool
    warm_start: bool

    @classmethod
    def of(cls, estimator: Any) -> Parameters:
        """Check an estimator's parameters.

        Raises
        ------
        ValueError, TypeError
            Naming the parameter and its value.
        """
        e = estimator
        if e.data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                f"data_format: must be 'channels_last' or 'channels_first', got {e.data_format!r}"
            )
        fraction = real_number("validation_fraction", e.validation_fraction)
        if not 0 < fraction < 1:
            raise ValueError(
                f"validation_fraction: must be between 0 and 1, got {e.validation_fraction!r}"
            )
        try:
            check_random_state(e.random_state)
        except ValueError as error:
            raise ValueError(
                "random_state: None, an integer of at least 0 or a numpy.random.RandomState is "
                f"needed, got {e.random_state!r}"
            ) from error
        return cls(
            filters=_sizes("filters", e.filters),
            hidden=_sizes("hidden", e.hidden),
            network=_callable("network", e.network),
            image_shape=_image_shape("image_shape", e.image_shape),
            learning_rate_init=real_number("learning_rate_init", e.learning_rate_init, minimum=0.0),
            alpha=real_number("alpha", e.alpha, minimum=0.0),
            batch_size=_batch_size("batch_size", e.batch_size),
            max_iter=positive_int("max_iter", e.max_iter),
            tol=real_number("tol", e.tol, minimum=0.0),
            n_iter_no_change=_patience("n_iter_no_change", e.n_iter_no_change),
            early_stopping=_flag("early_stopping", e.early_stopping),
            validation_fraction=fraction,
            verbose=_flag("verbose", e.verbose),
            warm_start=_flag("warm_start", e.warm_start),
        )


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """Sizes of layers; one number is one layer."""
    if hasattr(value, "__index__") and np.ndim(value) == 0:
        value = (value,)
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name}: a tuple of integers, or one integer, is needed, got {value!r}")
    return tuple(positive_int(name, size) for size in value)


def _batch_size(name: str, value: Any) -> int | None:
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f"{name}: an integer or 'auto' is needed, got {value!r}")
        return None
    return positive_int(name, value)


def _patience(name: str, value: Any) -> int:
    """Epochs; infinitely many are more than anyone waits for."""
    if isinstance(value, float) and value == math.inf:
        return sys.maxsize
    return positive_int(name, value)


def _image_shape(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name}={value!r} must be (H, W) or (H, W, C)")
    shape = tuple(positive_int(name, size) for size in value)
    if len(shape) not in (2, 3):
        raise ValueError(f"{name}={value!r} must be (H, W) or (H, W, C)")
    return shape


def _flag(name: str, value: Any) -> bool:
    # sklearn's own take 0 and 1, too, and levels of verbosity
    if not isinstance(value, (bool, np.bool_, int, np.integer)) or value < 0:
        raise TypeError(f"{name}: True or False is needed, got {value!r}")
    return bool(value)


def _callable(name: str, value: Any) -> Callable[..., Any] | None:
    if value is None or (callable(value) and not isinstance(value, nn.Layer)):
        return value
    raise TypeError(
        f"{name}: a function {name}(input_shape, outputs, seed=seed) that makes a "
        f"fastconv.nn.Sequential is needed, such as fastconv.examples.digits_cnn itself, got "
        f"{type(value).__name__} {str(value)[:60]!r}"
    )


def own_network(
    network: Callable[..., Any], input_shape: tuple[int, ...], outputs: int, seed: int
) -> nn.Sequential:
    """Call the user's `network`, and see that what it makes takes the images and tells outputs.

    Raises
    ------
    TypeError
        If it cannot be called so, or returns something else than a Sequential.
    ValueError
        If its model does not take the images, or has another number of outputs.
    """
    try:
        inspect.signature(network).bind(input_shape, outputs, seed=seed)
    except TypeError as error:
        raise TypeError(
            f"network: it is called as network(input_shape, outputs, seed=seed): {error}"
        ) from error
    except ValueError:  # a callable in C tells no signature
        pass
    model = network(input_shape, outputs, seed=seed)
    if not isinstance(model, nn.Sequential):
        raise TypeError(
            f"network: it should return a fastconv.nn.Sequential, got {type(model).__name__}"
        )
    try:
        z = model.predict(np.zeros((1, *input_shape), np.float32))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"network: its model does not take float32 images of {input_shape}: {error}"
        ) from error
    if z.shape != (1, outputs):
        raise ValueError(
            f"network: its model should return {outputs} numbers an image, got shape {z.shape[1:]}"
        )
    return model


def nested_cure(name: str, value: Any) -> str:
    """What makes one array of an array, Series or DataFrame of arrays; "" for everything else.

    >>> nested_cure("X", np.array([np.zeros(2), np.zeros(3)], object))
    'np.stack(X)'
    """
    if hasattr(value, "columns") and hasattr(value, "dtypes"):
        for column in value.columns:
            if cure := nested_cure(f"{name}[{column!r}]", value[column]):
                return cure
        return ""
    if np.dtype(object) != getattr(value, "dtype", None) or not np.size(value):
        return ""
    first = np.asarray(value).flat[0]
    return f"np.stack({name})" if isinstance(first, (np.ndarray, list, tuple)) else ""


def as_numpy(name: str, value: Any) -> Any:
    """`value`, as an array if it is one of another library that NumPy takes as it is.

    Raises
    ------
    TypeError
        Naming the argument, if it holds something to compute, a mask, or what NumPy cannot have.
    """
    if found := foreign_array(name, value):
        argument, kind, library = found
        cure = f"{argument}.{NEEDS_A_CALL[library]} makes one"
        raise TypeError(f"{name}: a NumPy array is needed, got {kind} of {library}; {cure}")
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    library = type(first).__module__.partition(".")[0]
    if cure := nested_cure(name, value):
        raise ValueError(
            f"{name}: its items are arrays themselves; {cure} makes one array of those of one shape"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array's mask would be ignored; fill it first")
    if isinstance(first, (np.ndarray, str, int, float)) or library in ("pandas", "polars"):
        return value
    if not hasattr(first, "__array__"):
        return value
    try:
        return np.asarray(value)
    except (TypeError, RuntimeError) as error:  # a tensor with a gradient, or on another device
        raise TypeError(f"{name}: {type(first).__name__} of {library}: {error}") from error
