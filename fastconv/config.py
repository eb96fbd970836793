"""What fastconv runs on, and compiling its kernels ahead of time."""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastconv import threads
from fastconv.operands import computing_dtype, float_dtype
from fastconv.plans.compiled import compile_ahead, compile_network
from fastconv.typing import DTypeLike

__all__ = ["show_config", "warmup"]

log = logging.getLogger("fastconv")

# Images large enough for two threads to share, so that both variants of a kernel compile.
X_SHAPE, W_SHAPE = (2, 130, 130, 16), (3, 3, 16, 16)


def _calls(dtype: np.dtype) -> dict[str, Callable[[], Any]]:
    """A call of every public function, by name."""
    from fastconv import functional as f

    x, w = np.zeros(X_SHAPE, dtype), np.zeros(W_SHAPE, dtype)
    y, argmax = np.zeros((2, 65, 65, 16), dtype), np.zeros((2, 65, 65, 16), np.int64)
    cols = np.zeros((2, 65, 65, 64), dtype)
    return {
        "conv": lambda: f.conv(x, w, padding=1),
        "conv_input_grad": lambda: f.conv_input_grad(x, w, X_SHAPE, padding=1),
        "conv_kernel_grad": lambda: f.conv_kernel_grad(x, x, W_SHAPE, padding=1),
        "conv_backward": lambda: f.conv_backward(x, x, w, padding=1),
        "conv_transpose": lambda: f.conv_transpose(x, w, padding=1),
        "conv_transpose_backward": lambda: f.conv_transpose_backward(x, x, w, padding=1),
        "max_pool": lambda: (f.max_pool(x, 2), f.max_pool(x, 2, return_argmax=True)),
        "max_pool_backward": lambda: (
            f.max_pool_backward(y, argmax, X_SHAPE, 2),
            f.max_pool_backward(y[:, :64, :64], argmax[:, :64, :64], X_SHAPE, 3, stride=2),
        ),
        "avg_pool": lambda: f.avg_pool(x, 2),
        "avg_pool_backward": lambda: f.avg_pool_backward(y, X_SHAPE, 2),
        "relu_backward": lambda: f.relu_backward(x, x),
        "im2col": lambda: f.im2col(x, 2, stride=2),
        "col2im": lambda: f.col2im(cols, X_SHAPE, 2, stride=2),
    }


def warmup(
    ops: str | Iterable[str] | None = None, dtypes: DTypeLike | Iterable[DTypeLike] = ("float32",)
) -> None:
    """Compile kernels now, or load them from disk, instead of at their first call.

    Parameters
    ----------
    ops : str or iterable of str, optional
        Names of public functions, such as ``"conv"`` and ``"max_pool"``. If None, all, and what
        the layers of `fastconv.nn` need besides.
    dtypes : dtype, or iterable of dtypes
        What they will be used with.

    Raises
    ------
    TypeError, ValueError
        For a dtype that fastconv does not compute with, or an unknown function.

    Examples
    --------
    >>> warmup(ops=["relu_backward"])
    """
    kinds = [dtypes] if isinstance(dtypes, str | np.dtype | type) else _listed("dtypes", dtypes)
    natives = [float_dtype("dtypes", dtype) for dtype in kinds]
    chosen = [ops] if isinstance(ops, str) else None if ops is None else _listed("ops", ops)
    known = _calls(np.dtype(np.float32))
    for op in chosen or ():
        if op not in known:
            raise ValueError(f"ops={op!r} must be some of {', '.join(known)}")
    start = time.perf_counter()
    for dtype in natives:
        calls = _calls(dtype)
        if chosen is None:
            compile_network(computing_dtype(dtype))
        for op in known if chosen is None else chosen:
            compile_ahead(op, dtype)
            for count in {1, threads.get_num_threads()}:
                with threads.num_threads(count):
                    calls[op]()
    log.info("kernels ready after %.1f s", time.perf_counter() - start)


def _listed(argument: str, value: Any) -> list[Any]:
    if not isinstance(value, Iterable):
        raise TypeError(f"{argument}={value!r} must be a name or several")
    return list(value)


def _installed(package: str) -> str:
    """Version of a package that nothing needs; it is not imported."""
    from importlib import metadata  # as long to import as all of fastconv

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def show_config() -> None:
    """Print versions, CPU, vector width, threads, threading layer, and where kernels are kept.

    Examples
    --------
    >>> show_config()  # doctest: +ELLIPSIS
    fastconv ...
    """
    import llvmlite
    import numba
    from llvmlite import binding

    from fastconv import cache
    from fastconv._version import __version__
    from fastconv.compiler.options import disabled

    features = binding.get_host_cpu_features()
    width = 512 if features.get("avx512f") else 256 if features.get("avx") else 128
    names = [name for name in ("avx512f", "avx2", "fma", "sse4.2", "neon") if features.get(name)]
    rows = {
        "fastconv": __version__,
        "python": f"{platform.python_version()} on {sys.platform} {platform.machine()}",
        "numpy": np.__version__,
        "numba": f"{numba.__version__} (llvmlite {llvmlite.__version__}){disabled()}",
        "scipy": _installed("scipy"),
        "cpu": f"{binding.get_host_cpu_name()}: {' '.join(names)}",
        "vector width": f"{width} bits",
        "threads": threads.describe(),
        "threading layer": threads.threading_layer(),
        "kernel cache": cache.describe(),
    }
    for name, value in rows.items():
        print(f"{name:<16} {value}")
