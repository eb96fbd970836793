"""What makes a training run the run it is: a checkpoint keeps it, and a resumed run compares it."""

from __future__ import annotations

import json
import re
from inspect import signature
from typing import Any

from fastconv.nn.base import Layer
from fastconv.nn.checks import cut
from fastconv.nn.describe import (
    OF_LAYERS,
    PYTHON,
    describe,
    describe_object,
    full_name,
    without_defaults,
)
from fastconv.nn.history import FitState
from fastconv.nn.optimizer import Optimizer
from fastconv.nn.registry import registered

# Attributes that every loss and optimizer has: state of the run, or described otherwise.
OF_LOSSES = {"_dz", "_written"}
OF_OPTIMIZERS = {"parameters", "groups", "lr", "settings", "steps", "_slots", "_update"}
SHOWN = 75  # characters of one value in a message


def as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` as they come back from a file: tuples are lists.

    Raises
    ------
    TypeError
        If they hold something that JSON does not know.

    Examples
    --------
    >>> as_json({"betas": (0.9, 0.999)})
    {'betas': [0.9, 0.999]}
    """
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


# Today's form -----------------------------------------------------------------------------------


def model_identity(model: Layer, written: dict[int, set[str]]) -> dict[str, Any]:
    """Name of a network and all its layers by path.

    Parameters
    ----------
    model : Layer
    written : dict of int to set of str
        Attributes that a forward pass writes, by the layer's `id`; they describe nothing.

    Examples
    --------
    >>> from fastconv.nn import Flatten, ReLU, Sequential
    >>> list(model_identity(Sequential(Flatten(), ReLU()), {}))
    ['name', 'layer (Sequential)', 'layer 0 (Flatten)', 'layer 1 (ReLU)']
    """
    found: dict[str, Any] = {"name": getattr(model, "name", None)}
    for path, layer in model.walk():
        key = f"layer {path} ({type(layer).__name__})".replace("  ", " ")
        found[key] = {} if layer.training else {"frozen": True}
        if not (registered(layer) and type(layer).__module__.startswith("fastconv.")):
            leave_out = OF_LAYERS | written.get(id(layer), set())
            found[key] |= describe_object(layer, model, leave_out)
        elif not layer.children():
            found[key] |= without_defaults(type(layer), layer.config())
    return found


def loss_identity(loss: Any, model: Layer, written: dict[int, set[str]]) -> dict[str, Any]:
    """Class and attributes of a loss.

    Examples
    --------
    >>> from fastconv.nn import Flatten, MeanSquaredError
    >>> loss_identity(MeanSquaredError(), Flatten(), {})
    {'class': 'fastconv.MeanSquaredError'}
    """
    leave_out = OF_LOSSES | written.get(id(loss), set())
    if type(loss).__module__.startswith("fastconv."):  # later versions may add arguments
        given = {name: vars(loss)[name] for name in signature(type(loss)).parameters}
        leave_out |= given.keys() - without_defaults(type(loss), given).keys()
    return describe_object(loss, model, leave_out)


def optimizer_identity(optimizer: Any, model: Layer) -> dict[str, Any]:
    """Settings of an optimizer, the parameters that it moves, and what a subclass adds.

    Examples
    --------
    >>> from fastconv.nn import SGD, Dense
    >>> layer = Dense(3, 2)
    >>> optimizer_identity(SGD(layer.parameters(), 0.1), layer)["parameters"]
    'all'
    """
    given = getattr(optimizer, "settings", {})
    # As they are now, but for the rate: schedules move it, and the checkpoint keeps it.
    found = {k: v if k in ("type", "lr") else getattr(optimizer, k, v) for k, v in given.items()}
    paths = {id(parameter): path for path, parameter in model.named_parameters().items()}
    moved = [paths[id(parameter)] for parameter in optimizer.parameters]
    found["parameters"] = "all" if moved == list(paths.values()) else moved
    if groups := getattr(optimizer, "groups", ()):
        found["groups"] = [
            {"parameters": [paths[id(p)] for p in group.parameters], **group.settings}
            for group in groups
        ]
    leave_out = OF_OPTIMIZERS | set(found)
    if not isinstance(optimizer, Optimizer) or type(optimizer).state is not Optimizer.state:
        # What it saves itself moves with every step.
        leave_out |= {name for name, value in vars(optimizer).items() if _holds_arrays(value)}
    own = describe(found, model)
    return own | describe_object(optimizer, model, leave_out)


def _holds_arrays(value: Any) -> bool:
    items = list(value.values()) if isinstance(value, dict) else value
    if isinstance(items, (list, tuple)):
        return bool(items) and all(_holds_arrays(item) for item in items)
    return hasattr(value, "__array__")


# The form of fastconv 0.1's checkpoints ---------------------------------------------------------


def old_form(
    settings: dict[str, Any], state: FitState, augment: Any, rule: Any, callbacks: list[Any]
) -> dict[str, Any]:
    """`settings` as they were written while models were kept as their `repr`."""
    found = {name: value for name, value in settings.items() if name != "form"}
    model = Layer.__repr__(state.model)  # all settings; a Sequential's own is one short line
    found |= {"model": _seedless(model), "loss": repr(state.loss)}
    found |= {"optimizer": state.optimizer.settings, "early_stopping": repr(rule)}
    found["augment"] = None if augment is None else _old_identity(augment)
    found["callbacks"] = [_old_identity(callback) for callback in callbacks]
    return as_json(found)


def _seedless(text: str) -> str:
    # Dropout's seed was 0 where it is None today; the checkpoint has the generator's state.
    return re.sub(r"'seed': (None|\d+)", "'seed': None", text)


def _old_identity(thing: Any) -> list[Any]:
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    name = _without_module(".".join(full_name(kind)))
    return [name, thing.settings() if hasattr(thing, "settings") else {}]


def _without_module(name: str) -> str:
    """A class's name; fastconv's own have moved between its modules since."""
    return f"fastconv.{name.rpartition('.')[2]}" if name.startswith("fastconv.") else name


def as_old_form(found: dict[str, Any]) -> dict[str, Any]:
    """Settings of an old checkpoint, so that they compare with `old_form`'s."""
    named: dict[str, Any] = {"model": _seedless(found["model"])}
    if found.get("augment"):
        named["augment"] = [_without_module(found["augment"][0]), *found["augment"][1:]]
    named["callbacks"] = [[_without_module(c[0]), *c[1:]] for c in found.get("callbacks") or ()]
    return found | named


# Comparing --------------------------------------------------------------------------------------


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One sentence for each setting that is not what it was.

    Examples
    --------
    >>> differences({"seed": 0, "shuffle": True}, {"seed": 1, "shuffle": True})
    ['seed was 0, is 1']
    >>> differences({"optimizer": {"lr": 0.1, "momentum": 0}}, {"optimizer": {"lr": 0.2}})
    ['optimizer was lr=0.1, momentum=0, is lr=0.2']
    """
    sentences = []
    for key in sorted(set(before) | set(now)):
        was: list[str] = []
        is_now: list[str] = []
        _compare(before.get(key), now.get(key), "", was, is_now)
        if was or is_now:
            old, new = (cut(", ".join(side), SHOWN) for side in (was, is_now))
            old = old or "without " + new.partition("=")[0]
            new = new or "without " + old.partition("=")[0]
            sentences.append(f"{key} was {old}, is {new}")
    return sentences


def _compare(old: Any, new: Any, path: str, was: list[str], is_now: list[str]) -> None:
    """Collect the leaves that differ, "path=value" each."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            inner = f"{path}.{key}" if path else key
            if key not in new:
                was.append(_leaf(inner, old[key]))
            elif key not in old:
                is_now.append(_leaf(inner, new[key]))
            else:
                _compare(old[key], new[key], inner, was, is_now)
    elif _of_dicts(old) and _of_dicts(new) and len(old) == len(new):
        for i, pair in enumerate(zip(old, new, strict=True)):
            _compare(*pair, f"{path}[{i}]", was, is_now)
    elif old != new and not _of_other_pythons(old, new):
        was.append(_leaf(path, old))
        is_now.append(_leaf(path, new))


def _of_dicts(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _leaf(path: str, value: Any) -> str:
    return f"{path}={value!r}" if path else repr(value)


def _of_other_pythons(old: Any, new: Any) -> bool:
    """Whether these are digests of code that two versions of Python compiled."""
    both = [str(value).rpartition(" ")[0] for value in (old, new)]
    return PYTHON in both and both[0] != both[1] and all(b.startswith("python ") for b in both)
