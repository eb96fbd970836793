"""``fastconv check --deep``: right machines pass, and each section is seen to fail."""

from __future__ import annotations

import dataclasses
import os
import re
import select
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fastconv
from fastconv.cli import check, main
from fastconv.cli.deep import GRAINS, SECTIONS, runner
from fastconv.cli.deep.bits import check_bits
from fastconv.cli.deep.guard import guard_problems
from fastconv.cli.deep.layouts import LAYOUTS, SENTINEL, arranged, outside
from fastconv.cli.deep.memory import check_exhausted, check_flat
from fastconv.cli.deep.numbers import check_numbers
from fastconv.cli.deep.processes import check_forks, check_threads

POSIX = pytest.mark.skipif(os.name == "nt", reason="fork, mprotect and rlimits are POSIX")
SOME = {"bits": 1, "numbers": 2, "guard": 60, "memory:check_flat": 200, "processes": 4}


def quiet(done, total):
    assert 0 < done <= total


def public(**changed):
    return SimpleNamespace(**{n: getattr(fastconv, n) for n in fastconv.__all__} | changed)


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    for module, grain in GRAINS:
        monkeypatch.setattr(f"{module}.{grain}", 1)


def fewer(section):
    """A section that tries less."""
    near = [n for name, n in SOME.items() if section.function.startswith(name)]
    return dataclasses.replace(section, count=near[0] if near else section.count)


def test_command(capsys, monkeypatch):
    """All sections but the kernel cache, which compiles everything: a soak test has it."""
    some = [fewer(s) for s in SECTIONS if s.title != "kernel cache"]
    monkeypatch.setattr(runner, "SECTIONS", some)
    monkeypatch.setattr(check, "RANDOM_PROBLEMS", 0)
    monkeypatch.setattr("fastconv.problems.read_problems", lambda path: [])
    assert main(["check", "--deep", "--seed", "1"]) == 0
    out, err = capsys.readouterr()
    lines = {line.split(": ")[0] for line in err.splitlines()}
    assert {s.title for s in some} <= lines
    table = {line.split("  ")[0].strip(): line.split() for line in out.splitlines()}
    for title in ("layouts and threads", "guard pages", "threads at once", "memory stays flat"):
        assert int(table[title][-3]) > 0
        assert table[title][-2] == "0"
    assert "no failures in" in out


@pytest.mark.soak
def test_the_whole_command(capsys):
    assert main(["check", "--deep"]) == 0
    out = capsys.readouterr().out
    assert "kernel cache" in out
    assert int(out.split("no failures in ")[1].split()[0]) > 30_000


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("import os; os.abort()", "killed by SIGABRT"),
        ("import time; time.sleep(60)", "no result in 2 s: killed"),
        ("raise ValueError('wrong\\nthing')", "exit status 1: .*ValueError: wrong thing"),
        ("print('{}'); print('[1]'); print('words')", "exit status 0"),
        ("print('{\"scores\": []}')", "exit status 0"),
    ],
)
@POSIX
def test_what_ends_without_a_result_is_a_failure(program, reason):
    (score,) = runner.run_section("it", [sys.executable, "-c", program], 2, quiet)
    assert (score.op, score.cases, score.failures) == ("it", 1, 1)
    assert re.search(reason, score.first_failure)


def test_a_crash_after_the_scores_is_a_failure():
    program = 'import os; print(\'{"scores": [{"op": "a", "cases": 3}]}\', flush=True); os.abort()'
    scores = runner.run_section("it", [sys.executable, "-c", program], 20, quiet)
    assert [(s.cases, s.failures) for s in scores] == [(3, 0), (1, 1)]


def failed(scores):
    return sum(s.failures for s in scores)


def test_a_wrong_bit_in_one_layout_is_seen():
    def max_pool(x, *args, **options):
        result = fastconv.max_pool(x, *args, **options)
        if not x.flags.c_contiguous and not isinstance(result, tuple):
            result += 1
        return result

    assert not failed(check_bits(fastconv, 0, 3, quiet))
    scores = check_bits(public(max_pool=max_pool), 0, 3, quiet)
    assert failed(scores)
    assert "max_pool" in scores[0].first_failure


def test_a_sum_that_rounds_too_much_is_seen():
    def rough(x, w, **options):
        y = fastconv.conv(x, w, **options)
        return y * (1 + np.finfo(y.dtype).eps * 60)

    def rms(x, w, **options):
        """Within the bound, but twice as wrong as one chain."""
        y = fastconv.conv(x, w, **options)
        sign = np.random.default_rng(0).choice([-1, 1], y.shape).astype(y.dtype)
        return y + sign * np.finfo(y.dtype).eps * fastconv.conv(abs(x), abs(w), **options) / 4

    bound, ratio = check_numbers(public(conv=rough), 0, 3, quiet)
    assert bound.failures
    bound, ratio = check_numbers(public(conv=rms), 0, 3, quiet)
    assert ratio.failures
    assert not bound.failures
    nan = public(conv=lambda *a, **o: fastconv.conv(*a, **o) * np.nan)
    assert check_numbers(nan, 0, 2, quiet)[0].worst == np.inf


def test_threads_that_disturb_each_other_are_seen():
    shared = {}

    def conv(x, w, **options):
        shared["y"] = fastconv.conv(x, w, **options) + len(shared.setdefault("calls", []))
        shared["calls"].append(1)
        return shared["y"]

    assert failed(check_threads(public(conv=conv), 0, 10, quiet))


@POSIX
@pytest.mark.filterwarnings("ignore:os.fork")  # JAX, if another test has imported it, warns
def test_a_child_with_other_bits_or_without_a_result_is_seen(monkeypatch):
    parent = os.getpid()
    monkeypatch.setattr("fastconv.cli.deep.processes.CHILD_SECONDS", 1)

    def broken(what):
        def relu_backward(dy, y):
            if os.getpid() != parent:
                what()
            return fastconv.relu_backward(dy, y)

        return check_forks(public(relu_backward=relu_backward), 0, 2, quiet)[0]

    killed = broken(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert killed.first_failure.startswith("child: killed by signal 9")
    hanging = broken(lambda: signal.pause())
    assert "no result in 1 s" in hanging.first_failure
    assert hanging.cases == 1, "the second would hang as long"
    assert broken(lambda: None).failures == 0
    assert broken(lambda: 1 / 0).failures == 2


def assert_ended(pid, reader, seconds):
    """Whoever holds the other end of the pipe `reader` is gone: it has an end."""
    ready, _, _ = select.select([reader], [], [], seconds)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    assert ready, f"process {pid} is left behind"
    assert os.read(reader, 1) == b""


@POSIX
@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_grandchild_that_hangs_ends_with_the_child_that_forked_it(monkeypatch):
    """The child is stopped, so that it cannot end the grandchild itself."""
    monkeypatch.setattr("fastconv.cli.deep.processes.CHILD_SECONDS", 1)
    parent, (reader, writer) = os.getpid(), os.pipe()

    def relu_backward(dy, y):
        if parent not in (os.getpid(), os.getppid()):
            os.write(writer, str(os.getpid()).encode())
            os.kill(os.getppid(), signal.SIGSTOP)
            signal.pause()
        return fastconv.relu_backward(dy, y)

    try:
        (score,) = check_forks(public(relu_backward=relu_backward), 0, 3, quiet)
        os.close(writer)
        assert_ended(int(os.read(reader, 20)), reader, 5)
    finally:
        os.close(reader)
    assert (score.cases, score.failures) == (2, 1)
    assert score.first_failure.startswith("grandchild: no result in 1 s")


ORPHAN = """
import os, signal, types
import fastconv
from fastconv.cli.deep import processes

processes.ORPHAN_SECONDS, parent = 1, os.getpid()

def relu_backward(dy, y):
    if os.getpid() != parent:
        print(os.getpid(), flush=True)
        signal.pause()
    return fastconv.relu_backward(dy, y)

ops = types.SimpleNamespace(**{name: getattr(fastconv, name) for name in fastconv.__all__})
ops.relu_backward = relu_backward
processes.check_forks(ops, 0, 1, lambda done, total: None)
"""


@POSIX
def test_a_child_that_hangs_ends_though_its_parent_was_killed():
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
        assert_ended(pid, process.stdout.fileno(), 10)


EVIL = """
import sys
import numpy as np
import fastconv
from types import SimpleNamespace
from fastconv.cli.deep.guard import check_guard

def avg_pool(x, *args, **options):
    y = fastconv.avg_pool(x, *args, **options)
    beyond = np.lib.stride_tricks.as_strided(x.reshape(-1)[{at}:], (2,), x.strides[-1:])
    beyond[{index}].copy()
    return y

ops = SimpleNamespace(**{{name: getattr(fastconv, name) for name in fastconv.__all__}})
ops.avg_pool = avg_pool
check_guard(ops, 0, 8, lambda done, total: None)
"""


@POSIX
@pytest.mark.parametrize(("at", "index"), [("-1", "1"), ("0", "-3")])
def test_one_element_beyond_either_end_is_a_signal(at, index):
    """Also shows that the guard pages guard: the same without the access passes above."""
    code = EVIL.format(at=at, index=index)
    if index == "-3":  # before the first element
        code = code.replace("(2,), x.strides[-1:]", "(4,), (-x.itemsize,)").replace("[-3]", "[3]")
    (score,) = runner.run_section("it", [sys.executable, "-c", code], 60, quiet)
    assert score.first_failure == "killed by SIGSEGV"


def test_guard_problems_have_every_width_and_channel_count():
    problems = guard_problems()
    assert {p.y_shape[2] for p in problems} >= set(range(1, 18))
    assert {p.channels for p in problems} & {p.filters for p in problems} >= {1, 13, 31, 33, 65}
    (section,) = [s for s in SECTIONS if s.title == "guard pages"]
    assert section.count == len(problems)


@POSIX
def test_memory_that_is_kept_is_seen():
    kept = []

    def conv(x, w, **options):
        kept.append(np.ones(2**20))
        return fastconv.conv(x, w, **options)

    scores = check_flat(public(conv=conv), 0, 100, quiet)
    assert failed(scores)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_another_error_than_memory_error_is_seen():
    def conv(x, w, **options):
        try:
            return fastconv.conv(x, w, **options)
        except MemoryError:
            raise SystemError("opaque") from None

    (score,) = check_exhausted(public(conv=conv), 0, 1, quiet)
    assert score.first_failure.startswith("conv: SystemError instead of MemoryError")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_values_and_what_is_outside_shows(layout):
    a = np.arange(24.0, dtype="float32").reshape(2, 3, 1, 4)
    view, room = arranged(a, layout)
    np.testing.assert_array_equal(view, a)
    before = outside(view, room)
    view[...] = 5
    assert outside(view, room) == before
    room.reshape(-1)[0] = SENTINEL + 1
    assert outside(view, room) != before
