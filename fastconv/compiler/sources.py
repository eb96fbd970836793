"""What machine code is made from: the sources of `compiler` and `engine`, and other versions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pkgutil
import sys
import types
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec
from typing import Any

__all__ = ["NoCodeError", "folder_name", "number_of", "sources"]

# The packages that machine code consists of, and that say how it is compiled: all of them, so
# that no list has to be kept.
PACKAGES = ("compiler", "engine")


@lru_cache(1)
def folder_name() -> str:
    """Name of the folder; it changes with everything that machine code or its files depend on."""
    import llvmlite
    import numba
    import numpy

    from fastconv import _version

    digest = hashlib.sha256(f"{llvmlite.__version__} {numpy.__version__}".encode())
    for name, spec in sorted(sources().items()):
        digest.update(name.encode() + _source(name, spec))
    tag = sys.implementation.cache_tag
    version = f"{_version.__version__}-numba-{numba.__version__}-{tag}"
    return f"fastconv-{version}-{digest.hexdigest()[:16]}"


def number_of(*files: str) -> int:
    """A number, not 0, that changes with `folder_name` and with the modules beside some files.

    Raises
    ------
    NoCodeError
        As `folder_name`.
    """
    digest = hashlib.sha256(folder_name().encode())
    for file in files:
        for name, spec in sorted(_modules(os.path.dirname(file))):
            digest.update(name.encode() + _source(name, spec))
    return int.from_bytes(digest.digest()[:7], "little") | 1


def sources() -> dict[str, ModuleSpec]:
    """The modules that machine code is made from, by their names: files, or members of a zip.

    Raises
    ------
    NoCodeError
        If none is found: kernels of these sources could not be told from those of others.
    """
    here = os.path.dirname(os.path.dirname(__file__))
    found = {name: spec for name, spec in _modules(here) if name.split(".")[0] in PACKAGES}
    if not found:
        raise NoCodeError(f"no source files of fastconv found in {here}")
    return found


def _modules(place: str, package: str = "") -> Iterator[tuple[str, ModuleSpec]]:
    """The modules below a package's folder; none is imported."""
    for finder, name, is_package in pkgutil.iter_modules([place]):
        spec = finder.find_spec(name, None)
        if spec is not None:
            yield package + name, spec
        if is_package and (package or name in PACKAGES):
            yield from _modules(os.path.join(place, name), f"{package}{name}.")


def _source(name: str, spec: ModuleSpec) -> bytes:
    """What a module is made from: its source, or else its code (see `_code`).

    Raises
    ------
    NoCodeError
        If this Python has neither.
    """
    loader: Any = spec.loader
    if str(spec.origin).endswith(".py"):
        with contextlib.suppress(OSError, AttributeError):
            data: bytes = loader.get_data(spec.origin)
            return data
    code = loader.get_code(spec.name) if hasattr(loader, "get_code") else None
    if code is None:
        raise NoCodeError(f"neither source nor bytecode of fastconv.{name} can be read")
    return repr(_code(code)).encode()


class NoCodeError(RuntimeError):
    """There is nothing by which kernels of these sources could be told from those of others."""


def _code(value: Any) -> Any:
    """What a code object does, without where it was compiled: names, constants, instructions."""
    if isinstance(value, types.CodeType):
        constants = tuple(_code(constant) for constant in value.co_consts)
        return (value.co_code, value.co_flags, value.co_argcount, value.co_kwonlyargcount,
                value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars,
                value.co_exceptiontable, constants)  # fmt: skip
    if isinstance(value, frozenset):  # of no order
        return sorted(map(repr, value))
    return tuple(map(_code, value)) if isinstance(value, tuple) else value
