"""Convolution and networks on `xarray.DataArray`: names, coordinates and attributes stay.

What is chunked by dask stays lazy, chunk by chunk along the axes that are not of an image.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

import fastconv as fc
from fastconv._extras import host
from fastconv.adapters.shared.operations import Windowed, of_model, shared_threads
from fastconv.geometry.parts import Part
from fastconv.nn.base import Layer
from fastconv.nn.checks import shown
from fastconv.operands import operand
from fastconv.plans.algorithm import chosen
from fastconv.typing import Activation, Algorithm, Int, Padding, PaddingMode

xarray: Any = host("xarray", "xarray")

__all__ = ["conv", "predict"]


def conv(
    x: Any,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    dims: Sequence[Hashable] | None = None,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    activation: Activation | None = None,
    padding_mode: PaddingMode = "constant",
    algorithm: Algorithm | None = None,
) -> Any:
    """:func:`fastconv.conv` of a DataArray.

    Parameters
    ----------
    x : xarray.DataArray (..., H, W, C)
        With any number of axes besides those of an image, also none.
    w : array (KH, KW, C/G, F)
    b : array (F,), optional
    dims : sequence of names, optional
        The axes of an image, channels last; by default the last ones of `x`, as many as `w` needs.
    stride, padding, dilation, groups, activation, padding_mode, algorithm
        As for :func:`fastconv.conv`.

    Returns
    -------
    y : xarray.DataArray (..., OH, OW, F)
        With the attributes of `x`, its name and its coordinates, but for those along the channels
        and along an axis that has another length now.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.conv`, before anything is computed, naming the argument; also if an axis
        of an image is in several chunks.

    Examples
    --------
    >>> x = xarray.DataArray(np.ones((5, 6, 1)), dims=("y", "x", "band"), coords={"y": range(5)})
    >>> y = conv(x, np.ones((3, 3, 1, 2)), padding="same")
    >>> y.dims, y.shape, y.y.values.tolist()
    (('y', 'x', 'band'), (5, 6, 2), [0, 1, 2, 3, 4])
    """
    operands = {"w": np.array(operand("w", w))}
    if b is not None:
        operands["b"] = np.array(operand("b", b))
    rank = operands["w"].ndim - 2
    names = _image_dims(x, dims, rank + 1)
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "data_format": "channels_last",
        "activation": activation,
        "padding_mode": padding_mode,
        "algorithm": chosen(algorithm),
    }
    images = np.empty((0, *(x.sizes[name] for name in names)), x.dtype)
    return _applied(Windowed(fc.conv, images, w.shape[:-2], operands, options), x, names)


def predict(
    model: Layer,
    x: Any,
    batch_size: int = 256,
    *,
    dims: Sequence[Hashable] | None = None,
    scale: float | None = None,
) -> Any:
    """Outputs of a model for a DataArray of images: `fastconv.nn.Sequential.predict`.

    Parameters
    ----------
    model : fastconv.nn.Layer
        Weights are those of now.
    x : xarray.DataArray (..., H, W, C)
        With any number of axes besides those of an image, also none.
    batch_size : int
        Images that are computed at a time.
    dims : sequence of names, optional
        The axes of an image, channels last; by default the last three of `x`.
    scale : float, optional
        As for `Sequential.predict`: 1/255 for bytes.

    Returns
    -------
    y : xarray.DataArray
        (..., OH, OW, F), named and with coordinates as of :func:`conv`; or (..., F), where F has
        the name of the channels, if the model gives one vector an image.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, and the layer where the images do not fit; also if an axis of an image
        is in several chunks.

    Examples
    --------
    >>> from fastconv.examples import binary_cnn
    >>> x = xarray.DataArray(np.ones((2, 3, 8, 8, 1), "f4"), dims=("run", "time", "y", "x", "c"))
    >>> predict(binary_cnn(), x).sizes
    Frozen({'run': 2, 'time': 3, 'c': 1})
    """
    names = _image_dims(x, dims, 3)
    images = np.empty((0, *(x.sizes[name] for name in names)), x.dtype)
    return _applied(of_model(model, images, batch_size, scale), x, names)


def _image_dims(x: Any, dims: Any, count: int) -> tuple[Hashable, ...]:
    """Names of the axes of an image."""
    if not isinstance(x, xarray.DataArray):
        raise TypeError(f"x: a DataArray of xarray is needed, got {type(x).__name__}")
    names = x.dims[-count:] if dims is None else dims
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"dims: a sequence of names is needed, got {shown(names)}")
    if dims is None and len(names) < count:
        raise ValueError(f"x: an image has {count} axes, channels last; got {x.dims}")
    if not 2 <= len(names) <= 4 or len(set(names)) != len(names):
        raise ValueError(f"dims: the names of an image's axes are needed, got {tuple(names)}")
    for name in names:
        if name not in x.dims:
            raise ValueError(f"dims: x has no axis {name!r}; it has {x.dims}")
        if len(x.chunksizes.get(name, (0,))) > 1:
            raise ValueError(
                f"x: its axis {name!r} is in several chunks, and an image must be in one: "
                f"x.chunk({{{name!r}: -1}}); fastconv.adapters.dask takes such arrays"
            )
    return tuple(names)


class _Images:
    """An operation on the images of an array with any number of axes before theirs."""

    def __init__(self, operation: Any, axes: int) -> None:
        self.operation, self.axes = operation, axes

    def __dask_tokenize__(self) -> Any:
        from dask.base import normalize_token

        return normalize_token((self.operation, self.axes))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        leading = x.shape[: x.ndim - self.axes]
        images = x.reshape(-1, *x.shape[x.ndim - self.axes :])
        whole = tuple(Part(0, n) for n in self.operation.y.shape[1:-1])
        with shared_threads():
            y: np.ndarray = self.operation.run(images, whole)
        return y.reshape(*leading, *y.shape[1:])


def _applied(operation: Any, x: Any, names: tuple[Hashable, ...]) -> Any:
    sizes = operation.y.shape[1:]
    outputs = names if len(sizes) == len(names) else names[len(names) - len(sizes) :]
    result = dict(zip(outputs, sizes, strict=True))
    changed = {name for name in names[:-1] if result.get(name) != x.sizes[name]} | {names[-1]}
    return xarray.apply_ufunc(
        _Images(operation, len(names)),
        x,
        input_core_dims=[names],
        output_core_dims=[outputs],
        exclude_dims=changed,
        dask="parallelized",
        output_dtypes=[operation.y.dtype],
        dask_gufunc_kwargs={"output_sizes": {n: s for n, s in result.items() if n in changed}},
        keep_attrs=True,
    )
