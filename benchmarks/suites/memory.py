"""Peak memory of a process: the baseline holds the operands and the result, nothing else.

The explicit im2col matrix of this problem would take 302 MB.
"""

import numpy as np

import fastconv as fc

X, W = (256, 32, 32, 32), (3, 3, 32, 32)


class ConvMemory:
    def setup(self):
        self.x, self.w = np.ones(X, np.float32), np.ones(W, np.float32)
        self.y = np.ones(X, np.float32)
        one = self.x[:1]
        y = fc.conv(one, self.w, padding=1)
        dx, dw, _ = fc.conv_backward(one, one, self.w, padding=1)
        inner = slice(None), slice(1, -1), slice(1, -1)
        if not ((y[inner] == 9 * 32).all() and (dx[inner] == 9 * 32).all()):
            raise AssertionError("wrong answer")
        if not (dw[1, 1] == 32 * 32).all():
            raise AssertionError("wrong answer")

    def peakmem_operands(self):
        return self.x

    def peakmem_forward(self):
        fc.conv(self.x, self.w, padding=1, out=self.y)

    def peakmem_kernel_grad(self):
        fc.conv_kernel_grad(self.x, self.y, W, padding=1)

    def peakmem_input_grad(self):
        fc.conv_input_grad(self.x, self.w, X, padding=1, out=self.y)
