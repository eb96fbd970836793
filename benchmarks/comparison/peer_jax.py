"""JAX on the CPU: one jitted function a product; compilation is not timed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from comparison.cases import Call, Case, ConvCase, DeltaCase, PoolCase, UnsupportedError

SPATIAL = ("W", "HW", "DHW")


class Jax:
    """lax.conv_general_dilated over NHWC, its gradients through a jitted vjp."""

    def __init__(self) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax

        jax.config.update("jax_enable_x64", True)  # float64 stays float64; float32 is unaffected
        self._jax = jax

    @contextmanager
    def threads(self, n: int) -> Iterator[None]:
        """Compute with n threads: XLA reads NPROC when it starts, so it is started anew."""
        from jax.extend import backend

        before = os.environ.get("NPROC")
        os.environ["NPROC"] = str(n)
        self._jax.clear_caches()
        backend.clear_backends()
        try:
            yield
        finally:
            if before is None:
                del os.environ["NPROC"]
            else:
                os.environ["NPROC"] = before

    def prepare(self, case: Case) -> Call:
        """How JAX computes the case."""
        jax = self._jax
        if isinstance(case, DeltaCase):
            function, arrays = _delta(case)
        else:
            function, arrays = _conv(case) if isinstance(case, ConvCase) else _pool(case)
        operands = [jax.device_put(array) for array in arrays]
        compiled = jax.jit(function)
        return Call(lambda: jax.block_until_ready(compiled(*operands)), np.asarray)


def _conv(case: ConvCase) -> tuple[Callable[..., Any], tuple[np.ndarray, ...]]:
    import jax
    from jax import lax

    g, (x, w, _, dy) = case.problem.geometry, case.operands
    axes = SPATIAL[g.rank - 1]

    def forward(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(
            x,
            w,
            window_strides=case.problem.stride,
            padding=g.pads,
            rhs_dilation=case.problem.dilation,
            dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
            feature_group_count=g.G,
        )

    # x and w are arguments of the vjp only; XLA removes the forward product.
    if case.product == "forward":
        return forward, (x, w)
    if case.product == "kernel":
        return lambda x, w, dy: jax.vjp(lambda w: forward(x, w), w)[1](dy)[0], (x, w, dy)
    return lambda x, w, dy: jax.vjp(lambda x: forward(x, w), x)[1](dy)[0], (x, w, dy)


def _delta(case: DeltaCase) -> tuple[Callable[..., Any], tuple[np.ndarray, ...]]:
    from jax import numpy as jnp

    if case.product == "relu_backward":
        return lambda dy, y: jnp.where(y > 0, dy, 0), (case.dy, case.y)
    return lambda dy: dy.sum(case.pixels), (case.dy,)


def _pool(case: PoolCase) -> tuple[Callable[..., Any], tuple[np.ndarray, ...]]:
    import jax
    from jax import lax
    from jax import numpy as jnp

    if case.product == "max_pool_argmax":
        raise UnsupportedError("reduce_window has no argmax")
    k, s, p = case.window, case.stride, case.padding
    window, strides = (1, k, k, 1), (1, s, s, 1)
    pads = ((0, 0), (p, p), (p, p), (0, 0))

    def max_pool(x: Any) -> Any:
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)

    # Computed here: XLA takes seconds to fold it into a compiled function.
    ones = jnp.ones_like(case.x[:1, :, :, :1])
    cells = np.asarray(lax.reduce_window(ones, 0.0, lax.add, window, strides, pads))

    def avg_pool(x: Any) -> Any:
        return lax.reduce_window(x, 0.0, lax.add, window, strides, pads) / cells

    pool = max_pool if case.product.startswith("max") else avg_pool
    if not case.product.endswith("backward"):
        return pool, (case.x,)
    return lambda x, dy: jax.vjp(pool, x)[1](dy)[0], (case.x, case.dy)
