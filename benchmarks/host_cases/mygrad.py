"""MyGrad: its `conv_nd` and `max_pool`, float32, forward and backward."""

from __future__ import annotations

import mygrad
import numpy as np
from mygrad.nnet import layers
from mygrad.nnet.losses import softmax_crossentropy

from fastconv.adapters import mygrad as fast

from . import Case
from ._lenet import NCHW, OIHW, network, second_layer


def cases() -> list[Case]:
    images, kernel = (
        np.ascontiguousarray(a.transpose(order))
        for a, order in zip(second_layer("float32"), (NCHW, OIHW), strict=True)
    )
    parameters, x, labels = network("float32")
    x = np.ascontiguousarray(x.transpose(NCHW))
    kernels = [np.ascontiguousarray(w.transpose(OIHW)) for w in parameters[:2]]

    def layer(ops):
        def run():
            tensors = mygrad.tensor(images, copy=False), mygrad.tensor(kernel, copy=False)
            (ops.conv_nd(*tensors, stride=1) ** 2).sum().backward()
            return [tensor.grad for tensor in tensors]

        return run

    def whole(ops):
        def run():
            weights = [mygrad.tensor(w, copy=False) for w in (*kernels, *parameters[2:])]
            z = x
            for w in weights[:2]:
                z = ops.max_pool(mygrad.tanh(ops.conv_nd(z, w, stride=1)), (2, 2), 2)
            z = mygrad.tanh(z.reshape(len(x), -1) @ weights[2]) @ weights[3]
            softmax_crossentropy(z, labels).backward()
            return [w.grad for w in weights]

        return run

    return [
        Case("m32 h12w12c6 f16 k5x5", layer(layers), layer(fast)),
        Case("LeNet", whole(layers), whole(fast)),
    ]
