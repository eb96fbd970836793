"""Problem descriptors and tables: their meaning, round trips, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest

from fastconv import reference
from fastconv.problems import (
    EXAMPLE,
    find_table,
    parse_problem,
    parse_problems,
    read_problems,
    table_names,
)
from fastconv.selfcheck.trials import random_problem


def test_every_part_of_a_descriptor():
    p = parse_problem("net.c1: m4 h9w8c6 f12 k3x2 s2x1 p0:1x2 d1x3 g3 float64")
    assert p.name == "net.c1"
    assert p.x_shape == (4, 9, 8, 6)
    assert p.w_shape == (3, 2, 2, 12)
    assert p.kwargs == {
        "stride": (2, 1),
        "padding": ((0, 1), (2, 2)),
        "dilation": (1, 3),
        "groups": 3,
    }
    assert p.dtype == "float64"
    assert p.y_shape == (4, 4, 9, 12)  # 1 + (9 + 1 - 3) // 2 and 8 + 4 - 4 + 1
    assert p.flops == 2 * (4 * 4 * 9) * (3 * 2 * 2) * 12


def test_defaults_and_order_of_words():
    p = parse_problem("k3 f2 w9c3")
    assert (p.name, p.m, p.rank, p.window, p.stride, p.padding, p.dilation, p.groups, p.dtype) == (
        "",
        1,
        1,
        (3,),
        (1,),
        ((0, 0),),
        (1,),
        1,
        "float32",
    )


@pytest.mark.parametrize(
    ("text", "rank", "window", "y_shape"),
    [
        ("m2 w9c3 f4 k3", 1, (3,), (2, 7, 4)),
        ("m2 h9w8c3 f4 k3", 2, (3, 3), (2, 7, 6, 4)),
        ("m2 d5h9w8c3 f4 k3 d2", 3, (3, 3, 3), (2, 1, 5, 4, 4)),
        ("m0 h5w5c1 f1 k1", 2, (1, 1), (0, 5, 5, 1)),
        ("m1 h5w6c1 f1 k3 s2 psame", 2, (3, 3), (1, 3, 3, 1)),
        ("m1 h5w6c1 f1 k3 pfull", 2, (3, 3), (1, 7, 8, 1)),
        ("m1 h5w6c1 f1 k3 p0:1", 2, (3, 3), (1, 4, 5, 1)),
    ],
)
def test_ranks_and_paddings(text, rank, window, y_shape):
    p = parse_problem(text)
    assert (p.rank, p.window, p.y_shape) == (rank, window, y_shape)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the input is missing; expected the input, such as h32w32c32"),
        ("m1 f2 k3", "the input is missing"),
        ("h8w8c1 k3", "f is missing; expected the number of filters, such as f32"),
        ("h8w8c1 f2", "k is missing; expected the window, such as k3x3"),
        ("h8w8 f2 k3", "'h8w8' is not understood; expected the input, such as"),
        ("h8w8c1 f2 k3 s-1", "'s-1' is not understood; expected the stride"),
        ("h8w8c1 f2 k3 psome", "'psome' is not understood; expected the padding"),
        ("h8w8c1 f2 k3 p1:", "'p1:' is not understood; expected the padding"),
        ("h8w8c1 f2 k3 d2y", "'d2y' is not understood; expected the dilation"),
        ("h8w8c1 f2 k3 zebra", "'zebra' is not understood; expected words as in"),
        ("h8w8c1 f2 k3 float23", "'float23' is not a dtype; expected one of float16, float32"),
        ("h8w8c1 f2 k3 k5", "'k5' repeats what was given before; give k once"),
        ("h8w8c1 f2 k3 float32 float64", "give dtype once"),
        ("h8w8c1 f2 k3x3x3", "has 3 numbers, but the input has 2 spatial axes; expected 1 or 2"),
        ("w8c1 f2 k3x3", "has 2 numbers, but the input has 1 spatial axis; expected 1"),
        ("h8w8c1 f2 k3 p1x2x3", "'p1x2x3' has 3 numbers"),
        ("h8w8c1 f2 k3 p0:1x0:1x0:1", "'p0:1x0:1x0:1' has 3 numbers"),
        ("h8w8c6 f4 k3 g3", "g3 must be positive and divide the channels and the filters"),
        ("h8w8c6 f4 k3 g0", "g0 must be positive"),
        ("h2w2c1 f2 k3", "window"),
        ("h8w8c1 f2 k3 s0", "stride"),
        ("h0w8c1 f2 k3", "x_shape"),
    ],
)
def test_errors_name_the_word_and_what_was_expected(text, expected):
    with pytest.raises(ValueError, match=r"^problem ") as error:
        parse_problem(text)
    assert expected in str(error.value)
    assert f"problem '{text}'" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("table", table_names())
def test_tables_survive_a_round_trip(table):
    problems = read_problems(find_table(table))
    assert parse_problems(map(str, problems)) == problems
    assert len({p.name for p in problems}) == len(problems)


def test_random_problems_survive_a_round_trip():
    rng = np.random.default_rng(0)
    problems = [random_problem(rng) for _ in range(200)]
    assert [parse_problem(str(p)) for p in problems] == problems
    assert {p.rank for p in problems} == {1, 2, 3}
    assert {isinstance(p.padding, str) for p in problems} == {True, False}


def test_tables_hold_what_their_sources_say():
    """Million operations of a forward pass and output sizes, computed elsewhere."""
    expected = {
        ("convnet_benchmarks", "L1"): (124217.229, (118, 118)),
        ("lenet5_mnist", "C1"): (15.053, (28, 28)),
        ("mlperf_tiny_mobilenetv1_025_96", "dw3"): (5.308, (24, 24)),
        ("mlperf_tiny_resnet8", "stack2_conv1_s2"): (75.497, (16, 16)),
        ("mnist_cifar_examples", "tinygrad_mnist.conv2"): (10485.76, (20, 20)),
        ("resnet50_224", "conv1"): (7552.893, (112, 112)),
    }
    rows = {"convnet_benchmarks": 5, "lenet5_mnist": 3, "mlperf_tiny_mobilenetv1_025_96": 19}
    rows |= {"mlperf_tiny_resnet8": 8, "mnist_cifar_examples": 11, "resnet50_224": 23}
    for (table, name), (mflop, size) in expected.items():
        problems = {p.name: p for p in read_problems(find_table(table))}
        assert len(problems) == rows[table]
        assert problems[name].flops / 1e6 == pytest.approx(mflop, abs=1e-3)
        assert problems[name].y_shape[1:3] == size


def test_tails_cover_every_kind():
    problems = read_problems(find_table("tails"))
    assert {p.rank for p in problems} == {1, 2, 3}
    assert any(p.groups == p.channels > 1 for p in problems)
    assert any(1 < p.groups < p.channels for p in problems)
    assert any(set(p.dilation) != {1} for p in problems)
    assert any(max(p.stride) > max(p.window) for p in problems)
    assert any(
        not isinstance(p.padding, str) and p.padding[0][0] < p.padding[0][1] for p in problems
    )
    assert {p.padding for p in problems} >= {"same", "full"}
    assert {p.dtype for p in problems} == {"float32", "float64"}
    assert {p.channels % 16 for p in problems} >= {0, 1, 13}


def test_table_errors_name_the_line(tmp_path):
    with pytest.raises(ValueError, match=r"^here, line 3: problem 'm1 k3': the input is missing"):
        parse_problems(["# comment", "a: w9c1 f1 k3 # one", "m1 k3"], source="here")
    with pytest.raises(ValueError, match="here, line 2: the name 'a' is taken by line 1"):
        parse_problems(["a: w9c1 f1 k3", "a: w8c1 f1 k3"], source="here")
    with pytest.raises(ValueError, match="holds no problem; expected lines such as 'm64"):
        parse_problems(["# nothing"])
    binary = tmp_path / "b.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file; expected one problem a line"):
        read_problems(binary)
    with pytest.raises(FileNotFoundError):
        read_problems(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="there is no table 'x'; expected one of convnet_bench"):
        find_table("x")


def test_operands_are_exact_integers():
    p = parse_problem("m2 h7w6c4 f6 k3x2 s2x1 p1 g2")
    x, w, b, dy = p.operands(seed=3)
    assert [a.shape for a in (x, w, b, dy)] == [p.x_shape, p.w_shape, (6,), p.y_shape]
    assert all(a.dtype == np.float32 and np.array_equal(a, np.rint(a)) for a in (x, w, b, dy))
    assert np.array_equal(x, p.operands(seed=3).x)
    assert not np.array_equal(x, p.operands(seed=4).x)
    assert reference.conv(x, w, b, **p.kwargs).shape == p.y_shape


def test_operands_of_long_sums_stay_below_the_exact_limit():
    for text in ("m4 h512w512c1 f1 k1", "m1 h3w3c4096 f1 k3", "m2 h2900w2900c1 f1 k1"):
        p = parse_problem(text)
        x, w, b, dy = p.operands()
        sums = [
            p.geometry.K * float(np.abs(x).max() * np.abs(w).max()) + float(np.abs(b).max()),
            float(np.abs(x).sum(dtype="f8") * np.abs(dy).max()) if p.window == (1, 1) else 0.0,
        ]
        assert max(sums) <= 2**24


def test_needs_no_compiler():
    code = (
        f"import sys; from fastconv.problems import parse_problem as p; p('{EXAMPLE}').operands()"
    )
    code += "; sys.exit('numba' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
