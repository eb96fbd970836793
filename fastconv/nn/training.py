"""The training loop's front: what `fit` takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from fastconv.nn import fit_arguments as arguments
from fastconv.nn.checks import Array, quiet
from fastconv.nn.container import Sequential
from fastconv.nn.distributed import DistributedRun
from fastconv.nn.history import EarlyStopping, History
from fastconv.nn.loss import Loss
from fastconv.nn.optimizer import Optimizer
from fastconv.nn.passes import Transform
from fastconv.nn.ranks import Communicator, closing_ranks, ranks_of
from fastconv.nn.run import Run
from fastconv.nn.sources import Data
from fastconv.plans.algorithm import algorithm as algorithm_of
from fastconv.plans.algorithm import chosen
from fastconv.typing import Algorithm

__all__ = ["fit"]

Augment = Callable[..., Any]


@quiet
def fit(
    model: Sequential,
    loss: Loss,
    optimizer: Optimizer,
    x: Data,
    y: Data | None = None,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    validation: tuple[Data, Data] | Iterable[Any] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    scale: float | None = None,
    transform: Transform | None = None,
    augment: Augment | None = None,
    early_stopping: EarlyStopping | int | None = None,
    callbacks: Iterable[Any] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    verbose: bool | int | None = None,
    class_weight: Mapping[int, float] | Sequence[float] | Array | None = None,
    sample_weight: ArrayLike | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    validation_fraction: float | None = None,
    best_checkpoint: str | os.PathLike[str] | None = None,
    algorithm: Algorithm | None = None,
    comm: Communicator | None = None,
    sync_batch_norm: bool = False,
) -> History:
    """Train a model.

    Parameters
    ----------
    model, loss, optimizer
        The optimizer must hold the model's parameters. Layers that are in evaluation mode stay in
        it: ``model.layers[1].eval()`` freezes the statistics of a BatchNorm, or switches a Dropout
        off. A model that is in evaluation mode as a whole is an error.
    x : ndarray (m, ...), or read like one
        Images of the model's dtype; of another one with `scale` or `transform`. Whatever has
        ``shape``, ``dtype`` and ``[...]`` is read as needed, a few batches at a time: `np.memmap`,
        arrays of zarr and h5py, a folder that is read lazily. In files of chunks, chunks of few
        images are read fastest in random order. Or an iterable of batches (x, y), then without
        `y`; it is iterated once an epoch, in its own order and sizes, and a method
        ``set_epoch(epoch)`` of it is called before.
    y : ndarray (m,) or (m, ...), or read like one
        Labels as the loss wants them.
    epochs, batch_size : int
        The last batch of an epoch may be smaller.
    validation : (x, y), optional
        Evaluated after each epoch. Or an iterable of batches that is no list or tuple.
    shuffle : bool
        Whether each epoch takes the images in a new random order.
    seed : int
        Seed of the order, of `augment` and of the layers that were made without a seed (Dropout).
        The same seed, data and model give the same weights, bit for bit.
    scale : float, optional
        Images are converted to the model's dtype and multiplied by it: 1/255 for bytes.
    transform : callable, optional
        ``transform(x) -> x`` of each batch, after `scale`, also of `validation`: floats come back.
    augment : callable, optional
        ``augment(x, rng) -> x`` for each training batch; one with a true attribute `mixes_labels`
        is called as ``augment(x, rng, y) -> x, y``. Reading, `transform` and `augment` run in a
        thread of their own, up to three batches ahead of the training.
    early_stopping : EarlyStopping or int, optional
        An int is the patience.
    callbacks : iterable of objects
        Any of the methods on_fit_begin, on_epoch_begin, on_batch_end, on_epoch_end, on_fit_end,
        each called with the `FitState`. One that influences the training should have a method
        `settings()`, which a resumed run compares; what it learns on the way goes into checkpoints
        if it has `state()`, a dictionary of arrays, and `load_state(state)`, which is called before
        on_fit_begin of a resumed run.
    checkpoint : path, optional
        Written before the first epoch and after every one (after on_epoch_end).
    resume : bool
        Continue from `checkpoint`. The result is bit for bit that of an uninterrupted run.
        `epochs` may be larger than it was; everything else must be equal: data (of those that
        are read as needed, 64 images spread over them; of batches, their class, shapes and
        `settings()`), `scale`, `transform`, weights, limits of the gradients, layers, loss,
        optimizer and `augment`, by class, attributes and (of functions, and of classes of your
        own) code. An object with a method `settings()` is compared by what that returns.
    verbose : bool or int, optional
        Progress on standard error: True or 1 is a bar, or a line an epoch where there is no
        terminal; 2 is a line an epoch; None, False and 0 are silent.
    class_weight : mapping of int to float, or sequence, optional
        How much images count by their labels; in a mapping, classes that it does not name have 1.
        The loss divides by the sum of the weights of a batch. Validation counts all alike.
    sample_weight : array (m,), optional
        How much each image counts; with both, the product does.
    clip_norm : float, optional
        Where the root of the sum of all gradients' squares is larger, they are scaled down to it
        before the optimizer's step.
    clip_value : float, optional
        Elements of the gradients beyond it, up or down, become it (before `clip_norm`).
    validation_fraction : float, optional
        Share of the images, drawn by `seed`, that is held out as validation data.
    best_checkpoint : path, optional
        The model is saved there after every epoch that is better than all before, by val_loss
        (loss without validation data) or the `monitor` of `early_stopping`; `Sequential.load`
        reads it.
    algorithm : {"exact", "fast"}, optional
        Of the convolutions, unless a layer has one of its own; by default that of the
        ``with fastconv.algorithm(...)`` around this call. A resumed run compares it.
    comm : communicator, optional
        Of several processes, its ranks, that make this call together, with equal arguments:
        mpi4py's ``MPI.COMM_WORLD``, or an object with ``rank``, ``size`` and
        ``allreduce(buffer)``, which replaces an array of float32 or float64 by the sum over all
        ranks. Each takes its part of every batch of `batch_size`; all end with the same weights.
        Rank 0 alone writes files, prints and has callbacks without `settings()`. See "Training on
        several processes" on the page about networks.
    sync_batch_norm : bool
        With `comm`, whether a BatchNorm normalises by the images of all ranks. Otherwise each rank
        does by its own, and the running statistics are the means of the ranks'. A resume on
        several ranks compares it.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before the first step; also for a resume with other settings, and
        where a BatchNorm would see one value per channel in the last batch.
    FloatingPointError
        If the loss is not finite, with epoch and step. The weights are those before that step; with
        early stopping those of the best epoch, which are averaged ones with a `ParameterAverage`.
        Nothing else raises it, whatever `numpy.seterr` says.
    KeyboardInterrupt
        Passed on, after the state of the last finished epoch is on the disk.
    RuntimeError
        With `comm`, where another rank has raised an exception: with its rank, class and message.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1)
    >>> y = np.array([0, 0, 1, 1])
    >>> optimizer = nn.SGD(model.parameters(), lr=1.0)
    >>> history = nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y, epochs=5)
    >>> history["accuracy"][-1]
    1.0
    """
    options: dict[str, Any] = {"batch_size": batch_size, "shuffle": bool(shuffle), "seed": seed}
    options |= {"scale": scale, "transform": transform}
    ranks = ranks_of(comm)

    def prepared() -> Run:
        arguments.check_model(model)
        given = model, loss, optimizer, x, y, epochs, options
        run = Run(*given) if ranks is None else DistributedRun(ranks, bool(sync_batch_norm), *given)
        run.clip(clip_norm, clip_value)
        run.weigh(class_weight, sample_weight)
        held: Any = validation
        if validation_fraction is not None:
            held = run.hold_out(validation_fraction, validation)
        run.prepare(held, augment, early_stopping, callbacks)
        run.watch(verbose, best_checkpoint)
        return run

    with algorithm_of(chosen(algorithm)), closing_ranks(ranks):
        run = prepared() if ranks is None else ranks.together(prepared)[0]
        try:
            return run.train(checkpoint, resume)
        finally:
            run.close()
