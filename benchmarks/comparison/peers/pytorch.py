"""PyTorch in its channels-last memory format, without autograd's bookkeeping.

Gradients go through ``aten.convolution_backward``, told which one is wanted. Where the padding
differs between two sides, which PyTorch's convolution does not take, the forward product includes
``F.pad``; the kernel gradient starts from the padded input, which autograd has from the forward
pass; the input gradient includes cutting the padding off again, which is a view.

Networks are plain eager PyTorch, in the faster memory format.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from comparison.cases import Call, ConvCase, DeltaCase, PoolCase
from comparison.networks import EPOCH_RATE, AnyCase, NetworkCase, Run
from fastconv import nn
from fastconv.problems.timing import fastest


class Pytorch:
    """The library that ratios refer to.

    Parameters
    ----------
    gradients : bool
        Let autograd keep its books, for training steps; otherwise all is done in inference mode.
    formats : tuple of str
        Memory formats of networks: the fastest is taken.
    """

    def __init__(
        self,
        gradients: bool = False,
        formats: tuple[str, ...] = ("contiguous_format", "channels_last"),
    ) -> None:
        self._gradients = gradients
        self._formats = [getattr(torch, name) for name in formats]

    @contextmanager
    def threads(self, n: int) -> Iterator[None]:
        """Compute with n threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(n)
        try:
            with torch.inference_mode(not self._gradients):
                yield
        finally:
            torch.set_num_threads(before)

    def prepare(self, case: AnyCase) -> Call:
        """How PyTorch computes the case."""
        if isinstance(case, NetworkCase):
            return _network(case, self._formats)
        if isinstance(case, DeltaCase):
            return self._delta(case)
        return self._conv(case) if isinstance(case, ConvCase) else self._pool(case)

    def _images(self, array: np.ndarray) -> Any:
        """Channels-last images as PyTorch sees them: (m, C, H, W), memory as it is."""
        return torch.from_numpy(array).movedim(-1, 1)

    def _conv(self, case: ConvCase) -> Call:
        g, (x, w, _, dy) = case.problem.geometry, case.operands
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
        dy, y = torch.from_numpy(case.dy), torch.from_numpy(case.y)
        if case.product == "relu_backward":
            mask = torch.ops.aten.threshold_backward  # what autograd calls for a ReLU
            return Call(lambda: mask(dy, y, 0), _numpy)
        return Call(lambda: dy.sum(case.pixels), _numpy)

    def _pool(self, case: PoolCase) -> Call:
        aten = torch.ops.aten
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


# Networks -----------------------------------------------------------------------------------------

CHANNELS_FIRST = (0, 3, 1, 2)


class _Residual(torch.nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: torch.nn.Module, shortcut: torch.nn.Module | None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


def network(model: nn.Sequential, x: np.ndarray) -> torch.nn.Module:
    """The network with the weights that it has here; `x` is a batch that fits."""
    with nn.evaluating(model):
        model.forward(x[:1])  # after this the layers know their shapes
    return _module(model, x.shape[1:])


def _module(layer: nn.Layer, shape: tuple[int, ...]) -> torch.nn.Module:
    """A layer as PyTorch has it, for images of this shape (H, W, C) or vectors."""
    t = torch.nn
    if isinstance(layer, nn.Sequential):
        shapes = [shape, *(inner.output_shape for inner in layer.layers)]
        modules, image = [], None
        for inner, before in zip(layer.layers, shapes[:-1], strict=True):
            modules.append(_module(inner, before))
            if isinstance(inner, nn.Flatten):
                image = before
            if isinstance(inner, nn.Dense) and image:
                # Its rows are in the order h, w, c; PyTorch's images flatten in the order c, h, w.
                weight = modules[-1].weight
                order = np.arange(weight.shape[1]).reshape(image).transpose(2, 0, 1).ravel()
                weight.data = weight.data[:, torch.from_numpy(order)].contiguous()
                image = None
        return t.Sequential(*modules)
    if isinstance(layer, nn.Residual):
        shortcut = None if layer.shortcut is None else _module(layer.shortcut, shape)
        return _Residual(_module(layer.body, shape), shortcut)
    if isinstance(layer, nn.Conv):
        padding = layer.settings["padding"]
        conv = t.Conv2d(
            layer.channels, layer.filters, layer.window, layer.settings["stride"], padding
        )
        conv.weight.data = _tensor(layer.w.value.transpose(3, 2, 0, 1))
        conv.bias = None if layer.b is None else t.Parameter(_tensor(layer.b.value))
        return conv if layer.activation is None else t.Sequential(conv, t.ReLU(inplace=True))
    if isinstance(layer, nn.Dense):
        dense = t.Linear(layer.inputs, layer.outputs)
        dense.weight.data = _tensor(layer.w.value.T)
        dense.bias.data = _tensor(layer.b.value)
        return dense
    if isinstance(layer, nn.BatchNorm):
        norm = t.BatchNorm2d(layer.channels, layer.epsilon, 1 - layer.momentum)
        norm.weight.data, norm.bias.data = _tensor(layer.scale.value), _tensor(layer.shift.value)
        norm.running_mean.data = _tensor(layer.running_mean)
        norm.running_var.data = _tensor(layer.running_variance)
        return norm
    if isinstance(layer, nn.MaxPool):
        return t.MaxPool2d(layer.window)
    if isinstance(layer, nn.GlobalAvgPool):
        return t.Sequential(t.AdaptiveAvgPool2d(1), t.Flatten())
    if isinstance(layer, nn.Dropout):
        return t.Dropout(layer.rate)
    return {nn.ReLU: lambda: t.ReLU(inplace=True), nn.Flatten: t.Flatten}[type(layer)]()


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A copy."""
    return torch.from_numpy(np.array(array, order="C"))


def _network(case: NetworkCase, formats: list[torch.memory_format]) -> Call:
    """In the fastest memory format, found by measuring."""
    build = _predict if case.product == "predict" else _training
    best = formats[0]
    if len(formats) > 1:
        best = fastest({memory: build(case, memory).run for memory in formats})
    call = build(case, best)
    return call if case.product != "epoch" else Call(_epoch(case, best), call.answer)


def _batches(case: NetworkCase, memory: torch.memory_format) -> Iterator[tuple[Any, Any]]:
    """Images (m, C, H, W) and labels, for ever."""
    pairs = [(_put(x, memory), _labels(case, y)) for x, y in case.batches]
    return itertools.cycle(pairs)


def _put(x: np.ndarray, memory: torch.memory_format) -> torch.Tensor:
    return torch.from_numpy(x).permute(CHANNELS_FIRST).contiguous(memory_format=memory)


def _labels(case: NetworkCase, y: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(y[:, None].astype(np.float32) if case.network.classes == 2 else y)


def _predict(case: NetworkCase, memory: torch.memory_format) -> Call:
    model = network(case.network.model(), case.batches[0][0]).to(memory_format=memory).eval()
    batches = _batches(case, memory)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model(next(batches)[0])

    return Call(run, lambda z: z.numpy())


def _optimizer(case: NetworkCase, model: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    """Fused: faster than its default on a CPU."""
    if case.network.adam:
        return torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, fused=True)


def _step(case: NetworkCase, model: torch.nn.Module, lr: float) -> Callable[[Any, Any], Any]:
    """One training step on a batch: the loss before the update, and the outputs."""
    functional, optimizer = torch.nn.functional, _optimizer(case, model, lr)
    binary = case.network.classes == 2
    loss_of = functional.binary_cross_entropy_with_logits if binary else functional.cross_entropy

    def step(x: Any, y: Any) -> tuple[Any, Any]:
        optimizer.zero_grad()
        z = model(x)
        loss = loss_of(z, y)
        loss.backward()
        optimizer.step()
        return loss.detach(), z.detach()

    return step


def _training(case: NetworkCase, memory: torch.memory_format) -> Call:
    def trainer(dropout: bool, lr: float) -> Run:
        model = network(case.network.model(dropout), case.batches[0][0])
        step, batches = _step(case, model.to(memory_format=memory), lr), _batches(case, memory)
        return lambda: step(*next(batches))[0].item()

    return case.training(trainer)


def _epoch(case: NetworkCase, memory: torch.memory_format) -> Run:
    """Every image once, in random order, no DataLoader; loss and accuracy as `fit` has them."""
    model = network(case.network.model(), case.batches[0][0]).to(memory_format=memory)
    step = _step(case, model, EPOCH_RATE)
    images, labels = _put(case.data[0], memory), torch.from_numpy(case.data[1])

    def run() -> tuple[float, float]:
        total, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for chosen in torch.randperm(len(images)).split(case.batch):
            x, y = images[chosen], labels[chosen]
            loss, z = step(x.contiguous(memory_format=memory), y)
            total += loss * len(chosen)
            correct += (z.argmax(1) == y).sum()
        return total.item() / len(images), correct.item() / len(images)

    return run
