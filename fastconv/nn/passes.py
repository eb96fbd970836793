"""One step of a training, and an evaluation: what a run is made of."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastconv.nn import fit_arguments as arguments
from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, positive_int, quiet
from fastconv.nn.container import Sequential
from fastconv.nn.feed import Batches, Cut, Feed, Preparation, feed_of
from fastconv.nn.inference import predict
from fastconv.nn.loss import Loss, labels_form
from fastconv.nn.optimizer import Optimizer
from fastconv.nn.programs import dtype_of
from fastconv.nn.sources import Data
from fastconv.nn.step import step_of

__all__ = ["Transform", "evaluate", "evaluated", "figures", "shared_outputs", "train_step"]

Transform: TypeAlias = Callable[[Array], Array]


@quiet
def train_step(
    model: Layer, loss: Loss, optimizer: Optimizer, x: Array, y: Array,
    sample_weight: ArrayLike | None = None,
) -> tuple[float, Array]:  # fmt: skip
    """One step on one batch: forward, loss, backward, update.

    Parameters
    ----------
    model, loss, optimizer
        As in `fit`.
    x, y : ndarray (m, ...)
        Images and labels of the batch.
    sample_weight : array (m,), optional
        How much each image counts, as in the loss's `forward`.

    Returns
    -------
    value : float
        The loss before the update. When it is not finite, nothing is updated.
    z : ndarray
        The network's outputs before the update.

    Raises
    ------
    TypeError, ValueError
        Naming the layer or the argument; the parameters are as before.

    Examples
    --------
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x, y = np.ones((6, 2, 2, 1), np.float32), np.array([0, 1, 0, 1, 0, 0])
    >>> value, z = train_step(model, nn.SoftmaxCrossEntropy(), nn.SGD(model.parameters()), x, y)
    >>> round(value, 4), z.shape
    (0.6931, (6, 2))
    """
    step = step_of(model, loss, optimizer, x)
    if step is not None:
        value, z = step(x, y, sample_weight)
        return value, z.copy()
    z = model.forward(x)
    labels_form(loss, z.shape, y, sample_weight)  # raises where the loss takes no weights
    weights = () if sample_weight is None else (sample_weight,)
    value = loss.forward(z, y, *weights)
    if math.isfinite(value):
        model.backward_parameters(loss.backward())
        optimizer.step()
    return value, z


@quiet
def evaluate(
    model: Sequential,
    loss: Loss,
    x: Data,
    y: Data | None = None,
    batch_size: int = 256,
    *,
    scale: float | None = None,
    transform: Transform | None = None,
) -> tuple[float, float | None]:
    """Loss and accuracy (None where the loss has none) on data, in evaluation mode.

    Neither the model nor the loss changes: it may be called while another thread trains them.

    Parameters
    ----------
    model, loss
        As in `fit`.
    x, y : ndarray (m, ...), or read like one
        Images and labels; or an iterable of batches (x, y), and None. Images are read a few
        batches at a time, the network's outputs for all of them are kept.
    batch_size : int
        How many images go through the network at a time.
    scale, transform
        As in `fit`.

    Returns
    -------
    loss, accuracy : float
        Of all images; the accuracy is a share.

    Raises
    ------
    ValueError, TypeError
        Naming the argument; also where there is no image.

    Examples
    --------
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x, y = np.ones((6, 2, 2, 1), np.float32), np.array([0, 1, 0, 1, 0, 0])
    >>> nn.evaluate(model, nn.SoftmaxCrossEntropy(), x, y)[1]
    0.6666666666666666
    """
    arguments.check_model(model)
    arguments.check_loss(loss)
    batch_size = positive_int("batch_size", batch_size)
    prepare = Preparation(scale, transform, dtype_of(model))
    return evaluated(model, loss, feed_of(("x", "y"), x, y, batch_size, 1, prepare))


def evaluated(model: Layer, loss: Loss, feed: Feed) -> tuple[float, float | None]:
    """Loss and accuracy on the images of a feed; see `evaluate`."""
    return figures(loss, *_outputs(model, feed))


def figures(loss: Loss, z: Array, y: Array) -> tuple[float, float | None]:
    """Loss and accuracy of outputs for all images."""
    loss = copy.copy(loss)  # its forward keeps what backward needs: in the copy
    correct = loss.correct(z, y)
    value = loss.forward(z, y)
    return value, None if correct is None else correct / len(z)


def shared_outputs(model: Layer, feed: Feed, cut: Cut) -> tuple[Array, Array]:
    """Outputs for the images that `cut` says of each batch, zeros for all others; all labels."""
    run = _runner(model)
    if isinstance(feed, Batches):  # a rank reads its own images only
        with closing(feed.epoch(1, None, None, False, cut)) as batches:
            found = [(chosen, run(x)) for x, _, chosen in batches]
        labels = feed.y.whole()
    else:
        found, given, start = [], [], 0
        with closing(feed.epoch(1, None, None, False)) as batches:
            for x, y, _ in batches:
                own = cut(len(x))
                found.append((np.arange(start, start + len(x))[own], run(x[own])))
                given.append(y)
                start += len(x)
        labels = np.concatenate(given)
    first = found[0][1]
    z = np.zeros((len(labels), *first.shape[1:]), first.dtype)
    for chosen, outputs in found:
        z[chosen] = outputs
    return z, labels


def _runner(model: Layer) -> Callable[..., Array]:
    return model.predict if isinstance(model, Sequential) else partial(predict, model)


def _outputs(model: Layer, feed: Feed) -> tuple[Array, Array]:
    """The network's outputs for all images of a feed, and their labels."""
    run = _runner(model)
    if isinstance(feed, Batches):
        made = feed.prepare
        options = {"scale": made.scale, "transform": made.transform} if made.active else {}
        return run(feed.x.given, feed.batch_size, **options), feed.y.whole()
    pairs = []
    with closing(feed.epoch(1, None, None, False)) as batches:
        for x, y, _ in batches:
            pairs.append((run(x), y))
    z, labels = zip(*pairs, strict=True)
    return np.concatenate(z), np.concatenate(labels)
