"""Batches for training and inference, from whatever was given, made ready while others are used.

The path of a batch: its numbers are drawn -> its rows are read (`sources`) -> scale and transform
make images of them that the network takes -> augment changes them. Where any of it takes time, a
thread of its own does it, a few batches ahead; the order of all random numbers stays the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from fastconv.nn.checks import Array, as_array, foreign, real_number, shown
from fastconv.nn.prefetch import prefetched
from fastconv.nn.sources import Rows, as_rows, fingerprint_of, is_array, labels_of

__all__ = [
    "Batches",
    "Feed",
    "GivenBatches",
    "Preparation",
    "feed_of",
    "images_of",
    "is_batches",
]

Batch: TypeAlias = tuple[Array, Array, Array | None]  # images, labels, their numbers
Augment: TypeAlias = Callable[..., Any]
Cut: TypeAlias = Callable[[int], slice]  # which of a batch's images are this process's


class Preparation:
    """What makes images of the network's dtype from those that were given.

    Parameters
    ----------
    scale : float, optional
        Images are converted to `dtype`, then multiplied by it.
    transform : callable, optional
        ``transform(x) -> x`` of each batch, after `scale`; floats come back.
    dtype : dtype
        Of the network.

    Raises
    ------
    TypeError, ValueError
        If `scale` is no number above 0, or `transform` cannot be called.

    Examples
    --------
    >>> Preparation(1 / 4, None, np.dtype(np.float32))("x", np.array([[2, 8]], np.uint8))
    array([[0.5, 2. ]], dtype=float32)
    """

    def __init__(self, scale: Any, transform: Any, dtype: np.dtype[Any]) -> None:
        if scale is not None:
            scale = real_number("scale", scale)
            if scale <= 0:
                raise ValueError(f"scale: must be above 0, got {scale!r}")
        if isinstance(transform, type) or not (transform is None or callable(transform)):
            raise TypeError(
                f"transform: a function such as transform(x) -> x is needed, got {shown(transform)}"
            )
        self.scale, self.transform, self.dtype = scale, transform, dtype
        self.active = scale is not None or transform is not None

    def check(self, name: str, dtype: np.dtype[Any]) -> None:
        """Raise TypeError unless images of `dtype` become those of the network."""
        if dtype.kind not in ("biuf" if self.active else "f"):
            self._refuse(name, dtype)
        if not self.active and dtype not in (np.float32, np.float64):
            self._refuse(name, dtype)

    def _refuse(self, name: str, dtype: np.dtype[Any]) -> None:
        cause = f"{name}: dtype must be float32 or float64, got {dtype}"
        if dtype.kind in "biu":
            cause += "; scale= makes floats of integers: scale=1/255 of bytes; or transform="
        raise TypeError(cause)

    def __call__(self, name: str, x: Array) -> Array:
        """The images, ready for the network."""
        if self.scale is not None:
            x = np.multiply(x, self.dtype.type(self.scale), dtype=self.dtype)
        if self.transform is None:
            return x
        m, found = len(x), self.transform(x)
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
            raise TypeError(f"transform: an array of floats must come back, got {shown(found)}")
        if found.ndim < 1 or len(found) != m:
            raise ValueError(f"transform: {m} images must come back, got shape {found.shape}")
        return found.astype(self.dtype, copy=False)


def augmented(augment: Augment | None, x: Array, y: Array, rng: Any) -> tuple[Array, Array]:
    """Images and labels after `augment`; one that has `mixes_labels` gets and gives labels, too."""
    if augment is None:
        return x, y
    if getattr(augment, "mixes_labels", False):
        x, y = augment(x, rng, y)
        return x, y
    return augment(x, rng), y


class Feed:
    """Batches of images and labels, epoch after epoch.

    Attributes
    ----------
    images, steps : int
        Of an epoch; 0 while it is not known.
    """

    images = steps = 0

    def sample(self) -> tuple[Array, Array]:
        """The smallest batch, without augmentation, to try the network on."""
        raise NotImplementedError

    def labels(self) -> Array | None:
        """All labels, if they are in memory."""
        return None

    def epoch(
        self, number: int, rng: np.random.Generator | None, augment: Augment | None, shuffle: bool,
        cut: Cut | None = None,
    ) -> Generator[Batch, None, None]:  # fmt: skip
        """The batches of an epoch, which counts from 1; of each what `cut` says.

        Close it, or take all of them.
        """
        raise NotImplementedError

    def identity(self, sampled: bool | None = None) -> Any:
        """What tells these data from others: a digest, of a sample of what is not in memory."""
        raise NotImplementedError


class Batches(Feed):
    """Batches of an array, or of what is read like one.

    Parameters
    ----------
    x, y : Rows
        Of one length.
    batch_size : int
    prepare : Preparation
    """

    def __init__(self, x: Rows, y: Rows, batch_size: int, prepare: Preparation) -> None:
        self.x, self.y, self.batch_size, self.prepare = x, y, batch_size, prepare
        self.images, self.steps = len(x), -(-len(x) // batch_size)

    def part(self, chosen: Array) -> Batches:
        """Batches of the images of these numbers only."""
        return Batches(self.x.part(chosen), self.y.part(chosen), self.batch_size, self.prepare)

    def sample(self) -> tuple[Array, Array]:
        """The last, smallest batch's size, from the first images."""
        last = self.images % self.batch_size or min(self.images, self.batch_size)
        return self.prepare(self.x.name, self.x.slice(0, last)), self.y.slice(0, last)

    def labels(self) -> Array | None:
        """All labels; None of those that are read as needed."""
        return None if self.y.stored else self.y.whole()

    def epoch(
        self, number: int, rng: np.random.Generator | None, augment: Augment | None, shuffle: bool,
        cut: Cut | None = None,
    ) -> Generator[Batch, None, None]:  # fmt: skip
        """The batches, made ahead where making them takes time."""
        batches = self._made(rng, augment, shuffle, cut)
        work = self.x.stored or self.y.stored or self.prepare.active or augment is not None
        return prefetched(batches) if work else batches

    def _made(
        self, rng: np.random.Generator | None, augment: Augment | None, shuffle: bool,
        cut: Cut | None,
    ) -> Generator[Batch, None, None]:  # fmt: skip
        m = self.images
        order = rng.permutation(m) if shuffle and rng is not None else np.arange(m)
        for start in range(0, m, self.batch_size):
            chosen = order[start : start + self.batch_size]
            part = None if cut is None else cut(len(chosen))
            if part is not None and augment is None:
                chosen, part = _fewest(chosen, part)
            x = self.prepare(self.x.name, self.x.take(chosen))
            x, y = augmented(augment, x, self.y.take(chosen), rng)
            yield (x, y, chosen) if part is None else (x[part], y[part], chosen[part])

    def identity(self, sampled: bool | None = None) -> Any:
        """A digest; `sampled` chooses its form, by default that which reads few stored rows."""
        sampled = self.x.stored or self.y.stored if sampled is None else sampled
        return fingerprint_of(self.x, self.y, sampled=sampled)


class GivenBatches(Feed):
    """Batches as an iterable gives them: pairs (x, y).

    It is iterated once an epoch. If it has a method `set_epoch`, that is called before with the
    epoch's number, so that a resumed run gets the batches that it would have got.

    Parameters
    ----------
    name : str
        The caller's argument, for messages.
    given : iterable of (x, y)
    epochs : int
        How often it will be iterated.
    prepare : Preparation

    Raises
    ------
    TypeError, ValueError
        If the first batch is none, or the iterable gives its batches once only.
    """

    def __init__(self, name: str, given: Iterable[Any], epochs: int, prepare: Preparation) -> None:
        self.name, self.given, self.prepare = name, given, prepare
        if epochs > 1 and isinstance(given, Iterator):
            raise ValueError(
                f"{name}: {shown(given)} gives its batches once, but {epochs} epochs need them "
                "again: give a list, or an object whose __iter__ starts anew"
            )
        self._set_epoch(1)
        iterator = iter(given)
        try:
            first = next(iterator)
        except StopIteration:
            raise ValueError(f"{name}: it has no batch") from None
        self.first = self._pair(0, first)
        # Kept for the first epoch: what was read is not read again, nor is an epoch counted twice.
        self._begun: Iterator[Any] | None = itertools.chain([first], iterator)
        length = getattr(given, "__len__", None)
        self.steps = len(given) if callable(length) else 0  # type: ignore[arg-type]

    def _set_epoch(self, number: int) -> None:
        if callable(function := getattr(self.given, "set_epoch", None)):
            function(number)

    def _pair(self, number: int, batch: Any) -> tuple[Array, Array]:
        where = f"{self.name}: batch {number}"
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(f"{where}: a pair (images, labels) is needed, got {shown(batch)}")
        x, y = as_array(f"{where}: images", batch[0]), as_array(f"{where}: labels", batch[1])
        if x.ndim < 2 or len(x) == 0:
            raise ValueError(f"{where}: images (m, ...), m at least 1, are needed, got {x.shape}")
        if y.ndim < 1 or len(y) != len(x):
            raise ValueError(f"{where}: {len(x)} labels, one per image, are needed, got {y.shape}")
        self.prepare.check(f"{where}: images", x.dtype)
        return self.prepare(self.name, x), y

    def sample(self) -> tuple[Array, Array]:
        """The first batch."""
        return self.first

    def epoch(
        self, number: int, rng: np.random.Generator | None, augment: Augment | None, shuffle: bool,
        cut: Cut | None = None,
    ) -> Generator[Batch, None, None]:  # fmt: skip
        """One pass over the iterable, ahead of its use."""
        return prefetched(self._made(number, rng, augment, cut))

    def _made(
        self, number: int, rng: np.random.Generator | None, augment: Augment | None,
        cut: Cut | None,
    ) -> Generator[Batch, None, None]:  # fmt: skip
        begun, self._begun = self._begun, None
        if begun is None or (number > 1 and hasattr(self.given, "set_epoch")):
            self._set_epoch(number)
            begun = iter(self.given)
        images = step = 0
        for step, batch in enumerate(begun, 1):
            x, y = augmented(augment, *self._pair(step - 1, batch), rng)
            images += len(x)
            part = None if cut is None else cut(len(x))
            yield (x, y, None) if part is None else (x[part], y[part], None)
        if not step:
            raise ValueError(f"{self.name}: it has no batch in epoch {number}")
        self.images, self.steps = images, step

    def identity(self, sampled: bool | None = None) -> Any:
        """Class, shapes and dtypes, and `settings()` if it has that."""
        x, y = self.first
        kind = type(self.given)
        found = {"batches": f"{kind.__module__}.{kind.__qualname__}", "steps": self.steps}
        found["images"] = f"{x.shape[1:]} {x.dtype}"
        found["labels"] = f"{y.shape[1:]} {y.dtype}"
        if callable(settings := getattr(self.given, "settings", None)):
            found["settings"] = settings()
        return found


def _fewest(chosen: Array, part: slice) -> tuple[Array, slice]:
    """The numbers that must be read for a part of a batch, and which of those are the part.

    Of no image at all one is read, for its shape.
    """
    wanted = chosen[part]
    return (wanted, slice(None)) if len(wanted) else (chosen[:1], slice(0))


def feed_of(
    names: tuple[str, str], x: Any, y: Any, batch_size: int, epochs: int, prepare: Preparation
) -> Feed:
    """The feed of a caller's images and labels, checked.

    Parameters
    ----------
    names : (str, str)
        What the caller calls them.
    x, y
        Images and labels of one length; or an iterable of batches, and None.
    batch_size, epochs : int
    prepare : Preparation

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> prepare = Preparation(None, None, np.dtype(np.float32))
    >>> x = np.zeros((70, 4, 4, 1), np.float32)
    >>> feed_of(("x", "y"), x, np.zeros(70, int), 32, 10, prepare).steps
    3
    """
    x_name, y_name = names
    if y is None and is_batches(x):
        return GivenBatches(x_name, x, epochs, prepare)
    rows = as_rows(x_name, x)
    prepare.check(x_name, rows.dtype)
    if len(rows.shape) < 2 or len(rows) == 0:
        raise ValueError(f"{x_name}: expected (m, ...) with m of at least 1, got {rows.shape}")
    if y is None:
        raise TypeError(f"{y_name}: labels are needed beside images that are an array")
    return Batches(rows, labels_of(rows, y_name, y), batch_size, prepare)


def is_batches(x: Any) -> bool:
    """Whether `x` is an iterable that is neither an array nor text."""
    text = isinstance(x, (str, bytes, dict, type))
    return isinstance(x, Iterable) and not text and not is_array(x) and foreign("x", x) is None


def images_of(x: Any, batch_size: int, prepare: Preparation) -> Iterator[Array]:
    """Images without labels, in their order: of an array, or of an iterable of batches.

    Raises
    ------
    TypeError, ValueError
        Naming ``x``.
    """
    if is_batches(x) and not isinstance(x, (list, tuple)):
        return prefetched(_images_of_batches(x, prepare))
    if isinstance(x, (list, tuple)) and x and all(map(_has_images, x)):
        return prefetched(_images_of_batches(x, prepare))
    rows = as_rows("x", x)
    prepare.check("x", rows.dtype)
    if len(rows.shape) < 1:
        raise ValueError(f"x: images (m, ...) are needed, got shape {rows.shape}")
    starts = range(0, max(len(rows), 1), batch_size)  # one empty batch where m = 0
    batches = (prepare("x", rows.slice(i, i + batch_size)) for i in starts)
    return prefetched(batches) if rows.stored or prepare.active else batches


def _has_images(batch: Any) -> bool:
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    return is_array(batch[0] if pair else batch)


def _images_of_batches(batches: Iterable[Any], prepare: Preparation) -> Iterator[Array]:
    for number, batch in enumerate(batches):
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        x = as_array(f"x: batch {number}", batch[0] if pair else batch)
        if x.ndim < 2:
            raise ValueError(f"x: batch {number}: images (m, ...) are needed, got {x.shape}")
        prepare.check(f"x: batch {number}", x.dtype)
        yield prepare("x", x)
