"""The one decorator of compiled kernels, and a word to the user when compiling takes long."""

from __future__ import annotations

import contextlib
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numba
from numba.core import caching, config
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from fastconv._kernel_files import KernelFile, load

__all__ = ["build_key", "disabled", "kernel", "once_on_this_machine", "require"]

log = logging.getLogger("fastconv")

# Seconds of compiling in this process after which the user is told, once, on stderr.
PATIENCE = 2.0
# ``contract`` is the only relaxation of floating-point rules: the others would delete the tests
# for NaN or change the order of sums.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
# Numba's settings that change machine code, besides the processor's name and features.
SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT",
            "ENABLE_PROFILING", "EXTEND_VARIABLE_LIFETIMES", "DEBUG_NRT", "NRT_STATS",
            "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS", "DISABLE_INTEL_SVML",
            "PARFOR_MAX_TUPLE_SIZE")  # fmt: skip


def disabled() -> str:
    """What Numba's configuration says against compiling, or ""."""
    return "; NUMBA_DISABLE_JIT is set: no kernel can be compiled" if config.DISABLE_JIT else ""


def require() -> None:
    """RuntimeError if Numba may not compile: the engine has no other form than machine code."""
    if config.DISABLE_JIT:
        raise RuntimeError(
            "NUMBA_DISABLE_JIT is set, and fastconv's kernels cannot run without being compiled: "
            "unset it, or use fastconv.reference, which has the same functions as Python loops"
        )


def build_key() -> tuple[Any, ...]:
    """What machine code depends on besides its sources: the processor, and Numba's settings."""
    processor = cpu_target.target_context.codegen().magic_tuple()
    return (*processor, *(str(getattr(config, name, None)) for name in SETTINGS))


def kernel(
    function: Callable[..., Any] | None = None, *, parallel: bool = False, keep: bool = True
) -> Any:
    """Compile `function` at its first call and keep the machine code on disk (see `cache`).

    Parameters
    ----------
    parallel : bool
        Whether it has a ``prange``.
    keep : bool
        False for a function that only other kernels call: they contain it.
    """
    if function is None:
        return lambda f: kernel(f, parallel=parallel, keep=keep)
    require()
    dispatcher = numba.njit(parallel=parallel, **OPTIONS)(function)
    if keep:
        dispatcher._cache = _Kept(function)
        dispatcher.compile = partial(_compile, dispatcher, dispatcher.compile)
    return dispatcher


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
        with once_on_this_machine(kept.file(types)):
            return compile_(types)


class _Kept(caching._Cache):
    """Stands in for Numba's cache of one function: a file of ours for each signature.

    Numba's own has an index and numbered files for a function. Two processes that compile at once
    can leave an index that points at the other's code, and a process that is killed can leave old
    code for new sources; truncated files raise at the call.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
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

        return load(self.file(types), rebuild, self._works)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What has just been loaded, or what another process has kept meanwhile, or None."""
        ready, self.ready = self.ready, None
        return self.load(sig) if ready is None else ready

    def _works(self, compiled: Any) -> bool:
        from fastconv.kernels.known_answers import works

        return works(self.name, compiled.entry_point, compiled.signature.args)

    def save_overload(self, sig: Any, compiled: Any) -> None:
        """Keep what Numba compiled for the types `sig`."""
        if not compiled.library.has_dynamic_globals:  # addresses of this process
            self.file(sig).write(dumps(compiled._reduce()))

    def enable(self) -> None:
        """Nothing is done."""

    disable = flush = enable


class _Patience:
    """Says that kernels are being compiled, while they are, once PATIENCE has been used up."""

    def __init__(self) -> None:
        self._depth = 0
        self._spent = 0.0
        self._said = False
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1 and not self._said:
                self._begin = time.perf_counter()
                self._timer = threading.Timer(max(0.0, PATIENCE - self._spent), self._say)
                self._timer.daemon = True
                self._timer.start()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and not self._said:
                self._timer.cancel()
                self._spent += time.perf_counter() - self._begin

    def _say(self) -> None:
        with self._lock:
            first, self._said = not self._said, True
        if first:
            log.warning("fastconv is compiling its kernels: some seconds, once on this machine")


_patience = _Patience()


@contextlib.contextmanager
def once_on_this_machine(file: KernelFile) -> Iterator[None]:
    """Around compiling a kernel: other processes wait for it, and the user is told if it lasts."""
    with _patience, file.lock():
        yield
