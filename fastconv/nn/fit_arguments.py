"""The arguments of `fit`, checked before anything is changed; each error says what was meant."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from fastconv.nn.base import Layer
from fastconv.nn.checks import positive_int, shown
from fastconv.nn.history import EarlyStopping
from fastconv.nn.loss import Loss
from fastconv.nn.optimizer import Optimizer

HOOKS = ("on_fit_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_fit_end")
LOSS_METHODS = ("forward", "backward", "correct")
# What is no callback, and the argument of `fit` that takes it.
ELSEWHERE = (
    (EarlyStopping, "early_stopping"),
    (Loss, "loss"),
    (Optimizer, "optimizer"),
    (Layer, "model"),
)
# Names as close as this to a hook's, without underscores, were meant to be one: epoch_end; and, if
# they begin as a hook does: on_epoch_ends, onEpochEnd, on_train_begin, on_step_end.
CLOSE, CLOSE_WITH_ON = 0.75, 0.6


def check_model(model: Any) -> None:
    """Raise TypeError unless `model` is a layer, such as a Sequential."""
    if not isinstance(model, Layer):
        cure = (
            "; write the layers into nn.Sequential(...)" if isinstance(model, (list, tuple)) else ""
        )
        raise TypeError(f"model: an nn.Sequential is needed, got {shown(model)}{cure}")


def check_trains(model: Layer) -> None:
    """Raise ValueError if every layer is in evaluation mode: nobody freezes all, but forgets it."""
    if not any(layer.training for _, layer in model.walk()):
        raise ValueError(
            "model: all of it is in evaluation mode; call model.train() before fit, then eval() on "
            "the layers that are to stay frozen"
        )


def check_loss(loss: Any, methods: Iterable[str] = LOSS_METHODS) -> None:
    """Raise TypeError unless `loss` is a `Loss`, or has its methods."""
    if not _has(loss, methods):
        raise TypeError(f"loss: {_object_needed(loss, 'nn.SoftmaxCrossEntropy()', methods)}")


def check_stepper(optimizer: Any) -> None:
    """Raise TypeError unless `optimizer` has the method of one."""
    if not _has(optimizer, ("step",)):
        example = "nn.Adam(model.parameters())"
        raise TypeError(f"optimizer: {_object_needed(optimizer, example, ('step',))}")


def check_optimizer(optimizer: Any, model: Layer) -> None:
    """Raise unless `optimizer` is one, and holds parameters of the model only."""
    check_stepper(optimizer)
    if not isinstance(getattr(optimizer, "parameters", None), (list, tuple)):
        raise TypeError(f"optimizer: {shown(optimizer)} has no list of parameters")
    held = {id(parameter) for parameter in model.parameters()}
    if any(id(parameter) not in held for parameter in optimizer.parameters):
        raise ValueError("optimizer: it holds parameters that are not the model's")


def check_augment(augment: Any) -> None:
    """Raise TypeError unless `augment` can be called with images and a generator."""
    if isinstance(augment, type) or not (augment is None or callable(augment)):
        raise TypeError(
            f"augment: {_object_needed(augment, 'augment(x, rng) -> x', ('__call__',))}"
        )


def early_stopping_rule(early_stopping: Any) -> EarlyStopping | None:
    """The rule itself, or that of a patience."""
    if early_stopping is None or isinstance(early_stopping, EarlyStopping):
        return early_stopping
    if isinstance(early_stopping, type):
        needed = _object_needed(early_stopping, "nn.EarlyStopping()", ("monitor",))
        raise TypeError(f"early_stopping: {needed}")
    return EarlyStopping(positive_int("early_stopping", early_stopping))


def callback_list(callbacks: Any) -> list[Any]:
    """Callbacks as a list.

    Raises
    ------
    TypeError
        If it is one callback, or one of them is a function, a class, has no hook, or has one whose
        name is misspelt or that cannot be called with the state.
    """
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, (str, bytes, dict, type)):
        raise TypeError(f"callbacks: a list is needed, as in [callback]; got {shown(callbacks)}")
    if not isinstance(callbacks, (list, tuple)) and _hooks(callbacks):
        name = type(callbacks).__name__
        raise TypeError(f"callbacks: a list is needed, as in [callback]; got one {name}")
    found = list(callbacks)
    for callback in found:
        _check_callback(callback)
    return found


def _hooks(callback: Any) -> list[str]:
    return [name for name in HOOKS if hasattr(callback, name)]


def _check_callback(callback: Any) -> None:
    hooks = _hooks(callback)
    if isinstance(callback, type):
        needed = _object_needed(callback, "nn.CSVLog(path)", HOOKS)
        raise TypeError(f"callbacks: {needed}")
    for name in sorted({*dir(type(callback)), *getattr(callback, "__dict__", {})}):
        meant = _meant(name)
        if meant and callable(getattr(callback, name, None)):
            raise TypeError(
                f"callbacks: {type(callback).__name__} has {name}, which is never called; "
                f"did you mean {meant}?"
            )
    if not hooks:
        argument = next((name for kind, name in ELSEWHERE if isinstance(callback, kind)), "")
        raise TypeError(
            f"callbacks: an object with a method such as on_epoch_end(state) is needed, "
            f"got {shown(callback)}{argument and f'; it goes to {argument}='}"
        )
    for name in hooks:
        _check_hook(callback, name)


def _meant(name: str) -> str | None:
    """The hook that a method's name was meant to be; None for a hook and for other methods."""
    if name in HOOKS or name.startswith("_"):
        return None
    plain = {hook.replace("_", ""): hook for hook in HOOKS}
    given = name.replace("_", "").lower()
    cutoff = CLOSE_WITH_ON if given.startswith("on") else CLOSE
    found = difflib.get_close_matches(given, plain, 1, cutoff)
    return plain[found[0]] if found else None


def _check_hook(callback: Any, name: str) -> None:
    hook = getattr(callback, name)
    where = f"callbacks: {type(callback).__name__}.{name}"
    if not callable(hook):
        raise TypeError(f"{where} must be a method, got {shown(hook)}")
    try:
        inspect.signature(hook).bind(None)
    except TypeError as error:
        raise TypeError(f"{where} must take the state alone: {error}") from error
    except ValueError:  # a function of C has no signature to look at
        return


def label_check(loss: Any) -> Callable[..., None] | None:
    """The method `check` of a loss, if it belongs to the loss's `forward`.

    A subclass that overrides only `forward` may take other labels than the loss it derives from.
    """
    for kind in type(loss).__mro__:
        if "check" in vars(kind):
            check: Callable[..., None] = loss.check
            return check if kind is not Loss else None
        if "forward" in vars(kind):
            return None
    return None


def _has(value: Any, methods: Iterable[str]) -> bool:
    return not isinstance(value, type) and all(callable(getattr(value, m, None)) for m in methods)


def _object_needed(value: Any, example: str, names: Iterable[str]) -> str:
    """What was meant: an object of the class that was given, if that has any of the `names`."""
    if isinstance(value, type) and any(hasattr(value, name) for name in names):
        arguments = "model.parameters()" if issubclass(value, Optimizer) else ""
        name = value.__name__
        return f"an object is needed, got the class {name}; write {name}({arguments})"
    return f"an object such as {example} is needed, got {shown(value)}"
