"""The public functions: check, plan, call.

Arguments that every function shares:

stride, dilation : int, or one int per spatial axis
padding : int; one int or one (lo, hi) pair per spatial axis; "valid"; "same"; "full"
padding_mode : what stands in the padding: "constant" (zeros), or copies of cells, as `numpy.pad`
    makes them: "reflect", "symmetric", "edge", "wrap"
groups : int that divides C and F
data_format : "channels_last" (m, H, W, C) or "channels_first" (m, C, H, W); w never changes
algorithm : "exact", "fast" or None: that of :func:`fastconv.algorithm` around the call; with
    a `padding_mode` other than "constant" both are the exact way
out : array that takes the result: right shape and dtype, writeable, no overlap with an input

Operands are float32, float64 or float16 (computed in float32), all of one dtype, of any strides
and byte order. A wrong dtype or a mix is a TypeError; sizes that do not fit, or an unusable `out`,
are a ValueError that lists the geometry. Nothing is written before all checks have passed.
What overflows, underflows or is invalid neither warns nor raises, whatever `numpy.errstate` says.
"""

from fastconv.functional.columns import col2im, im2col
from fastconv.functional.conv import conv, conv_backward, conv_input_grad, conv_kernel_grad
from fastconv.functional.conv_transpose import conv_transpose, conv_transpose_backward
from fastconv.functional.pool import avg_pool, avg_pool_backward, max_pool, max_pool_backward
from fastconv.functional.relu import relu_backward

__all__ = [
    "avg_pool",
    "avg_pool_backward",
    "col2im",
    "conv",
    "conv_backward",
    "conv_input_grad",
    "conv_kernel_grad",
    "conv_transpose",
    "conv_transpose_backward",
    "im2col",
    "max_pool",
    "max_pool_backward",
    "relu_backward",
]
