"""The comparison with other libraries: fair turns, checked answers, right figures, clear errors.

Other libraries are played by fakes; the figures of the real ones are not tested.
"""

import contextlib
import csv
import dataclasses
import itertools
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from fastconv import reference
from fastconv.problems import find_table, parse_problem, read_problems

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
compare = import_module("compare")
answers = import_module("comparison.answers")
cases = import_module("comparison.cases")
numpy_peer = import_module("comparison.peers.numpy")
report = import_module("comparison.report")
rows = import_module("comparison.rows")
timing = import_module("fastconv.problems.timing")

PRODUCTS = ("forward", "kernel", "input")
TAILS = {problem.name: problem for problem in read_problems(find_table("tails"))}


class Clock:
    """A clock that only the functions under measurement move, and their order."""

    def __init__(self, **durations):
        self.now = 0.0
        self.order = []
        self.runs = {name: self._run(name, iter(d)) for name, d in durations.items()}

    def _run(self, name, durations):
        def run():
            self.order.append(name)
            self.now += next(durations)

        return run

    def __call__(self):
        return self.now


def forever(value):
    while True:
        yield value


def test_libraries_take_turns():
    clock = Clock(a=forever(0.1), b=forever(0.2), c=forever(0.3))
    times = timing.in_turn(clock.runs, repeat=4, seconds=99, clock=clock)
    assert clock.order == list("abc") * 4  # the first also says how long they take
    assert times["b"] == pytest.approx([0.2] * 4)


def test_short_calls_are_timed_together_after_three_times_as_many_untimed_ones():
    length = 2.0**-10
    clock = Clock(a=forever(length), b=forever(length))
    times = timing.in_turn(clock.runs, repeat=3, seconds=99, clock=clock)
    turns = [(name, len(list(calls))) for name, calls in itertools.groupby(clock.order)]
    assert turns == [("a", 1 + 6), ("b", 1 + 6)] + [("a", 24), ("b", 24)] * 3  # 6 > 5 ms
    assert times == {"a": [length] * 3, "b": [length] * 3}


def test_untimed_calls_take_what_the_others_left_behind():
    costs = itertools.chain([2e-2], itertools.cycle([3e-2, 2e-2]))
    clock = Clock(a=costs)
    (times,) = timing.in_turn(clock.runs, repeat=4, seconds=99, clock=clock).values()
    assert times == pytest.approx([2e-2] * 4)


def test_time_is_up_after_three_rounds_or_more():
    clock = Clock(a=forever(1.0), b=forever(1.0))
    times = timing.in_turn(clock.runs, repeat=20, seconds=0.5, clock=clock)
    assert [len(t) for t in times.values()] == [timing.MIN_ROUNDS] * 2
    clock = Clock(a=forever(1.0), b=forever(1.0))
    times = timing.in_turn(clock.runs, repeat=20, seconds=14.5, clock=clock)
    assert [len(t) for t in times.values()] == [8, 8]  # the eighth begins at 14 s


def test_a_slow_library_sits_out_unless_it_is_compared():
    durations = {"fastconv": forever(0.1), "pytorch": forever(0.2), "numpy": forever(2.0)}
    clock = Clock(**durations)
    keep = ("fastconv", "pytorch")
    times = timing.in_turn(clock.runs, repeat=9, seconds=99, keep=keep, clock=clock)
    assert {name: len(t) for name, t in times.items()} == {"fastconv": 9, "pytorch": 9, "numpy": 3}
    clock = Clock(**durations)
    times = timing.in_turn(clock.runs, repeat=9, seconds=1.0, keep=keep, clock=clock)
    assert {name: len(t) for name, t in times.items()} == {"fastconv": 3, "pytorch": 3, "numpy": 1}
    clock = Clock(fastconv=forever(0.1), pytorch=forever(2.0))
    times = timing.in_turn(clock.runs, repeat=9, seconds=99, keep=keep, clock=clock)
    assert [len(t) for t in times.values()] == [9, 9]


def test_the_fastest_is_found():
    naps = {"slow": 2e-3, "fast": 1e-3, "slower": 4e-3}
    assert timing.fastest({name: partial(time.sleep, nap) for name, nap in naps.items()}) == "fast"


def test_peak_only_rises():
    peak = timing.Peak("float32", sizes=(32, 64))
    assert peak.gflops > 0
    assert peak.size in (32, 64)
    before = peak.gflops
    peak.again()
    assert peak.gflops >= before


def expected(case):
    problem, (x, w, _, dy) = case.problem, case.operands
    if case.product == "forward":
        return reference.conv(x, w, **problem.kwargs)
    if case.product == "kernel":
        return reference.conv_kernel_grad(x, dy, w.shape, **problem.kwargs)
    return reference.conv_input_grad(dy, w, x.shape, **problem.kwargs)


@pytest.mark.parametrize("name", TAILS)
def test_definition_and_numpy_equal_the_naive_loops(name):
    for case in cases.conv_cases("tails", TAILS[name], PRODUCTS):
        right = expected(case)
        answers.check_by_definition(case, right)
        samples = list(answers.conv_samples(case))
        assert samples
        for at, values in samples:
            np.testing.assert_array_equal(values, right[at])
        call = numpy_peer.Numpy().prepare(case)
        np.testing.assert_array_equal(call.answer(call.run()), right)


def expected_pool(case):
    if case.product == "max_pool":
        return reference.max_pool(case.x, case.window, **case.kwargs)
    if case.product == "max_pool_argmax":
        return reference.max_pool(case.x, case.window, return_argmax=True, **case.kwargs)
    if case.product == "avg_pool":
        return reference.avg_pool(case.x, case.window, **case.kwargs)
    shape = case.x.shape
    if case.product == "avg_pool_backward":
        return reference.avg_pool_backward(case.dy, shape, case.window, **case.kwargs)
    return reference.max_pool_backward(case.dy, case.argmax, shape, case.window, **case.kwargs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("product", cases.POOL_PRODUCTS)
def test_pooling_answers_equal_the_naive_loops(product, dtype):
    problem = dataclasses.replace(parse_problem("C3: m2 h9w10c2 f3 k3"), dtype=dtype)
    pools = list(cases.pool_cases("lenet5_mnist", problem, [product]))
    assert [(case.window, case.stride, case.padding) for case in pools] == list(cases.POOLS)
    for case in pools:
        right = expected_pool(case)
        answers.check_by_definition(case, right)
        worse = [a.copy() for a in (right if isinstance(right, tuple) else (right,))]
        worse[-1][-1, -1, -1, -1] += 64
        wrong = tuple(worse) if isinstance(right, tuple) else worse[0]
        with pytest.raises(answers.WrongAnswerError, match=r"worst at \(1, "):
            answers.check_by_definition(case, wrong)


@pytest.mark.parametrize("product", cases.DELTA_PRODUCTS)
def test_delta_answers_equal_the_naive_loops_on_data_as_training_has_it(product):
    problem = parse_problem("c: m2 h9w10c2 f3 k3")
    (case,) = cases.delta_cases("t", problem, [product])
    assert 0.4 < (case.y > 0).mean() < 0.6
    assert case.dy.min() < 0 < case.dy.max()
    if product == "relu_backward":
        right = reference.relu_backward(case.dy, case.y)
    else:
        x, w, _, _ = problem.operands()
        right = reference.conv_backward(case.dy, x, w, need=("b",)).db
    answers.check_by_definition(case, right)
    for peer in (numpy_peer.Numpy(), import_module("comparison.peers.fastconv").Fastconv()):
        call = peer.prepare(case)
        np.testing.assert_array_equal(call.answer(call.run()), right)
    with pytest.raises(answers.WrongAnswerError, match="1 of"):
        answers.check_by_definition(case, np.append(right.ravel()[:-1], 777).reshape(right.shape)
                                    .astype(right.dtype))  # fmt: skip


def test_activations_that_are_pooled_are_rows_of_the_tables():
    for table, names in cases.POOLED.items():
        assert set(names) <= {problem.name for problem in read_problems(find_table(table))}


@pytest.mark.parametrize("product", PRODUCTS)
def test_wrong_answers_are_seen(product):
    (case,) = cases.conv_cases("t", parse_problem("m2 h5w5c2 f3 k3 p1"), [product])
    right = expected(case)
    wrong = right.copy()
    wrong[(-1,) * wrong.ndim] += 1
    with pytest.raises(answers.WrongAnswerError, match="differ from the definition"):
        answers.check_by_definition(case, wrong)
    with pytest.raises(answers.WrongAnswerError, match="instead of float32"):
        answers.check_by_definition(case, right[:-1])
    with pytest.raises(answers.WrongAnswerError, match="float64"):
        answers.check_by_definition(case, right.astype(np.float64))
    with pytest.raises(answers.WrongAnswerError, match="1 of"):
        answers.compare(case, wrong, right, np.zeros(right.shape))
    wrong[(0,) * wrong.ndim] = np.nan
    with pytest.raises(answers.WrongAnswerError, match="2 of"):
        answers.compare(case, wrong, right, lambda: np.zeros(right.shape))


def test_rounding_is_accepted_up_to_the_bound():
    (case,) = cases.conv_cases("t", parse_problem("m1 h4w4c1 f1 k3"), ["forward"])
    right = np.full((2,), 1000, np.float32)
    one = np.float32(1000 * 2.0**-20)
    answers.compare(case, right + one, right, np.full(2, 1000.0))  # 8 eps G
    with pytest.raises(answers.WrongAnswerError, match=r"worst at \(0,\)"):
        answers.compare(case, right + 4 * one, right, np.full(2, 1000.0))


class Fake:
    """Another library: NumPy's answers, or wrong ones."""

    name = "fake"

    def __init__(self, error=0.0, fault=None):
        self.error, self.fault = error, fault
        self.log = []

    @contextlib.contextmanager
    def threads(self, n):
        self.log.append(f"threads {n}")
        yield
        self.log.append("done")

    def prepare(self, case):
        if self.fault:
            raise self.fault
        call = numpy_peer.Numpy().prepare(case)

        def run():
            self.log.append(case.product)
            return call.run() + case.operands.x.dtype.type(self.error)

        return cases.Call(run, call.answer)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "net.txt"
    path.write_text("one: m2 h6w6c2 f3 k3 p1\ntwo: m1 h7w7c1 f2 k3 s2 p0:1x0:1\n")
    return str(path)


QUICK = ["--threads", "1", "--repeat", "3", "--seconds", "0.01"]


def run(argv, capsys, **peers):
    status = compare.main([*argv, *QUICK], {name: lambda p=p: p for name, p in peers.items()})
    return status, capsys.readouterr().out


def test_rows_means_and_csv(table, tmp_path, capsys):
    path = tmp_path / "figures.csv"
    status, out = run([table, "--csv", str(path)], capsys, pytorch=Fake(), other=Fake())
    assert status == 0
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 3 * 3  # rows, products, libraries
    columns = "table,name,problem,product,dtype,threads,library,status,milliseconds,"
    columns += "best_milliseconds,rounds,gflops,peak_gflops,share_of_peak,ratio_to_fastconv,"
    columns += "best_ratio_to_fastconv,images_per_second,peak_bytes"
    assert ",".join(lines[0]) == columns
    key = {"name": "two", "product": "kernel"}
    found = {x["library"]: x for x in lines if key.items() <= x.items()}
    ours, theirs = found["fastconv"], found["pytorch"]
    assert ours["problem"] == "m1 h7w7c1 f2 k3x3 s2 p0:1"
    ratio = float(theirs["milliseconds"]) / float(ours["milliseconds"])
    assert float(theirs["ratio_to_fastconv"]) == pytest.approx(ratio)
    assert float(theirs["best_milliseconds"]) <= float(theirs["milliseconds"])
    flops = 2 * (3 * 3) * (3 * 3) * 2
    rate = flops / float(ours["milliseconds"]) / 1e6
    assert float(ours["gflops"]) == pytest.approx(rate)
    share = rate / float(ours["peak_gflops"])
    assert float(ours["share_of_peak"]) == pytest.approx(share)
    assert int(theirs["rounds"]) == 3
    for word in ("two*", "kernel", "PyTorch ms", "other ms", "geometric means", "worst row: net"):
        assert word in out
    assert "WRONG" not in out


def test_libraries_compute_with_the_threads_asked_for(table, capsys):
    peer = Fake()
    run([table, "--products", "forward"], capsys, pytorch=peer)
    assert peer.log[0] == "threads 1"
    assert peer.log[-1] == "done"


def test_a_wrong_answer_is_reported_and_not_timed(table, tmp_path, capsys):
    path, peer = tmp_path / "figures.csv", Fake(error=1)
    words = [table, "--products", "forward", "--rows", "one", "--csv", str(path)]
    status, out = run(words, capsys, pytorch=peer, other=Fake())
    assert status == 1
    assert peer.log.count("forward") == 1  # the call that was checked
    assert "WRONG: pytorch, net one (m2 h6w6c2 f3 k3x3 s1 p1), forward, 1 thread" in out
    with path.open(newline="") as file:
        lines = {line["library"]: line for line in csv.DictReader(file)}
    assert lines["pytorch"]["status"] == "wrong"
    assert lines["pytorch"]["milliseconds"] == lines["pytorch"]["ratio_to_fastconv"] == ""
    assert lines["other"]["status"] == "timed"
    assert "x other" in out


def test_our_own_wrong_answer_stops_the_timing(table, capsys, monkeypatch):
    monkeypatch.setattr(compare, "Fastconv", lambda allocate: Fake(error=1))
    peer = Fake()
    status, out = run([table, "--products", "input", "--rows", "one"], capsys, pytorch=peer)
    assert status == 1
    assert peer.log.count("input") == 1
    assert "WRONG: fastconv" in out
    assert "no other library was timed" in out


def test_errors_of_another_library_are_shown(table, capsys):
    peers = {"pytorch": Fake(fault=RuntimeError("no memory")), "other": Fake()}
    status, out = run([table, "--products", "forward"], capsys, **peers)
    assert status == 0
    assert "failed: pytorch, net one" in out
    assert "RuntimeError: no memory" in out


def test_what_a_library_cannot_do_is_left_out(table, capsys):
    peer = Fake(fault=cases.UnsupportedError("no gradients"))
    status, out = run([table, "--products", "kernel"], capsys, pytorch=Fake(), other=peer)
    assert status == 0
    assert "other ms" not in out


def test_a_library_that_is_not_installed_is_left_out(table, capsys):
    def missing():
        raise ImportError("No module named 'other'")

    peers = {"pytorch": Fake, "other": missing}
    assert compare.main([table, "--products", "forward", *QUICK], peers) == 0
    out = capsys.readouterr().out
    assert out.count("other is left out: No module named 'other'\n") == 1


def test_pooling(capsys, monkeypatch):
    monkeypatch.setattr(cases, "POOLS", ((2, 2, 0),))
    words = ["lenet5_mnist", "--pool", "--rows", "C3", "--allocate"]
    status, out = run(words, capsys, pytorch=Fake(fault=cases.UnsupportedError("")))
    assert status == 0
    for product in cases.POOL_PRODUCTS:
        assert f"C3 2x2 s2  {product} " in out
    assert "GFLOP/s" not in out.split("peak:")[0]


def test_deltas(capsys):
    words = ["lenet5_mnist", "--deltas", "--rows", "C3"]
    status, out = run(words, capsys, pytorch=Fake(fault=cases.UnsupportedError("")))
    assert status == 0
    for product in cases.DELTA_PRODUCTS:
        assert f"C3       {product} " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet"], "there is no table 'resnet'; expected one of convnet_benchmarks, "),
        (["nowhere.txt"], "nowhere.txt: No such file"),
        (["tails", "--rows", "nothing*"], "no row of tails has a name like 'nothing*'"),
        (["tails", "--pool"], "no row of tails"),
        (["--threads", "0"], "'0' is not a whole number of at least 1"),
        (["--threads", "9999"], "--threads 9999: this process has "),
        (["--seconds", "-1"], "'-1' is not a number above 0"),
        (["--products", "backward"], "invalid choice: 'backward'"),
        (["--peers", "tensorflow"], "invalid choice: 'tensorflow'"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--csv", "no/such/folder/x.csv"], "--csv: there is no folder no/such/folder"),
    ],
)
def test_argument_errors_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(words, {"pytorch": Fake, "other": Fake})
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_help_names_tables_and_libraries(capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in ("resnet50_224", "onnxruntime", "--deltas", "max_pool_backward", "--csv"):
        assert word in out


def row(name, ours, theirs, **others):
    fields = {"table": "t", "descriptor": "d", "product": "forward", "dtype": "float32"}
    case = cases.Case(**({"name": name, "flops": 10**9} | fields | others))
    peak = timing.Peak("float32", sizes=(16,))
    return rows.Row(case, 1, peak, seconds={"fastconv": ours, "pytorch": theirs})


def test_figures_of_a_row():
    one = row("one", [1e-3, 9e-3, 2e-3], [4e-3, 4e-3, 3e-3])
    assert one.time("fastconv") == 2e-3
    assert one.ratio() == 2.0
    assert one.ratio(of=min) == 3.0
    assert one.gflops() == pytest.approx(500)
    assert one.gflops("pytorch") == pytest.approx(250)
    assert one.share() == pytest.approx(500 / one.peak.gflops)
    assert one.ratio("jax") is one.gflops("jax") is one.time("jax") is None
    assert one.noisy  # 2 ms against 1 ms
    assert not row("two", [1.0, 1.1], [1.0, 1.2]).noisy
    assert row("pool", [1.0], [1.0], flops=0).gflops() is None


def test_means_and_worst_row(capsys):
    table = [
        row("a", [1.0], [4.0]),
        row("b", [2.0], [1.0]),
        row("c", [1.0], [3.0], table="u"),
        row("d", [1.0], [0.1], product="kernel"),
    ]
    assert report.geometric_mean([4.0, 0.5]) == pytest.approx(2**0.5)
    assert np.isnan(report.geometric_mean([]))
    assert report.worst_row(table).case.name == "d"
    assert report.worst_row([]) is None
    report.print_summary(table, ["fastconv", "pytorch"])
    lines = capsys.readouterr().out.splitlines()
    means = {tuple(line.split()[:2]): line.split()[5:] for line in lines if "float32  " in line}
    assert means["t", "forward"] == ["1.41", "1.41", "b", "0.50"]
    assert means["u", "forward"] == ["3.00", "3.00", "c", "3.00"]
    (whole,) = (line.split() for line in lines if line.startswith("all tables  forward"))
    assert whole[6:] == ["1.82", "1.82", "b", "0.50"]  # the cube root of 6
    assert "worst row: t d (d), kernel, 1 thread, float32: 0.10 x PyTorch; 2 of 4" in lines[-1]


def test_a_column_for_fast(capsys, tmp_path):
    """It is timed where it agrees within the bound, though it is not exact, and never elsewhere."""
    table = tmp_path / "wide.txt"
    table.write_text("wide: m1 h12w12c64 f64 k3x3 s1 p1\n")
    status = compare.main(
        [str(table), "--fast", "--products", "forward", "--threads", "1", "--seconds", "0.01",
         "--repeat", "3", "--peers", "numpy", "--csv", str(tmp_path / "out.csv")]
    )  # fmt: skip
    assert status == 0
    assert "fast ms" in capsys.readouterr().out
    with (tmp_path / "out.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["library"] for row in found if row["status"] == "timed"][:2] == ["fastconv", "fast"]
