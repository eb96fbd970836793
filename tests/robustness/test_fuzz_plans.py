"""Plans in any order of calls: layouts, threads, `out` and errors between them change no bit.

The problems here are wider than those of test_fuzz.py, so that full tiles and their edges occur;
explicit im2col on NumPy's matmul is what they are compared with.
`python -m pytest -m soak tests/robustness/test_fuzz_plans.py -s` makes some 90,000 calls.
"""

from __future__ import annotations

import numpy as np
import pytest
from drawn import outside
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.testing import assert_array_equal
from strategies import fitting_geometry

import fastconv as fc
from fastconv.lowering import Im2colPlan
from fastconv.selfcheck.deep import GRAINS
from fastconv.selfcheck.deep.layouts import INPUT_LAYOUTS, LAYOUTS, arranged

called = {"right": 0, "refused": 0, "plans": 0}
HEALTH = {"deadline": None, "suppress_health_check": list(HealthCheck)}
THREADS = fc.get_num_threads()


@pytest.fixture(scope="module", autouse=True)
def _every_part_is_worth_a_thread():
    with pytest.MonkeyPatch.context() as patch:
        for module, grain in GRAINS:
            patch.setattr(f"{module}.{grain}", 1)
        yield
    print("\ncalls of plans:", called)


class PlanCalls(RuleBasedStateMachine):
    """Two plans that share a thread's workspace, called in turn."""

    @initialize(
        both=st.tuples(fitting_geometry(), fitting_geometry()),
        formats=st.tuples(*[st.sampled_from(["channels_last", "channels_first"])] * 2),
        dtype=st.sampled_from(["float32", "float32", "float64"]),
        relu=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
    )
    def make(self, both, formats, dtype, relu, seed):
        rng = np.random.default_rng(seed)
        self.dtype, self.relu = dtype, relu
        self.plans = [self._plan(rng, *p, f) for p, f in zip(both, formats, strict=True)]
        self.threads = 1

    def _plan(self, rng, x_shape, w_shape, options, data_format):
        last = fc.plan_conv(x_shape, w_shape, self.dtype, **options)

        def to(a):
            return a if data_format == "channels_last" else np.moveaxis(a, -1, 1).copy()

        g = last.geometry
        x, w, b, dy = (
            rng.integers(-4, 5, s).astype(self.dtype) for s in (x_shape, w_shape, g.F, g.y_shape)
        )
        y, dx, dw = (np.full(s, np.nan, self.dtype) for s in (g.y_shape, x_shape, w_shape))
        if g.m:
            explicit = Im2colPlan(g, np.dtype(self.dtype))
            explicit.forward(x, w, b, self.relu, y)
            explicit.input_grad(dy, w, None, False, dx)
            explicit.kernel_grad(x, dy, dw)
        else:
            dw[...] = 0
        x_user = to(x)
        plan = fc.plan_conv(
            x_user.shape, w_shape, self.dtype, data_format=data_format,
            activation="relu" if self.relu else None, **options,
        )  # fmt: skip
        db = dy.sum(axis=tuple(range(dy.ndim - 1)))
        operands = {"x": x_user, "w": w, "b": b, "dy": to(dy)}
        called["plans"] += 1
        return plan, operands, {"y": to(y), "dx": to(dx), "dw": dw, "db": db}

    @rule(n=st.integers(1, 4))
    def set_threads(self, n):
        self.threads = n

    @rule(
        which=st.integers(0, 1),
        product=st.sampled_from(["forward", "input_grad", "kernel_grad", "backward"]),
        layouts=st.tuples(*[st.sampled_from(INPUT_LAYOUTS)] * 3),
        out=st.one_of(st.none(), st.tuples(*[st.sampled_from(LAYOUTS)] * 3)),
    )
    def call(self, which, product, layouts, out):
        plan, operands, expected = self.plans[which]
        names, results = {
            "forward": (("x", "w", "b"), ("y",)),
            "input_grad": (("dy", "w"), ("dx",)),
            "kernel_grad": (("x", "dy"), ("dw",)),
            "backward": (("dy", "x", "w"), ("dx", "dw", "db")),
        }[product]
        given = [arranged(operands[n], lay)[0] for n, lay in zip(names, layouts, strict=False)]
        wanted = [expected[name] for name in results]
        more, pairs = {}, []
        if out:
            empty = [np.full(a.shape, 77, self.dtype) for a in wanted]
            pairs = [arranged(a, lay) for a, lay in zip(empty, out, strict=False)]
            before = [outside(*pair) for pair in pairs]
            for view, _ in pairs:
                view[...] = np.nan
            outs = tuple(view for view, _ in pairs)
            more = {"out": outs if product == "backward" else outs[0]}
        with fc.num_threads(self.threads):
            got = getattr(plan, product)(*given, **more)
        for a, b in zip(got if product == "backward" else [got], wanted, strict=True):
            assert_array_equal(a, b, strict=True)
        if out:
            assert [outside(*pair) for pair in pairs] == before
        for array, name in zip(given, names, strict=True):
            assert_array_equal(array, operands[name])
        called["right"] += 1

    @precondition(lambda self: self.plans[0][0].geometry.m)
    @rule(
        product=st.sampled_from(["forward", "input_grad", "kernel_grad"]),
        wrong=st.sampled_from(["shape", "dtype", "out", "overlap"]),
    )
    def refused(self, product, wrong):
        """An error, after which everything goes on as before."""
        plan, operands, expected = self.plans[0]
        names = {"forward": "xw", "input_grad": ("dy", "w"), "kernel_grad": ("x", "dy")}[product]
        given = [operands[name] for name in names]
        result = expected[{"forward": "y", "input_grad": "dx", "kernel_grad": "dw"}[product]]
        out = np.full(result.shape, 77, self.dtype)
        error = ValueError
        if wrong == "shape":
            given[0] = given[0][1:]
        elif wrong == "dtype":
            given[1], error = given[1].astype("int64"), TypeError
        elif wrong == "out":
            out = out.astype("float16")
        else:
            room = np.zeros(max(result.size, given[0].size) + 1, self.dtype)
            given[0] = room[: given[0].size].reshape(given[0].shape)
            out = room[: result.size].reshape(result.shape)
            out[...] = 77
        with fc.num_threads(self.threads), pytest.raises(error):
            getattr(plan, product)(*given, out=out)
        assert (out == 77).all()
        called["refused"] += 1

    @invariant()
    def the_caller_s_threads_are_untouched(self):
        """`num_threads` lasts as long as its block, errors or not."""
        assert fc.get_num_threads() == THREADS


PlanCalls.TestCase.settings = settings(max_examples=60, stateful_step_count=20, **HEALTH)
TestPlanCalls = PlanCalls.TestCase


class Longer(PlanCalls):
    """The same, for minutes."""


@pytest.mark.soak
class TestManyPlanCalls(Longer.TestCase):
    settings = settings(
        max_examples=4000, stateful_step_count=40, derandomize=False, print_blob=True, **HEALTH
    )
