"""A step allocates nothing and launches once; what plans hold is known and bounded."""

import gc
import tracemalloc

import numpy as np
from networks import (
    batch,
    small,
    trained,
)

import fastconv as fc
from fastconv import nn
from fastconv.nn.step import forget
from fastconv.program import machine

KEPT = 10_000  # bytes of 200 calls: the interpreter's own, as a frame that it keeps


def grown(function, times):
    """Bytes that stay after so many calls, and the most that one held above those before it."""
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(30):  # the interpreter keeps some frames
            function()
        before, peak = tracemalloc.get_traced_memory()[0], 0
        for _ in range(times):
            now = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            function()
            peak = max(peak, tracemalloc.get_traced_memory()[1] - now)
        return tracemalloc.get_traced_memory()[0] - before, peak
    finally:
        tracemalloc.stop()


def test_a_step_allocates_nothing_and_launches_once(monkeypatch):
    model, loss, optimizer = trained()
    model.layers[6].eval()  # a mask is drawn by NumPy, which allocates it
    x, y = batch(32)
    step = nn.plan_step(model, loss, optimizer, x.shape)
    launches = []
    start = machine.start
    monkeypatch.setattr(machine, "start", lambda *a: (launches.append(a), start(*a)))
    monkeypatch.setattr("fastconv.engine.call.start", lambda *a: launches.append("another"))
    for call in (lambda: step(x, y), lambda: nn.train_step(model, loss, optimizer, x, y)):
        call()
        launches.clear()
        call()
        assert len(launches) == 1
        assert launches[0] != "another"
    monkeypatch.undo()
    stays, peak = grown(lambda: step(x, y), 200)
    assert stays < KEPT
    assert peak < 6000
    stays, peak = grown(lambda: nn.train_step(model, loss, optimizer, x, y), 200)
    assert stays < KEPT
    assert peak < 8000


def test_inference_allocates_its_result_and_launches_once(monkeypatch):
    model = small()
    x, _ = batch(32)
    run = model.plan_inference(x.shape)
    out = run(x)
    launches = []
    start = machine.start
    monkeypatch.setattr(machine, "start", lambda *a: (launches.append(a), start(*a)))
    run(x, out)
    assert len(launches) == 1
    monkeypatch.undo()
    stays, peak = grown(lambda: run(x, out), 200)
    assert stays < KEPT
    assert peak < 5000


def test_steps_with_dropout_keep_nothing():
    model, loss, optimizer = trained()
    x, y = batch(32)
    assert grown(lambda: nn.train_step(model, loss, optimizer, x, y), 200)[0] < KEPT


def resnet8():
    def block(inputs, filters, stride):
        body = nn.Sequential(
            nn.Conv(inputs, filters, 3, stride=stride, padding=1, bias=False, rng=0),
            nn.BatchNorm(filters), nn.ReLU(),
            nn.Conv(filters, filters, 3, padding=1, bias=False, rng=1), nn.BatchNorm(filters),
        )  # fmt: skip
        side = None
        if stride > 1:
            side = nn.Sequential(
                nn.Conv(inputs, filters, 1, stride=stride, bias=False, rng=2),
                nn.BatchNorm(filters),
            )
        return [nn.Residual(body, side), nn.ReLU()]

    return nn.Sequential(
        nn.Conv(3, 16, 3, padding=1, bias=False, rng=3), nn.BatchNorm(16), nn.ReLU(),
        *block(16, 16, 1), *block(16, 32, 2), *block(32, 64, 2),
        nn.GlobalAvgPool(), nn.Dense(64, 10, rng=4),
    )  # fmt: skip


def test_memory_of_resnet8():
    model, x_shape = resnet8(), (32, 32, 32, 3)
    optimizer = nn.SGD(model.parameters(), momentum=0.9)
    loss = nn.SoftmaxCrossEntropy()
    nn.plan_step(model, loss, optimizer, (1, *x_shape[1:]))  # tables and modules
    with fc.num_threads(2):
        gc.collect()
        tracemalloc.start()
        try:
            step = nn.plan_step(model, loss, optimizer, x_shape)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert step._batch(32).program._memory.nbytes == step.workspace_nbytes
    assert 0 <= held - step.workspace_nbytes < 2e6  # tables of the geometries
    # What the plain passes keep for backward: x, and of each layer its output, at least.
    pixel = 4 * 32 * 32 * 32
    kept = pixel * (3 + 3 * 16 + 16 * 6 + (32 * 7 + 32) / 4 + (64 * 7 + 64) / 16)
    assert step.workspace_nbytes < kept
    value, _ = step(np.zeros(x_shape, np.float32), np.zeros(32, int))
    assert np.isfinite(value)


def test_plans_that_a_model_keeps_are_bounded():
    model, loss, optimizer = trained()
    for m in range(2, 15):
        nn.train_step(model, loss, optimizer, *batch(m))
        model.predict(batch(m)[0])
    held = vars(model)["_programs"]
    assert len(held.steps) <= 8
    assert len(held.forwards) <= 8
    forget(model)
    assert not held.steps
