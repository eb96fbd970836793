"""Check a convolution or pooling of your own: against naive loops, identities and differences.

Four checks, each an ``AssertionError`` that names the worst element:

- `assert_conv_equal`: the output against `fastconv.reference`;
- `assert_conv_backward_equal`: the three gradients against `fastconv.reference`;
- `assert_adjoint`: ``<conv(x, w), dy> = <x, dx> = <w, dw>``, exactly, without any reference;
- `gradcheck`: a gradient against central differences.

and two makers of inputs: `integer_operands`, with which no rounding happens, so that a comparison
can be exact, and `untied`, with which no window of a max pool is undecided.

>>> from fastconv.testing import assert_conv_equal, integer_operands
>>> x, w, b, dy = integer_operands((2, 9, 3), (2, 3, 4))
>>> y = x[:, :-1] @ w[0] + x[:, 1:] @ w[1] + b  # a 1-D convolution of one's own
>>> assert_conv_equal(y, x, w, b)
>>> y[1, 7, 3] += 1
>>> assert_conv_equal(y, x, w, b)  # doctest: +ELLIPSIS
Traceback (most recent call last):
AssertionError: y: 1 of 64 elements wrong, worst at (1, 7, 3): got ..., expected ..., exactly

Only NumPy and `fastconv.reference` are used, and the types of `fastconv.typing`.
"""

from fastconv.testing.comparison import assert_conv_backward_equal, assert_conv_equal
from fastconv.testing.gradients import assert_adjoint, gradcheck
from fastconv.testing.inputs import Operands, integer_operands, untied

__all__ = [
    "Operands",
    "assert_adjoint",
    "assert_conv_backward_equal",
    "assert_conv_equal",
    "gradcheck",
    "integer_operands",
    "untied",
]
