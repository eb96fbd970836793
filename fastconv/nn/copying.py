"""Copies of layers: what a forward pass may change is the copy's own, all else is shared."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.nn.checks import Array
from fastconv.nn.parameter import Parameter

__all__ = ["Copyable", "runner", "scratch_copy"]


class Copyable:
    """How a layer is copied and pickled, and run without a change."""

    def infer(self, x: Array) -> Array:
        """Return the output for `x` in evaluation mode, and change nothing of the layer.

        That is the `forward` of a copy in evaluation mode, which shares the parameters' arrays:
        several threads may call it at once. A layer with another rule overrides it, and containers
        then call that.

        Examples
        --------
        >>> from fastconv.nn import Dropout
        >>> layer = Dropout(0.5)
        >>> layer.infer(np.ones(3)).tolist(), layer.training
        ([1.0, 1.0, 1.0], True)
        """
        with np.errstate(all="ignore"):
            return scratch_copy(self, evaluating=True).forward(x)

    def __getstate__(self) -> dict[str, Any]:
        # What backward needs of the last batch stays behind: a pickled or copied layer starts anew.
        state = self.__dict__.copy()  # at once: another thread may be adding an attribute
        state.pop("_programs", None)
        state = {name: None if name == "_cache" else v for name, v in state.items()}
        return state | _slots(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)


def runner(layer: Copyable) -> Callable[[Array], Array]:
    """What `layer.infer` does, as a function for many calls: the copy is made once."""
    if _infers_itself(layer):
        return layer.infer
    return scratch_copy(layer, evaluating=True).forward


def _infers_itself(layer: Copyable) -> bool:
    """Whether the class of the layer's `forward`, or one derived from it, has an own `infer`.

    A subclass that overrides only `forward` has left an inherited `infer` behind.
    """
    for kind in type(layer).__mro__:
        if "infer" in vars(kind):
            return kind is not Copyable
        if "forward" in vars(kind):
            return False
    return False


def _slots(layer: Copyable) -> dict[str, Any]:
    """Attributes that a class keeps in `__slots__`, outside `__dict__`."""
    found: dict[str, Any] = {}
    for kind in type(layer).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__") and hasattr(layer, name):
                found[name] = getattr(layer, name)
    return found


def _generator_copy(generator: Any) -> Any:
    bits: Any = getattr(generator, "bit_generator", None)
    if type(generator) is not np.random.Generator or type(bits).__module__[:6] != "numpy.":
        return copy.deepcopy(generator)
    twin = type(bits)(0)  # a fifth of deepcopy's time: predict makes one for each Dropout
    twin.state = bits.state
    return np.random.Generator(twin)


def scratch_copy(layer: Copyable, *, evaluating: bool, copies: dict[int, Any] | None = None) -> Any:
    """A copy whose forward pass leaves the layer, and all below it, as they are.

    Parameters, and what the copy cannot change by setting attributes, are shared; buffers, random
    generators and the lists, tuples and dictionaries around layers are copied.

    Parameters
    ----------
    layer : Layer
    evaluating : bool
        Whether the copy is in evaluation mode; otherwise every layer is in the mode it was in.
    copies : dict, optional
        Filled with the copy of each layer, by the layer's `id`.
    """
    made: dict[int, Any] = {}  # by the id of what was copied

    def of_layer(layer: Copyable, inside: bool) -> Any:
        twin: Any = object.__new__(type(layer))
        made[id(layer)] = twin
        if copies is not None:
            copies[id(layer)] = twin
        state = layer.__dict__.copy()
        state.pop("_programs", None)  # they are made for the arrays of `layer`
        for name, value in _slots(layer).items():
            object.__setattr__(twin, name, of(value))
        made.update({id(buffer): buffer.copy() for buffer in state.get("_buffers", {}).values()})
        for name, value in state.items():
            state[name] = value if name == "_parameters" else of(value)
        if evaluating:
            state["training"] = False
            if inside and _infers_itself(layer):
                state["forward"] = layer.infer
        twin.__dict__.update(state)
        return twin

    def of(value: Any) -> Any:
        if value is None or isinstance(value, (int, float, str, Parameter)):
            return value
        if id(value) in made:
            return made[id(value)]
        if isinstance(value, Copyable):
            return of_layer(value, True)
        if isinstance(value, np.random.Generator | np.random.RandomState):
            made[id(value)] = _generator_copy(value)
        elif isinstance(value, dict):
            made[id(value)] = mapping = copy.copy(value)
            mapping.update({name: of(item) for name, item in value.items()})
        elif isinstance(value, list):
            made[id(value)] = items = copy.copy(value)
            items[:] = [of(item) for item in value]
        elif isinstance(value, tuple):
            parts = [of(item) for item in value]
            build = getattr(type(value), "_make", type(value))  # a named tuple
            same = all(a is b for a, b in zip(parts, value, strict=True))
            made[id(value)] = value if same else build(parts)
        else:
            return value
        return made[id(value)]

    return of_layer(layer, False)
