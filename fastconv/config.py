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
from fastconv.operands import computing_dtype, float_dtype

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


def _compile_tiles(dtype: np.dtype) -> None:
    """The micro-kernel of every tile, which the calls choose by their numbers of channels."""
    from fastconv.engine.entries import sweep_address
    from fastconv.engine.tables.tiles import all_tiles

    for tile in all_tiles(dtype):
        sweep_address(tile)


# Kernels for vectors of channels; the call itself compiles those that take single elements.
POOLS = {"max_pool": ("max", "argmax"), "avg_pool": ("mean",),
         "avg_pool_backward": ("spread", "fill")}  # fmt: skip


def _compile_pools(op: str, dtype: np.dtype) -> None:
    """A pooling's kernels for any number of channels: vectors of 1, 2, 4, ... of them."""
    from fastconv.engine.entries import pool_address
    from fastconv.engine.tables.tiles import host_lanes

    lanes = host_lanes(dtype)
    while lanes:
        for name in POOLS[op]:
            pool_address(name, lanes, dtype)
        lanes //= 2


def _compile_training(dtype: np.dtype) -> None:
    """The loops of losses and optimizers."""
    from fastconv.engine.entries import TRAINING, training_address

    for name in TRAINING:
        training_address(name, dtype)


def warmup(ops: Iterable[str] | None = None, dtypes: Sequence[Any] = ("float32",)) -> None:
    """Compile kernels now, or load them from disk, instead of at their first call.

    Parameters
    ----------
    ops : iterable of str, optional
        Names of public functions, such as ``"conv"`` and ``"max_pool"``; if None, all, and what
        `fastconv.nn` trains with.
    dtypes : sequence of dtype
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
            _compile_training(computing_dtype(dtype))
        for op in known if chosen is None else chosen:
            if op.startswith("conv"):
                _compile_tiles(computing_dtype(dtype))
            elif op in POOLS:
                _compile_pools(op, computing_dtype(dtype))
            for count in {1, threads.get_num_threads()}:
                with threads.num_threads(count):
                    calls[op]()
    log.info("kernels ready after %.1f s", time.perf_counter() - start)


def _listed(argument: str, value: Any) -> list[Any]:
    if not isinstance(value, Iterable):
        raise TypeError(f"{argument}={value!r} must be a name or several")
    return list(value)


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

    from fastconv import __version__, cache

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
        "kernel cache": cache.describe(),
    }
    for name, value in rows.items():
        print(f"{name:<16} {value}")
