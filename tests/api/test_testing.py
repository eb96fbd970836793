"""Every checking helper passes what is right and fails what is wrong."""

import ast
from pathlib import Path

import numpy as np
import pytest

from fastconv import reference, testing
from fastconv.testing import (
    assert_adjoint,
    assert_conv_backward_equal,
    assert_conv_equal,
    gradcheck,
    integer_operands,
    untied,
)

SHAPES = (2, 6, 5, 4), (3, 2, 2, 6)
OPTIONS = {"stride": (1, 2), "padding": ((1, 0), (2, 1)), "groups": 2}


def reals(dtype):
    """Random operands of SHAPES and OPTIONS."""
    rng = np.random.default_rng(0)
    shapes = [a.shape for a in integer_operands(*SHAPES, **OPTIONS)]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def test_imports_only_numpy_and_the_reference():
    for path in Path(testing.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("fastconv"):
                whole = node.module == "fastconv" and [a.name for a in node.names] == ["reference"]
                types = node.module == "fastconv.typing"  # which holds no code
                assert whole or types or node.module.startswith("fastconv.testing.")
            elif isinstance(node, ast.Import):
                assert {a.name for a in node.names} <= {"math", "numpy", "operator"}


# ---- inputs


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "sparse"),
    [
        ((2, 6, 6, 3), (3, 3, 3, 4), ""),
        ((1, 3, 3, 2048), (3, 3, 2048, 2), "w"),  # 18432 terms in y
        ((1, 3, 3, 2), (3, 3, 2, 2048), "w"),  # 18432 terms in dx
        ((1, 140, 140, 1), (1, 1, 1, 2), "dy"),  # 19600 terms in dw
    ],
)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_partial_sums_of_integer_operands_are_exact(x_shape, w_shape, sparse, data_format):
    if data_format == "channels_first":
        x_shape = (x_shape[0], x_shape[-1], *x_shape[1:-1])
    x, w, b, dy = (abs(a) for a in integer_operands(x_shape, w_shape, data_format=data_format))
    # Sums of magnitudes bound every partial sum in every order; worst case, all of x and w at 32.
    assert max(a.max() for a in (x, w, b, dy)) == 32
    last = dy if data_format == "channels_last" else np.moveaxis(dy, 1, -1)
    taps = tuple(range(w.ndim - 2))
    assert w.sum((*taps, -2)).max() * 32 + b.max() <= 2**24
    assert w.sum((*taps, -1)).max() * 32 <= 2**24
    assert last.sum(tuple(range(last.ndim - 1))).max() * 32 <= 2**24
    for name, a in (("x", x), ("w", w), ("dy", dy)):
        zeros = np.mean(a == 0)
        assert (0.05 < zeros < 0.3) if name == sparse else zeros < 0.05


def test_integer_operands():
    x, w, b, dy = operands = integer_operands(*SHAPES, dtype=np.float64, seed=3, **OPTIONS)
    assert {a.dtype.name for a in operands} == {"float64"}
    assert all(np.array_equal(a, np.round(a)) for a in operands)
    assert (x.shape, w.shape, b.shape) == (*SHAPES, (6,))
    assert dy.shape == reference.conv(x, w, **OPTIONS).shape
    again = integer_operands(*SHAPES, dtype=np.float64, seed=3, **OPTIONS)
    other = integer_operands(*SHAPES, dtype=np.float64, seed=4, **OPTIONS)
    assert all(np.array_equal(a, c) for a, c in zip(operands, again, strict=True))
    assert not any(np.array_equal(a, c) for a, c in zip(operands, other, strict=True))
    with pytest.raises(ValueError, match="channels"):
        integer_operands((1, 4, 4, 3), (3, 3, 2, 4))
    with pytest.raises(ValueError, match="data_format"):
        integer_operands(*SHAPES, data_format="NHWC")


@pytest.mark.parametrize("shape", [(2, 3, 4, 1), (3, 3), (1,), (0, 2)])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_untied(shape, dtype):
    x = untied(shape, dtype=dtype)
    assert (x.shape, x.dtype.name) == (shape, dtype)
    values = np.sort(x.ravel())
    assert np.all(np.diff(values) >= 1 / 64)
    assert np.all(abs(values) >= 1 / 128)


def test_untied_refuses_what_the_dtype_cannot_hold():
    assert len(np.unique(untied((2048,), dtype=np.float16))) == 2048
    with pytest.raises(ValueError, match="2049"):
        untied((2049,), dtype=np.float16)


# ---- against the naive loops


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"data_format": "channels_first"}])
def test_right_answers_pass(dtype, options):
    options = OPTIONS | options
    x_shape = SHAPES[0] if "data_format" not in options else (2, 4, 6, 5)
    x, w, b, dy = integer_operands(x_shape, SHAPES[1], dtype=dtype, **options)
    assert_conv_equal(reference.conv, x, w, b, activation="relu", **options)
    assert_conv_equal(reference.conv(x, w, **options), x, w, **options)
    assert_conv_backward_equal(reference.conv_backward, dy, x, w, **options)
    if "data_format" not in options:
        x, w, b, dy = reals(dtype)
        assert_conv_equal(reference.conv, x, w, b, **options)
        assert_conv_backward_equal(reference.conv_backward, dy, x, w, **options)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_one_unit_is_wrong_on_integers(dtype):
    x, w, b, dy = integer_operands(*SHAPES, dtype=dtype, **OPTIONS)
    y = reference.conv(x, w, b, **OPTIONS)
    y[1, 2, 1, 3] = np.nextafter(y[1, 2, 1, 3], np.inf)
    with pytest.raises(AssertionError, match=r"^y: 1 of \d+ elements wrong, worst at \(1, 2, 1, 3"):
        assert_conv_equal(y, x, w, b, **OPTIONS)
    for k, name in enumerate(("dx", "dw", "db")):
        grads = reference.conv_backward(dy, x, w, **OPTIONS)
        grads[k].flat[-1] = np.nextafter(grads[k].flat[-1], np.inf)
        with pytest.raises(AssertionError, match=f"^{name}: 1 of .*, exactly$"):
            assert_conv_backward_equal(grads, dy, x, w, **OPTIONS)
        others = {"x", "w", "b"} - {name[1]}
        assert_conv_backward_equal(grads, dy, x, w, need=others, **OPTIONS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_on_reals(dtype):
    """Half of 16 * eps * G passes, twice that does not, for the output and each gradient."""
    x, w, b, dy = reals(dtype)
    eps = np.finfo(dtype).eps
    G = reference.conv(abs(x), abs(w), abs(b), **OPTIONS)
    bounds = reference.conv_backward(abs(dy), abs(x), abs(w), **OPTIONS)
    y = reference.conv(x, w, b, **OPTIONS)
    grads = reference.conv_backward(dy, x, w, **OPTIONS)
    for factor in (8, -8):
        assert_conv_equal(y + factor * eps * G, x, w, b, **OPTIONS)
        near = [g + factor * eps * bound for g, bound in zip(grads, bounds, strict=True)]
        assert_conv_backward_equal(near, dy, x, w, **OPTIONS)
    for factor in (32, -32):
        far = y.copy()
        far[0, 3, 1, 2] += factor * eps * G[0, 3, 1, 2]
        with pytest.raises(AssertionError, match=r"^y: 1 .* \(0, 3, 1, 2\).* within .*G\)$"):
            assert_conv_equal(far, x, w, b, **OPTIONS)
        for k, name in enumerate(("dx", "dw", "db")):
            far = [g.copy() for g in grads]
            far[k].flat[0] += factor * eps * bounds[k].flat[0]
            with pytest.raises(AssertionError, match=f"^{name}: 1 "):
                assert_conv_backward_equal(far, dy, x, w, **OPTIONS)


def test_float16_may_round_once():
    x, w, b, _ = reals(np.float16)
    y = reference.conv(x, w, b, **OPTIONS)
    assert_conv_equal(y, x, w, b, **OPTIONS)
    y.flat[7] = np.nextafter(np.nextafter(y.flat[7], np.float16(np.inf)), np.float16(np.inf))
    with pytest.raises(AssertionError, match="1 of"):
        assert_conv_equal(y, x, w, b, **OPTIONS)
    # 1 + 4095/8192, which summed in float16 stays 1.
    x, w = np.ones((1, 4096, 1), np.float16), np.full((4096, 1, 1), 2.0**-13, np.float16)
    w[0] = 1
    in_half = np.ones((1, 1, 1), np.float16)
    with pytest.raises(AssertionError, match=r"expected 1\.5"):
        assert_conv_equal(in_half, x, w)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "make", [lambda: integer_operands(*SHAPES, **OPTIONS), lambda: reals("f4")]
)
def test_an_unwritten_element_shows(make, wrong):
    x, w, b, _ = make()
    y = reference.conv(x, w, b, **OPTIONS)
    y[0, 0, 0, 0] = wrong
    with pytest.raises(AssertionError, match=r"1 of .*\(0, 0, 0, 0\): got -?(nan|inf)"):
        assert_conv_equal(y, x, w, b, **OPTIONS)


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_nan_and_infinity_must_be_where_they_belong(special):
    x, w, b, _ = reals("float32")
    x[1, 3, 2, 0] = special
    y = reference.conv(x, w, b, **OPTIONS)
    assert not np.isfinite(y).all()
    assert_conv_equal(y, x, w, b, **OPTIONS)
    y[~np.isfinite(y)] = 0
    with pytest.raises(AssertionError, match=r"expected -?(nan|inf)"):
        assert_conv_equal(y, x, w, b, **OPTIONS)


WRONG = {
    "flipped kernel": lambda x, w, b, **o: reference.conv(x, w[::-1, ::-1], b, **o),
    "no bias": lambda x, w, b, **o: reference.conv(x, w, **o),
    "stride swapped": lambda x, w, b, **o: reference.conv(x, w, b, **(o | {"stride": (2, 1)})),
    "padding swapped": lambda x, w, b, **o: reference.conv(
        x, w, b, **(o | {"padding": ((0, 1), (1, 2))})
    ),
    "channels reversed": lambda x, w, b, **o: reference.conv(x[..., ::-1], w, b, **o),
    "images swapped": lambda x, w, b, **o: reference.conv(x[::-1], w, b, **o),
    "float64": lambda x, w, b, **o: reference.conv(x, w, b, **o).astype(float),
    "a list": lambda x, w, b, **o: reference.conv(x, w, b, **o).tolist(),
    "a missing row": lambda x, w, b, **o: reference.conv(x, w, b, **o)[:, 1:],
    "a constant": lambda x, w, b, **o: np.zeros_like(reference.conv(x, w, b, **o)),
}


@pytest.mark.parametrize(
    "make", [lambda: integer_operands(*SHAPES, **OPTIONS), lambda: reals("f4")]
)
@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_found(make, mistake):
    x, w, b, _ = make()
    with pytest.raises(AssertionError, match=r"^y"):
        assert_conv_equal(WRONG[mistake], x, w, b, **OPTIONS)


def test_backward_mistakes_are_found():
    x, w, _, dy = integer_operands(*SHAPES, **OPTIONS)
    dx, dw, db = reference.conv_backward(dy, x, w, **OPTIONS)
    for name, grads in {
        "dx": (dx[::-1], dw, db),
        "dw": (dx, dw[..., ::-1, :], db),
        "db": (dx, dw, db * 2),
        "dw must be float32 with": (dx, dw.astype(float), db),
        "dx must be a NumPy array": (None, dw, db),
        "db must be float32 with": (dx, dw, db[None]),
    }.items():
        with pytest.raises(AssertionError, match=f"^{name}"):
            assert_conv_backward_equal(grads, dy, x, w, **OPTIONS)


def test_misuse_is_an_error_not_a_pass():
    x, w, _, dy = integer_operands(*SHAPES, **OPTIONS)
    grads = reference.conv_backward(dy, x, w, **OPTIONS)
    for need in ((), ("y",)):
        with pytest.raises(ValueError, match="need"):
            assert_conv_backward_equal(grads, dy, x, w, need=need, **OPTIONS)
    with pytest.raises(ValueError, match="zip"):
        assert_conv_backward_equal(grads[:2], dy, x, w, need="x", **OPTIONS)
    with pytest.raises(TypeError, match="dtype"):
        assert_conv_equal(reference.conv, x, w.astype(float), **OPTIONS)
    with pytest.raises(TypeError, match="dtype"):
        assert_conv_equal(np.ones((1, 1, 1), int), np.ones((1, 1, 1), int), np.ones((1, 1, 1), int))


def test_large_integers_fall_back_to_the_bound():
    """Sums beyond 2**24 round in float32, and may."""
    x, w = np.full((1, 3, 1), 2.0**23 + 1, np.float32), np.ones((3, 1, 1), np.float32)
    y = np.full((1, 1, 1), 3 * 2.0**23, np.float32)  # three less than the sum
    assert_conv_equal(y, x, w)
    with pytest.raises(AssertionError, match="within"):
        assert_conv_equal(y * 1.001, x, w)


# ---- without a reference


def test_adjoint():
    x, w, _, dy = integer_operands(*SHAPES, **OPTIONS)
    y = reference.conv(x, w, **OPTIONS)
    dx, dw, _ = reference.conv_backward(dy, x, w, **OPTIONS)
    assert_adjoint((y, dy), (x, dx), (w, dw))
    wrong = dw.copy()
    at = np.unravel_index(abs(w).argmax(), w.shape)
    wrong[at] += 1
    with pytest.raises(AssertionError, match="inner products differ"):
        assert_adjoint((y, dy), (x, dx), (w, wrong))
    with pytest.raises(AssertionError, match="inner products differ"):
        assert_adjoint((y, dy), (x, reference.conv_input_grad(dy, -w, x.shape, **OPTIONS)))
    with pytest.raises(AssertionError, match="pair 1 have shapes"):
        assert_adjoint((y, dy), (x, dx[:1]))


def test_adjoint_sees_one_unit_in_large_products():
    """A float64 sum would lose the last unit; Python integers do not."""
    a, c = np.full(4, 2.0**40), np.full(4, 2.0**40)
    one = np.array([1.0])
    assert_adjoint((a, c), (a, c))
    with pytest.raises(AssertionError, match="differ"):
        assert_adjoint((a, c), (np.append(a, one), np.append(c, one)))


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf, 2.0**60])
def test_adjoint_refuses_what_cannot_be_exact(bad):
    a = np.array([1.0, bad])
    with pytest.raises(ValueError, match="pair 0 must hold integers"):
        assert_adjoint((a, a), (a, a))
    with pytest.raises(ValueError, match="two pairs"):
        assert_adjoint((np.ones(2), np.ones(2)))


def cube(x, y):
    return x**3 * y


def cube_gradient(dy, x, y):
    return 3 * x**2 * y * dy, x**3 * dy


POINT = np.linspace(-1, 1, 5), np.linspace(2, 3, 5)


def test_gradcheck_passes_what_is_right():
    gradcheck(cube, cube_gradient, *POINT)
    gradcheck(cube, lambda dy, x, y: (None, x**3 * dy), *POINT)
    gradcheck(lambda x: np.sum(x * x), lambda dy, x: 2 * x * dy, POINT[0])  # a scalar loss


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (lambda dy, x, y: (3 * x**2 * y * dy * 1.01, x**3 * dy), "input 0: . of 5"),
        (lambda dy, x, y: (3 * x**2 * y * dy, x**3 * dy + 1e-4), "input 1: . of 5"),
        (lambda dy, x, y: (3 * x**2 * y, x**3), "input 0: . of 5"),  # forgot dy
        (lambda dy, x, y: (3 * x**2 * y * dy, np.full(5, np.nan)), "input 1: 5 of 5.*got nan"),
        (lambda dy, x, y: (3 * x**2 * y * dy, np.zeros(4)), "shape"),
        (lambda dy, x, y: (3 * x**2 * y * dy, (x**3 * dy).astype("f4")), "float64"),
        (lambda dy, x, y: (None, 1.0), "NumPy array"),
        (lambda dy, x, y: (3 * x**2 * y * dy,), "2 gradients; got 1"),
    ],
)
def test_gradcheck_fails_what_is_wrong(gradient, message):
    with pytest.raises(AssertionError, match=message):
        gradcheck(cube, gradient, *POINT)


def test_gradcheck_names_the_worst_element():
    def gradient(dy, x):
        dx = 2 * x * dy
        dx[1, 2] += 0.5
        dx[0, 0] += 0.1
        return dx

    with pytest.raises(AssertionError, match=r"2 of 6 elements wrong, worst at \(1, 2\): got"):
        gradcheck(np.square, gradient, np.ones((2, 3)))


def test_gradcheck_misuse_is_an_error_not_a_pass():
    with pytest.raises(TypeError, match="input 0 is float32"):
        gradcheck(np.square, lambda dy, x: 2 * x * dy, np.ones(3, np.float32))
    with pytest.raises(TypeError, match="y is float32"):
        gradcheck(lambda x: x.astype("f4"), lambda dy, x: dy, np.ones(3))
    for point, gradient in ((np.ones(0), lambda dy, x: dy), (np.ones(3), lambda dy, x: None)):
        with pytest.raises(ValueError, match="nothing to check"):
            gradcheck(np.square, gradient, point)


def test_gradcheck_leaves_its_inputs_alone():
    x = np.ones(3)

    def overwrites(x):
        x *= 2
        return x

    gradcheck(overwrites, lambda dy, x: 2 * dy, x)
    np.testing.assert_array_equal(x, np.ones(3))


def test_a_tie_is_why_untied_exists():
    """At a tie a max pool has no derivative, and gradcheck says so."""

    def gradient(dy, x):
        _, argmax = reference.max_pool(x, 2, return_argmax=True)
        return reference.max_pool_backward(dy, argmax, x.shape, 2)

    gradcheck(lambda x: reference.max_pool(x, 2), gradient, untied((1, 4, 4, 1)))
    with pytest.raises(AssertionError, match="elements wrong"):
        gradcheck(lambda x: reference.max_pool(x, 2), gradient, np.ones((1, 4, 4, 1)))
