"""Parts of an image through a network, bit for bit as in the whole image.

The way of a part goes from the back to the front. A layer is asked for some of its results; it says
which of its input it reads for them, and gives the layers that make exactly these results of that
input alone: itself with padding only where the image ends, and a `Crop` where more comes out than
was wanted. The layer before it is then asked for that input. What is found in the end is a network
for one part, which runs as any other does. Parts of one size that lie in the image alike share it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastconv.geometry.parts import (
    Centred,
    Part,
    Parts,
    Reading,
    Repeated,
    Spread,
    Windows,
    windows_of,
)
from fastconv.geometry.request import Request
from fastconv.geometry.sizes import transposed_pad
from fastconv.nn.base import Layer
from fastconv.nn.branches import Concat, Identity
from fastconv.nn.checks import Array, layer_error, locate, quiet
from fastconv.nn.container import Sequential
from fastconv.nn.conv import Conv, ConvTranspose
from fastconv.nn.pooling import AvgPool, MaxPool
from fastconv.nn.programs import dtype_of, kept
from fastconv.nn.registry import PASSES, is_pixelwise
from fastconv.nn.resampling import Pad, PixelShuffle, Upsample
from fastconv.nn.residual import Residual
from fastconv.typing import DTypeLike

__all__ = ["Tiling"]

Key: TypeAlias = tuple[Any, ...]  # what tells networks of two parts apart


class Crop(Layer):
    """Results `skip` and behind of each spatial axis, as many as `size` says."""

    def __init__(self, skip: Sequence[int], size: Sequence[int]) -> None:
        super().__init__()
        self.cells = tuple(slice(s, s + n) for s, n in zip(skip, size, strict=True))

    def forward(self, x: Array) -> Array:
        """Crop `x` (m, H, W, C)."""
        return np.ascontiguousarray(x[:, *self.cells])


class Tile(NamedTuple):
    """Layers that make some results of one layer, of the input's `parts` alone."""

    layers: list[Layer]
    parts: Parts
    key: Key


class Tiling:
    """A model in evaluation mode on parts of images of one shape.

    Parameters
    ----------
    model : Layer
        Weights are those of now. Several threads may run parts at once.
    x_shape : tuple of int
        Of one image, (H, W, C); also (W, C) and (D, H, W, C).
    dtype : dtype, optional
        Of the images as the model gets them; by default the model's.

    Attributes
    ----------
    y_shape : tuple of int
    dtype : numpy.dtype
        Of one image's result.

    Raises
    ------
    ValueError, TypeError
        If the images do not fit the model, or a layer mixes all of an image, or does not say
        which pixels it reads; the layer is named.

    Examples
    --------
    >>> from fastconv.nn import Conv, MaxPool
    >>> model = Sequential(Conv(1, 2, 3, padding=1, rng=0), MaxPool(2))
    >>> tiling = Tiling(model, (8, 8, 1))
    >>> wanted = (Part(0, 2), Part(1, 3))
    >>> read = tiling.read(wanted)
    >>> read
    (Part(start=0, stop=5), Part(start=1, stop=7))
    >>> x = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    >>> part = tiling.run(x[:, 0:5, 1:7], wanted)
    >>> np.array_equal(part, model.predict(x)[:, 0:2, 1:3])
    True
    """

    def __init__(
        self, model: Layer, x_shape: Sequence[int], dtype: DTypeLike | None = None
    ) -> None:
        modules = {id(part._ops): part._ops for _, part in model.walk()}  # shared, not copied
        self.model: Layer = copy.deepcopy(model, modules)
        self.shapes: dict[int, tuple[int, ...]] = {}  # of one image, by the id of whose input it is
        self.x_shape = tuple(x_shape)
        self._x_dtype = np.dtype(dtype or dtype_of(model))
        y = self._trace(self.model, np.empty((0, *self.x_shape), self._x_dtype))
        self.y_shape, self.dtype = y.shape[1:], y.dtype
        self._networks: dict[Key, Sequential] = {}
        if y.ndim != len(self.x_shape) + 1:
            raise ValueError(f"model: its results {self.y_shape} are no images")
        self.read(tuple(Part(0, 1) for _ in self.y_shape[:-1]))  # every layer has its say

    def __reduce__(self) -> tuple[Any, ...]:
        """Made again elsewhere: `shapes` knows the layers of this process alone."""
        return Tiling, (self.model, self.x_shape, self._x_dtype)

    @quiet
    def _trace(self, layer: Layer, x: Array) -> Array:
        """The result of no images, which tells shapes; on the way the inputs of all layers."""
        self.shapes[id(layer)] = x.shape[1:]
        rule = _rule(layer)
        if rule in (_chain, _concat, _residual):
            inner = x
            for name, child in layer.children().items():
                try:
                    y = self._trace(child, inner)
                except Exception as error:
                    locate(error, name, child)
                    raise
                inner = y if isinstance(layer, Sequential) else x
        return layer.infer(x)

    def read(self, wanted: Parts) -> Parts:
        """Which part of the image the wanted results are made of."""
        return self.tile(self.model, wanted).parts

    def tile(self, layer: Layer, wanted: Parts) -> Tile:
        """Layers that make the wanted results of a layer."""
        rule = _rule(layer)
        return Tile([layer], wanted, ()) if rule is None else rule(self, layer, wanted)

    def run(self, x: Array, wanted: Parts, predict: Callable[..., Array] | None = None) -> Array:
        """The wanted results.

        Parameters
        ----------
        x : ndarray (m, ...)
            Part `read(wanted)` of the images.
        wanted : tuple of Part
        predict : callable, optional
            ``predict(network, x)`` in place of the network's own.
        """
        tile = self.tile(self.model, wanted)
        key = (tuple(part.size for part in tile.parts), tile.key)
        network = self._networks.get(key)
        if network is None:
            # Networks of two parts may have layers in common: each gets objects of its own.
            network = Sequential(*(_alone(layer) for layer in tile.layers))
            self._networks = kept(self._networks, key, network)
        return network.predict(x) if predict is None else predict(network, x)


def _alone(layer: Layer) -> Layer:
    return copy.copy(layer)


# One rule for each kind of layers ---------------------------------------------------------------

Rule: TypeAlias = Callable[[Tiling, Any, Parts], Tile]


def _rule(layer: Layer) -> Rule | None:
    """How the layer makes parts; None if each pixel is made of that pixel alone."""
    if is_pixelwise(layer):
        return None
    for kind in type(layer).__mro__:
        if kind in RULES:
            return RULES[kind]
        if any(name in vars(kind) for name in PASSES):
            break
    cause = "x: a part of its result takes all of an image; one chunk a spatial axis is needed"
    raise layer_error(ValueError, layer, cause)


def _tile(
    layer: Layer, readings: Sequence[Reading], wanted: Parts, makes: Sequence[int] | None = None
) -> Tile:
    """A layer on what it reads, and the rest of its results left out."""
    skip, size = [r.skip for r in readings], [part.size for part in wanted]
    layers = [layer]
    if makes is None or any(skip) or list(makes) != size:
        layers.append(Crop(skip, size))
    key = tuple((r.padding, r.skip, n) for r, n in zip(readings, size, strict=True))
    return Tile(layers, tuple(r.part for r in readings), key)


def _with(layer: Layer, **attributes: Any) -> Layer:
    """The layer with other attributes, which shares its parameters."""
    twin = copy.copy(layer)
    for name, value in attributes.items():
        setattr(twin, name, value)
    return twin


def _windows(tiling: Tiling, layer: Any, wanted: Parts) -> Tile:
    """A convolution or pooling, whose padding stays where the image ends."""
    *sizes, _ = tiling.shapes[id(layer)]
    windows = windows_of(sizes, layer.window, **layer.settings)
    _refuse_wrap(layer, windows)
    readings = [w.read(part, n) for w, part, n in zip(windows, wanted, sizes, strict=True)]
    settings = {**layer.settings, "padding": tuple(r.padding for r in readings)}
    makes = [w.makes(r) for w, r in zip(windows, readings, strict=True)]
    if layer.settings.get("ceil_mode"):  # one more, which is wanted: it is the image's last
        makes = [part.size for part in wanted]
    return _tile(_with(layer, settings=settings), readings, wanted, makes)


def _refuse_wrap(layer: Layer, windows: Sequence[Windows]) -> None:
    if any(w.mode == "wrap" and (w.lo or w.hi) for w in windows):
        cause = "x: its padding 'wrap' joins the ends of an axis; one chunk an axis is needed"
        raise layer_error(ValueError, layer, cause)


def _spread(tiling: Tiling, layer: Any, wanted: Parts) -> Tile:
    """A transposed convolution: all that its cells add to, of which the wanted results are cut."""
    *sizes, _ = tiling.shapes[id(layer)]
    named = {name: layer.settings[name] for name in ("stride", "padding", "dilation")}
    strides, dilations, form = Request("channels_last", **named).steps(len(sizes))
    readings = []
    for axis, (k, s, d) in enumerate(zip(layer.window, strides, dilations, strict=True)):
        lo, _ = transposed_pad(form if isinstance(form, str) else form[axis], k, s, d)
        readings.append(Spread(k, s, d, lo).read(wanted[axis], sizes[axis]))
    added = tuple(r.padding[1] for r in readings)
    settings = {**layer.settings, "padding": 0, "output_padding": added}
    return _tile(_with(layer, settings=settings), readings, wanted)


def _upsample(tiling: Tiling, layer: Any, wanted: Parts) -> Tile:
    """Repetition reads the pixel itself, interpolation both neighbours."""
    *sizes, _ = tiling.shapes[id(layer)]
    kind = Repeated if layer.mode == "nearest" else Centred
    factors = layer.factors(len(sizes))
    readings = [kind(f).read(part, n) for f, part, n in zip(factors, wanted, sizes, strict=True)]
    makes = [f * r.part.size for f, r in zip(factors, readings, strict=True)]
    return _tile(layer, readings, wanted, makes)


def _pixel_shuffle(tiling: Tiling, layer: Any, wanted: Parts) -> Tile:
    readings = [Repeated(layer.factor).read(part, 0) for part in wanted]
    return _tile(layer, readings, wanted, [layer.factor * r.part.size for r in readings])


def _pad(tiling: Tiling, layer: Any, wanted: Parts) -> Tile:
    *sizes, _ = tiling.shapes[id(layer)]
    windows = windows_of(sizes, 1, padding=layer.pairs(len(sizes)), padding_mode=layer.mode)
    _refuse_wrap(layer, windows)
    readings = [w.read(part, n) for w, part, n in zip(windows, wanted, sizes, strict=True)]
    makes = [w.makes(r) for w, r in zip(windows, readings, strict=True)]
    return _tile(_with(layer, padding=tuple(r.padding for r in readings)), readings, wanted, makes)


def _chain(tiling: Tiling, layer: Any, wanted: Parts) -> Tile:
    """From the last layer to the first."""
    layers: list[Layer] = []
    key: Key = ()
    for name, child in reversed(layer.children().items()):
        try:
            tile = tiling.tile(child, wanted)
        except Exception as error:
            locate(error, name, child)
            raise
        layers, key, wanted = tile.layers + layers, (tile.key, *key), tile.parts
    return Tile(layers, wanted, key)


def _side_by_side(
    tiling: Tiling, branches: dict[str, Layer], wanted: Parts
) -> tuple[list[Layer], Parts, Key]:
    """Branches that each take their own part of what all of them together read."""
    tiles = []
    for name, branch in branches.items():
        try:
            tiles.append(tiling.tile(branch, wanted))
        except Exception as error:
            locate(error, name, branch)
            raise
    parts = tiles[0].parts
    for tile in tiles[1:]:
        parts = tuple(a | b for a, b in zip(parts, tile.parts, strict=True))
    networks: list[Layer] = []
    for tile in tiles:
        layers = [_alone(layer) for layer in tile.layers]
        if tile.parts != parts:
            skip = [own.start - all.start for own, all in zip(tile.parts, parts, strict=True)]
            layers.insert(0, Crop(skip, [part.size for part in tile.parts]))
        networks.append(layers[0] if len(layers) == 1 else Sequential(*layers))
    offsets = tuple(
        tuple((own.start - all.start, own.size) for own, all in zip(t.parts, parts, strict=True))
        for t in tiles
    )
    return networks, parts, (offsets, *(tile.key for tile in tiles))


def _concat(tiling: Tiling, layer: Any, wanted: Parts) -> Tile:
    networks, parts, key = _side_by_side(tiling, layer.children(), wanted)
    return Tile([Concat(*networks)], parts, key)


def _residual(tiling: Tiling, layer: Any, wanted: Parts) -> Tile:
    """Body and shortcut; without one, the pixels themselves."""
    shortcut: Layer = layer.shortcut or Identity()
    branches = {"body": layer.body, "shortcut": shortcut}
    (body, side), parts, key = _side_by_side(tiling, branches, wanted)
    return Tile([Residual(body, None if isinstance(side, Identity) else side)], parts, key)


RULES: dict[type[Layer], Rule] = {
    Sequential: _chain,
    Concat: _concat,
    Residual: _residual,
    Conv: _windows,
    MaxPool: _windows,
    AvgPool: _windows,
    ConvTranspose: _spread,
    Upsample: _upsample,
    PixelShuffle: _pixel_shuffle,
    Pad: _pad,
}
