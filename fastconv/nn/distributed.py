"""A call of `fit` that several processes make together, each with a part of every batch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastconv.nn import identity, trial
from fastconv.nn.activations import Dropout
from fastconv.nn.checkpoint import Checkpoint
from fastconv.nn.checks import LONGEST, Array, cut
from fastconv.nn.container import Sequential
from fastconv.nn.feed import Batch, Feed
from fastconv.nn.keeper import Keeper
from fastconv.nn.loss import Loss
from fastconv.nn.normalisation import BatchNorm, OneValueError
from fastconv.nn.optimizer import Optimizer
from fastconv.nn.passes import figures, shared_outputs, train_step
from fastconv.nn.ranks import Ranks
from fastconv.nn.run import Run, Seen, Weighted
from fastconv.nn.sharing import SharedLoss, SharedOptimizer
from fastconv.nn.sources import Data
from fastconv.nn.storage import model_arrays

__all__ = ["DistributedRun"]


class DistributedRun(Run):
    """One call of `fit`, on one of several ranks.

    Parameters
    ----------
    ranks : Ranks
    sync_batch_norm : bool
        Whether a BatchNorm takes the statistics of all ranks' images.
    others
        As of `Run`.
    """

    def __init__(
        self, ranks: Ranks, sync_batch_norm: bool, model: Sequential, loss: Loss,
        optimizer: Optimizer, x: Data, y: Data | None, epochs: int, options: dict[str, Any],
    ) -> None:  # fmt: skip
        self.ranks, self.sync, self.cut = ranks, sync_batch_norm, ranks.part
        super().__init__(model, loss, optimizer, x, y, epochs, options)
        if not (hasattr(optimizer, "state") and hasattr(optimizer, "load_state")):
            raise TypeError("optimizer: with comm it needs the methods state() and load_state()")
        self._late: Exception | None = None  # of a callback after a step
        self._counts = np.zeros(ranks.size)  # images of the step, of each rank

    def watch(self, verbose: Any, best_checkpoint: Any) -> None:
        """Rank 0 alone prints, writes and has callbacks without `settings()`, which look on."""
        super().watch(verbose, best_checkpoint)
        if not self.ranks.first:
            self.best = self.progress = None
            self.callbacks = [c for c in self.callbacks if callable(getattr(c, "settings", None))]

    # Before the first step -----------------------------------------------------------------------

    def _keeper(self, checkpoint: Any, resume: bool) -> Keeper:
        make = super()._keeper
        return self.ranks.together(lambda: make(checkpoint, resume))[0]

    def _begin(self, resume: bool) -> None:
        """The ranks must have been called alike; then all get the state of rank 0."""
        ranks = self.ranks
        settings, _ = ranks.together(lambda: self._settings(resume))
        self._compare(settings)
        ranks.together(lambda: super(DistributedRun, self)._begin(resume) if ranks.first else None)
        state, arrays = self.keeper.state() if ranks.first else None, {}
        said: dict[str, Any] = {}
        if state is not None:
            said, arrays = vars(state).copy(), state.arrays
            del said["arrays"]
        said, arrays = ranks.broadcast_arrays(said, arrays)
        if not ranks.first:
            self.keeper.path = None
        ranks.together(
            lambda: None if ranks.first else self.keeper.put(Checkpoint(**said, arrays=arrays))
        )
        self._share()

    def _settings(self, resume: bool) -> dict[str, Any]:
        found = self.keeper.settings or self.keeper.describe()
        own = {"epochs": self.epochs, "resume": resume}
        return identity.as_json({**found, **own})

    def _compare(self, settings: dict[str, Any]) -> None:
        """Raise unless all ranks have been given the same."""
        first, _ = self.ranks.broadcast_arrays(settings, {})

        def work() -> None:
            if wrong := identity.differences(first, settings):
                rank = f"comm: rank {self.ranks.rank} was not called as rank 0 was: "
                raise ValueError(cut(rank + "; ".join(wrong), LONGEST))

        self.ranks.together(work)

    def _share(self) -> None:
        """What a step needs."""
        layers = [layer for _, layer in self.model.walk()]
        self._norms = [n for n in layers if isinstance(n, BatchNorm)] if self.sync else []
        self._drops = [layer for layer in layers if isinstance(layer, Dropout)]
        alike = {id(b) for norm in self._norms for b in norm._buffers.values()}
        buffers = [b for b in self.model.named_buffers().values() if id(b) not in alike]
        self._streams = {
            f"{i}.{name}": generator
            for i, layer in enumerate(layers)
            if not isinstance(layer, Dropout)
            for name, generator in layer._generators.items()
        }
        self.shared_loss = SharedLoss(self.loss, self.ranks, buffers)
        self.shared_stepper = SharedOptimizer(self.stepper, self.ranks)

    def _try_images(self) -> None:
        """As in one process; and, where each rank normalises its own images, with the fewest."""
        super()._try_images()
        if not (self.sync or self.augment is not None):
            self._try_fewest(*self.feed.sample())

    def _try_fewest(self, x: Array, y: Array) -> None:
        """Try the fewest images that a rank of this batch has."""
        fewest = max(1, len(x) // self.ranks.size)
        try:
            trial.try_forward(self.model, x[:fewest])
        except OneValueError as error:
            raise ValueError(
                f"batch_size: with {self.batch_size} on {self.ranks.size} ranks, one of them has 1 "
                f"image of a batch, and {error}; take another batch_size, or sync_batch_norm=True"
            ) from error

    # Steps ---------------------------------------------------------------------------------------

    def _ready(self, batches: Iterable[Batch]) -> Iterator[Weighted]:
        """The parts of the batches that are this rank's, while all ranks have one."""
        self._set_streams()
        parts = super()._ready(batches)
        while True:
            part, told = self.ranks.together(lambda: self._next(parts), self._told)
            have, self._counts, rates = told.T
            if not have.any():
                return
            self._all_have(have)
            if self.optimizer.lr != rates[0]:  # a callback of rank 0 has set it
                self.optimizer.lr = float(rates[0])
            yield part  # type: ignore[misc]

    def _next(self, parts: Iterator[Weighted]) -> Weighted | None:
        late, self._late = self._late, None
        if late is not None:
            raise late
        return next(parts, None)

    def _told(self, part: Weighted | None) -> Sequence[float]:
        return part is not None, 0 if part is None else len(part[0]), self.optimizer.lr

    def _all_have(self, have: Array) -> None:
        if not have.all():
            rank = int(have.argmin())
            raise ValueError(
                f"x: rank {rank} has no batch {self.state.step} in epoch "
                f"{self.state.epoch}, but others have: all ranks must be given the same batches"
            )

    def _try_augmented(self, x: Array, y: Array) -> None:
        if len(x):
            super()._try_augmented(x, y)
            if not self.sync:
                self._try_fewest(x, y)

    def _step(self, x: Array, y: Array, weights: Array | None) -> tuple[float, Callable[[], Seen]]:
        total, rank = int(self._counts.sum()), self.ranks.rank
        self.shared_loss.share = len(x) / total
        with self.ranks.alone(), self._sharing(int(self._counts[:rank].sum()), total):
            if len(x):
                loss: Any = self.shared_loss
                stepper: Any = self.shared_stepper
                value, _ = train_step(self.model, loss, stepper, x, y, weights)
            else:
                value = self._absent(x)

        def seen() -> Seen:
            right = self.shared_loss.share_right
            return total, self.shared_loss.weight, None if right is None else total * right

        return value, seen

    def _absent(self, x: Array) -> float:
        """A step without an image: others wait for numbers, and get zeros."""
        together = self._norms or self._drops
        z = self.model.forward(x) if together else x
        value = self.shared_loss.absent()
        if np.isfinite(value):
            for parameter in self.model.parameters():
                parameter.grad[...] = 0
            if together:
                self.model.backward_parameters(np.zeros_like(z))
            self.shared_stepper.step()
        return value

    @contextmanager
    def _sharing(self, before: int, total: int) -> Iterator[None]:
        """Have layers know that their batch is a part: from image `before` on, of `total`."""
        for norm in self._norms:
            norm._gather = self.ranks.gather
        for drop in self._drops:
            drop._part = before, total
        try:
            yield
        finally:
            for norm in self._norms:
                norm._gather = None
            for drop in self._drops:
                drop._part = None

    def _set_streams(self) -> None:
        """Generators of layers of one's own: a stream for each rank, from rank 0's, every epoch."""
        if not self._streams:
            return
        states = {name: g.bit_generator.state for name, g in self._streams.items()}
        states, _ = self.ranks.broadcast_arrays(states, {})
        for name, generator in self._streams.items():
            bits: Any = generator.bit_generator
            bits.state = states[name]
            if not self.ranks.first:
                bits.state = bits.jumped(self.ranks.rank).state

    # Around the steps ----------------------------------------------------------------------------

    def _call(self, method: str) -> None:
        """Callbacks; what they raise after a step is told before the next."""
        call = super()._call
        if method == "on_batch_end":
            try:
                call(method)
            except Exception as error:
                self._late = error
            return
        _, told = self.ranks.together(lambda: call(method), lambda _: [self.state.stop])
        self.state.stop = bool(told[:, 0].any())

    def _save(self) -> None:
        self.ranks.together(super()._save)

    def _keep_best(self, row: dict[str, Any]) -> None:
        keep = super()._keep_best
        self.ranks.together(lambda: keep(row))

    def _validate(self, feed: Feed) -> tuple[float, float | None]:
        """Each rank computes the outputs of its part of the images; then all have all of them."""
        (z, y), _ = self.ranks.together(lambda: self._outputs(feed))
        self.ranks.sum(z)
        return figures(self.loss, z, y)

    def _outputs(self, feed: Feed) -> tuple[Array, Array]:
        return shared_outputs(self.model, feed, self.ranks.part)

    def _batches(self) -> None:
        super()._batches()
        marks = self.ranks.gather([_mark(self.model)])[:, 0]
        if (marks != marks[0]).any():
            rank = int((marks != marks[0]).argmax())
            raise RuntimeError(
                f"comm: after epoch {self.state.epoch} the model of rank {rank} is not that of "
                "rank 0: allreduce must give all ranks the same bits, and layers must not differ"
            )


def _mark(model: Any) -> int:
    """A number that tells a model's arrays from others."""
    found = 0
    for array in model_arrays(model).values():
        found = zlib.crc32(np.ascontiguousarray(array).data, found)
    return found
