"""The layers that files may name: each class enters itself, and who reads or writes looks it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar, overload

from fastconv.nn.base import Layer
from fastconv.nn.checks import shown

__all__ = ["ENTRIES", "PASSES", "built", "described", "is_pixelwise", "onnx_form", "register",
           "registered", "taken_shape"]  # fmt: skip

# onnx(graph, layer, x, path) -> y: adds the layer's nodes, of a `fastconv.nn.onnx.writer.Graph`.
OnnxForm: TypeAlias = Callable[[Any, Any, Any, str], Any]
# takes(layer): shape of the images, as far as the layer fixes it; see `register`.
Takes: TypeAlias = Callable[[Any], Sequence[Any]]
Kind = TypeVar("Kind", bound=type[Layer])

# What makes a layer what it is: a class that has one of these of its own inherits no form.
PASSES = ("forward", "backward", "infer", "_function", "_gradient", "_run")


class Entry(NamedTuple):
    """A class of layers, and what is known of it besides."""

    kind: type[Layer]
    onnx: OnnxForm | None = None
    takes: Takes | None = None
    pixelwise: bool = False


ENTRIES: dict[str, Entry] = {}


@overload
def register(kind: Kind, /) -> Kind: ...
@overload
def register(
    *, onnx: OnnxForm | None = None, takes: Takes | None = None, pixelwise: bool = False
) -> Callable[[Kind], Kind]: ...


def register(
    kind: Kind | None = None,
    /,
    *,
    onnx: OnnxForm | None = None,
    takes: Takes | None = None,
    pixelwise: bool = False,
) -> Kind | Callable[[Kind], Kind]:
    """Enter a class of layers under its name: a class decorator, with or without arguments.

    Networks with such layers are saved and loaded. A file names the class and has the arguments
    that `Layer.config` gives, as JSON types; loading calls `Layer.from_config` with them, lists as
    tuples, and fills the parameters and buffers. For a layer inside, the arguments hold what
    `fastconv.nn.registry.described` says of it, and `built` of that module makes it again. Before
    a file is loaded, the module that has the class must be imported.

    Parameters
    ----------
    kind : type
        A class derived from `Layer`.
    onnx : callable, optional
        ``onnx(graph, layer, x, path) -> y``: adds the layer's nodes to a
        `fastconv.nn.onnx.writer.Graph`, for `Sequential.to_onnx`. Without it, the form is that of
        the class which this one derives from, unless it has passes of its own.
    takes : callable, optional
        ``takes(layer)``: what the layer fixes of its input's shape, for an ONNX file whose input
        has no shape given. ``("m", "H", "W", 3)``, names where sizes are free; ``(..., 3)`` where
        the number of axes is free as well; ``()`` where nothing behind it tells anything.
    pixelwise : bool
        Whether in evaluation mode each pixel of the result is made of that pixel of the input
        alone, so that the layer can run on parts of an image: see `fastconv.adapters.dask`. As for
        `onnx`, a class derived from this one is so too, unless it has passes of its own.

    Returns
    -------
    type or callable
        The class itself, or a decorator.

    Raises
    ------
    TypeError
        If it is no class of layers.
    ValueError
        If another module has registered a class of that name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> @nn.register
    ... class Scale(nn.Layer):
    ...     def __init__(self, factor):
    ...         super().__init__()
    ...         self.factor = factor
    ...     def config(self):
    ...         return {"factor": self.factor}
    ...     def forward(self, x):
    ...         return self.factor * x
    ...     def backward(self, dy):
    ...         return self.factor * dy
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     nn.Sequential(Scale(0.5)).save(path)
    ...     nn.Sequential.load(path).forward(np.ones(2))
    array([0.5, 0.5])
    """
    if kind is None:
        return lambda kind: _entered(kind, Entry(kind, onnx, takes, pixelwise))
    return _entered(kind, Entry(kind, onnx, takes, pixelwise))


def _entered(kind: Any, entry: Entry) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, Layer)):
        raise TypeError(f"register: a class derived from fastconv.nn.Layer, got {shown(kind)}")
    there = ENTRIES.get(kind.__name__)
    if there is not None and there.kind.__module__ != kind.__module__:
        raise ValueError(
            f"register: {there.kind.__module__} has a layer {kind.__name__}, by which files name "
            f"it; give the class of {kind.__module__} another name"
        )
    ENTRIES[kind.__name__] = entry  # a class defined anew takes the place
    return kind


def registered(layer: Layer) -> bool:
    """Whether exactly the layer's class is registered."""
    return _entry(type(layer)) is not None


def _entry(kind: type) -> Entry | None:
    there = ENTRIES.get(kind.__name__)
    return there if there is not None and there.kind is kind else None


def onnx_form(layer: Layer) -> OnnxForm | None:
    """The form in ONNX of a registered layer: its class's, or an inherited one.

    Examples
    --------
    >>> from fastconv.nn import ReLU
    >>> onnx_form(ReLU()) is not None, onnx_form(type("Mine", (ReLU,), {})()) is not None
    (True, False)
    """
    for kind in type(layer).__mro__ if registered(layer) else ():
        there = _entry(kind)
        if there is not None and there.onnx is not None:
            return there.onnx
        if any(name in vars(kind) for name in PASSES):
            return None
    return None


def taken_shape(layer: Layer) -> Sequence[Any] | None:
    """What the layer fixes of its input's shape, see `register`; None if it says nothing."""
    for kind in type(layer).__mro__:
        there = _entry(kind)
        if there is not None and there.takes is not None:
            return there.takes(layer)
    return None


def is_pixelwise(layer: Layer) -> bool:
    """Whether the layer's class, or one that it has its passes of, was registered as `pixelwise`.

    Examples
    --------
    >>> from fastconv.nn import Flatten, ReLU
    >>> is_pixelwise(ReLU()), is_pixelwise(Flatten())
    (True, False)
    """
    for kind in type(layer).__mro__:
        there = _entry(kind)
        if there is not None and there.pixelwise:
            return True
        if any(name in vars(kind) for name in PASSES):
            return False
    return False


# Layers as JSON types ---------------------------------------------------------------------------


def described(layer: Layer) -> dict[str, Any]:
    """The layer's class and arguments, from which `built` makes it again."""
    return {"type": type(layer).__name__, **layer.config()}


def built(description: dict[str, Any]) -> Layer:
    """A layer, and those inside it, from a description; all weights are zero.

    Raises
    ------
    ValueError
        If no layer of that name is registered.
    KeyError
        If there is no name.
    """
    arguments = dict(description)
    name = arguments.pop("type")
    if name not in ENTRIES:
        raise ValueError(f"unknown layer type {name!r}")
    return ENTRIES[name].kind.from_config({key: _tuples(item) for key, item in arguments.items()})


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
