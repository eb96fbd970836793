"""One step of a training run, tried before the first: on copies, so that nothing is changed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array
from fastconv.nn.copying import scratch_copy
from fastconv.nn.feed import Feed
from fastconv.nn.fit_arguments import label_check
from fastconv.nn.inference import predict
from fastconv.nn.normalisation import OneValueError

Written = dict[int, set[str]]


def try_forward(model: Layer, x: Array) -> tuple[Array, Written]:
    """Outputs for `x` in the modes that the layers are in.

    Returns
    -------
    z : ndarray
    written : dict of int to set of str
        Attributes that the pass has written, by the layer's `id`: those keep what `backward`
        needs, the others describe the layer.

    Raises
    ------
    ValueError, TypeError
        Naming the layer.
    """
    copies: dict[int, Layer] = {}
    twin = scratch_copy(model, evaluating=False, copies=copies)
    for layer in copies.values():
        layer.__dict__["_written"] = set()
    z = twin.forward(x)
    return z, {key: layer._written or set() for key, layer in copies.items()}


def try_loss(loss: Any, z: Array, y: Array) -> Written:
    """Loss of the outputs `z` and its gradient; returns what that has written, by `id`."""
    twin = copy.copy(loss)
    if hasattr(loss, "_written"):
        twin.__dict__["_written"] = set()
    twin.forward(z, y)
    twin.backward()
    return {id(loss): getattr(twin, "_written", None) or set()}


def check_labels(loss: Any, z: Array, y: Array, name: str) -> None:
    """Raise, naming `name`, unless all labels `y` fit outputs as those that are in `z`."""
    check = label_check(loss)
    if check is not None:  # one element stands for all: a view that takes no memory
        check(np.broadcast_to(np.zeros((), z.dtype), (len(y), *z.shape[1:])), y, name)


def check_validation(model: Layer, loss: Any, feed: Feed) -> None:
    """Raise, naming `validation`, unless the model and the loss take the validation data."""
    try:
        x, first = feed.sample()
        y = first if (labels := feed.labels()) is None else labels
        z = predict(model, x[:1])
        if label_check(loss) is None:  # a loss of the user's own: it says itself what fits
            try_loss(loss, np.zeros((len(y), *z.shape[1:]), z.dtype), y)
    except (ValueError, TypeError, IndexError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"validation: {error}") from error
    check_labels(loss, z, y, "validation y")


def one_value(error: OneValueError, images: int, batch_size: int) -> ValueError:
    """What `fit` says when the last batch of an epoch is too small for a normalisation."""
    return ValueError(
        f"batch_size: with {batch_size} the last batch of the {images} images is 1 image, and "
        f"{error}; take another batch_size, or leave an image out"
    )
