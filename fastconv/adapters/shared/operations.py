"""What is computed on a chunk: an operation that knows which cells its results are made of.

Each has `y`, its result for no images, which tells shape and dtype; ``read(wanted)``, the part of
an image that the wanted results are made of; and ``run(x, wanted)``.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastconv import threads
from fastconv.geometry.parts import Part, Parts, windows_of
from fastconv.nn.base import Layer
from fastconv.nn.checks import positive_int, quiet, shown
from fastconv.nn.digest import digest
from fastconv.nn.feed import Preparation
from fastconv.nn.inference import predict
from fastconv.nn.programs import dtype_of
from fastconv.nn.tiles import Tiling
from fastconv.plans.algorithm import algorithm, chosen

__all__ = ["Network", "Whole", "Windowed", "of_model", "shared_threads", "spatial_axes"]


def spatial_axes(ndim: int, data_format: str) -> range:
    """The axes between batch and channels."""
    return range(1, ndim - 1) if data_format == "channels_last" else range(2, ndim)


class Windowed:
    """A convolution or pooling of NumPy arrays.

    Parameters
    ----------
    function : callable
        ``function(x, **operands, **options)``
    x : dask.array.Array
    window : int or tuple of int
    operands, options : dict
        Its arguments; `options` are those of the windows, and others.

    Raises
    ------
    TypeError, ValueError
        What the function says of them.
    """

    def __init__(
        self, function: Callable[..., Any], x: Any, window: Any, operands: Any, options: Any
    ) -> None:
        self.function, self.operands, self.options = function, operands, options
        self.y = function(np.empty((0, *x.shape[1:]), x.dtype), **operands, **options)
        self.axes = spatial_axes(x.ndim, options["data_format"])
        self.sizes = tuple(x.shape[axis] for axis in self.axes)
        self.windows = windows_of(self.sizes, window, **options)
        self.all = tuple(Part(0, self.y.shape[axis]) for axis in self.axes)

    def __dask_tokenize__(self) -> Any:
        """Function and arguments."""
        from dask.base import normalize_token

        named = (self.function.__name__, self.operands, self.options, self.sizes)
        return normalize_token(named)

    def read(self, wanted: Parts) -> Parts:
        """Part of the image."""
        if wanted == self.all:
            return tuple(Part(0, n) for n in self.sizes)
        if any(w.mode == "wrap" and (w.lo or w.hi) for w in self.windows):
            raise ValueError(
                "padding_mode: 'wrap' joins the ends of an axis, which must be in one chunk"
            )
        return tuple(r.part for r in self._readings(wanted))

    def _readings(self, wanted: Parts) -> list[Any]:
        return [
            w.read(part, n) for w, part, n in zip(self.windows, wanted, self.sizes, strict=True)
        ]

    def run(self, x: np.ndarray, wanted: Parts) -> np.ndarray:
        """The wanted results of part `read(wanted)`."""
        if wanted == self.all:
            return self.function(x, **self.operands, **self.options)
        readings = self._readings(wanted)
        padding = tuple(r.padding for r in readings)
        y = self.function(x, **self.operands, **{**self.options, "padding": padding})
        cut = [slice(None)] * y.ndim
        for axis, r, part in zip(self.axes, readings, wanted, strict=True):
            cut[axis] = slice(r.skip, r.skip + part.size)
        return y[tuple(cut)]


class Whole:
    """A model on whole images.

    Parameters
    ----------
    model : Layer
    images : ndarray (0, ...)
        As the model gets them.
    batch_size, scale
        As for `Sequential.predict`.
    """

    def __init__(
        self, model: Layer, images: np.ndarray, batch_size: int, scale: float | None
    ) -> None:
        self.batch_size, self.scale = batch_size, scale
        self.algorithm = chosen(None)
        self.token = digest(model)
        self.x_shape = images.shape[1:]
        self._take(model, images)

    def _take(self, model: Layer, images: np.ndarray) -> None:
        modules = {id(part._ops): part._ops for _, part in model.walk()}  # shared, not copied
        self.model = copy.deepcopy(model, modules)
        self.y = quiet(self.model.infer)(images)

    def __dask_tokenize__(self) -> Any:
        """Model and arguments."""
        named = (type(self).__name__, self.token, self.x_shape, self.batch_size, self.scale)
        return *named, self.algorithm

    def read(self, wanted: Parts) -> Parts:
        """The whole image."""
        return tuple(Part(0, n) for n in self.x_shape[:-1])

    def run(self, x: np.ndarray, wanted: Parts) -> np.ndarray:
        """Outputs of `x`."""
        return self._predict(self.model, x)

    def _predict(self, model: Layer, x: np.ndarray) -> np.ndarray:
        if not len(x):
            return np.empty((0, *self.y.shape[1:]), self.y.dtype)
        with algorithm(self.algorithm):
            return predict(model, x, self.batch_size, scale=self.scale)


class Network(Whole):
    """A model on parts of images."""

    def _take(self, model: Layer, images: np.ndarray) -> None:
        self.tiling = Tiling(model, images.shape[1:], images.dtype)
        self.y = np.empty((0, *self.tiling.y_shape), self.tiling.dtype)

    def read(self, wanted: Parts) -> Parts:
        """Part of the image."""
        return self.tiling.read(wanted)

    def run(self, x: np.ndarray, wanted: Parts) -> np.ndarray:
        """The wanted results of part `read(wanted)`."""
        if not len(x):
            sizes = tuple(part.size for part in wanted)
            return np.empty((0, *sizes, self.y.shape[-1]), self.y.dtype)
        return self.tiling.run(x, wanted, self._predict)


def of_model(
    model: Any, images: np.ndarray, batch_size: int, scale: float | None, in_parts: bool = False
) -> Whole | Network:
    """The operation of a model on images, whole or in parts; `images` (0, ...) tell their kind.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, and the layer where the images do not fit.
    """
    if not isinstance(model, Layer):
        raise TypeError(f"model: a fastconv.nn model is needed, got {shown(model)}")
    batch_size = positive_int("batch_size", batch_size)
    prepare = Preparation(scale, None, dtype_of(model))
    prepare.check("x", images.dtype)
    return (Network if in_parts else Whole)(model, prepare("x", images), batch_size, scale)


@contextmanager
def shared_threads() -> Iterator[None]:
    """Inside a task of dask's: so many threads that all tasks of the process share the cores."""
    with threads.num_threads(max(1, threads.get_num_threads() // tasks_at_once())):
        yield


def tasks_at_once() -> int:
    """Tasks that this process may be computing: the worker's threads, or the scheduler's.

    It is 1 outside of dask's threads.

    >>> tasks_at_once()
    1
    """
    distributed, dask = sys.modules.get("distributed"), sys.modules.get("dask")
    if distributed is not None:
        try:
            return max(1, int(distributed.get_worker().state.nthreads))
        except ValueError:  # this is no task of a worker
            pass
    if dask is None or threading.current_thread() is threading.main_thread():
        return 1
    pool = dask.config.get("pool", None)
    given = dask.config.get("num_workers", None) or getattr(pool, "_max_workers", None)
    return max(1, int(given or dask.system.CPU_COUNT))
