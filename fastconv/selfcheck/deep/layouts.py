"""Arrays in every layout that a caller may have, and the memory around them."""

from __future__ import annotations

import numpy as np

__all__ = ["INPUT_LAYOUTS", "LAYOUTS", "SENTINEL", "arranged"]

LAYOUTS = ("plain", "strided", "reversed", "transposed", "fortran", "unaligned", "odd")
INPUT_LAYOUTS = (*LAYOUTS, "read-only", "swapped")
SENTINEL = 77  # the memory around an array


def arranged(array: np.ndarray, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """The same values in another layout, and the memory that they lie in, filled with SENTINEL.

    Examples
    --------
    >>> view, room = arranged(np.zeros((2, 3)), "fortran")
    >>> view.flags.f_contiguous, room.shape
    (True, (22,))
    """
    if layout == "read-only":
        copy = array.copy()
        copy.flags.writeable = False
        return copy, copy.ravel()[:0]
    if layout == "swapped":
        swapped = array.astype(array.dtype.newbyteorder())
        return swapped, swapped.ravel()[:0]
    view, room = _room_for(array, layout)
    view[...] = array
    return view, room


def _room_for(a: np.ndarray, layout: str) -> tuple[np.ndarray, np.ndarray]:
    if layout == "strided":  # every other element on every axis
        room = np.full([2 * n + 1 for n in a.shape], SENTINEL, a.dtype)
        return room[tuple(slice(1, None, 2) for _ in a.shape)], room
    if layout == "unaligned":
        size = a.dtype.itemsize
        room = np.full((a.size + 2) * size, SENTINEL, np.uint8)
        return room[size + 1 :][: a.nbytes].view(a.dtype).reshape(a.shape), room
    first = {"transposed": range(1, a.ndim), "fortran": range(a.ndim)[::-1]}.get(layout, ())
    axes = [*first, *(i for i in range(a.ndim) if i not in first)]  # outermost in memory first
    room = np.full(a.size + 16, SENTINEL, a.dtype)
    view = room[8 : 8 + a.size].reshape([a.shape[i] for i in axes]).transpose(np.argsort(axes))
    if layout == "reversed":
        view = view[(slice(None, None, -1),) * a.ndim]
    if layout == "odd":  # an axis of length 1 may have any stride
        strides = [7 if n == 1 else s for n, s in zip(a.shape, view.strides, strict=True)]
        view = np.lib.stride_tricks.as_strided(view, a.shape, strides)
    return view, room
