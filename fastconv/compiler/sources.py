"""What machine code is made from: the sources of `compiler` and `engine`, and other versions."""

from __future__ import annotations

import hashlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec

__all__ = ["folder_name", "sources"]

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
        digest.update(name.encode() + _source(spec))
    tag = sys.implementation.cache_tag
    version = f"{_version.__version__}-numba-{numba.__version__}-{tag}"
    return f"fastconv-{version}-{digest.hexdigest()[:16]}"


def sources() -> dict[str, ModuleSpec]:
    """The modules that machine code is made from, by their names: files, or members of a zip."""
    here = os.path.dirname(os.path.dirname(__file__))
    return {name: spec for name, spec in _modules(here) if name.split(".")[0] in PACKAGES}


def _modules(place: str, package: str = "") -> Iterator[tuple[str, ModuleSpec]]:
    """The modules below a package's folder; none is imported."""
    for finder, name, is_package in pkgutil.iter_modules([place]):
        spec = finder.find_spec(name, None)
        if spec is not None:
            yield package + name, spec
        if is_package and (package or name in PACKAGES):
            yield from _modules(os.path.join(place, name), f"{package}{name}.")


def _source(spec: ModuleSpec) -> bytes:
    """What a module is made from: its source, or its bytecode where that is all there is."""
    data: bytes = spec.loader.get_data(spec.origin)  # type: ignore[union-attr]
    return data
