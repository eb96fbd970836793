"""`fastconv.explain`: every number of both walk-throughs again, and what is refused."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn, reference
from fastconv.examples import digits_cnn
from fastconv.explain import Explanation, explain
from fastconv.explain.drawings import drawing, framed

RNG = np.random.default_rng(0)
SEVERAL = RNG.uniform(size=(3, 12, 15, 2))
TOLERANCE = {"rtol": 0, "atol": 1e-13}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("model", ["binary_cnn", "two_conv"])
def test_floats_that_are_no_pixels_in_0_to_1(model):
    size = (8, 8) if model == "binary_cnn" else (14, 14)
    image = RNG.integers(0, 255, size)
    image.flat[0] = 255
    match = r"^x: .*floats up to 255, taken as they are.*x / 255"
    with pytest.warns(UserWarning, match=match) as caught:
        found = explain(image * 1.0, 1, model=model)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(found["x"].reshape(size), image)
    for quiet in (image, image.astype(np.uint8), image / 255, image / 64 - 2):
        explain(quiet, 1, model=model)
    explain(image[None, ..., None] * 1.0, 0, model=nn.Sequential(nn.Flatten(), nn.Dense(
        image.size, 1, dtype=np.float64, rng=0)))  # fmt: skip


@pytest.mark.parametrize("size", [1e-300, 1e-310, 5e-324])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiny_floats(size, dtype):
    model = nn.Sequential(nn.Flatten(), nn.Dense(64, 1, dtype=dtype, rng=0))
    with np.errstate(all="raise"):
        explain(np.full((8, 8), size))
        explain(np.full((1, 8, 8, 1), size), 0, model=model)


def upsampled(error, s, a, pool):
    """Each error to its window's winner, or a quarter to each cell: plain loops."""
    back = np.zeros_like(a)
    for n, i, j, c in np.ndindex(s.shape):
        window = a[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        if pool == "mean":
            back[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c] = error[n, i, j, c] / 4
        else:
            row, column = np.unravel_index(window.argmax(), (2, 2))
            back[n, 2 * i + row, 2 * j + column, c] = error[n, i, j, c]
    return back


def naive_two_conv(e, pool, activation):
    """The whole network from x, y and the parameters, by `fastconv.reference` and sums."""
    x, y, m = e["x"], e["y"], len(e["x"])
    pooled = {"max": reference.max_pool, "mean": reference.avg_pool}[pool]
    f, slope = sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))
    if activation == "relu":
        f, slope = lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0
    r = {"z1": reference.conv(x, e["w1"], e["b1"])}
    r["a1"] = f(r["z1"])
    r["s1"] = pooled(r["a1"], 2)
    r["z2"] = reference.conv(r["s1"], e["w2"], e["b2"])
    r["a2"] = f(r["z2"])
    r["s2"] = pooled(r["a2"], 2)
    rows = r["s2"].reshape(m, -1)
    r["z3"] = rows @ e["w3"] + e["b3"]
    r["a3"] = f(r["z3"])
    r["z4"] = r["a3"] @ e["w4"] + e["b4"]
    r["a4"] = f(r["z4"])
    r["z5"] = r["a4"] @ e["w5"] + e["b5"]
    r["a5"] = np.exp(r["z5"]) / np.exp(r["z5"]).sum(axis=1, keepdims=True)
    r["loss"] = -np.log(r["a5"][np.arange(m), y]).mean()
    r["delta5"] = (r["a5"] - np.eye(r["a5"].shape[1])[y]) / m
    r["dw5"], r["db5"] = r["a4"].T @ r["delta5"], r["delta5"].sum(0)
    r["da4"] = r["delta5"] @ e["w5"].T
    r["df4"] = slope(r["z4"])
    r["delta4"] = r["da4"] * r["df4"]
    r["dw4"], r["db4"] = r["a3"].T @ r["delta4"], r["delta4"].sum(0)
    r["da3"] = r["delta4"] @ e["w4"].T
    r["df3"] = slope(r["z3"])
    r["delta3"] = r["da3"] * r["df3"]
    r["dw3"], r["db3"] = rows.T @ r["delta3"], r["delta3"].sum(0)
    r["ds2"] = (r["delta3"] @ e["w3"].T).reshape(r["s2"].shape)
    r["da2"] = upsampled(r["ds2"], r["s2"], r["a2"], pool)
    r["df2"] = slope(r["z2"])
    r["delta2"] = r["da2"] * r["df2"]
    r["dw2"] = reference.conv_kernel_grad(r["s1"], r["delta2"], e["w2"].shape)
    r["db2"] = r["delta2"].sum((0, 1, 2))
    r["w2_flipped"] = e["w2"][::-1, ::-1].transpose(0, 1, 3, 2)
    r["ds1"] = reference.conv(r["delta2"], r["w2_flipped"], padding="full")
    r["ds1_full"] = r["ds1"]
    r["dcols2"] = np.einsum("nijf,uvcf->nijuvc", r["delta2"], e["w2"])
    r["dcols2"] = r["dcols2"].reshape(*r["delta2"].shape[:3], -1)
    r["ds1_col2im"] = reference.col2im(r["dcols2"], r["s1"].shape, e["w2"].shape[:2])
    r["da1"] = upsampled(r["ds1"], r["s1"], r["a1"], pool)
    r["df1"] = slope(r["z1"])
    r["delta1"] = r["da1"] * r["df1"]
    r["dw1"] = reference.conv_kernel_grad(x, r["delta1"], e["w1"].shape)
    r["db1"] = r["delta1"].sum((0, 1, 2))
    if pool == "max":
        r["winners1"] = reference.max_pool(r["a1"], 2, return_argmax=True)[1]
        r["winners2"] = reference.max_pool(r["a2"], 2, return_argmax=True)[1]
    return r


CASES = [
    (framed(drawing(0)), 0, {}),
    (framed(drawing(1)), 1, {"pool": "mean"}),
    (SEVERAL, [0, 2, 1], {"pool": "mean", "filters": (2, 3), "seed": 4}),
    (SEVERAL, [1, 1, 0], {"pool": "max", "filters": 3, "activation": "relu"}),
    (SEVERAL[..., :1], [1, 0, 3], {"w1": RNG.normal(size=(3, 4, 1, 2)), "b1": [0.1, -0.2]}),
]


@pytest.mark.parametrize(("x", "y", "options"), CASES)
def test_two_conv_is_recomputed_from_the_naive_loops(x, y, options):
    e = explain(x, y, model="two_conv", **options)
    wanted = naive_two_conv(e, options.get("pool", "max"), options.get("activation", "sigmoid"))
    for name, value in wanted.items():
        np.testing.assert_allclose(e[name], value, **TOLERANCE, err_msg=name)
    given = {f"{p}{n}" for p in "wb" for n in range(1, 6)} | {"x", "y"}
    assert set(e) - set(wanted) - given == {"dw1_numeric", "dw2_numeric"}, "not recomputed"


@pytest.mark.parametrize(("x", "y", "options"), CASES)
def test_two_conv_obeys_finite_differences(x, y, options):
    """Every parameter's gradient, by the loss of the network with one number moved."""
    e = explain(x, y, model="two_conv", **options)
    pool, activation = options.get("pool", "max"), options.get("activation", "sigmoid")
    numbers = dict(e.arrays)

    def loss():
        a = numbers
        f = sigmoid if activation == "sigmoid" else lambda z: np.maximum(z, 0)
        pooled = fc.max_pool if pool == "max" else fc.avg_pool
        s = pooled(f(fc.conv(a["x"], a["w1"], a["b1"])), 2)
        s = pooled(f(fc.conv(s, a["w2"], a["b2"])), 2).reshape(len(s), -1)
        z = f(f(s @ a["w3"] + a["b3"]) @ a["w4"] + a["b4"]) @ a["w5"] + a["b5"]
        return (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), a["y"]]).mean()

    for name in ("w1", "b1", "w2", "b2", "w3", "b3", "w4", "b4", "w5", "b5"):
        kept = numbers[name]
        slopes = np.empty(kept.shape)
        for index in np.ndindex(kept.shape):
            sides = []
            for step in (1e-6, -1e-6):
                numbers[name] = kept.copy()
                numbers[name][index] += step
                sides.append(loss())
            slopes[index] = (sides[0] - sides[1]) / 2e-6
        numbers[name] = kept
        np.testing.assert_allclose(e[f"d{name}"], slopes, rtol=0, atol=3e-9, err_msg=name)
    for name in ("dw1", "dw2"):
        np.testing.assert_allclose(e[f"{name}_numeric"], e[name], rtol=0, atol=3e-9)


def test_the_two_ways_are_equal_and_said_to_be():
    e = explain(framed(drawing(1)), 1, model="two_conv", pool="mean")
    np.testing.assert_allclose(e["ds1_full"], e["ds1"], rtol=0, atol=1e-16)
    np.testing.assert_allclose(e["ds1_col2im"], e["ds1"], rtol=0, atol=1e-16)
    text = " ".join(str(e).split())
    assert "Both are equal: col2im(delta2 @ w2.T) differs from ds1 by at most" in text
    assert "w2_flipped[u,v,f,c] = w2[2-u, 2-v, c, f]" in text


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_the_cell_that_is_written_out_is_its_sum(pool):
    e = explain(framed(drawing(0)), 1, model="two_conv", pool=pool)
    lines = str(e).splitlines()
    start = next(i for i, line in enumerate(lines) if re.match(r" +ds1\[[\d,]+\] =$", line))
    index = tuple(map(int, re.findall(r"\d+", lines[start].split("[")[1])))
    total, k = 0.0, start + 1
    while lines[k].startswith("      +"):
        error, _, weight, *rest = lines[k].split()[1:]
        n, i, j, f, u, v, c, f2 = map(
            int, re.findall(r"\d+", re.sub(r"(delta2|w2)", "", " ".join(rest)))
        )
        assert f == f2
        assert (i + u, j + v, c) == index[1:]
        assert float(error) == pytest.approx(e["delta2"][n, i, j, f], rel=5e-3)
        assert float(weight) == pytest.approx(e["w2"][u, v, c, f], rel=5e-3)
        total, k = total + e["delta2"][n, i, j, f] * e["w2"][u, v, c, f], k + 1
    assert k - start > 4
    assert total == pytest.approx(e["ds1"][index], rel=1e-12)
    assert float(lines[k].split("=")[1]) == pytest.approx(total, rel=1e-5)


def test_binary_cnn_by_the_names_of_the_book():
    x = drawing(1)
    e = explain(x, 1)
    flow = e.flow()
    for name in ("z1", "a1", "a2", "da2", "da1", "delta1", "winners"):
        np.testing.assert_allclose(e[name][0, :, :, 0], getattr(flow, name), **TOLERANCE)
    for name in ("dw1", "db1", "dw3", "db3", "dz3", "a3", "z3", "loss"):
        np.testing.assert_allclose(np.ravel(e[name]), np.ravel(getattr(flow, name)), **TOLERANCE)
    w1 = np.arange(9.0).reshape(3, 3) / 9
    own = explain(x, 0, w1=w1, b1=0.5, w3=np.ones(9), b3=[-1.0])
    np.testing.assert_array_equal(own["w1"][:, :, 0, 0], w1)
    np.testing.assert_allclose(own.z1, reference.conv(own.x, own.w1, own.b1), **TOLERANCE)
    assert own["b3"] == -1.0


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_binary_cnn_with_a_mean_and_with_several_images(pool):
    x, y = RNG.uniform(size=(3, 8, 8)), np.array([0, 1, 1])
    e = explain(x, y, pool=pool)
    assert e.z1.shape == (3, 6, 6, 1)
    model = nn.Sequential(
        nn.Conv(1, 1, 3, dtype=np.float64), {"max": nn.MaxPool, "mean": nn.AvgPool}[pool](2)
    )  # fmt: skip
    model.layers[0].w, model.layers[0].b = e.w1, e.b1
    np.testing.assert_allclose(e.z1, model.layers[0].forward(e.x), **TOLERANCE)
    np.testing.assert_allclose(
        e.delta1, upsampled(e.da2, e.a2, e.a1, pool) * (e.z1 > 0), **TOLERANCE
    )
    np.testing.assert_allclose(e.dz3, (e.a3 - y[:, None]) / 3, **TOLERANCE)
    np.testing.assert_allclose(e.dw1_numeric, e.dw1, rtol=0, atol=1e-8)
    assert "a quarter" in str(e) if pool == "mean" else "winner" in str(e)


def test_a_network_of_ones_own():
    model = nn.Sequential(
        nn.Conv(2, 3, 3, stride=2, padding=1, activation="relu", rng=0, dtype=np.float64),
        nn.Conv(3, 2, 3, padding="same", dilation=2, rng=1, dtype=np.float64),
        nn.Tanh(),
        nn.MaxPool(3, stride=2),
        nn.Flatten(),
        nn.Dense(12, 4, rng=2, dtype=np.float64),
        name="mine",
    )  # fmt: skip
    before = copy.deepcopy([p.value for p in model.parameters()])
    e = explain(SEVERAL, [0, 3, 2], model=model)
    loss = nn.SoftmaxCrossEntropy()
    outputs = model.activations(SEVERAL)
    assert e["loss"] == pytest.approx(loss.forward(outputs[-1], np.array([0, 3, 2])), abs=1e-14)
    deltas = model.deltas(loss.backward())
    for name, value in [("a1", outputs[0]), ("z2", outputs[1]), ("a2", outputs[2]),
                        ("s2", outputs[3]), ("z3", outputs[5]), ("da1", deltas[1]),
                        ("delta2", deltas[2]), ("da2", deltas[3]), ("ds2", deltas[4])]:  # fmt: skip
        np.testing.assert_allclose(e[name], value, **TOLERANCE, err_msg=name)
    np.testing.assert_allclose(e.da1_col2im, e.da1, **TOLERANCE)
    np.testing.assert_allclose(e.dw2_numeric, e.dw2, rtol=0, atol=1e-8)
    np.testing.assert_allclose(e.dw1, model.layers[0].w.grad, **TOLERANCE)
    for kept, parameter in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(kept, parameter.value)
    assert model.layers[0].activation == "relu"
    assert str(e).count("mine") == 1
    assert max(map(len, str(e).splitlines())) <= 80


def test_the_digits_network_and_the_naive_loops():
    """Batch normalisation and dropout stand as they predict; float32 stays float32."""
    x = drawing(1)
    e = explain(x, 1, model=digits_cnn())
    np.testing.assert_array_equal(
        e["z4"], digits_cnn().predict(x[None, :, :, None].astype(np.float32))
    )
    assert e["delta1"].dtype == np.float32
    small = nn.Sequential(
        nn.Conv(1, 1, 3, rng=0), nn.Flatten(), nn.Dense(36, 2, rng=0), ops=reference
    )
    assert explain(x, 1, model=small)["z2"].shape == (1, 2)


def test_what_it_hands_out():
    e = explain(drawing(0), 0)
    assert isinstance(e, Explanation)
    assert repr(e) == "<Explanation of binary_cnn: x (1, 8, 8, 1), 23 arrays>"
    assert len(e) == 23 == len(list(e))
    assert e.delta1 is e["delta1"]
    assert "delta1" in dir(e)
    with pytest.raises(KeyError, match="delta9: there are x, y, w1"):
        e["delta9"]
    with pytest.raises(AttributeError, match="delta9"):
        _ = e.delta9
    assert set(e.equations) <= set(e)
    twin = pickle.loads(pickle.dumps(copy.copy(e)))
    np.testing.assert_array_equal(twin.delta1, e.delta1)
    assert fc.explain.explain is explain


def test_labels_by_default_are_what_the_network_says():
    e = explain(SEVERAL, model="two_conv", classes=4)
    np.testing.assert_array_equal(e["y"], e["a5"].argmax(1))
    e = explain(drawing(0))
    assert e["y"] == (e["a3"] >= 0.5)


def test_integers_are_scaled_and_names_are_two():
    x = (255 * SEVERAL[..., 0]).astype(np.uint8)
    np.testing.assert_array_equal(explain(x, [0, 1, 0], model="two_conv_cnn").x, x[..., None] / 255)
    y = x.astype(int)
    np.testing.assert_array_equal(explain(y, model="two_conv").x, y[..., None] / y.max())


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.ones((7, 7)), 1, {}, "x: binary_cnn takes images of 8x8x1, got 7x7x1"),
        (np.ones(8), 1, {}, r"x: expected \(H, W\)"),
        (np.full((8, 8), np.nan), 1, {}, "x: holds NaN or infinity"),
        (np.ones((0, 8, 8)), None, {}, "x: expected"),
        (np.ones((8, 8)), 2, {}, r"y: binary_cnn says yes or no: 0 or 1, got \[2\]"),
        (np.ones((8, 8)), [1, 0], {}, r"y: expected 1 label, got \(2,\)"),
        (np.ones((2, 8, 8)), 1, {}, r"y: expected 2 labels"),
        (np.ones((8, 8)), 1, {"model": "twoconv"}, "model: must be one of 'binary_cnn'"),
        (np.ones((8, 8)), 1, {"pool": "min"}, "pool: must be one of 'max', 'mean', got 'min'"),
        (np.ones((8, 8)), 1, {"w1": np.ones((5, 3))}, "w1: expected shape"),
        (np.ones((8, 8)), 1, {"w2": np.ones((3, 3))}, "w2: this network has only w1, b1, w3, b3"),
        (np.ones((8, 8)), 1, {"filters": 2}, "filters: binary_cnn has one filter"),
        (np.ones((8, 8)), 1, {"model": "two_conv"}, "x: 8x8 pixels are too few"),
        (np.ones((14, 14)), -1, {"model": "two_conv"}, "y: labels must be in 0 .. 1, got -1"),
        (np.ones((14, 14)), 100, {"model": "two_conv"}, "y: labels are 0 .. 99, got 100"),
        (np.ones((14, 14)), 1, {"model": "two_conv", "activation": "elu"}, "activation: must be"),
        (np.ones((14, 14)), 1, {"model": "two_conv", "filters": (1, 2, 3)}, "filters: expected"),
        (np.ones((14, 14)), 1, {"model": "two_conv", "w1": np.ones((3, 3, 2, 1))}, "w1: expected"),
        (np.ones((14, 14)), 1, {"model": "two_conv", "w1": [[np.inf]]}, "w1: holds NaN"),
        (np.ones((600, 600)), 1, {"model": "two_conv"}, "too many to read"),
        (np.ones((8, 8)), 1, {"model": digits_cnn(), "pool": "mean"}, "pool: a network of"),
        (np.ones((8, 8)), 1, {"model": nn.Sequential(nn.Conv(1, 1, 3))}, "model: its output must"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        explain(x, y, **options)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.array([["a"] * 8] * 8), 1, {}, "x: numbers"),
        (np.ones((8, 8)), 1.0, {}, "y: integer labels are needed, got float64"),
        (np.ones((8, 8)), 1, {"model": 3}, "model: a name or a Sequential is needed, got"),
        (np.ones((8, 8)), 1, {"seed": 1.5}, "seed: an integer is needed"),
        (np.ones((8, 8)), 1, {"w1": [["a"]]}, "w1: a kernel of numbers is needed"),
    ],
)
def test_wrong_types_are_named(x, y, options, message):
    with pytest.raises(TypeError, match=message):
        explain(x, y, **options)


def test_grids_keep_significant_digits():
    """No number that is not zero is printed as one, however small."""
    for scale in (1e-9, 1e-3, 1e5):
        small = explain(drawing(1), 1, w1=np.ones((3, 3)) * scale, b1=scale)
        large = explain(framed(drawing(1)), 1, model="two_conv", w1=np.eye(3) * scale)
        for text in (str(small), str(large)):
            assert not re.findall(r"(?<![\d.])[-+]?0\.0+(?![\d.])", text)
            assert max(map(len, text.splitlines())) <= 80
