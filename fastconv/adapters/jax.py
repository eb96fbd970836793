"""Convolution and pooling for JAX on a CPU: under ``jit``, ``grad`` and ``vmap``.

The functions are those of `fastconv`, without `out` and `activation`. Each is a
``jax.pure_callback`` with a ``jax.custom_vjp``. The products' gradients are products of the same
kind, so reverse-mode derivatives of every order exist; forward mode (``jvp``) does not. Under
``vmap`` a mapped axis joins the batch where the kernel is not mapped; where it is, the product is
computed once for each kernel. bfloat16 is computed in float32 and rounded once, in the gradients
too.
"""

from __future__ import annotations

from typing import Any

from fastconv.adapters._bilinear import CONV, CONV_TRANSPOSE
from fastconv.adapters._host import host
from fastconv.geometry.request import Int, Padding

host("jax", "jax")

import jax  # noqa: E402

from fastconv.adapters._jax_calls import (  # noqa: E402
    frozen,
    images_operand,
    maximum_of,
    mean_of,
    product_of,
)

__all__ = ["avg_pool", "conv", "conv_transpose", "max_pool"]


def conv(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: str = "channels_last",
) -> jax.Array:
    """Differentiable :func:`fastconv.conv`.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images; 1-D and 3-D likewise.
    w : array (KH, KW, C/G, F)
        Kernel: the order that ``lax.conv_general_dilated`` calls HWIO.
    b : array (F,), optional
        Bias.
    stride, padding, dilation, groups, data_format
        As for :func:`fastconv.conv`; Python values, never traced.

    Returns
    -------
    y : array (m, OH, OW, F)

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.conv`, while JAX traces.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((2, 8, 8, 1)), jnp.ones((3, 3, 1, 4))
    >>> jax.jit(jax.grad(lambda w: (conv(x, w) ** 2).sum()))(w).shape
    (3, 3, 1, 4)
    """
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    options = frozen(**steps, groups=groups, data_format=data_format)
    return product_of(CONV, options, x, w, b)


def conv_transpose(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Int = 1,
    padding: Padding = 0,
    output_padding: Int = 0,
    dilation: Int = 1,
    groups: int = 1,
    data_format: str = "channels_last",
) -> jax.Array:
    """Differentiable :func:`fastconv.conv_transpose`.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images.
    w : array (KH, KW, F/G, C)
        Kernel of the convolution whose input gradient this is.
    b : array (F,), optional
        Bias.
    stride, padding, output_padding, dilation, groups, data_format
        As for :func:`fastconv.conv_transpose`; Python values, never traced.

    Returns
    -------
    y : array (m, OH, OW, F)

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.conv_transpose`, while JAX traces.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> conv_transpose(jnp.ones((2, 4, 4, 8)), jnp.ones((2, 2, 3, 8)), stride=2).shape
    (2, 8, 8, 3)
    """
    steps = {"stride": stride, "padding": padding, "output_padding": output_padding}
    options = frozen(**steps, dilation=dilation, groups=groups, data_format=data_format)
    return product_of(CONV_TRANSPOSE, options, x, w, b)


def max_pool(
    x: Any,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    data_format: str = "channels_last",
) -> jax.Array:
    """Differentiable :func:`fastconv.max_pool`.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images.
    window, stride, padding, dilation, ceil_mode, data_format
        As for :func:`fastconv.max_pool`; Python values, never traced.

    Returns
    -------
    y : array (m, OH, OW, C)
        Its gradient goes to the first maximum of each window.

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.max_pool`, while JAX traces.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> jax.grad(lambda x: max_pool(x, 2).sum())(x)[0, :, :, 0].tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    options = frozen(window=window, **steps, ceil_mode=ceil_mode, data_format=data_format)
    x = images_operand("x", x)
    return maximum_of(options)(x, x.shape)


def avg_pool(
    x: Any,
    window: Int,
    *,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    data_format: str = "channels_last",
) -> jax.Array:
    """Differentiable :func:`fastconv.avg_pool`.

    Parameters
    ----------
    x : array (m, H, W, C)
        Images.
    window, stride, padding, dilation, ceil_mode, count_include_pad, data_format
        As for :func:`fastconv.avg_pool`; Python values, never traced.

    Returns
    -------
    y : array (m, OH, OW, C)

    Raises
    ------
    TypeError, ValueError
        As :func:`fastconv.avg_pool`, while JAX traces.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    steps = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    options = frozen(
        window=window, **steps, count_include_pad=count_include_pad, data_format=data_format
    )
    x = images_operand("x", x)
    return mean_of(options)(x, x.shape)
