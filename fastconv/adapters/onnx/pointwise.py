"""What convolutional networks need besides: BatchNormalization and Softmax of every opset."""

from __future__ import annotations

import math

import numpy as np

from fastconv.adapters.onnx.op import Op

__all__ = ["BatchNormalization", "Softmax"]


class BatchNormalization(Op):
    """Each channel normalised with the given statistics, or in training with the batch's.

    A model trains by `training_mode` from opset 14 on, by asking for the statistics in 7 to 13,
    and by `is_test` = 0 before.
    """

    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        scale,
        bias,
        mean,
        var,
        epsilon=1e-5,
        momentum=0.9,
        training_mode=0,
        is_test=0,
        spatial=1,
        consumed_inputs=None,
    ) -> tuple[np.ndarray, ...]:
        if not spatial:
            raise NotImplementedError("spatial=0, statistics of every pixel, is not supported")
        if not self._trains(training_mode, is_test):
            return (_normalised(x, scale, bias, mean, var, epsilon),)
        axes = (0, *range(2, x.ndim))
        wide = np.result_type(x, np.float32)
        batch_mean, batch_var = (f(axis=axes, dtype=wide) for f in (x.mean, x.var))
        y = _normalised(x, scale, bias, batch_mean, batch_var, epsilon)
        moved = [
            (old * momentum + new * (1 - momentum)).astype(old.dtype)
            for old, new in ((mean, batch_mean), (var, batch_var))
        ]
        saved = [batch_mean.astype(mean.dtype), batch_var.astype(var.dtype)]
        return (y, *moved, *saved)[: len(self.output)]

    def _trains(self, training_mode: int, is_test: int) -> bool:
        if self.opset >= 14:
            return bool(training_mode)
        return len(self.output) > 1 if self.opset >= 7 else not is_test


def _normalised(  # type: ignore[no-untyped-def]
    x, scale, bias, mean, var, epsilon
) -> np.ndarray:
    """``scale * (x - mean) / sqrt(var + epsilon) + bias`` as one product and one sum."""
    wide = np.result_type(x, np.float32)
    factor = scale.astype(wide) / np.sqrt(var.astype(wide) + wide.type(epsilon))
    term = bias.astype(wide) - mean.astype(wide) * factor
    shape = (-1, *(1 for _ in x.shape[2:]))
    y: np.ndarray = x * factor.reshape(shape)
    y += term.reshape(shape)
    return y.astype(x.dtype, copy=False)


class Softmax(Op):
    """``exp(x) / sum(exp(x))`` over one axis; before opset 13 over that axis and all after it."""

    def _run(self, x: np.ndarray, axis: int | None = None) -> tuple[np.ndarray]:
        if x.size == 0:
            return (x,)
        if self.opset >= 13:
            return (_softmax(x, -1 if axis is None else axis),)
        first = axis if axis is not None and self.given("axis") else 1
        rows = x.reshape(math.prod(x.shape[:first]), -1)
        return (_softmax(rows, 1).reshape(x.shape),)


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    y: np.ndarray = np.exp(x - x.max(axis=axis, keepdims=True))
    y /= y.sum(axis=axis, keepdims=True)
    return y
