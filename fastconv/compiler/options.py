"""How everything is compiled, and what machine code depends on besides its sources."""

from __future__ import annotations

from typing import Any

from numba.core import config
from numba.core.registry import cpu_target

__all__ = ["OPTIONS", "build_key", "disabled", "require"]

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
