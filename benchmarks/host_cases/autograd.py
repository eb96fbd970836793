"""autograd: its `convolve`, float64, forward and backward."""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np
from autograd import grad
from autograd.scipy.signal import convolve

from fastconv.adapters import autograd as fast

from . import Case
from ._lenet import network, second_layer


def own_conv(x, w):
    """(m, H, W, C) and (KH, KW, C, F), by autograd's convolution, which flips the kernel."""
    y = convolve(x, w[::-1, ::-1], axes=([1, 2], [0, 1]), dot_axes=([3], [2]), mode="valid")
    return anp.transpose(y, (0, 2, 3, 1))  # (m, F, OH, OW) -> (m, OH, OW, F)


def own_pool(x):
    m, H, W, C = x.shape
    return anp.max(anp.max(anp.reshape(x, (m, H // 2, 2, W // 2, 2, C)), axis=4), axis=2)


def loss(conv, pool, parameters, images, labels):
    z = images
    for kernel in parameters[:2]:
        z = pool(anp.tanh(conv(z, kernel)))
    z = anp.dot(anp.tanh(anp.dot(anp.reshape(z, (len(images), -1)), parameters[2])), parameters[3])
    z = z - anp.log(anp.sum(anp.exp(z), axis=1, keepdims=True))
    return -anp.mean(z[np.arange(len(labels)), labels])


def cases() -> list[Case]:
    x, w = second_layer("float64")
    data = network("float64")

    def layer(conv):
        gradients = grad(lambda both: anp.sum(conv(*both) ** 2))
        return lambda: gradients((x, w))

    def whole(conv, pool):
        gradients = grad(lambda parameters: loss(conv, pool, parameters, *data[1:]))
        return lambda: gradients(data[0])

    def fast_pool(z):
        return fast.max_pool(z, 2)

    return [
        Case("m32 h12w12c6 f16 k5x5", layer(own_conv), layer(fast.conv)),
        Case("LeNet", whole(own_conv, own_pool), whole(fast.conv, fast_pool)),
    ]
