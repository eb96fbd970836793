"""Outputs of a model for stored images, into a zarr array: in bounded memory, and restartable.

The path of the data:

1. The result's chunks are as large as the budget of memory lets the largest layer of a part be: so
   many images, or where one image is too large, a part of it, cut where the images' chunks are.
2. For each chunk that is not there, the part of the images that it is made of is read, while the
   chunk before it is computed.
3. A chunk appears in the result's folder when it is whole, with a checksum. One that is there and
   fits its checksum is not computed again.
4. The result's attributes hold what it was made by: a digest of the model and of the first and the
   last images, which another run must have.
5. A lock in the result's folder keeps other processes away.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from fastconv._extras import host
from fastconv.adapters.shared.operations import Network, Whole, of_model
from fastconv.geometry.parts import Part
from fastconv.nn.base import Layer
from fastconv.nn.checks import shown
from fastconv.nn.copying import scratch_copy
from fastconv.nn.files import file_path
from fastconv.nn.programs import dtype_of

zarr: Any = host("zarr", "zarr")

__all__ = ["Progress", "predict"]

LARGEST = 2**26  # bytes of the largest result of a layer, for the images that are computed at once
MADE_BY = "fastconv"  # the attribute that tells what a result was made by
LOCK = ".fastconv.lock"  # in the result's folder


class Progress(NamedTuple):
    """How far a result is.

    Attributes
    ----------
    chunks, of : int
        Chunks that are there, and chunks in all.
    found : int
        Those of them that were there before.
    spoilt : int
        Those that were there and did not fit their checksum: they are computed again.
    """

    chunks: int
    of: int
    found: int
    spoilt: int


def predict(
    model: Layer,
    x: Any,
    out: str | os.PathLike[str],
    *,
    scale: float | None = None,
    head: Callable[[np.ndarray], np.ndarray] | None = None,
    attributes: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], Any] | None = None,
) -> Any:
    """Outputs of a model for stored images: `fastconv.nn.Sequential.predict`, into a zarr array.

    Memory: a few times 64 MB, besides what a chunk of `x` takes; an image that no layer can take
    in parts, because one mixes all of it, is computed whole. A run that was stopped, by whatever,
    goes on where it was when it is called again with the same arguments.

    Parameters
    ----------
    model : fastconv.nn.Layer
        Usually a `Sequential`.
    x : zarr.Array (m, H, W, C)
        Or any other array with `shape`, `dtype` and slices of it, such as `numpy.memmap`; also
        (m, H, W) of one channel. Of 1-D and 3-D images with their channels.
    out : path
        A folder that there is not yet, or one that a stopped run has left.
    scale : float, optional
        As for `Sequential.predict`: 1/255 for bytes.
    head : callable, optional
        ``head(y)`` of the outputs, with as many axes, is what is kept: of each image, or where the
        outputs are images, of each pixel by itself.
    attributes : mapping, optional
        JSON that the result has as its attributes, too.
    progress : callable, optional
        Is called with a :class:`Progress` before the first chunk that has to be computed, and
        after each.

    Returns
    -------
    y : zarr.Array (m, ...)
        Read-only. Bits are those of `Sequential.predict` with the images in memory.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, and the layer where the images do not fit; also if `out` holds
        something else, or the results of another model or of other images.
    BlockingIOError
        If another process is writing to `out`.
    OSError
        If the disk is full, for example: what is there stays, and a later call goes on.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv.examples import binary_cnn
    >>> model, x = binary_cnn(seed=0), np.ones((5, 8, 8, 1), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     y = predict(model, x, Path(folder, "y.zarr"))
    ...     y.shape, np.array_equal(y[:], model.predict(x))
    ((5, 1), True)
    """
    task = _Task(model, x, scale, head)
    folder = file_path("out", out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out: {folder} is no folder")
    root = getattr(getattr(x, "store", None), "root", None)
    if root is not None:
        images, results = Path(root, x.path).resolve(), folder.resolve()
        if images == results or images in results.parents or results in images.parents:
            raise ValueError(f"out: {folder} is where the images are")
    if folder.is_dir() and os.listdir(folder) not in ([], [LOCK]):
        _held(folder, task)  # before a lock is put there
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        y = _result(folder, task, dict(attributes or {}))
        _fill(y, folder, task, progress)
    return zarr.open_array(str(folder), mode="r")


class _Task:
    """A model, images, and how the result is cut."""

    def __init__(self, model: Layer, x: Any, scale: Any, head: Any) -> None:
        if not (hasattr(x, "shape") and hasattr(x, "dtype") and hasattr(x, "__getitem__")):
            raise TypeError(f"x: an array of zarr, or one with shape and dtype, got {shown(x)}")
        self.x, self.channels = x, x.shape[3:] or (1,)
        if len(x.shape) < 3:
            raise ValueError(f"x: expected (m, H, W[, C]), got {x.shape}")
        self.dtype = np.dtype(x.dtype)
        self.model, self.scale, self.head = model, scale, head
        self.whole = self.operation = self._operation(in_parts=False)
        outputs = self.whole.y
        one = self._headed(np.zeros((1,) * (outputs.ndim - 1) + outputs.shape[-1:], outputs.dtype))
        if one.shape[:-1] != (1,) * (outputs.ndim - 1):
            raise ValueError(f"head: made {one.shape} of outputs of one pixel or image")
        self.y = np.empty((*outputs.shape[:-1], one.shape[-1]), one.dtype)
        largest = _largest(model, self.whole.x_shape)
        if largest > LARGEST:
            with suppress(ValueError):  # a layer takes all of an image
                self.operation = self._operation(in_parts=True)
        self.chunks = self._chunks(largest)
        self.made_by = {
            "model": self.whole.token,
            "images": _digest(x),
            "scale": scale,
            "algorithm": self.whole.algorithm,
            "head": None if head is None else getattr(head, "__name__", type(head).__name__),
        }

    def _operation(self, in_parts: bool) -> Whole | Network:
        images = self._images(np.empty((0, *self.x.shape[1:]), self.dtype))
        return of_model(self.model, images, 256, self.scale, in_parts)

    def _headed(self, y: np.ndarray) -> np.ndarray:
        return y if self.head is None else self.head(y)

    def go_on(self, chunks: tuple[int, ...]) -> None:
        """Take the chunks of a result that was begun."""
        in_parts = any(n < of for n, of in zip(chunks[1:-1], self.y.shape[1:-1], strict=True))
        if in_parts != isinstance(self.operation, Network):
            self.operation = self._operation(in_parts)
        self.chunks = chunks

    def _images(self, x: np.ndarray) -> np.ndarray:
        return x[..., None] if len(self.x.shape) == 3 else x

    def _chunks(self, largest: int) -> tuple[int, ...]:
        """Sizes of the result's chunks."""
        m, *sizes = self.x.shape[: max(len(self.x.shape) - 1, 3)]
        cuts = tuple(getattr(self.x, "chunks", None) or self.x.shape)
        if not isinstance(self.operation, Network):
            images = max(1, min(m, LARGEST // max(largest, 1)))
            return (_aligned(images, cuts[0]), *map(_one, self.y.shape[1:]))
        part = list(sizes)
        while largest * math.prod(part) > LARGEST * math.prod(sizes) and max(part) > 1:
            longest = part.index(max(part))
            part[longest] = -(-part[longest] // 2)
        results = self.y.shape[1:-1]
        ends = zip(part, cuts[1:], results, sizes, strict=False)
        cells = (max(1, _aligned(n, c) * r // size) for n, c, r, size in ends)
        return (1, *cells, self.y.shape[-1])

    def wanted(self, index: Sequence[int]) -> tuple[slice, tuple[Part, ...]]:
        """Images, and the part of their results, that a chunk holds."""
        shape = (self.x.shape[0], *self.y.shape[1:])
        starts = [i * n for i, n in zip(index, self.chunks, strict=True)]
        ends = [min(s + n, of) for s, n, of in zip(starts, self.chunks, shape, strict=True)]
        parts = tuple(Part(*ends_) for ends_ in zip(starts[1:-1], ends[1:-1], strict=True))
        return slice(starts[0], ends[0]), parts

    def read(self, index: Sequence[int]) -> np.ndarray:
        """What a chunk is made of."""
        images, parts = self.wanted(index)
        cells = (slice(p.start, p.stop) for p in self.operation.read(parts))
        return self._images(np.asarray(self.x[(images, *cells)]))

    def run(self, x: np.ndarray, index: Sequence[int]) -> np.ndarray:
        """A chunk, of what `read` gave."""
        return self._headed(self.operation.run(x, self.wanted(index)[1]))


def _one(size: int) -> int:
    return max(1, size)  # a chunk has no axis of length 0


def _aligned(size: int, chunk: int) -> int:
    """A size near `size`, at most: whole chunks, or an even part of one."""
    chunk = max(1, chunk)
    return size // chunk * chunk if size >= chunk else -(-chunk // -(-chunk // size))


def _largest(model: Layer, x_shape: tuple[int, ...]) -> int:
    """Bytes of the largest result of a layer for one image."""
    twin = scratch_copy(model, evaluating=True)
    twin.forward(np.empty((0, *x_shape), dtype_of(model)))
    shapes = [x_shape, *(layer.output_shape or () for _, layer in twin.walk())]
    return max(math.prod(shape) for shape in shapes) * dtype_of(model).itemsize


def _digest(x: Any) -> str:
    """Of the kind of the images, and of the first and the last of them as far as 1,000 rows."""
    found = blake2b(f"{tuple(x.shape)} {np.dtype(x.dtype).str}".encode(), digest_size=16)
    for i in sorted({0, max(0, x.shape[0] - 1)}):
        found.update(np.asarray(x[i : i + 1, :1000, :1000]).tobytes())
    return found.hexdigest()


# The result ---------------------------------------------------------------------------------------


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other writers away. Where the file system has no locks they would write the same."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        text = "another process is writing to it"
        raise BlockingIOError(errno.EAGAIN, text, str(folder)) from None
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()


def _held(folder: Path, task: _Task) -> Any:
    """The array that a run with the same arguments has begun."""
    try:
        y = zarr.open_array(str(folder), mode="r+")
        made_by = y.attrs.get(MADE_BY)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"out: {folder} holds something else than results: {error}") from error
    if not isinstance(made_by, dict):
        raise ValueError(f"out: {folder} holds an array that predict has not made")
    for name, value in task.made_by.items():
        if made_by.get(name) != value:
            raise ValueError(
                f"out: {folder} holds results of another {name.removesuffix('s')}; give another "
                "name, or remove it"
            )
    return y


def _result(folder: Path, task: _Task, attributes: dict[str, Any]) -> Any:
    """The array that results are written to."""
    if os.listdir(folder) not in ([], [LOCK]):
        return _held(folder, task)
    return zarr.create_array(
        str(folder),
        shape=(task.x.shape[0], *task.y.shape[1:]),
        chunks=task.chunks,
        dtype=task.y.dtype,
        fill_value=np.nan if task.y.dtype.kind == "f" else 0,
        compressors=[zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()],
        attributes={**attributes, MADE_BY: task.made_by},
        config={"write_empty_chunks": True},
    )


def _fill(y: Any, folder: Path, task: _Task, progress: Any) -> None:
    """Compute the chunks that are not there, while the next one is read."""
    task.go_on(tuple(y.chunks))
    grid = tuple(-(-n // c) for n, c in zip(y.shape, y.chunks, strict=True))
    places = list(np.ndindex(grid))
    states = [_state(y, folder, index) for index in places]
    missing = [index for index, state in zip(places, states, strict=True) if state != "whole"]
    found, spoilt = states.count("whole"), states.count("spoilt")

    def tell(computed: int) -> None:
        if progress is not None:
            progress(Progress(found + computed, len(places), found, spoilt))

    tell(0)
    with ThreadPoolExecutor(1, "fastconv-read") as reader:
        following: Future[np.ndarray] | None = None
        for i, index in enumerate(missing):
            x = task.read(index) if following is None else following.result()
            last = i + 1 == len(missing)
            following = None if last else reader.submit(task.read, missing[i + 1])
            y.blocks[index] = task.run(x, index)
            tell(i + 1)


def _state(y: Any, folder: Path, index: tuple[int, ...]) -> str:
    """Whether a chunk is "missing", "whole" or "spoilt"."""
    if not folder.joinpath("c", *map(str, index)).exists():
        return "missing"
    try:
        y.blocks[index]
    except (ValueError, RuntimeError, IndexError):  # what codecs say of bytes that are not theirs
        return "spoilt"
    return "whole"
