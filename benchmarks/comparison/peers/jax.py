"""JAX on the CPU: one jitted function a product; compilation is not timed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from comparison.cases import Call, ConvCase, DeltaCase, PoolCase, UnsupportedError
from comparison.networks import AnyCase, NetworkCase, Run, Trainer
from fastconv import nn

os.environ.setdefault("JAX_PLATFORMS", "cpu")
import jax
from jax import lax
from jax import numpy as jnp
from jax.example_libraries import optimizers
from jax.extend import backend

SPATIAL = ("W", "HW", "DHW")


class Jax:
    """lax.conv_general_dilated over NHWC, its gradients through a jitted vjp."""

    def __init__(self) -> None:
        jax.config.update("jax_enable_x64", True)  # float64 stays float64; float32 is unaffected

    @contextmanager
    def threads(self, n: int) -> Iterator[None]:
        """Compute with n threads: XLA reads NPROC when it starts, so it is started anew."""
        before = os.environ.get("NPROC")
        os.environ["NPROC"] = str(n)
        jax.clear_caches()
        backend.clear_backends()
        try:
            yield
        finally:
            if before is None:
                del os.environ["NPROC"]
            else:
                os.environ["NPROC"] = before

    def prepare(self, case: AnyCase) -> Call:
        """How JAX computes the case."""
        if isinstance(case, NetworkCase):
            return _network(case)
        if isinstance(case, DeltaCase):
            function, arrays = _delta(case)
        else:
            function, arrays = _conv(case) if isinstance(case, ConvCase) else _pool(case)
        operands = [jax.device_put(array) for array in arrays]
        compiled = jax.jit(function)
        return Call(lambda: jax.block_until_ready(compiled(*operands)), np.asarray)


def _conv(case: ConvCase) -> tuple[Callable[..., Any], tuple[np.ndarray, ...]]:
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
    if case.product == "relu_backward":
        return lambda dy, y: jnp.where(y > 0, dy, 0), (case.dy, case.y)
    return lambda dy: dy.sum(case.pixels), (case.dy,)


def _pool(case: PoolCase) -> tuple[Callable[..., Any], tuple[np.ndarray, ...]]:
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


# Networks -----------------------------------------------------------------------------------------


def _network(case: NetworkCase) -> Call:
    if case.product == "epoch":
        raise UnsupportedError("epochs are timed against PyTorch only")
    return _predict(case) if case.product == "predict" else case.training(_trainer(case))


def _apply(
    layer: nn.Layer, path: str, x: Any, values: dict[str, Any], new: dict[str, Any], key: Any
) -> Any:
    """Run a layer with these parameters and statistics by path; moved statistics go to `new`.

    While training, that is with a key for dropout.
    """
    if isinstance(layer, nn.Sequential):
        for name, child in layer.children().items():
            x = _apply(child, f"{path}.{name}".lstrip("."), x, values, new, key)
        return x
    if isinstance(layer, nn.Residual):
        y, side = (
            x if child is None else _apply(child, f"{path}.{name}", x, values, new, key)
            for name, child in (("body", layer.body), ("shortcut", layer.shortcut))
        )
        return y + side
    if isinstance(layer, nn.Conv):
        padding = layer.settings["padding"]
        y = lax.conv_general_dilated(
            x,
            values[f"{path}.w"],
            (layer.settings["stride"],) * 2,
            padding.upper() if isinstance(padding, str) else [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = y + values.get(f"{path}.b", 0.0)
        return jax.nn.relu(y) if layer.activation else y
    if isinstance(layer, nn.Dense):
        return x @ values[f"{path}.w"] + values[f"{path}.b"]
    if isinstance(layer, nn.BatchNorm):
        return _batch_norm(layer, path, x, values, new, key is not None)
    if isinstance(layer, nn.MaxPool):
        window = (1, layer.window, layer.window, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    if isinstance(layer, nn.Dropout):
        if key is None or not layer.rate:
            return x
        kept = jax.random.bernoulli(key, 1 - layer.rate, x.shape)
        return jnp.where(kept, x / (1 - layer.rate), 0)
    simple = {
        nn.ReLU: jax.nn.relu,
        nn.Flatten: lambda x: x.reshape(len(x), -1),
        nn.GlobalAvgPool: lambda x: x.mean((1, 2)),
    }
    return simple[type(layer)](x)


def _batch_norm(
    layer: nn.BatchNorm,
    path: str,
    x: Any,
    values: dict[str, Any],
    new: dict[str, Any],
    training: bool,
) -> Any:
    running = {name: values[f"{path}.running_{name}"] for name in ("mean", "variance")}
    mean, variance = running["mean"], running["variance"]
    if training:
        axes, count = (0, 1, 2), x.size // layer.channels
        mean, variance = x.mean(axes), x.var(axes)
        seen = {"mean": mean, "variance": variance * (count / max(count - 1, 1))}
        keep = layer.momentum
        for name, old in running.items():
            new[f"{path}.running_{name}"] = keep * old + (1 - keep) * seen[name]
    factor = values[f"{path}.scale"] * lax.rsqrt(variance + layer.epsilon)
    return (x - mean) * factor + values[f"{path}.shift"]


def _state(model: nn.Sequential) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and statistics by path."""
    trained = {name: jnp.array(p.value) for name, p in model.named_parameters().items()}
    return trained, {name: jnp.array(array) for name, array in model.named_buffers().items()}


def _predict(case: NetworkCase) -> Call:
    model = case.network.model()
    trained, moved = _state(model)
    compiled = jax.jit(lambda values, x: _apply(model, "", x, values, {}, None))
    batches = itertools.cycle([jax.device_put(x) for x, _ in case.batches])
    values = trained | moved
    return Call(lambda: jax.block_until_ready(compiled(values, next(batches))), np.asarray)


def _loss(case: NetworkCase, z: Any, y: Any) -> Any:
    if case.network.classes == 2:
        return (jnp.maximum(z, 0) - z * y[:, None] + jnp.log1p(jnp.exp(-abs(z)))).mean()
    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1).mean()


def _trainer(case: NetworkCase) -> Trainer:
    def trainer(dropout: bool, lr: float) -> Run:
        model = case.network.model(dropout)
        trained, moved = _state(model)

        def loss_of(trained: Any, moved: Any, x: Any, y: Any, key: Any) -> Any:
            new: dict[str, Any] = {}
            return _loss(case, _apply(model, "", x, trained | moved, new, key), y), new

        adam, sgd = optimizers.adam(lr), optimizers.momentum(lr, mass=0.9)
        begin, update, values = adam if case.network.adam else sgd

        def step(state: Any, x: Any, y: Any) -> Any:
            count, slots, moved, key = state
            key, own = jax.random.split(key)
            (value, new), grads = jax.value_and_grad(loss_of, has_aux=True)(
                values(slots), moved, x, y, own
            )
            return (count + 1, update(count, grads, slots), new, key), value

        compiled = jax.jit(step, donate_argnums=0)
        state = [(jnp.zeros((), jnp.float32), begin(trained), moved, jax.random.key(0))]
        batches = itertools.cycle([(jax.device_put(x), jax.device_put(y)) for x, y in case.batches])

        def run() -> float:
            state[0], value = compiled(state[0], *next(batches))
            jax.block_until_ready(state[0])
            return float(value)

        return run

    return trainer
