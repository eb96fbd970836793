"""JAX on the CPU: `lax.conv_general_dilated` and `lax.reduce_window`, jitted, float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from fastconv.adapters import jax as fast
from fastconv.problems import Problem, find_table, read_problems

from . import Case
from ._lenet import network


def own_conv(x, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    return lax.conv_general_dilated(
        x,
        w,
        stride,
        padding.upper() if isinstance(padding, str) else padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def own_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def layer(problem: Problem) -> Case:
    """Forward and backward of one convolution."""
    x, w, _, dy = map(jnp.asarray, problem.operands())

    def step(conv):
        def both(x, w, dy):
            y, pull = jax.vjp(lambda x, w: conv(x, w, **problem.kwargs), x, w)
            return y, *pull(dy)

        compiled = jax.jit(both)
        return lambda: jax.block_until_ready(compiled(x, w, dy))

    return Case(str(problem), step(own_conv), step(fast.conv))


def whole() -> Case:
    """The gradients of a LeNet."""
    parameters, images, labels = network("float32")

    def step(conv, pool):
        def loss(parameters):
            z = images
            for kernel in parameters[:2]:
                z = pool(jnp.tanh(conv(z, kernel)))
            z = jnp.tanh(z.reshape(len(images), -1) @ parameters[2]) @ parameters[3]
            return -jax.nn.log_softmax(z)[jnp.arange(len(labels)), labels].mean()

        compiled = jax.jit(jax.grad(loss))
        return lambda: jax.block_until_ready(compiled(parameters))

    return Case("LeNet", step(own_conv, own_pool), step(fast.conv, lambda z: fast.max_pool(z, 2)))


def cases() -> list[Case]:
    first = read_problems(find_table("lenet5_mnist"))
    return [layer(first[1]), whole()]
