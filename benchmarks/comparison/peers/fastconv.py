"""fastconv: plans for the products, and results written into arrays that exist already."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

import fastconv as fc
from comparison.cases import Call, ConvCase, DeltaCase, PoolCase, UnsupportedError
from comparison.networks import EPOCH_RATE, AnyCase, NetworkCase, Run
from fastconv import nn


class Fastconv:
    """The package under test.

    Parameters
    ----------
    allocate : bool
        Give no ``out``: results are allocated at every call, as the other libraries do.
    algorithm : {"exact", "fast"}
        Of the convolutions; "fast" computes nothing else.
    """

    def __init__(self, allocate: bool = False, algorithm: str = "exact") -> None:
        self._allocate = allocate
        self._options = {"algorithm": algorithm} if algorithm != "exact" else {}

    def threads(self, n: int) -> AbstractContextManager[Any]:
        """Compute with n threads."""
        return fc.num_threads(n)

    def prepare(self, case: AnyCase) -> Call:
        """How fastconv computes the case."""
        if self._options and not isinstance(case, ConvCase):
            raise UnsupportedError("the same by either algorithm")
        if isinstance(case, NetworkCase):
            return _predict(case) if case.product == "predict" else _training(case)
        if isinstance(case, DeltaCase):
            return self._delta(case)
        return self._conv(case) if isinstance(case, ConvCase) else self._pool(case)

    def _out(self, shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
        """An array for the result, filled so that an element left unwritten shows."""
        return None if self._allocate else np.full(shape, np.nan, dtype)

    def _conv(self, case: ConvCase) -> Call:
        problem, (x, w, _, dy) = case.problem, case.operands
        options = {**problem.kwargs, **self._options}
        plan = fc.plan_conv(problem.x_shape, problem.w_shape, problem.dtype, **options)
        if case.product == "forward":
            y = self._out(dy.shape, case.dtype)
            return Call(lambda: plan.forward(x, w, out=y), _same)
        if case.product == "kernel":
            dw = self._out(w.shape, case.dtype)
            return Call(lambda: plan.kernel_grad(x, dy, out=dw), _same)
        dx = self._out(x.shape, case.dtype)
        return Call(lambda: plan.input_grad(dy, w, out=dx), _same)

    def _delta(self, case: DeltaCase) -> Call:
        dy, y = case.dy, case.y
        if case.product == "relu_backward":
            dz = self._out(dy.shape, case.dtype)
            return Call(lambda: fc.relu_backward(dy, y, out=dz), _same)
        # of a 1x1 convolution, whose other two gradients are not asked for
        x, w = (np.zeros(s, case.dtype) for s in ((*dy.shape[:-1], 1), (1,) * (dy.ndim - 1)))
        w = np.zeros((*w.shape, dy.shape[-1]), case.dtype)
        return Call(lambda: fc.conv_backward(dy, x, w, need=("b",)).db, _same)

    def _pool(self, case: PoolCase) -> Call:
        x, dy, argmax, window = case.x, case.dy, case.argmax, case.window
        shape, options = x.shape, case.kwargs
        y = self._out(dy.shape, case.dtype)
        dx = self._out(shape, case.dtype)
        runs = {
            "max_pool": lambda: fc.max_pool(x, window, out=y, **options),
            "max_pool_argmax": lambda: fc.max_pool(x, window, return_argmax=True, out=y, **options),
            "max_pool_backward": lambda: fc.max_pool_backward(
                dy, argmax, shape, window, out=dx, **options
            ),
            "avg_pool": lambda: fc.avg_pool(x, window, out=y, **options),
            "avg_pool_backward": lambda: fc.avg_pool_backward(dy, shape, window, out=dx, **options),
        }
        return Call(runs[case.product], _same)


def _same(result: Any) -> Any:
    return result


def _predict(case: NetworkCase) -> Call:
    model = case.network.model()
    batches = itertools.cycle([x for x, _ in case.batches])
    if not hasattr(model, "plan_inference"):
        return Call(lambda: model.predict(next(batches)), _same)
    x = case.batches[0][0]
    run, out = model.plan_inference(x.shape), np.empty_like(model.predict(x))
    return Call(lambda: run(next(batches), out=out), _same)


def _training(case: NetworkCase) -> Call:
    """Steps, planned where this version has plans; `fit` for an epoch."""
    network, x_shape = case.network, case.batches[0][0].shape

    def trainer(dropout: bool, lr: float) -> Run:
        model, loss = network.model(dropout), network.loss()
        optimizer = network.optimizer(model, lr)
        batches = itertools.cycle(case.batches)
        if hasattr(nn, "plan_step"):
            step = nn.plan_step(model, loss, optimizer, x_shape)
            return lambda: step(*next(batches))[0]
        return lambda: nn.train_step(model, loss, optimizer, *next(batches))[0]

    call = case.training(trainer)
    if case.product != "epoch":
        return call
    model, loss = network.model(), network.loss()
    optimizer = network.optimizer(model, EPOCH_RATE)
    options = {"epochs": 1, "batch_size": case.batch}
    return Call(lambda: nn.fit(model, loss, optimizer, *case.data, **options), call.answer)
