"""MyGrad: what its own 14 layer tests demand of `conv_nd` and `max_pool`, and a LeNet.

Its tests are in no release of it, so they are restated here: the same kinds of arguments, results
and errors, checked against MyGrad's own functions where those exist, else against naive loops.
"""

from __future__ import annotations

import inspect

import hypothesis.strategies as st
import mygrad
import numpy as np
import pytest
from hypothesis import given, settings
from mygrad.nnet import layers
from mygrad.nnet.losses import softmax_crossentropy
from strategies import integers

from fastconv import reference
from fastconv.adapters import mygrad as ours

LAST = (0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
FIRST = (0, 3, 1, 2)
KERNEL = (2, 3, 1, 0)  # (F, C, KH, KW) -> (KH, KW, C, F)


def backward(function, *arrays, **options):
    """The result, and the gradients of sum(result * weights), weights 1, 2, 3, ..., 7, 1, ..."""
    tensors = [mygrad.tensor(array, dtype=float) for array in arrays]
    out = function(*tensors, **options)
    out.backward(np.arange(out.size).reshape(out.shape) % 7 + 1.0)
    return [out.data, *(tensor.grad for tensor in tensors)]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)


@st.composite
def convolutions(draw):
    """x, filters and steps, in which a window moves exactly from end to end."""
    rank = draw(st.integers(1, 3))
    k, s, d, p, moves = (
        draw(st.tuples(*[st.integers(low, high)] * rank))
        for low, high in ((1, 3), (1, 2), (1, 2), (0, 2), (0, 2))
    )
    # MyGrad wants k*d cells for a window of (k - 1)*d + 1
    d = tuple(di if (di - 1) <= si * mi else 1 for si, di, mi in zip(s, d, moves, strict=True))
    spans = [(ki - 1) * di + 1 + si * mi for ki, si, di, mi in zip(k, s, d, moves, strict=True)]
    p = tuple(pi if span > 2 * pi else 0 for pi, span in zip(p, spans, strict=True))
    sizes = [span - 2 * pi for pi, span in zip(p, spans, strict=True)]
    N, C, F = (draw(st.integers(1, 3)) for _ in range(3))
    seed = draw(st.integers(0, 1000))
    x, w = integers(seed, N, C, *sizes), integers(seed + 1, F, C, *k)
    return x, w, {"stride": s, "padding": p, "dilation": d}


@settings(max_examples=60)
@given(convolutions())
def test_convolution_equals_mygrads_own(problem):
    x, w, steps = problem
    expected = backward(layers.conv_nd, x, w, **steps)
    assert_same(backward(ours.conv_nd, x, w, **steps), expected)


def test_convolution_by_hand():
    out = ours.conv_nd(
        mygrad.tensor([[[1.0, 2, 3, 4]]]), mygrad.tensor([[[-1.0, -2]]]), stride=(2,)
    )
    np.testing.assert_array_equal(out.data, [[[-5, -11]]])
    x = mygrad.arange(1.0, 13).reshape(1, 1, 3, 4)
    w = mygrad.tensor([[[[-1.0, -2], [-3, -4]]]])
    out = ours.conv_nd(x, w, stride=(1, 2), constant=True)
    np.testing.assert_array_equal(out.data, [[[[-44, -64], [-84, -104]]]])
    assert out.constant


def test_constants_get_no_gradient():
    x, w = mygrad.tensor(integers(0, 2, 1, 7), constant=True), mygrad.tensor(integers(1, 2, 1, 3))
    out = ours.conv_nd(x, w, stride=1)
    assert not out.constant
    out.sum().backward()
    assert x.grad is None
    assert w.grad.shape == w.shape


def test_a_gradient_adds_up_over_uses():
    x, w = integers(0, 2, 1, 7), integers(1, 2, 1, 3)
    once, twice = (mygrad.tensor(x, dtype=float) for _ in range(2))
    ours.conv_nd(once, w, stride=1).sum().backward()
    (ours.conv_nd(twice, w, stride=1) + ours.conv_nd(twice, w, stride=1)).sum().backward()
    np.testing.assert_array_equal(twice.grad, 2 * once.grad)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "steps", "says"),
    [
        ((2, 3), (2, 3, 2), {}, "at least three"),
        ((2, 3, 4), (2, 3, 2, 2), {}, "w.*must have 3 axes"),
        ((1, 2, 2, 2), (1, 3, 2, 2), {}, "w.*must have C/G = 2 channels"),
        ((1, 2, 2, 2), (1, 2, 3, 2), {}, "larger than the padded input"),
        ((1, 2, 2, 2), (1, 2, 2, 2), {"stride": 3, "padding": 1}, "leaves cells over"),
    ],
)
def test_shapes_that_do_not_fit(x_shape, w_shape, steps, says):
    with pytest.raises(ValueError, match=says):
        ours.conv_nd(mygrad.zeros(x_shape), mygrad.zeros(w_shape), **{"stride": 1, **steps})


@pytest.mark.parametrize(
    "steps",
    [
        {"stride": 0},
        {"stride": [1, 2, 3]},
        {"stride": 1, "padding": -1},
        {"stride": 1, "padding": [1, 2, 3]},
        {"stride": 1, "dilation": 0},
    ],
)
def test_steps_that_mygrad_asserts_on(steps):
    x, w = np.zeros((1, 2, 2, 2)), np.zeros((1, 2, 2, 2))
    for kind in (AssertionError, ValueError):
        with pytest.raises(
            kind, match=next(k for k in ("dilation", "padding", "stride") if k in steps)
        ):
            ours.conv_nd(x, w, **steps)


@pytest.mark.parametrize("value", ["2", None, 1.5, 2.0, (1, None), True])
def test_steps_that_are_no_integers(value):
    x, w = np.zeros((1, 2, 4, 4)), np.zeros((1, 2, 2, 2))
    for name in ("stride", "dilation"):
        with pytest.raises(TypeError, match=f"^{name}=.* must be an integer"):
            ours.conv_nd(x, w, **({"stride": 1} | {name: value}))
    for pool in (ours.max_pool, ours.avg_pool):
        with pytest.raises(TypeError, match=r"^stride=.* must be an integer"):
            pool(x, 2, value)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_an_image_of_padding_alone(rank):
    x, w = mygrad.zeros((1, 1) + (0,) * rank), np.ones((1, 1) + (4,) * rank)
    out = ours.conv_nd(x, w, stride=1, padding=2)
    assert out.shape == (1,) * (rank + 2)
    assert out.item() == 0
    out.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("shape", "pool", "stride"),
    [
        ((2, 4, 6), (3,), (1,)),
        ((2, 4, 6), (2, 3), (2, 1)),
        ((2, 4, 6), (2, 2, 2), (1, 1, 2)),
        ((3, 2, 8, 6), (2, 2), 2),
        ((2, 3, 2, 7, 6), (3, 2), (2, 2)),
        ((2, 2, 2, 3, 4), (2, 2, 2, 2), 1),  # four axes: MyGrad's own
    ],
)
def test_max_pool_equals_mygrads_own(shape, pool, stride):
    x = np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape)
    expected = backward(layers.max_pool, x, pool=pool, stride=stride)
    assert_same(backward(ours.max_pool, x, pool=pool, stride=stride), expected)
    for constant in (True, False):
        assert ours.max_pool(x * 1.0, pool, stride, constant=constant).constant is constant


@pytest.mark.parametrize("shape", [(2, 3, 6), (2, 3, 6, 8), (1, 2, 4, 4, 6)])
@pytest.mark.parametrize("dtype", ["f", "d", "l"])
def test_an_integer_is_the_window_on_every_axis_of_the_images(shape, dtype):
    """``pool(x, 2, 2)``, the positional form that other libraries have."""
    x = integers(0, *shape, dtype=dtype)
    whole = (2,) * (len(shape) - 2)
    out = ours.max_pool(x, 2, 2)
    np.testing.assert_array_equal(out.data, layers.max_pool(x, whole, 2).data)
    if dtype != "l":
        t = mygrad.tensor(x)
        out = ours.avg_pool(t, 2, 2)
        np.testing.assert_array_equal(out.data, ours.avg_pool(x, whole, (2,) * len(whole)).data)
        out.sum().backward()
        np.testing.assert_array_equal(t.grad, np.full(shape, 0.5 ** len(whole)))


def test_a_window_that_is_none_names_pool():
    x = mygrad.zeros((1, 2, 4, 4))
    for function in (ours.max_pool, ours.avg_pool):
        for pool in (2.5, "ab", None, (2, 1.5)):
            with pytest.raises(TypeError, match="pool="):
                function(x, pool, 2)
        with pytest.raises(ValueError, match=r"pool: 2 must be a tuple.*\(4, 4\)"):
            function(x[0, 0], 2, 2)


def test_signatures_are_those_of_mygrad():
    for name in ("conv_nd", "max_pool"):
        mine, own = (
            list(inspect.signature(getattr(m, name)).parameters.values()) for m in (ours, layers)
        )
        assert [(p.name, p.kind, p.default) for p in mine] == [
            (p.name, p.kind, p.default) for p in own
        ]


def test_max_pool_ties_go_to_the_first_as_in_mygrad():
    x = integers(0, 2, 3, 6, 6, high=1)
    expected = backward(layers.max_pool, x, pool=(3, 3), stride=1)
    assert_same(backward(ours.max_pool, x, pool=(3, 3), stride=1), expected)


def test_pools_that_do_not_fit():
    x = mygrad.zeros((1, 2, 2, 2))
    for kind, pool, stride, says in (
        (ValueError, (3, 3, 3), (1, 1, 1), "window"),
        (AssertionError, (2, 2, 2), (0, 0, 0), "stride"),
        (AssertionError, (2, 2), [1, 2, 3], "stride"),
        (ValueError, (1, 1, 1), (3, 3, 3), "stride"),
    ):
        for function in (ours.max_pool, ours.avg_pool):
            with pytest.raises(kind, match=says):
                function(x, pool, stride)


def test_avg_pool_equals_the_naive_loops():
    x, dy = integers(0, 2, 3, 6, 8), integers(1, 2, 3, 3, 4)
    t = mygrad.tensor(x)
    out = ours.avg_pool(t, (2, 2), 2)
    np.testing.assert_array_equal(out.data, reference.avg_pool(x, 2, data_format="channels_first"))
    out.backward(dy)
    expected = reference.avg_pool_backward(dy, x.shape, 2, data_format="channels_first")
    np.testing.assert_array_equal(t.grad, expected)


def test_conv_transpose_equals_the_naive_loops():
    x, w = integers(0, 2, 3, 4, 5), integers(1, 3, 2, 3, 2)
    steps = {"stride": 2, "padding": (1, 0), "output_padding": (1, 0), "dilation": 2}
    tensors = mygrad.tensor(x), mygrad.tensor(w)
    out = ours.conv_transpose_nd(*tensors, **steps)
    naive = {**steps, "data_format": "channels_first"}
    kernel = w.transpose(KERNEL)
    np.testing.assert_array_equal(out.data, reference.conv_transpose(x, kernel, **naive))
    dy = integers(2, *out.shape)
    out.backward(dy)
    grads = reference.conv_transpose_backward(dy, x, kernel, **naive)
    np.testing.assert_array_equal(tensors[0].grad, grads.dx)
    np.testing.assert_array_equal(tensors[1].grad, grads.dw.transpose(3, 2, 0, 1))


def test_dtypes_are_mygrads():
    """One dtype is kept, a mix is widened, integers are computed by MyGrad."""
    x, w = integers(0, 1, 1, 6), integers(1, 1, 1, 3)
    for kinds in ("ff", "dd", "fd", "ll", "lf"):
        operands = [a.astype(kind) for a, kind in zip((x, w), kinds, strict=True)]
        out = ours.conv_nd(*operands, stride=1)
        assert out.dtype == layers.conv_nd(*operands, stride=1).dtype
        np.testing.assert_array_equal(out.data, layers.conv_nd(x, w, stride=1).data)
    single = mygrad.tensor(x, dtype=np.float32)
    ours.conv_nd(single, w.astype("f"), stride=1).mean().backward()
    assert single.grad.dtype == np.float32


def lenet(ops, parameters, images):
    c1, c2, w3, w4 = parameters
    z = ops.max_pool(mygrad.tanh(ops.conv_nd(images, c1, stride=1)), (2, 2), 2)
    z = ops.max_pool(mygrad.tanh(ops.conv_nd(z, c2, stride=1)), (2, 2), 2)
    return mygrad.tanh(z.reshape(len(z), -1) @ w3) @ w4


def lenet_step(ops, arrays, images, labels):
    """The loss and its gradients."""
    parameters = [mygrad.tensor(array) for array in arrays]
    loss = softmax_crossentropy(lenet(ops, parameters, images), labels)
    loss.backward()
    return loss.item(), [parameter.grad for parameter in parameters]


def test_lenet_learns_and_its_gradients_are_those_of_mygrads_own_layers():
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(20, 1, 28, 28)), rng.integers(0, 10, 20)
    shapes = [(6, 1, 5, 5), (16, 6, 5, 5), (256, 32), (32, 10)]
    fans = [25, 150, 256, 32]
    arrays = [rng.normal(size=s) / np.sqrt(n) for s, n in zip(shapes, fans, strict=True)]
    value, gradients = lenet_step(ours, arrays, images[:2], labels[:2])
    own_value, own = lenet_step(layers, arrays, images[:2], labels[:2])
    np.testing.assert_allclose(value, own_value, rtol=1e-12)
    for a, b in zip(gradients, own, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * abs(b).max())
    losses = []
    for _ in range(60):
        value, gradients = lenet_step(ours, arrays, images, labels)
        arrays = [p - 0.3 * g for p, g in zip(arrays, gradients, strict=True)]
        losses.append(value)
    assert losses[0] > 2
    assert losses[-1] < 0.3 * losses[0]
