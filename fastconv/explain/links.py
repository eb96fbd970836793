"""Which cells of one array a cell of the next was made of: what a page marks under the mouse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastconv.geometry.resolve import conv_geometry, pool_geometry
from fastconv.nn import AvgPool, Conv, Layer, MaxPool, ReLU, Sigmoid, Tanh

__all__ = ["Link", "link"]

Pair = tuple[int, int]
ELEMENTWISE = (ReLU, Sigmoid, Tanh)


@dataclass(frozen=True)
class Link:
    """Cell (i, j) of `target` was made of cells of `source`.

    Attributes
    ----------
    target, source : str
        Names of arrays. The gradients with respect to both are linked by the same rule: an error
        returns along the path its value came by.
    kind : str
        "window": the cells (i*s + u*d - lo, j*s + v*d - lo) of all channels; "pool": those of the
        cell's own channel; "cell": the one at its place; "all": all of its image.
    window, stride, dilation, low : (int, int)
        Of "window" and "pool": KH, KW; s; d; lo.
    winners : str, optional
        Of a max pool: the array with each window's winner, as ``h*W + w``.
    """

    target: str
    source: str
    kind: Literal["window", "pool", "cell", "all"]
    window: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    low: Pair = (0, 0)
    winners: str | None = None


def link(
    layer: Layer, source: str, target: str, x_shape: tuple[int, ...], winners: str | None = None
) -> Link:
    """The link of a layer whose input `source` is an array of `x_shape`, its output `target`.

    Examples
    --------
    >>> link(MaxPool(2), "a1", "s1", (1, 6, 6, 1)).stride
    (2, 2)
    """
    g: Any = None
    if isinstance(layer, Conv) and len(x_shape) == 4:
        g = conv_geometry(x_shape, layer.w.shape, **layer.settings, groups=layer.groups)
        kind: Literal["window", "pool"] = "window"
    elif isinstance(layer, (MaxPool, AvgPool)) and len(x_shape) == 4:
        options = {name: layer.settings[name] for name in ("stride", "padding", "ceil_mode")}
        g = pool_geometry(x_shape, layer.window, **options)
        kind = "pool"
    if g is None:
        return Link(target, source, "cell" if isinstance(layer, ELEMENTWISE) else "all")
    low = (g.pads[0][0], g.pads[1][0])
    return Link(target, source, kind, g.window, g.stride, g.dilation, low, winners)
