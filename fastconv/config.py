"""What fastconv runs on, and compiling its kernels ahead of time."""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastconv import threads
from fastconv.operands import float_dtype

__all__ = ["OPS", "show_config", "warmup"]

log = logging.getLogger("fastconv")

# A problem large enough that two threads share it, so that both variants of a kernel compile.
_X, _W = (2, 130, 130, 16), (3, 3, 16, 16)


def _warm_conv(dtype: np.dtype) -> None:
    from fastconv.functional import conv

    conv(np.zeros(_X, dtype), np.zeros(_W, dtype), padding=1)


def _warm_conv_backward(dtype: np.dtype) -> None:
    from fastconv.functional import conv_backward

    x = np.zeros(_X, dtype)
    conv_backward(x, x, np.zeros(_W, dtype), padding=1)


def _warm_max_pool(dtype: np.dtype) -> None:
    from fastconv.functional import max_pool, max_pool_backward

    x = np.zeros(_X, dtype)
    max_pool(x, 2)
    y, argmax = max_pool(x, 2, return_argmax=True)
    max_pool_backward(y, argmax, x.shape, 2)


def _warm_avg_pool(dtype: np.dtype) -> None:
    from fastconv.functional import avg_pool, avg_pool_backward

    x = np.zeros(_X, dtype)
    avg_pool_backward(avg_pool(x, 2), x.shape, 2)


def _warm_relu(dtype: np.dtype) -> None:
    from fastconv.functional import relu_backward

    x = np.zeros(_X, dtype)
    relu_backward(x, x)


OPS: dict[str, Callable[[np.dtype], None]] = {
    "conv": _warm_conv,
    "conv_backward": _warm_conv_backward,
    "max_pool": _warm_max_pool,
    "avg_pool": _warm_avg_pool,
    "relu": _warm_relu,
}


def warmup(ops: Iterable[str] | None = None, dtypes: Sequence[Any] = ("float32",)) -> None:
    """Compile kernels now, or load them from disk, instead of at their first call.

    Parameters
    ----------
    ops : iterable of str, optional
        Some of ``conv``, ``conv_backward``, ``max_pool``, ``avg_pool``, ``relu``; all if None.
    dtypes : sequence of dtype
        What the kernels will be used with.

    Raises
    ------
    TypeError, ValueError
        For a dtype that fastconv does not compute with, or an unknown op.

    Examples
    --------
    >>> warmup(ops=["relu"])
    """
    chosen = list(OPS) if ops is None else [ops] if isinstance(ops, str) else list(ops)
    for op in chosen:
        if op not in OPS:
            raise ValueError(f"ops={op!r} must be some of {', '.join(OPS)}")
    kinds = [dtypes] if isinstance(dtypes, str | np.dtype | type) else list(dtypes)
    natives = [float_dtype("dtypes", dtype) for dtype in kinds]
    start = time.perf_counter()
    for dtype in natives:
        for op in chosen:
            for count in {1, threads.get_num_threads()}:
                with threads.num_threads(count):
                    OPS[op](dtype)
    log.info("kernels ready after %.1f s", time.perf_counter() - start)


def show_config() -> None:
    """Print versions, CPU, vector width, threads, threading layer, and where kernels are kept.

    Examples
    --------
    >>> show_config()  # doctest: +ELLIPSIS
    fastconv ...
    """
    import llvmlite
    import numba
    import scipy
    from llvmlite import binding

    from fastconv import __version__
    from fastconv.kernels import deltas

    features = binding.get_host_cpu_features()
    width = 512 if features.get("avx512f") else 256 if features.get("avx") else 128
    names = [name for name in ("avx512f", "avx2", "fma", "sse4.2", "neon") if features.get(name)]
    rows = {
        "fastconv": __version__,
        "python": f"{platform.python_version()} on {sys.platform} {platform.machine()}",
        "numpy": np.__version__,
        "numba": f"{numba.__version__} (llvmlite {llvmlite.__version__})",
        "scipy": scipy.__version__,
        "cpu": f"{binding.get_host_cpu_name()}: {' '.join(names)}",
        "vector width": f"{width} bits",
        "threads": f"{threads.get_num_threads()} of {numba.config.NUMBA_NUM_THREADS}",
        "threading layer": threads.threading_layer(),
        "kernel cache": deltas.relu_delta.stats.cache_path or "none: compiled in every process",
    }
    for name, value in rows.items():
        print(f"{name:<16} {value}")
