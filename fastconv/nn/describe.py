"""Objects as JSON: two that would train alike have one description, in every process.

An object is its class and its state; a function is its code, defaults and closure; an array is a
digest. Nothing here depends on addresses, on the order of a set or on the hash of a text.
"""

from __future__ import annotations

import argparse
import enum
import functools
import hashlib
import inspect
import json
import os
import random
import re
import sys
import types
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastconv.nn.base import Layer, Parameter
from fastconv.nn.checks import Array

# What a layer keeps of its last passes.
RUN_STATE = frozenset({"output_shape", "_cache", "_ops", "_programs", "_written"})
# Methods that show an object and do not train anything.
SHOWN_ONLY = {
    "__repr__",
    "_repr_html_",
    "__str__",
    "__doc__",
    "config",
    "settings",
    "from_config",
    "summary",
}
PYTHON = f"python {sys.version_info[0]}.{sys.version_info[1]}"

# Attributes that every layer has: state of the run, or described otherwise.
OF_LAYERS = {"training", "output_shape", "_ops", "_parameters", "_buffers", "_generators"}
OF_LAYERS |= {"_unseeded", "_cache", "_programs", "_written", "_part", "_gather"}


def fingerprint(*arrays: Array) -> str:
    """Digest of shapes, dtypes and elements (BLAKE2b, about 1 GB/s).

    Examples
    --------
    >>> len(fingerprint(np.zeros((3, 2))))
    32
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        for row in np.atleast_1d(array):  # row by row: a strided array is never copied whole
            digest.update(np.ascontiguousarray(row).data)
    return digest.hexdigest()


def name_of(kind: Any) -> str:
    """Module and name of a class or a function; fastconv's own may move between its modules."""
    module, name = full_name(kind)
    return f"fastconv.{name}" if module.startswith("fastconv.") else f"{module}.{name}"


def full_name(kind: Any) -> tuple[str, str]:
    """Module and qualified name."""
    name = getattr(kind, "__qualname__", None) or getattr(kind, "__name__", type(kind).__name__)
    return str(getattr(kind, "__module__", None)), str(name)


def without_defaults(kind: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments, or attributes of their names, that are not the default.

    A later version may add arguments: where they are left alone, the description stays what it was.

    Examples
    --------
    >>> from fastconv.nn import EarlyStopping
    >>> without_defaults(EarlyStopping, {"patience": 3, "monitor": None})
    {'patience': 3}
    """
    defaults = {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    found = {}
    for name, value in arguments.items():
        default = defaults.get(name, inspect.Parameter.empty)
        if default is inspect.Parameter.empty or describe(value) != describe(default):
            found[name] = value
    return found


def describe(value: Any, model: Layer | None = None) -> Any:
    """`value` as JSON types.

    Parameters
    ----------
    value : object
        Of any kind. What has a method `settings()`, as `ExponentialDecay`, is its class and what
        the method returns.
    model : Layer, optional
        The network that trains: its layers, parameters and buffers are named where `value` holds
        them, because their arrays change.

    Examples
    --------
    >>> describe({"shift": 2, "weights": (0.5, 1.0)})
    {'shift': 2, 'weights': [0.5, 1.0]}
    >>> clip = functools.partial(np.clip, a_min=0)
    >>> describe(clip) == describe(functools.partial(np.clip, a_min=1))
    False
    """
    return _Describer(model).of(value)


def describe_object(
    value: Any, model: Layer | None = None, leave_out: Iterable[str] = ()
) -> dict[str, Any]:
    """Class and state of an object, without some of its attributes.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> describe_object(SimpleNamespace(a=1, b=2), leave_out=["b"])
    {'class': 'types.SimpleNamespace', 'state': {'a': 1}}
    """
    return _Describer(model).object(value, frozenset(leave_out))


class _Describer:
    """One description; an object inside itself, as a method's class, is not described again."""

    def __init__(self, model: Layer | None = None) -> None:
        self.model: dict[int, str] = {}
        if model is not None:
            self.model |= {id(p): path for path, p in model.named_parameters().items()}
            self.model |= {id(p.value): path for path, p in model.named_parameters().items()}
            self.model |= {id(b): path for path, b in model.named_buffers().items()}
            self.model |= {id(layer): f"layer {path}" for path, layer in model.walk()}
        self.done: dict[int, tuple[Any, Any]] = {}  # description, and the object: it stays alive

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return str(value) if isinstance(value, str) else value
        if isinstance(value, np.generic):
            return self.of(value.item()) if value.dtype.kind in "biufSU" else repr(value)
        if isinstance(value, enum.Enum):
            return f"{name_of(type(value))}.{value.name}"
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if np.isfinite(value) else repr(float(value))
        if isinstance(value, (complex, range, slice, np.dtype)) or value is Ellipsis:
            return repr(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"bytes {_digest(bytes(value))}"
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, (type, types.ModuleType)):
            return self.type(value) if isinstance(value, type) else f"module {value.__name__}"
        if id(value) in self.model:
            return {"of the model": self.model[id(value)]}
        if id(value) not in self.done:
            self.done[id(value)] = ("...", value)
            self.done[id(value)] = (self.compound(value), value)
        return self.done[id(value)][0]

    def compound(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                return {"array": list(value.shape), "items": [self.of(v) for v in value.flat]}
            return {"array": list(value.shape), "digest": fingerprint(value)}
        if isinstance(value, Mapping):
            return {_key(self.of(k)): self.of(v) for k, v in value.items()}
        if isinstance(value, (list, tuple, deque)):
            return [self.of(item) for item in value]
        if isinstance(value, (set, frozenset)):
            return sorted((_Describer().of(item) for item in value), key=_key)
        if isinstance(value, Parameter):
            return {"parameter": value.name, "value": self.of(value.value)}
        if isinstance(value, Layer):
            return self.object(value, RUN_STATE)
        if isinstance(value, re.Pattern):
            return {"pattern": self.of(value.pattern), "flags": value.flags}
        if isinstance(value, (np.random.Generator, np.random.BitGenerator)):
            bits: Any = getattr(value, "bit_generator", value)
            return {"generator": self.of(bits.state)}
        if isinstance(value, np.random.RandomState):
            return {"generator": self.of(value.get_state(legacy=False))}
        if isinstance(value, random.Random):
            return {"generator": self.of(value.getstate())}
        return self.callable(value) if _is_function(value) else self.object(value)

    # Functions ----------------------------------------------------------------------------------

    def callable(self, value: Any) -> Any:
        if isinstance(value, functools.partial):
            parts = [self.of(value.func), self.of(value.args), self.of(value.keywords)]
            return {"partial": parts}
        if isinstance(value, types.MethodType):
            return {"method": self.of(value.__func__), "self": self.of(value.__self__)}
        inner = getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)
        if isinstance(value, types.FunctionType):
            return self.function(value)
        if isinstance(inner, types.FunctionType):  # numba.njit, functools.lru_cache
            return {"function": name_of(inner), "inner": self.of(inner)}
        return {"function": name_of(value)}

    def function(self, value: types.FunctionType) -> dict[str, Any]:
        """Code, defaults and closure, and the plain data that the code takes from its module."""
        found: dict[str, Any] = {"function": name_of(value)}
        found["defaults"] = self.of([value.__defaults__, value.__kwdefaults__])
        found["closure"] = [self.of(_content(cell)) for cell in value.__closure__ or ()]
        if _is_known(value.__module__):
            return found
        found["code"] = _code(value.__code__)
        names = sorted(_names(value.__code__) & value.__globals__.keys())
        used = {name: value.__globals__[name] for name in names}
        found["globals"] = {
            name: self.of(item) for name, item in used.items() if _is_data(item, value.__module__)
        }
        return found

    # Objects ------------------------------------------------------------------------------------

    def type(self, kind: type) -> Any:
        """A class by its name; of a class that neither Python nor fastconv brings, its code too."""
        if id(kind) in self.done:
            return self.done[id(kind)][0]
        self.done[id(kind)] = (name_of(kind), kind)
        found: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            if not _is_known(base.__module__):
                found |= {k: v for k, v in vars(base).items() if k not in SHOWN_ONLY}
        members = {name: self.member(name, item) for name, item in sorted(found.items())}
        members = {name: item for name, item in members.items() if item is not None}
        if members:
            self.done[id(kind)] = ({"class": name_of(kind), "members": members}, kind)
        return self.done[id(kind)][0]

    def member(self, name: str, item: Any) -> Any:
        """A method or a plain value of a class; None for what Python adds of its own."""
        if isinstance(item, (staticmethod, classmethod)):
            item = item.__func__
        if isinstance(item, property):
            return [self.of(f) for f in (item.fget, item.fset)]
        if isinstance(item, functools.cached_property):
            return self.of(item.func)
        if isinstance(item, types.FunctionType):
            return self.of(item) if item.__code__.co_filename != "<string>" else None  # dataclasses
        return self.of(item) if _is_data(item, None) and not name.startswith("__") else None

    def object(self, value: Any, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
        kind = type(value)
        if hasattr(value, "settings") and callable(value.settings):
            found = {"class": name_of(kind), "settings": self.of(value.settings())}
            if _declares(kind, "settings"):
                return found
            found["class"] = self.type(kind)
        else:
            found = {"class": self.type(kind)}
        state = {k: v for k, v in _state(value).items() if k not in leave_out}
        if kind.__module__.startswith("fastconv."):
            state = without_defaults(kind, state)
        if state:
            found["state"] = {name: self.of(item) for name, item in sorted(state.items())}
        return found


def _state(value: Any) -> dict[str, Any]:
    """Attributes of an object; what copies an object without any."""
    kind = type(value)
    namespace = isinstance(value, types.SimpleNamespace | argparse.Namespace)
    if kind.__module__.partition(".")[0] in sys.stdlib_module_names and not namespace:
        if hasattr(value, "__dict__") or isinstance(value, BaseException):
            return {}  # a lock, a file, a logger: machinery, which differs from run to run
        try:
            return {"made from": value.__reduce_ex__(2)[1:]}  # a date, a Fraction
        except TypeError:  # a lock
            return {}
    state = dict(getattr(value, "__dict__", {}))
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                state[name] = getattr(value, name)
    return state


def _is_function(value: Any) -> bool:
    kinds = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
    named = callable(value) and hasattr(value, "__name__") and not isinstance(value, Layer)
    return isinstance(value, kinds) or named


@functools.cache
def _is_known(module: str | None) -> bool:
    """Whether code comes with Python or an installed package: then it is that of its version."""
    package = (module or "").partition(".")[0]
    if package == "fastconv" or package in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _declares(kind: type, method: str) -> bool:
    """Whether a method was written for this class.

    A subclass of the user's own may have attributes that a method it inherits does not tell.
    """
    for base in kind.__mro__:
        if method in vars(base):
            return True
        if not _is_known(base.__module__):
            return False
    return False


def _is_data(value: Any, module: str | None) -> bool:
    """Whether a global is described: plain data, or a function of the same module."""
    if isinstance(value, (types.FunctionType, functools.partial)):
        return getattr(value, "__module__", None) == module if module else False
    if isinstance(value, (tuple, frozenset)):  # a list may be one that the function writes into
        return all(_is_data(item, module) for item in value)
    if isinstance(value, dict):
        return all(_is_data(item, module) for pair in value.items() for item in pair)
    plain = (bool, int, float, complex, str, bytes, np.generic, np.ndarray, enum.Enum)
    return value is None or isinstance(value, plain)


def _names(code: types.CodeType) -> set[str]:
    """Names that the code, and the functions inside it, may take from the module."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*(_names(c) for c in inner))


def _code(code: types.CodeType) -> str:
    """Digest of what a function does.

    Another Python compiles to other bytes: its version stands before the digest, and `differences`
    compares those of one version only.
    """
    return f"{PYTHON} {_digest(_code_text(code).encode())}"


def _code_text(code: types.CodeType) -> str:
    constants = [
        _code_text(c) if isinstance(c, types.CodeType) else _key(_Describer().of(c))
        for c in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags)
    return repr((code.co_code.hex(), constants, names, counts))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return None


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _key(description: Any) -> str:
    """A description as a text to sort by, or to stand as a key."""
    return description if isinstance(description, str) else json.dumps(description, sort_keys=True)
