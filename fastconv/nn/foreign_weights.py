"""Which array of another framework's file belongs to which array of a layer, and how it is turned.

The files know modules, not a network: modules are matched with layers of their kind, by their paths
where these are the same, else in the order of their names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array
from fastconv.nn.tensor_files import FLOATS, Tensor

__all__ = ["Module", "keras_modules", "layers_of", "matched", "turned_arrays"]

KINDS = ("convolution", "depthwise convolution", "transposed convolution", "dense layer",
         "normalisation")  # fmt: skip
# Words of torchvision's names, in the order of the forward pass; the alphabet has another.
ORDER = ["features", "stem", "conv", "bn", "norm", "layer", "downsample", "shortcut", "classifier",
         "fc", "head"]  # fmt: skip
PYTORCH = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
# An array's role, by the attribute of the layer that holds it.
ROLES = {"w": "weight", "b": "bias", "scale": "weight", "shift": "bias", "running_mean": "mean",
         "running_variance": "variance"}  # fmt: skip


class Module(NamedTuple):
    """A module of the file: its kind, and its arrays by role."""

    kind: str
    arrays: dict[str, Tensor]


class Target(NamedTuple):
    """A layer of the model that has weights."""

    path: str
    layer: Layer
    kind: str
    turned: int  # of a dense layer behind Flatten: channels of the images before it


# The model's side -------------------------------------------------------------------------------


def layers_of(model: Layer, channels_behind_flatten: Callable[[str], int]) -> list[Target]:
    """The model's layers with weights, in the order of the forward pass.

    Parameters
    ----------
    model : Layer
    channels_behind_flatten : callable
        Channels that Flatten joined in front of a dense layer, by the layer's path; 1 for none.
    """
    found = []
    for path, layer in model.walk():
        held = {name: p.value for name, p in layer._parameters.items()} | layer._buffers
        if not held:
            continue
        if unknown := set(held) - set(ROLES):
            raise ValueError(
                f"layer {path} ({type(layer).__name__}): no other framework has its "
                f"{sorted(unknown)[0]!r}"
            )
        if "w" not in held:
            found.append(Target(path, layer, "normalisation", 1))
        elif held["w"].ndim > 2:
            found.append(Target(path, layer, "convolution", 1))
        else:
            found.append(Target(path, layer, "dense layer", channels_behind_flatten(path)))
    return found


# PyTorch ----------------------------------------------------------------------------------------


def pytorch_modules(tensors: Mapping[str, Tensor]) -> dict[str, Module]:
    """Modules of a state_dict, by path."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        path, _, role = name.rpartition(".")
        if role == "num_batches_tracked":
            continue
        if role not in PYTORCH:
            raise ValueError(f"{name!r} is none of {', '.join(PYTORCH)}: no layer takes it")
        grouped.setdefault(path, {})[PYTORCH[role]] = tensor
    return {path: Module(_kind(path, arrays), arrays) for path, arrays in grouped.items()}


def _kind(path: str, arrays: Mapping[str, Tensor]) -> str:
    if "weight" not in arrays:
        raise ValueError(f"{path!r} has no weight")
    axes = len(arrays["weight"].shape)
    if "mean" in arrays or axes == 1:
        return "normalisation"
    return "dense layer" if axes == 2 else "convolution"


# Keras ------------------------------------------------------------------------------------------


def keras_modules(layers: Mapping[str, Sequence[Tensor]]) -> dict[str, Module]:
    """Modules of a Keras file, by path: the arrays of a layer have numbers only."""
    found = {}
    for path, arrays in layers.items():
        axes = len(arrays[0].shape)
        if _separable(arrays):
            first = KINDS[1] if arrays[0].shape[-2] > 1 else KINDS[0]
            found[f"depthwise of {path}"] = Module(first, {"weight": arrays[0]})
            pointwise = dict(zip(("weight", "bias"), arrays[1:], strict=False))
            found[path] = Module(KINDS[0], pointwise)
            continue
        roles = ("weight", "bias", "mean", "variance")[: 4 if axes == 1 else 2]
        if len(arrays) > len(roles):
            raise ValueError(f"{path!r} has {len(arrays)} arrays: no layer takes them")
        named = dict(zip(roles, arrays, strict=False))
        kind, name = _kind(path, named), path.rpartition("/")[2]
        if kind == "convolution" and name.startswith("depthwise"):
            kind = "depthwise convolution"
        elif kind == "convolution" and "transpose" in name:
            kind = "transposed convolution"
        found[path] = Module(kind, named)
    return found


def _separable(arrays: Sequence[Tensor]) -> bool:
    """Whether they are a separable convolution's: windows (..., C, M), then (1, ..., C * M, F)."""
    if len(arrays) not in (2, 3) or len(arrays[0].shape) < 3:
        return False
    *window, channels, multiplier = arrays[0].shape
    return arrays[1].shape[:-1] == (*(1 for _ in window), channels * multiplier)


# Matching ---------------------------------------------------------------------------------------


def _finer(target: Target, names: Iterable[str]) -> str:
    """The kind of a layer where the file, by its names, tells kinds of convolutions apart."""
    layer, kinds = target.layer, set(names)
    if type(layer).__name__ == "ConvTranspose" and KINDS[2] in kinds:
        return KINDS[2]
    groups = getattr(layer, "groups", 1)
    if KINDS[1] in kinds and groups > 1 and groups == getattr(layer, "channels", 0):
        return KINDS[1]
    return target.kind


def matched(
    targets: Sequence[Target], modules: Mapping[str, Module]
) -> list[tuple[Target, Module]]:
    """Each layer with its module.

    Raises
    ------
    ValueError
        If there are more of one kind on one side, or nothing tells the order of two modules.
    """
    if {t.path for t in targets} == set(modules) and all(
        modules[t.path].kind == t.kind for t in targets
    ):
        return [(target, modules[target.path]) for target in targets]
    pairs, found = [], {module.kind for module in modules.values()}
    for kind in KINDS:
        ours = [target for target in targets if _finer(target, found) == kind]
        names = sorted((n for n, m in modules.items() if m.kind == kind), key=_sort_key)
        if len(ours) != len(names):
            shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
            raise ValueError(
                f"the model has {len(ours)} layers of the kind {kind}, the file {len(names)}"
                + (f" ({shown})" if names else "")
            )
        _refuse_unclear(kind, names, modules)
        pairs += [(target, modules[name]) for target, name in zip(ours, names, strict=True)]
    return pairs


def _sort_key(name: str) -> list[tuple[int, int, str]]:
    """By numbers as numbers, by known words in their order, by the alphabet last."""
    return [_token_key(token) for token in _tokens(name)]


def _tokens(name: str) -> list[str]:
    return [token for token in re.split(r"(\d+)|[^A-Za-z0-9]+", name) if token]


def _token_key(token: str) -> tuple[int, int, str]:
    if token.isdecimal():
        return 0, int(token), ""
    return (1, ORDER.index(token), "") if token in ORDER else (2, 0, token)


def _refuse_unclear(kind: str, names: Sequence[str], modules: Mapping[str, Module]) -> None:
    """Raise if two modules of one shape could be exchanged: unknown words say nothing."""
    seen: dict[Any, list[str]] = {}
    for name in names:
        shapes = tuple(sorted((role, t.shape) for role, t in modules[name].arrays.items()))
        for other in seen.setdefault(shapes, []):
            pair = zip(_tokens(other), _tokens(name), strict=False)
            a, b = next(((a, b) for a, b in pair if a != b), ("0", "0"))
            if 2 in (_token_key(a)[0], _token_key(b)[0]):
                raise ValueError(
                    f"{other!r} and {name!r} are of one shape, and their names do not tell which "
                    f"{kind} comes first; rename them in the file as the model's paths"
                )
        seen[shapes].append(name)


# Turning ----------------------------------------------------------------------------------------


def turned_arrays(target: Target, module: Module, style: str) -> dict[str, Array]:
    """The module's arrays as the layer's attributes, in its shapes and dtype.

    Parameters
    ----------
    style : {"pytorch", "keras"}

    Raises
    ------
    ValueError
        If an array is missing, is one too many, has no floats, or has another shape.
    """
    layer = target.layer
    held = {name: p.value for name, p in layer._parameters.items()} | layer._buffers
    where = f"layer {target.path} ({type(layer).__name__})"
    roles = {ROLES[name] for name in held}
    if missing := roles - set(module.arrays):
        raise ValueError(f"{where}: the file has no {min(missing)} for it")
    if added := set(module.arrays) - roles:
        raise ValueError(f"{where}: the file has a {min(added)}, the layer has none")
    found = {}
    for name, array in held.items():
        tensor = module.arrays[ROLES[name]]
        if tensor.dtype not in FLOATS:
            raise ValueError(f"{where}: the file has {tensor.dtype} for {name}, no floats")
        turn, shape = _turning(target, name, array, tensor.shape, style)
        if math.prod(tensor.shape) != array.size or shape != array.shape:
            raise ValueError(
                f"{where}: {name} is {array.shape}, the file has {tensor.shape}"
                + (f", which is {shape} in our order" if shape != tensor.shape else "")
            )
        found[name] = np.ascontiguousarray(turn(tensor.read()), array.dtype)
    return found


def _turning(
    target: Target, name: str, array: Array, shape: tuple[int, ...], style: str
) -> tuple[Callable[[Array], Array], tuple[int, ...]]:
    """What brings an array of the file into ours, and the shape that it gets."""
    n = len(shape)
    if name == "w" and style == "pytorch" and n == array.ndim and n > 2:
        axes = (*range(2, n), 1, 0)
        return lambda a: a.transpose(axes), tuple(shape[k] for k in axes)
    if name == "w" and style == "pytorch" and n == 2:
        channels = target.turned
        return lambda a: _rows_in_our_order(a.T, channels), shape[::-1]
    # A depthwise kernel of Keras is (KH, KW, C, F/C) where ours is (KH, KW, 1, F).
    groups = getattr(target.layer, "groups", 1)
    if name == "w" and n == array.ndim > 2 and array.shape[-2] == 1 < groups == shape[-2]:
        own = (*shape[:-2], 1, shape[-2] * shape[-1])
        return lambda a: a.reshape(own), own
    return lambda a: a, shape


def _rows_in_our_order(rows: Array, channels: int) -> Array:
    """Rows that count c, h, w, counted h, w, c."""
    if len(rows) % channels:
        raise ValueError(f"{len(rows)} rows do not belong to {channels} channels")
    cells = rows.reshape(channels, -1, rows.shape[1])
    return cells.swapaxes(0, 1).reshape(rows.shape)
