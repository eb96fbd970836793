"""Keras on NumPy: its convolutions and poolings computed by fastconv, and no JAX needed.

``import fastconv.adapters.keras`` before ``import keras``. Keras's NumPy backend hands these
functions to JAX, without which it does not even import; here they run on fastconv. It has no
gradients, so models predict and evaluate, and are trained elsewhere.

Importing this module imports Keras and installs; `uninstall` and `install` switch.

Examples
--------
>>> import fastconv.adapters.keras
>>> import keras
>>> import numpy as np
>>> x, w = np.ones((1, 8, 8, 3), "float32"), np.ones((3, 3, 3, 4), "float32")
>>> keras.ops.conv(x, w, padding="same").shape
(1, 8, 8, 4)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from fastconv._extras import host
from fastconv.adapters.keras.functions import FUNCTIONS, TRANSFORMS

__all__ = ["install", "uninstall"]

BACKEND = "numpy"
# Where the backend's functions live: in releases up to 3.15, and where they move to after it.
FOLDERS = ("keras.src.backend.numpy", "keras.src.backend.numpy.ops")
# What the backend imports of JAX, directly and through Keras's own JAX backend.
JAX = ("jax", "jax.lax", "jax.monitoring")
JAX_BACKEND = tuple(
    f"keras.src.backend.{name}" for name in ("jax", "jax.math", "jax.ops", "jax.ops.math")
)

_originals: list[tuple[ModuleType, str, Any]] = []


def install() -> None:
    """Let Keras's NumPy backend compute convolutions and poolings with fastconv.

    Has no effect the second time.

    Raises
    ------
    ImportError
        If Keras is not installed, or keeps its functions where this version does not find them.
    RuntimeError
        If Keras runs on another backend: it reads KERAS_BACKEND when it is first imported.
    """
    if _originals:
        return
    if "keras" not in sys.modules:
        _check_backend(os.environ.get("KERAS_BACKEND", BACKEND))
    with _numpy_backend_chosen(), _jax_or_stubs():
        keras = host("keras", "keras")
    _check_backend(keras.backend.backend())
    modules = _modules("nn")
    _replace(modules, FUNCTIONS)
    if any(isinstance(getattr(module, "jax", None), _Stub) for module in modules):
        _replace(_modules("math"), TRANSFORMS)


def uninstall() -> None:
    """Give Keras its own functions back. Without JAX they raise an ImportError when called."""
    while _originals:
        module, name, original = _originals.pop()
        setattr(module, name, original)


def _check_backend(name: str) -> None:
    if name != BACKEND:
        raise RuntimeError(
            f"Keras runs on {name!r}, and fastconv is a backend for 'numpy': set "
            "KERAS_BACKEND=numpy, or leave it unset and import fastconv.adapters.keras first"
        )


def _modules(part: str) -> list[ModuleType]:
    """The backend's modules of that name."""
    names = [f"{folder}.{part}" for folder in FOLDERS]
    modules = [sys.modules[name] for name in names if name in sys.modules]
    if not modules:
        raise ImportError(f"this version of Keras has none of {', '.join(names)}")
    return modules


def _replace(modules: list[ModuleType], functions: dict[str, Callable[..., Any]]) -> None:
    """Put `functions` into the modules, where callers look them up at each call."""
    for module in modules:
        for name, function in functions.items():
            _originals.append((module, name, getattr(module, name)))
            setattr(module, name, function)


@contextmanager
def _numpy_backend_chosen() -> Iterator[None]:
    """KERAS_BACKEND=numpy while Keras is imported, unless the user has set it."""
    unset = "KERAS_BACKEND" not in os.environ
    os.environ.setdefault("KERAS_BACKEND", BACKEND)
    try:
        yield
    finally:
        if unset:
            del os.environ["KERAS_BACKEND"]


@contextmanager
def _jax_or_stubs() -> Iterator[None]:
    """Where there is no JAX, empty modules in its place while Keras is imported."""
    if "keras" in sys.modules or _jax_is_there():
        yield
        return
    stubs = {name: _Stub(name) for name in (*JAX, *JAX_BACKEND)}
    for name, stub in stubs.items():
        parent, _, child = name.rpartition(".")
        if parent in stubs:
            setattr(stubs[parent], child, stub)
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]


def _jax_is_there() -> bool:
    try:
        host("jax", "jax")
    except ImportError:
        return False
    return True


class _Stub(ModuleType):
    """A module of JAX that is not there: its functions exist, and say so when called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # a package: its submodules are looked for

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **options: Any) -> NoReturn:
            raise ImportError(
                f"{self.__name__}.{name}: JAX is not installed, and without it this function of "
                "Keras's NumPy backend needs fastconv.adapters.keras.install()"
            )

        return missing


install()
