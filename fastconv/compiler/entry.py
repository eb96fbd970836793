"""C functions of int64 arguments: compiled, kept on disk, loaded and proved."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from llvmlite import binding
from numba.core import types
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target

from fastconv.compiler.files import KernelFile, load
from fastconv.compiler.once import once_on_this_machine
from fastconv.compiler.options import OPTIONS, build_key
from fastconv.operands import quiet

__all__ = ["obtain"]

_alive: list[Any] = []  # machine code lives as long as its library


@quiet
def obtain(name: str, make: Callable[[], Any], works: Callable[[int], bool]) -> int:
    """Address of the C function ``void (int64, ...)`` with a name: from disk, or compiled and kept.

    Parameters
    ----------
    name : str
        Of the function and of its file; what is specialised must be in it.
    make : callable
        Gives the Python function to compile; its arguments are int64.
    works : callable
        ``works(address)``: the proof that machine code from disk must pass before it is used.
    """
    file = KernelFile(name, build_key())
    found = load(file, _rebuild, works)
    if found is None:
        with once_on_this_machine(file):
            found = load(file, _rebuild, works)  # another process may have been faster
            if found is None:
                found = _compile(name, make)
    return found


def _rebuild(code: bytes) -> int:
    """Link an object file, and find the C function in it."""
    symbol, serialized = pickle.loads(code)
    context = cpu_target.target_context
    context.refresh()
    library = context.codegen().unserialize_library(serialized)
    _alive.append(library)
    address = library.get_pointer_to_function(symbol)
    if not address:
        raise ValueError(f"has no function {symbol}")
    return int(address)


def _compile(name: str, make: Callable[[], Any]) -> int:
    """Compile a C function of int64 arguments, and keep it on disk."""
    python = make()
    python.__name__ = python.__qualname__ = name
    arguments = (types.int64,) * python.__code__.co_argcount
    compiled: Any = CFunc(python, (arguments, types.void), {}, {**OPTIONS, "nopython": True})
    compiled.compile()
    KernelFile(name, build_key()).write(pickle.dumps(_reduce(compiled)))
    _alive.append(compiled)
    return int(compiled.address)


def _reduce(compiled: Any) -> tuple[str, Any]:
    """The name of a C function, and its object file as Numba serializes it.

    The bitcode, which is for linking into other functions and takes longer to read than the object
    file, is replaced by that of an empty function with the same name.
    """
    name, kind, (code, _) = compiled._library.serialize_using_object_code()
    symbol = compiled.native_name
    stub = binding.parse_assembly(f'define void @"{symbol}"() {{ ret void }}')
    return symbol, (name, kind, (code, stub.as_bitcode()))
