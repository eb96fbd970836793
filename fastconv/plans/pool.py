"""Pooling over arrays of any layout: what the compiled loops can read in place, or block by block.

They take images whose channels lie one behind the other. A contiguous array in channels-first order
is such a thing too: m*C images of one channel. Anything else is copied, a block at a time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.geometry import Geometry
from fastconv.geometry.geometry import windows_with_cells
from fastconv.geometry.memo import remembered
from fastconv.geometry.resolve import pool_geometry
from fastconv.operands import channels_last, computing_dtype, put, user_shape
from fastconv.plans.compiled import halves, pool_kept, pools
from fastconv.plans.layout import blocks, contiguous, in_place, native
from fastconv.typing import Int

if TYPE_CHECKING:
    from fastconv.engine.kept import KeptCall

__all__ = ["Pooling", "planned"]

CACHED_PLANS = 256


class Pooling:
    """Max or average pooling of one geometry and dtype; arrays are in the caller's data format.

    Examples
    --------
    >>> pool = planned((1, 4, 4, 1), 2, np.dtype("float32"), "x", data_format="channels_last")
    >>> y = np.empty(pool.y_shape, pool.dtype)
    >>> pool.max_pool(np.arange(16, dtype="float32").reshape(pool.x_shape), y, None)
    >>> y.ravel()
    array([ 5.,  7., 13., 15.], dtype=float32)
    """

    def __init__(self, g: Geometry, dtype: np.dtype, data_format: str, include_pad: bool) -> None:
        self.geometry, self.dtype, self.data_format = g, dtype, data_format
        self.x_shape = user_shape(g.x_shape, data_format)
        self.y_shape = user_shape(g.y_shape, data_format)
        self._include_pad = include_pad

    def max_pool(self, x: np.ndarray, y: np.ndarray, argmax: np.ndarray | None) -> None:
        """Maximum of every window, and the winner's flat spatial index if `argmax` is given."""
        name = "max" if argmax is None else "argmax"
        if plan := self._of_halves(x, y, x if argmax is None else argmax):
            plan.reduce(name, x, y, argmax)
            return
        for plan, arrays in self._parts((x,), (y, argmax), in_lines=argmax is None):
            plan.reduce(name, *arrays)

    def max_pool_backward(self, dy: np.ndarray, argmax: np.ndarray, dx: np.ndarray) -> bool:
        """Every error to its window's winner; False, and `dx` untouched, if one is no cell."""
        cells, celled = math.prod(self.geometry.x_size), self._celled
        if celled is not None and np.any((argmax == -1) & celled):
            return False
        plan = self._of_halves(dy, argmax, dx)
        if plan and plan.apart and plan.vectors:
            placed: bool | None = plan.place(dy, argmax, dx)
            if placed is not None:
                return placed
        in_parts = argmax.size and not in_place(dy, argmax, dx)  # all are checked before the first
        least = 0 if celled is None else -1
        if in_parts and not least <= argmax.min() <= argmax.max() < cells:
            return False
        return all(plan.scatter(*arrays) for plan, arrays in self._parts((dy, argmax), (dx,)))

    def avg_pool(self, x: np.ndarray, y: np.ndarray) -> None:
        """Mean of every window."""
        if plan := self._of_halves(x, y):
            plan.reduce("mean", x, y, None)
            return
        for plan, arrays in self._parts((x,), (y,), in_lines=True):
            plan.reduce("mean", *arrays, None)

    def avg_pool_backward(self, dy: np.ndarray, dx: np.ndarray) -> None:
        """Every error spread evenly over its window."""
        plan = self._of_halves(dy, dx)
        if plan and plan.apart:
            plan.spread(dy, dx)
            return
        for plan, arrays in self._parts((dy,), (dx,)):
            plan.spread(*arrays)

    @cached_property
    def _celled(self) -> np.ndarray | None:
        """Which windows have a cell, beside an argmax's other axes; None if all have one."""
        axes = windows_with_cells(self.geometry)
        if all(axis.all() for axis in axes):
            return None
        celled = reduce(np.logical_and.outer, axes)
        return celled[..., None] if self.data_format == "channels_last" else celled

    @cached_property
    def _pixels(self) -> Any:
        """The plan for pixels whose channels lie one behind the other."""
        return _plan(self.geometry, self.dtype, self._include_pad)

    @cached_property
    def _lines(self) -> Any:
        """The plan for few channels, of values only.

        At a stride of 1, the next channel of a pixel is the next window: of an image of one channel
        that is C times as wide, and whose cells are C times as far apart.
        """
        g, pixels = self.geometry, self._pixels
        (*x_rest, W), (*y_rest, OW), (*pads, (lo, hi)) = g.x_size, g.y_size, g.pads
        few = g.C > 1 and pixels.lanes < pixels.most <= OW * g.C
        if g.stride[-1] > 1 or not few:
            return pixels
        line = dataclasses.replace(
            g,
            C=1,
            F=1,
            G=1,
            x_size=(*x_rest, W * g.C),
            y_size=(*y_rest, OW * g.C),
            pads=(*pads, (lo * g.C, hi * g.C)),
            dilation=(*g.dilation[:-1], g.dilation[-1] * g.C),
        )
        plan = _plan(line, self.dtype, self._include_pad)
        return plan if plan.spacing else pixels

    @cached_property
    def _planes(self) -> Any:
        """The plan for channels whose pixels do."""
        g = self.geometry
        return _plan(_part(g, g.m * g.C, 1), self.dtype, self._include_pad)

    def _of_halves(self, *arrays: np.ndarray) -> Any:
        """The plan that takes contiguous arrays of float16, and winners, as they are, or None."""
        if self.dtype != np.float16 or not self.geometry.m or not halves():
            return None
        for a in arrays:
            if not (a.flags.c_contiguous and a.dtype.isnative):
                return None
        g = self.geometry
        one_channel = self.data_format == "channels_first"
        return pools(_part(g, g.m * g.C, 1) if one_channel else g, self.dtype, self._include_pad)

    def _parts(
        self,
        inputs: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray | None],
        in_lines: bool = False,
    ) -> Iterable[tuple[Any, Sequence[Any]]]:
        """A plan and its arrays for every part; what is computed into a copy is written back.

        With `in_lines`, pixels may be taken apart.
        """
        if not self.geometry.m:
            return ()
        arrays = (*inputs, *outputs)
        given: Any = arrays if arrays[-1] is not None else arrays[:-1]
        if plan := self._whole(given, in_lines):
            return ((plan, arrays),)
        views = [None if a is None else channels_last(a, self.data_format) for a in arrays]
        return self._copied_parts(views[: len(inputs)], views[len(inputs) :])

    def _whole(self, given: Sequence[np.ndarray], in_lines: bool) -> Any:
        """The plan that takes arrays where they lie, or None."""
        last = self.data_format == "channels_last"
        if in_place(*given):
            if last:
                return self._lines if in_lines else self._pixels
            return self._planes
        moved = [np.moveaxis(a, -1, 1) if last else np.moveaxis(a, 1, -1) for a in given]
        if in_place(*moved):
            return self._planes if last else self._pixels
        return None

    def kept_call(self, name: str, *arrays: np.ndarray | None) -> KeptCall | None:
        """One call, to be kept, that pools such arrays; None where it takes more than that.

        Parameters
        ----------
        name : {"max", "argmax", "mean", "scatter", "spread"}
            Maxima, also with winners, or means; and the errors of maxima, or of means.
        arrays : ndarray
            ``(x, y, argmax or None)``; for errors ``(dy, argmax or None, dx)``.
        """
        given = [a for a in arrays if a is not None]
        if not all(a.size for a in given):
            return None
        back = name in ("scatter", "spread")
        if name == "scatter" and self._celled is not None:
            return None
        plan = self._of_halves(*given)
        if plan and back and not (plan.apart and (name == "spread" or plan.vectors)):
            plan = None
        if not plan:
            plan = self._whole(given, name in ("max", "mean"))
        if plan is None:
            return None
        return pool_kept(plan, name, *arrays)

    def _copied_parts(
        self, inputs: Sequence[Any], outputs: Sequence[Any]
    ) -> Iterator[tuple[Any, Sequence[Any]]]:
        g = self.geometry
        for block in blocks(g, [a for a in (*inputs, *outputs) if a is not None]):
            ready = [contiguous(a[block]) for a in inputs]
            made = [None if a is None else np.empty(a[block].shape, native(a)) for a in outputs]
            part = _part(g, ready[0].shape[0], ready[0].shape[-1])
            yield _plan(part, self.dtype, self._include_pad), (*ready, *made)
            for a, result in zip(outputs, made, strict=True):
                if a is not None and result is not None:
                    put(a[block], result)


@remembered(CACHED_PLANS)
def planned(
    x_shape: Any,
    window: Int,
    dtype: np.dtype,
    name: str,
    *,
    data_format: Any,
    include_pad: bool = False,
    **options: Any,
) -> Pooling:
    """Kept pooling for these arguments; `name` is what the caller calls the first one."""
    g = pool_geometry(x_shape, window, data_format=data_format, name=name, **options)
    return Pooling(g, dtype, data_format, include_pad)


def _plan(g: Geometry, dtype: np.dtype, include_pad: bool) -> Any:
    return pools(g, computing_dtype(dtype), include_pad)


@lru_cache(CACHED_PLANS)
def _part(g: Geometry, m: int, C: int) -> Geometry:
    """`g` with so many images and channels."""
    return dataclasses.replace(g, m=m, C=C, F=C, G=C)
