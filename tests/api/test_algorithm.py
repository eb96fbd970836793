"""``algorithm="exact" | "fast"``: where it can be given, what it means, and what keeps it."""

from __future__ import annotations

import threading
import typing

import numpy as np
import pytest
from strategies import integers

import fastconv as fc
from fastconv import nn, reference
from fastconv.plans import fourier
from fastconv.plans.algorithm import chosen
from fastconv.typing import Algorithm, ConvOptions, ConvTransposeOptions

# A geometry that "fast" computes otherwise, so that the two can be told apart by their bits.
SHAPE, KERNEL = (2, 12, 12, 64), (3, 3, 64, 64)


def operands(dtype="f4"):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(s).astype(dtype) for s in (SHAPE, KERNEL, SHAPE))


def calls():
    x, w, dy = operands()
    same = {"padding": 1}
    return {
        "conv": lambda **o: fc.conv(x, w, **same, **o),
        "conv_input_grad": lambda **o: fc.conv_input_grad(dy, w, SHAPE, **same, **o),
        "conv_kernel_grad": lambda **o: fc.conv_kernel_grad(x, dy, KERNEL, **same, **o),
        "conv_backward": lambda **o: fc.conv_backward(dy, x, w, **same, **o).dx,
        "conv_transpose": lambda **o: fc.conv_transpose(x, w, **same, **o),
        "conv_transpose_backward": lambda **o: fc.conv_transpose_backward(dy, x, w, **same, **o).dx,
        "plan_conv": lambda **o: fc.plan_conv(SHAPE, KERNEL, **same, **o).forward(x, w),
    }


@pytest.mark.parametrize("name", calls())
def test_a_keyword_wins_over_the_with_around_it(name):
    call = calls()[name]
    exact, fast = call(algorithm="exact"), call(algorithm="fast")
    assert np.array_equal(exact, fast) == (name == "conv_kernel_grad")  # which has one way only
    np.testing.assert_array_equal(call(), exact)
    np.testing.assert_array_equal(call(algorithm=None), exact)
    with fc.algorithm("fast"):
        np.testing.assert_array_equal(call(), fast)
        np.testing.assert_array_equal(call(algorithm="exact"), exact)
        with fc.algorithm("exact"):
            np.testing.assert_array_equal(call(), exact)
        np.testing.assert_array_equal(call(algorithm=None), fast)
    np.testing.assert_array_equal(call(), exact)


def test_the_with_ends_with_an_error_and_is_of_its_thread():
    with pytest.raises(KeyError), fc.algorithm("fast"):
        raise KeyError
    assert chosen(None) == "exact"
    seen = []
    with fc.algorithm("fast"):
        thread = threading.Thread(target=lambda: seen.append(chosen(None)))
        thread.start()
        thread.join()
    assert seen == ["exact"]


@pytest.mark.parametrize("name", calls())
@pytest.mark.parametrize(
    ("value", "error"), [("fats", ValueError), ("", ValueError), (1, TypeError), (True, TypeError)]
)
def test_a_wrong_name_is_said_before_anything(name, value, error):
    with pytest.raises(error, match=f"algorithm={value!r}"):
        calls()[name](algorithm=value)


@pytest.mark.parametrize(("value", "error"), [("Fast", ValueError), (None, TypeError)])
def test_the_with_takes_a_name(value, error):
    with pytest.raises(error, match=f"algorithm={value!r}"), fc.algorithm(value):
        pass  # pragma: no cover


def test_a_plan_keeps_the_algorithm_of_its_making():
    x, w, _ = operands()
    exact = fc.plan_conv(SHAPE, KERNEL, padding=1)
    with fc.algorithm("fast"):
        fast = fc.plan_conv(SHAPE, KERNEL, padding=1)
        assert (exact.algorithm, fast.algorithm) == ("exact", "fast")
        y = exact.forward(x, w)
    assert not np.array_equal(y, fast.forward(x, w))
    np.testing.assert_array_equal(y, fc.conv(x, w, padding=1))


@pytest.mark.parametrize("value", ["fast", "exact", None])
def test_the_naive_loops_take_it_and_ignore_it(value):
    x, w, dy = integers(0, 1, 4, 4, 2), integers(1, 3, 3, 2, 2), integers(2, 1, 2, 2, 2)
    for name, arguments in {
        "conv": (x, w),
        "conv_input_grad": (dy, w, x.shape),
        "conv_kernel_grad": (x, dy, w.shape),
        "conv_backward": (dy, x, w),
        "conv_transpose": (dy, w),
        "conv_transpose_backward": (x, dy, w),
    }.items():
        function = getattr(reference, name)
        for a, b in zip(function(*arguments, algorithm=value), function(*arguments), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "edge", "wrap"])
def test_copies_in_the_padding_are_always_the_exact_way(mode):
    x, w, dy = operands()
    same = {"padding": 1, "padding_mode": mode}
    exact = fc.conv_backward(dy, x, w, **same)
    plan = fc.plan_conv(SHAPE, KERNEL, algorithm="fast", **same)
    assert plan.algorithm == "fast"
    np.testing.assert_array_equal(plan.forward(x, w), fc.conv(x, w, **same))
    assert plan.workspace_nbytes == fc.plan_conv(SHAPE, KERNEL, **same).workspace_nbytes
    with fc.algorithm("fast"):
        found = fc.conv_backward(dy, x, w, **same)
        np.testing.assert_array_equal(fc.conv_input_grad(dy, w, SHAPE, **same), exact.dx)
        np.testing.assert_array_equal(fc.conv_kernel_grad(x, dy, KERNEL, **same), exact.dw)
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_array_equal(a, b)
    network = model(padding_mode=mode)
    y = network.infer(x)
    np.testing.assert_array_equal(network.plan_inference(SHAPE, algorithm="fast")(x), y)
    with fc.algorithm("fast"):
        np.testing.assert_array_equal(network.infer(x), y)


def test_large_windows_with_copies_in_the_padding_go_through_no_transform(monkeypatch):
    for name, value in {"LEAST_NS": 0, "LEAST_TAPS": 0, "direct_ns": lambda *_: 1e9}.items():
        monkeypatch.setattr(fourier, name, value)
    x = np.random.default_rng(0).standard_normal((1, 23, 21, 1)).astype("f4")
    w = np.random.default_rng(1).standard_normal((9, 9, 1, 1)).astype("f4")
    exact, fast = ({"padding": 4, "algorithm": name} for name in ("exact", "fast"))
    assert not np.array_equal(fc.conv(x, w, **fast), fc.conv(x, w, **exact))
    copies = {"padding_mode": "reflect"}
    y = fc.conv(x, w, **exact, **copies)
    np.testing.assert_array_equal(fc.conv(x, w, **fast, **copies), y)
    for a, b in zip(
        fc.conv_backward(y, x, w, **fast, **copies),
        fc.conv_backward(y, x, w, **exact, **copies),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_types_name_both():
    assert set(typing.get_args(Algorithm)) == {"exact", "fast"}
    for options in (ConvOptions, ConvTransposeOptions):
        assert "algorithm" in options.__annotations__


# ---- layers and training


def model(**options):
    return nn.Sequential(
        nn.Conv(64, 64, 3, padding=1, activation="relu", rng=0, **options),
        nn.GlobalAvgPool(), nn.Dense(64, 3, rng=1),
    )  # fmt: skip


def test_a_layer_has_its_own_or_that_around_it():
    x, _, dy = operands()
    exact, fast = (model(algorithm=name).layers[0] for name in ("exact", "fast"))
    free = model().layers[0]
    y, z = exact.forward(x), fast.forward(x)
    assert not np.array_equal(y, z)
    np.testing.assert_array_equal(free.forward(x), y)
    with fc.algorithm("fast"):
        np.testing.assert_array_equal(free.forward(x), z)
        np.testing.assert_array_equal(exact.forward(x), y)
        free_dx, fast_dx = free.backward(dy), fast.backward(dy)
    np.testing.assert_array_equal(free_dx, fast_dx)
    with pytest.raises(ValueError, match="algorithm='fats'"):
        model(algorithm="fats")


def test_a_layer_keeps_it_in_a_file_and_says_nothing_where_it_has_none(tmp_path):
    assert "algorithm" not in model().layers[0].config()
    model(algorithm="fast").save(tmp_path / "m.npz")
    assert nn.Sequential.load(tmp_path / "m.npz").layers[0].algorithm == "fast"


def test_plans_of_networks_keep_it():
    """The program has the bits of the layers, by either algorithm."""
    x, y = next(operands()), np.array([0, 2])
    loss = nn.SoftmaxCrossEntropy()
    found = {}
    for name in ("exact", "fast"):
        network, plain = model(), model()
        optimizers = [nn.SGD(one.parameters(), lr=0.1) for one in (network, plain)]
        step = nn.plan_step(network, loss, optimizers[0], x.shape, algorithm=name)
        run = network.plan_inference(x.shape, algorithm=name)
        assert step.algorithm == run.algorithm == name
        with fc.algorithm(name):
            np.testing.assert_array_equal(run(x), plain.infer(x))
            z = plain.forward(x)
            value = loss.forward(z, y)
            plain.backward(loss.backward())
            optimizers[1].step()
        with fc.algorithm("fast" if name == "exact" else "exact"):  # which means nothing to it
            got = step(x, y)
            run.refresh()
        assert got[0] == value
        np.testing.assert_array_equal(got[1], z)
        for p, q in zip(network.parameters(), plain.parameters(), strict=True):
            np.testing.assert_array_equal(p.value, q.value)
        with fc.algorithm(name):
            np.testing.assert_array_equal(run(x), network.predict(x))
        found[name] = z
    assert not np.array_equal(found["exact"], found["fast"])


def fitted(path, **options):
    x = np.random.default_rng(1).standard_normal((6, 12, 12, 64)).astype("f4")
    network = model()
    optimizer = nn.SGD(network.parameters(), lr=0.1)
    nn.fit(network, nn.SoftmaxCrossEntropy(), optimizer, x, np.arange(6) % 3, batch_size=4,
           checkpoint=path, **options)  # fmt: skip
    return [p.value for p in network.parameters()]


def test_fit_takes_it_and_a_resume_compares_it(tmp_path):
    exact = fitted(tmp_path / "a", epochs=2)
    fast = fitted(tmp_path / "b", epochs=2, algorithm="fast")
    assert not np.array_equal(exact[0], fast[0])
    with fc.algorithm("fast"):
        around = fitted(tmp_path / "c", epochs=1)
    assert chosen(None) == "exact"
    with pytest.raises(ValueError, match=r"algorithm was .?fast.?, is .?exact"):
        fitted(tmp_path / "c", epochs=2, resume=True)
    around = fitted(tmp_path / "c", epochs=2, resume=True, algorithm="fast")
    for a, b in zip(around, fast, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="algorithm='fats'"):
        fitted(tmp_path / "d", epochs=1, algorithm="fats")


def test_a_checkpoint_from_before_algorithms_is_of_the_exact_one(tmp_path, monkeypatch):
    from fastconv.nn.keeper import Keeper

    whole = fitted(tmp_path / "a", epochs=2)
    describe = Keeper.describe
    old = lambda keeper: {k: v for k, v in describe(keeper).items() if k != "algorithm"}  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "describe", old)
        fitted(tmp_path / "b", epochs=1)
    for a, b in zip(fitted(tmp_path / "b", epochs=2, resume=True), whole, strict=True):
        np.testing.assert_array_equal(a, b)
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "describe", old)
        fitted(tmp_path / "c", epochs=1)
    with pytest.raises(ValueError, match="algorithm"):
        fitted(tmp_path / "c", epochs=2, resume=True, algorithm="fast")
