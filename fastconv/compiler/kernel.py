"""The decorator of compiled functions that Python calls."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
from numba.core import caching
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from fastconv.compiler import once
from fastconv.compiler.files import KernelFile, load
from fastconv.compiler.options import OPTIONS, build_key, require

__all__ = ["Works", "kernel"]

# Whether the compiled function, called with arguments of these types, gives a known answer.
Works = Callable[[Callable[..., Any], tuple[Any, ...]], bool]


def kernel(*, works: Works, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at its first call and keep the machine code on disk (see `folder`).

    Parameters
    ----------
    works : callable
        ``works(call, signature)``: the proof that machine code from disk must pass before it is
        used. A signature that is not that of the known problem must not be called: nothing would
        check the types of the arguments.
    parallel : bool
        Whether it has a ``prange``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        require()
        dispatcher = numba.njit(parallel=parallel, **OPTIONS)(function)
        dispatcher._cache = _Kept(function, works)
        dispatcher.compile = partial(_compile, dispatcher, dispatcher.compile)
        return dispatcher

    return decorate


def _compile(dispatcher: Any, compile_: Callable[..., Any], types: Any) -> Any:
    """Numba's own `compile_`, by one process at a time if the kernel is not on disk."""
    # Numba's lock first, as where a kernel calls another: two threads never wait for each other.
    with global_compiler_lock:
        if types in dispatcher.overloads:
            return compile_(types)
        kept = dispatcher._cache
        kept.ready = kept.load(types)
        if kept.ready is not None:
            return compile_(types)
        with once.once_on_this_machine(kept.file(types)):
            return compile_(types)


class _Kept(caching._Cache):
    """Stands in for Numba's cache of one function: a file of ours for each signature.

    Numba's own has an index and numbered files for a function. Two processes that compile at once
    can leave an index that points at the other's code, and a process that is killed can leave old
    code for new sources; truncated files raise at the call.
    """

    def __init__(self, function: Callable[..., Any], works: Works) -> None:
        self.works = works
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.ready: Any = None  # what `load` found for the call of `load_overload` that follows

    @property
    def cache_path(self) -> None:
        """Numba shows it in its statistics; `fastconv.cache` knows."""

    def file(self, types: Any) -> KernelFile:
        """The file for a signature, given as the types of the arguments."""
        return KernelFile(self.name, (*map(str, getattr(types, "args", types)), *build_key()))

    def load(self, types: Any) -> Any:
        """What Numba compiled for these types, from disk, or None."""
        context = cpu_target.target_context
        context.refresh()

        def rebuild(code: bytes) -> Any:
            return CompileResult._rebuild(context, *pickle.loads(code))

        def works(compiled: Any) -> bool:
            return self.works(compiled.entry_point, tuple(compiled.signature.args))

        return load(self.file(types), rebuild, works)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What has just been loaded, or what another process has kept meanwhile, or None."""
        ready, self.ready = self.ready, None
        return self.load(sig) if ready is None else ready

    def save_overload(self, sig: Any, compiled: Any) -> None:
        """Keep what Numba compiled for the types `sig`."""
        if not compiled.library.has_dynamic_globals:  # addresses of this process
            self.file(sig).write(dumps(compiled._reduce()))

    def enable(self) -> None:
        """Nothing is done."""

    disable = flush = enable
