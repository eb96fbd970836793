"""Convolution, pooling and networks on `dask.array`, lazily, in chunks of the batch and of images.

Every chunk is computed with what its neighbours hold of it, and the result has the bits that the
whole array would have given, whatever the chunks. Chunks of spatial axes are as the caller has
them; where one is smaller than what its neighbour needs of it, it is joined with the next.

Every task uses so many threads as make, with the other threads of its worker, the processors:
``fastconv.get_num_threads()`` divided by the worker's threads.

The arguments are those of the functions of the same name. What dask does with chunks that overlap
is in its documentation, under *overlapping computations*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv as fc
from fastconv._extras import host

host("dask", "dask")
host("dask.array", "dask")

from fastconv.adapters.dask.chunks import applied, checked  # noqa: E402
from fastconv.adapters.shared.operations import Windowed, of_model  # noqa: E402
from fastconv.nn.base import Layer  # noqa: E402
from fastconv.operands import operand  # noqa: E402
from fastconv.plans.algorithm import chosen  # noqa: E402
from fastconv.typing import (  # noqa: E402
    Activation,
    Algorithm,
    DataFormat,
    Int,
    Padding,
    PaddingMode,
)

__all__ = ["avg_pool", "conv", "max_pool", "predict"]


def conv(
    x: Any,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: DataFormat = "channels_last",
    activation: Activation | None = None,
    padding_mode: PaddingMode = "constant",
    algorithm: Algorithm | None = None,
) -> Any:
    """:func:`fastconv.conv` of a dask array.

    Parameters
    ----------
    x : dask.array.Array (m, H, W, C)
        Images, 1-D to 3-D, chunked along the batch and the spatial axes; all channels in one chunk.
    w : array (KH, KW, C/G, F)
    b : array (F,), optional
    stride, padding, dilation, groups, data_format, activation, padding_mode, algorithm
        As for :func:`fastconv.conv`. Bits are those of the whole array with ``"exact"``, the
        default; ``"fast"`` rounds otherwise in every chunk. Padding by ``"wrap"`` takes spatial
        axes in one chunk.

    Returns
    -------
    y : dask.array.Array (m, OH, OW, F)

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.conv`, before anything is computed, naming the argument; also for chunks
        that cannot be computed one by one, with those that can.

    Examples
    --------
    >>> import dask.array as da
    >>> x = np.arange(36.0).reshape(1, 6, 6, 1)
    >>> w = np.ones((3, 3, 1, 2))
    >>> y = conv(da.from_array(x, chunks=(1, 4, 3, 1)), w, padding="same")
    >>> y.chunks
    ((1,), (4, 2), (3, 3), (2,))
    >>> np.array_equal(y.compute(), fc.conv(x, w, padding="same"))
    True
    """
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "data_format": data_format,
        "activation": activation,
        "padding_mode": padding_mode,
        "algorithm": chosen(algorithm),
    }
    checked("x", x)
    operands = {"w": np.array(operand("w", w))}
    if b is not None:
        operands["b"] = np.array(operand("b", b))
    window = operands["w"].shape[:-2]
    return applied(Windowed(fc.conv, x, window, operands, options), x, data_format)


def max_pool(
    x: Any,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    data_format: DataFormat = "channels_last",
) -> Any:
    """:func:`fastconv.max_pool` of a dask array.

    Parameters
    ----------
    x : dask.array.Array (m, H, W, C)
        As for :func:`conv`; also integers and bool.
    window, stride, padding, dilation, ceil_mode, data_format
        As for :func:`fastconv.max_pool`.

    Returns
    -------
    y : dask.array.Array (m, OH, OW, C)

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`.

    Examples
    --------
    >>> import dask.array as da
    >>> max_pool(da.ones((1, 7, 6, 3), chunks=(1, 3, 3, 3)), 2, ceil_mode=True).chunks
    ((1,), (1, 2, 1), (1, 2), (3,))
    """
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "data_format": data_format,
    }
    checked("x", x)
    return applied(Windowed(fc.max_pool, x, window, {"window": window}, options), x, data_format)


def avg_pool(
    x: Any,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    data_format: DataFormat = "channels_last",
) -> Any:
    """:func:`fastconv.avg_pool` of a dask array.

    Parameters
    ----------
    x : dask.array.Array (m, H, W, C)
        As for :func:`conv`.
    window, stride, padding, dilation, ceil_mode, count_include_pad, data_format
        As for :func:`fastconv.avg_pool`.

    Returns
    -------
    y : dask.array.Array (m, OH, OW, C)

    Raises
    ------
    TypeError, ValueError
        As :func:`conv`.

    Examples
    --------
    >>> import dask.array as da
    >>> avg_pool(da.ones((1, 8, 8, 3), chunks=(1, 3, 8, 3)), 2).chunks
    ((1,), (1, 2, 1), (4,), (3,))
    """
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "data_format": data_format,
    }
    checked("x", x)
    return applied(Windowed(fc.avg_pool, x, window, {"window": window}, options), x, data_format)


def predict(model: Layer, x: Any, batch_size: int = 256, *, scale: float | None = None) -> Any:
    """Outputs of a model for a dask array of images: `fastconv.nn.Sequential.predict`.

    The graph holds a copy of the model as it is now, once.

    Parameters
    ----------
    model : fastconv.nn.Layer
        Usually a `Sequential`. On images in several chunks it may have layers that work on
        neighbourhoods (convolution, pooling, resampling, padding), on each pixel, and containers
        of those; with others, such as `Flatten` or `GlobalAvgPool`, an image must be one chunk.
    x : dask.array.Array (m, H, W, C)
        Chunked along the batch, where large chunks do better, and along the spatial axes.
    batch_size : int
        Images that are computed at a time within a chunk.
    scale : float, optional
        As for `Sequential.predict`: 1/255 for bytes.

    Returns
    -------
    y : dask.array.Array (m, ...)

    Raises
    ------
    TypeError, ValueError
        Naming the argument, and the layer where the images or their chunks do not fit.

    Examples
    --------
    >>> import dask.array as da
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Conv(1, 2, 3, padding="same", rng=0), nn.MaxPool(2))
    >>> x = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    >>> y = predict(model, da.from_array(x, chunks=(1, 3, 5, 1)))
    >>> y.chunks
    ((1,), (1, 2, 1), (2, 2), (2,))
    >>> np.array_equal(y.compute(), model.predict(x))
    True
    """
    checked("x", x)
    several = any(len(sizes) > 1 for sizes in x.chunks[1:-1])
    images = np.empty((0, *x.shape[1:]), x.dtype)
    return applied(of_model(model, images, batch_size, scale, several), x, "channels_last")
