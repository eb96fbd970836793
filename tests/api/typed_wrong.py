"""Mistakes that a type checker must report: each line that ends in `# wrong`, and no other.

Nothing here is run.
"""

from typing import TYPE_CHECKING

import numpy as np

import fastconv as fc
from fastconv import examples, nn, reference, testing
from fastconv.adapters import coursera

if TYPE_CHECKING:
    x, w = np.ones((2, 8, 8, 1)), np.ones((3, 3, 1, 4))

    fc.max_pol(x, 2)  # wrong
    fc.nn.Convv(1, 8, 3)  # wrong
    fc.reference.convolve(x, w)  # wrong
    fc.anything()  # wrong
    nn.Conv2D(1, 8, 3)  # wrong
    fc.conv(x, w, padding="SAME")  # wrong
    fc.conv(x, w, padding=0.5)  # wrong
    fc.conv(x, w, padding=((0, 1, "2"), (0, 1)))  # wrong
    fc.conv(x, w, stride="2")  # wrong
    fc.conv(x, w, strides=2)  # wrong
    fc.conv(x, w, data_format="NHWC")  # wrong
    fc.conv(x, w, activation="gelu")  # wrong
    fc.conv(x, w, out=[1.0])  # wrong
    fc.conv(x, w, 1)  # a number is an array, of no axes: its shape is for fastconv to refuse
    fc.conv(x, w, None, 2)  # wrong
    fc.conv_backward(x, x, w, need=("y",))  # wrong
    fc.conv_backward(x, x, w, need=("w",)).dw + 1  # wrong
    fc.conv_backward(x, x, w, stride=1).dw + 1
    fc.conv_backward(x, x, w, ceil_mode=True)  # wrong
    fc.max_pool(x, 2, return_argmax=True).mean()  # wrong
    fc.max_pool(x, 2).mean()
    fc.max_pool(x)  # wrong
    fc.plan_conv(x.shape, w.shape, activation="tanh")  # wrong
    fc.num_threads("two")  # wrong
    fc.algorithm("fats")  # wrong
    fc.conv(x, w, algorithm="quick")  # wrong
    fc.conv_transpose(x, w, padding_mode="edge")  # wrong
    reference.conv(x, w, data_format="last")  # wrong
    reference.conv_backward(x, x, w, need="w").dw + 1  # wrong
    testing.assert_conv_equal(fc.conv, x, w, strides=2)  # wrong
    nn.Conv(1, 8, 3, padding="reflect")  # wrong
    nn.Conv(1, 8, 3, activation="sigmoid")  # wrong
    nn.Conv(1, 8, 3, init="xavier")  # wrong
    nn.MaxPool("2")  # wrong
    nn.Sequential(1)  # wrong
    nn.Sequential(nn.ReLU()).forward([1.0])  # wrong
    examples.two_conv_cnn(subsampling="median")  # wrong
    coursera.pool_forward(x, {"f": 2, "stride": 2}, mode="mean")  # wrong
