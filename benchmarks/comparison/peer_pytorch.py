"""PyTorch in its channels-last memory format, without autograd's bookkeeping.

Gradients go through ``aten.convolution_backward``, told which one is wanted. Where the padding
differs between two sides, which PyTorch's convolution does not take, the forward product includes
``F.pad``; the kernel gradient starts from the padded input, which autograd has from the forward
pass; the input gradient includes cutting the padding off again, which is a view.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from comparison.cases import Call, Case, ConvCase, DeltaCase, PoolCase


class Pytorch:
    """The library that ratios refer to."""

    def __init__(self) -> None:
        import torch

        self._torch = torch

    @contextmanager
    def threads(self, n: int) -> Iterator[None]:
        """Compute with n threads, in inference mode."""
        before = self._torch.get_num_threads()
        self._torch.set_num_threads(n)
        try:
            with self._torch.inference_mode():
                yield
        finally:
            self._torch.set_num_threads(before)

    def prepare(self, case: Case) -> Call:
        """How PyTorch computes the case."""
        if isinstance(case, DeltaCase):
            return self._delta(case)
        return self._conv(case) if isinstance(case, ConvCase) else self._pool(case)

    def _images(self, array: np.ndarray) -> Any:
        """Channels-last images as PyTorch sees them: (m, C, H, W), memory as it is."""
        return self._torch.from_numpy(array).movedim(-1, 1)

    def _conv(self, case: ConvCase) -> Call:
        torch, g, (x, w, _, dy) = self._torch, case.problem.geometry, case.operands
        functional = torch.nn.functional
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[g.rank - 1]
        tx, tdy = self._images(x), self._images(dy)
        # (F, C/G, KH, KW), channels innermost in memory, too.
        tw = self._images(np.ascontiguousarray(np.moveaxis(w, -1, 0)))
        pads = [side for pair in reversed(g.pads) for side in pair]
        padding = [0] * g.rank if case.asymmetric else [lo for lo, _ in g.pads]
        options = (list(case.problem.stride), padding, list(case.problem.dilation))
        if case.product == "forward":
            if case.asymmetric:
                return Call(
                    lambda: convolve(functional.pad(tx, pads), tw, None, *options, g.G), _images
                )
            return Call(lambda: convolve(tx, tw, None, *options, g.G), _images)

        backward = torch.ops.aten.convolution_backward
        padded = functional.pad(tx, pads) if case.asymmetric else tx
        kernel = case.product == "kernel"
        mask = [not kernel, kernel, False]
        inside = tuple(slice(lo, lo + n) for n, (lo, _) in zip(g.x_size, g.pads, strict=True))
        crop = (slice(None), slice(None), *inside) if case.asymmetric else ()

        def run() -> Any:
            dx, dw, _ = backward(tdy, padded, tw, None, *options, False, [0] * g.rank, g.G, mask)
            return dw if kernel else dx[crop]

        return Call(run, _kernel if kernel else _images)

    def _delta(self, case: DeltaCase) -> Call:
        dy, y = self._torch.from_numpy(case.dy), self._torch.from_numpy(case.y)
        if case.product == "relu_backward":
            mask = self._torch.ops.aten.threshold_backward  # what autograd calls for a ReLU
            return Call(lambda: mask(dy, y, 0), _numpy)
        return Call(lambda: dy.sum(case.pixels), _numpy)

    def _pool(self, case: PoolCase) -> Call:
        torch, aten = self._torch, self._torch.ops.aten
        functional = torch.nn.functional
        x, dy, argmax = self._images(case.x), self._images(case.dy), self._images(case.argmax)
        k, s, p = ([n, n] for n in (case.window, case.stride, case.padding))
        max_pool, avg_pool = functional.max_pool2d, functional.avg_pool2d
        runs = {
            "max_pool": lambda: max_pool(x, k, s, p),
            "max_pool_argmax": lambda: max_pool(x, k, s, p, return_indices=True),
            "max_pool_backward": lambda: aten.max_pool2d_with_indices_backward(
                dy, x, k, s, p, [1, 1], False, argmax
            ),
            "avg_pool": lambda: avg_pool(x, k, s, p, count_include_pad=False),
            "avg_pool_backward": lambda: aten.avg_pool2d_backward(
                dy, x, k, s, p, False, False, None
            ),
        }
        pair = case.product == "max_pool_argmax"
        return Call(runs[case.product], _image_pair if pair else _images)


def _images(result: Any) -> np.ndarray:
    """(m, C, H, W) to (m, H, W, C)."""
    return np.ascontiguousarray(np.moveaxis(result.numpy(), 1, -1))


def _numpy(result: Any) -> np.ndarray:
    return result.numpy()


def _image_pair(results: Any) -> tuple[np.ndarray, ...]:
    return tuple(map(_images, results))


def _kernel(result: Any) -> np.ndarray:
    """(F, C/G, KH, KW) to (KH, KW, C/G, F)."""
    return np.ascontiguousarray(np.moveaxis(result.numpy(), (0, 1), (-1, -2)))
