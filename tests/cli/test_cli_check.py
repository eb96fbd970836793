"""``fastconv check``: passes on what is right, and reports each kind of wrong result."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import fastconv
from fastconv import reference
from fastconv.cli import main
from fastconv.cli.commands import check
from fastconv.problems import find_table, parse_problem, read_problems
from fastconv.selfcheck.functions import CHECKS, check_ops, difference
from fastconv.selfcheck.gradients import check_gradients
from fastconv.selfcheck.models import check_models, models
from fastconv.selfcheck.programs import check_programs
from fastconv.selfcheck.score import Score
from fastconv.selfcheck.trials import Trial

PROBLEMS = [
    parse_problem("m2 h5w6c3 f4 k3x2 s2x1 p0:1x1 d1x2 float32"),
    parse_problem("m1 w9c2 f2 k3 psame g2"),
]


def public(**broken):
    """The public functions, some of them replaced."""
    functions = {name: getattr(fastconv, name) for name in fastconv.__all__}
    return SimpleNamespace(**(functions | broken))


def off_by_one(function):
    """Add 1 to one element of the first result."""

    def wrong(*args, **kwargs):
        result = function(*args, **kwargs)
        first = result[0] if isinstance(result, tuple) else result
        first = np.array(first)
        first.flat[-1] += 1
        return (
            type(result)(first, *result[1:])
            if hasattr(result, "_fields")
            else ((first, *result[1:]) if isinstance(result, tuple) else first)
        )

    return wrong


def failing(scores):
    return {score.op for score in scores if score.failures}


def test_command(capsys, monkeypatch):
    monkeypatch.setattr(check, "RANDOM_PROBLEMS", 5)  # the sweep of the other tests does more
    assert main(["check", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    rows = {line.split("  ")[0].strip(): line.split() for line in out.splitlines()}
    for op in CHECKS:
        assert rows[op][-2:] == ["0", "0"]
    for name in (*models(), "programs"):
        assert rows[name][-2] == "0"
    assert int(rows["total"][1]) > 5000
    assert re.search(r"^no failures in \d+ cases, [\d.]+ s, seed 5$", out, re.MULTILINE)


def test_command_fails_when_a_function_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(fastconv, "col2im", off_by_one(fastconv.col2im))
    monkeypatch.setattr(check, "RANDOM_PROBLEMS", 0)
    monkeypatch.setattr("fastconv.problems.read_problems", lambda path: PROBLEMS)
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^FAILED col2im: m2 h5w6c3 .*: error 1$", out, re.MULTILINE)
    assert re.search(r"^FAILED gradient of im2col: ", out, re.MULTILINE)
    assert re.search(r"^total\s+\d+\s+15\s", out, re.MULTILINE)  # 2 x 3 dtypes x 2 formats, and 3
    assert "15 failures in" in out


# What the check of each function calls besides the function itself.
ALSO = {
    "conv": {"conv + ReLU"},
    "conv_transpose": set(),
    "max_pool": set(),
    "avg_pool": set(),
}


@pytest.mark.parametrize(
    "op", [name for name in CHECKS if name not in ("conv + ReLU", "plan_conv")]
)
def test_each_function_is_seen_to_fail(op):
    ops = public(**{op: off_by_one(getattr(fastconv, op))})
    scores = check_ops(ops, PROBLEMS, dtypes=["float32"])
    assert failing(scores) == {op} | ALSO.get(op, set())
    score = next(s for s in scores if s.op == op)
    assert (score.cases, score.failures, score.worst) == (4, 4, 1.0)


def test_a_plan_is_seen_to_fail():
    def plan_conv(*args, **kwargs):
        plan = fastconv.plan_conv(*args, **kwargs)
        return SimpleNamespace(
            forward=plan.forward,
            input_grad=plan.input_grad,
            kernel_grad=lambda x, dy, out: out,  # never written: stays NaN
        )

    scores = check_ops(public(plan_conv=plan_conv), PROBLEMS, dtypes=["float32"])
    assert failing(scores) == {"plan_conv"}
    assert next(s for s in scores if s.op == "plan_conv").worst == float("inf")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda *a, **k: fastconv.conv_kernel_grad(*a, **k)[..., :1],
        lambda *a, **k: fastconv.conv_kernel_grad(*a, **k).astype("float64"),
        lambda *a, **k: np.full_like(fastconv.conv_kernel_grad(*a, **k), np.nan),
        lambda *a, **k: fastconv.conv_kernel_grad(*a, **k) * np.float32(1 + 2**-20),
        lambda *a, **k: 1 / 0,
    ],
    ids=["shape", "dtype", "nan", "rounding", "exception"],
)
def test_each_kind_of_wrong_result_is_seen(wrong):
    scores = check_ops(public(conv_kernel_grad=wrong), PROBLEMS, dtypes=["float32"])
    assert failing(scores) == {"conv_kernel_grad"}


def test_a_wrong_gradient_is_seen():
    def doubled(*args, **kwargs):
        grads = fastconv.conv_backward(*args, **kwargs)
        return grads._replace(dw=2 * grads.dw)

    assert failing(check_gradients(fastconv)) == set()
    scores = check_gradients(public(conv_backward=doubled))
    assert failing(scores) == {"gradient of conv"}
    first = next(s for s in scores if s.failures)
    assert (first.cases, first.failures) == (9, 3)
    assert ", dw: error" in first.first_failure


def test_a_wrong_layer_is_seen():
    scores = check_models(public(max_pool_backward=off_by_one(fastconv.max_pool_backward)))
    with_max = {name for name in models() if "mean" not in name}
    assert failing(scores) == with_max
    assert all("delta" in score.first_failure for score in scores if score.failures)


def test_the_naive_loops_pass_their_own_check():
    scores = check_ops(reference, PROBLEMS[:1])
    assert failing(scores) == set()
    assert all(score.cases == 6 for score in scores)


@pytest.mark.parametrize("seed", range(4))
def test_trials_hold_the_same_numbers_in_every_dtype_and_format(seed):
    for problem in read_problems(find_table("tails")):
        one = Trial(problem, seed)
        other = Trial(problem, seed, "float16", "channels_first")
        for name in ("x", "dy"):
            np.testing.assert_array_equal(other.back(getattr(other, name)), getattr(one, name))
        np.testing.assert_array_equal(other.w, one.w)
        np.testing.assert_array_equal(other.back(other.like(other.x)), one.like(one.x))


def test_scores_and_differences():
    score = Score("x")
    score.record("first", float("nan"))
    score.record("second", 0.5, limit=1.0)
    score.record_exception("third", ValueError("two\nlines"))
    assert (score.cases, score.failures, score.worst) == (3, 2, float("inf"))
    assert score.first_failure == "first: error nan"
    f4 = np.dtype("float32")
    assert difference([np.float32([1, np.inf])], [np.array([1.0, np.inf])], f4) == 0.0
    assert difference([np.array([3])], [np.array([5])], f4) == 2.0
    assert difference([np.float64([1])], [np.float64([1])], f4) == float("inf")


def test_programs_that_are_wrong_are_seen_to_fail():
    from fastconv import nn

    (right,) = check_programs()
    assert (right.failures, right.worst) == (0, 0)
    assert right.cases > 500

    def wrong(model, loss, optimizer, x_shape):
        step = nn.plan_step(model, loss, optimizer, x_shape)

        def one_bit(x, y):
            found = step(x, y)
            w = model.parameters()[0].value
            w.flat[0] = np.nextafter(w.flat[0], w.dtype.type(9))
            return found

        return one_bit

    (score,) = check_programs(plan=wrong)
    assert score.failures > 50
    assert ", 1 threads, step 0: 0.w: error" in score.first_failure

    def broken(*args):
        raise RuntimeError("no plan")

    (score,) = check_programs(plan=broken)
    assert score.failures == score.cases == 24
    assert "RuntimeError: no plan" in score.first_failure
