"""The walk over a program's calls: by hand, from threads that come late or never."""

import ctypes
import threading
import time

import numpy as np
import pytest
from networks import SHAPE, batch, differences, plain_step, same_bits, state, trained

import fastconv as fc
from fastconv import nn
from fastconv.engine.elementwise import each_call
from fastconv.engine.entries import loop_address, program_address
from fastconv.program import machine
from fastconv.program.graph import Graph
from fastconv.program.machine import Program

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
ONES = {np.dtype(kind): np.ones(10, kind) for kind in ("float32", "float64")}


def copied(a, b):
    """A call that writes `a` to `b`: times one."""
    entry = loop_address("multiply", a.dtype)
    return each_call(entry, "multiply", a, b, ONES[a.dtype])


def walk_by(delays):
    """What takes the place of `start`: threads of the test, each with a delay; None never comes."""

    def start(entry, address, count):
        walk, errors = ENTRY(entry), []

        def come(thread, delay):
            time.sleep(delay)
            walk(address, thread)

        threads = [
            threading.Thread(target=come, args=(thread, delay))
            for thread, delay in enumerate(delays[:count])
            if delay is not None
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads), "a thread hangs"
        assert not errors

    return start


@pytest.mark.parametrize(
    "delays",
    [
        (0, 0), (0, None), (None, 0), (0.05, 0), (0, 0.05), (None, None, None, 0),
        (0, 0, 0, 0, 0, 0, 0, 0), (0.03, 0, None, 0.001, 0.002, 0, None, 0.02),
    ],
)  # fmt: skip
def test_threads_that_come_late_or_never(monkeypatch, delays):
    ours, twin = trained(), trained()
    with fc.num_threads(8):
        step = nn.plan_step(*ours, (64, *SHAPE))
        step(*batch(64))
        monkeypatch.setattr(machine, "start", walk_by(delays))
        if delays[0] is None:  # whoever is asked for alone must come
            for piece in step._batch(64).program._pieces:
                if hasattr(piece, "threads"):
                    piece.threads = max(piece.threads, len(delays))
        for seed in range(3):
            step(*batch(64, seed))
    plain_step(*twin, *batch(64))
    for seed in range(3):
        plain_step(*twin, *batch(64, seed))
    assert not differences(state(ours[0], ours[2]), state(twin[0], twin[2]))


def test_more_threads_than_the_work_is_worth():
    """A step's limit holds whatever number of threads walk."""
    x = np.arange(10, dtype=np.float32)
    graph = Graph()
    a, b = graph.array(x), graph.value((10,), np.float32, kept=True)
    for _ in range(20):
        graph.call("copy", lambda _, a, b: (copied(a, b),), (a,), (b,))
        a, b = b, graph.value((10,), np.float32, kept=True)
    program = Program(graph)
    (piece,) = program._pieces
    assert piece.threads == 1
    np.copyto(piece.words, piece.template)
    walk_by([0.001 * (i % 3) for i in range(12)])(program_address(), piece.address, 12)
    np.testing.assert_array_equal(program.array(a), x)


def numbers(graph, number, rest):
    """A graph whose first operation writes a number that is checked."""
    value = graph.value((3,), np.float64, kept=True)
    source = np.array([number, 1.0, 2.0])

    def make(_, a, b):
        return (copied(a, b),)

    graph.call("number", make, (graph.array(source),), (value,), checked=True)
    rest(value)
    return value


@pytest.mark.parametrize("number", [1.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("python", [False, True])
def test_a_number_that_is_not_finite_ends_the_run(number, python):
    graph, after = Graph(), np.zeros(3)

    def rest(value):
        target = graph.array(after)
        if python:
            graph.python("after", lambda a, out: np.copyto(out, 7), (value,), (target,))
        else:
            graph.call("after", lambda _, a, b: (copied(a, b),), (value,), (target,))

    numbers(graph, number, rest)
    finite = bool(np.isfinite(number))
    assert Program(graph).run() == finite
    assert bool(after.any()) == finite


def test_checks_of_the_interpreter():
    graph, seen = Graph(), []
    value = graph.value((1,), np.float64)
    graph.python("loss", lambda out: np.copyto(out, np.nan), (), (value,), checked=True)
    graph.python("after", lambda value: seen.append(value[0]), (value,), ())
    assert not Program(graph).run()
    assert not seen


def test_values_that_no_operation_touches():
    graph = Graph()
    value = graph.value((2, 3), np.float32, kept=True)
    program = Program(graph)
    program.array(value)[...] = 4
    assert program.array(graph.view(value, (6,))).tolist() == [4] * 6
    assert program.run()


def test_a_program_may_not_use_more_threads_than_its_scratch_is_for():
    x = batch(16)[0]
    model = nn.Sequential(nn.Conv(2, 32, 3, padding=1, rng=0), nn.Conv(32, 32, 3, rng=0))
    with fc.num_threads(1):
        run = model.plan_inference(x.shape)
    with fc.num_threads(8):
        other = Program(run._graph)
        assert other.most == 1
        assert other.nbytes == run._forward.nbytes
        assert same_bits(run(x), model.infer(x))


def test_no_thread_is_launched_where_none_is_allowed(monkeypatch):
    ours, twin = trained(), trained()
    counts = []
    start = machine.start
    monkeypatch.setattr(machine, "start", lambda *a: (counts.append(a[2]), start(*a)))
    with fc.num_threads(2):
        step = nn.plan_step(*ours, (64, *SHAPE))
        step(*batch(64))
        monkeypatch.setattr("fastconv.threads._may_launch", lambda: False)
        step(*batch(64, 1))
        monkeypatch.undo()
    assert counts == [2, 1]
    for seed in range(2):
        plain_step(*twin, *batch(64, seed))
    assert not differences(state(ours[0], ours[2]), state(twin[0], twin[2]))


def test_a_profile_binds_once():
    model, loss, optimizer = trained()
    step = nn.plan_step(model, loss, optimizer, (4, *SHAPE))
    step.profile(*batch(4), repeats=1)
    program = step._batch(4).program
    kept = len(program._alive)
    step.profile(*batch(4), repeats=3)
    assert len(program._alive) == kept
