"""ONNX operators against ONNX Runtime, over random attributes, and what only the text defines."""

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx_models import ours, runtime, stock

from fastconv import reference

SEEDS = range(25)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def geometry(rng, pads_below, dilations=True):
    """Image size and attributes of a window, in the part in which ONNX Runtime keeps to the text.

    It ignores or refuses dilations with auto_pad SAME, and pads negatively where the stride exceeds
    the window.
    """
    rank = int(rng.integers(1, 4))
    size = rng.integers(5, 9, rank).tolist()
    k, s, d = (rng.integers(1, top, rank) for top in (4, 4, 3))
    mode = rng.choice(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
    if mode.startswith("SAME"):
        s, d = np.minimum(s, k), np.ones_like(d)
    attributes = {"kernel_shape": k.tolist(), "strides": s.tolist(), "dilations": d.tolist()}
    if mode == "NOTSET":
        tops = np.tile(pads_below(k), 2)
        attributes["pads"] = [int(rng.integers(0, top)) for top in tops]
    else:
        attributes["auto_pad"] = str(mode)
    return size, attributes


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def agree(op, feeds, **options):
    for y, expected in zip(ours(op, feeds, **options), runtime(op, feeds, **options), strict=True):
        assert y.dtype == expected.dtype
        assert_allclose(y, expected, **CLOSE)


@pytest.mark.parametrize("seed", SEEDS)
def test_conv_and_conv_transpose(seed):
    rng = np.random.default_rng(seed)
    G = int(rng.integers(1, 3))
    size, attributes = geometry(rng, lambda k: k + 2)
    k = attributes["kernel_shape"]
    x = normal(rng, 2, 2 * G, *size)
    b = normal(rng, 3 * G) if seed % 2 else None
    agree("Conv", {"x": x, "w": normal(rng, 3 * G, 2, *k), "b": b}, group=G, **attributes)
    attributes["output_padding"] = [int(rng.integers(0, s)) for s in attributes["strides"]]
    if "pads" in attributes:
        attributes["pads"] = [p // 2 for p in attributes["pads"]]
    agree("ConvTranspose", {"x": x, "w": normal(rng, 2 * G, 3, *k), "b": b}, group=G, **attributes)


@pytest.mark.parametrize("seed", SEEDS)
def test_pools(seed):
    rng = np.random.default_rng(seed)
    size, attributes = geometry(rng, lambda k: np.maximum(k, 1))  # up to k - 1: more than half
    if "pads" in attributes:
        attributes["ceil_mode"] = seed % 2
    x = {"x": normal(rng, 2, 3, *size)}
    agree("MaxPool", x, outputs=2, storage_order=int(rng.integers(0, 2)), **attributes)
    agree("AveragePool", x, count_include_pad=int(rng.integers(0, 2)), **attributes)
    agree("LpPool", x, p=int(rng.integers(1, 4)), **attributes)
    for dtype in (np.int8, np.uint8):
        limits = np.iinfo(dtype)
        whole = rng.integers(limits.min, limits.max, (2, 3, *size), dtype, endpoint=True)
        agree("MaxPool", {"x": whole}, **attributes)


@pytest.mark.parametrize("size", [(7,), (5, 4), (3, 4, 2)])
def test_global_pools(size):
    x = {"x": normal(np.random.default_rng(0), 2, 3, *size)}
    agree("GlobalAveragePool", x)
    agree("GlobalMaxPool", x)
    agree("GlobalLpPool", x, p=3, opset=21)  # ONNX Runtime has none for 22


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_integer_convolutions(dtype, per_channel):
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    x = rng.integers(limits.min, limits.max, (2, 4, 7, 6), dtype, endpoint=True)
    w = rng.integers(limits.min, limits.max, (6, 2, 3, 3), dtype, endpoint=True)
    number = np.array(limits.max // 3, dtype)
    zero = np.full(6, number) if per_channel else number
    options = {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}
    feeds = {"x": x, "w": w, "zx": number, "zw": zero}
    (y,) = ours("ConvInteger", feeds, **options)
    wide = [a.astype(np.int64) - int(number) for a in (x, w)]
    expected = reference.conv(
        wide[0].astype(float),
        wide[1].transpose(2, 3, 1, 0).astype(float),
        padding=((1, 2), (0, 1)),
        stride=(2, 1),
        groups=2,
        data_format="channels_first",
    )
    assert y.dtype == np.int32
    assert_array_equal(y, expected)
    scale = np.array(0.02, np.float32)
    feeds = {
        "x": x,
        "sx": scale,
        "zx": number,
        "w": w,
        "sw": np.full(6, scale) if per_channel else scale,
        "zw": zero,
        "sy": np.array(0.7, np.float32),
        "zy": number,
        "b": rng.integers(-1000, 1000, 6).astype(np.int32),
    }
    (y,), (own,) = ours("QLinearConv", feeds, **options), stock("QLinearConv", feeds, **options)
    assert y.dtype == dtype
    assert_array_equal(y, own)
    if not per_channel:  # ONNX Runtime has one zero point for all filters
        assert_array_equal(y, runtime("QLinearConv", feeds, **options)[0])


def test_sums_of_integer_convolutions_are_exact_beyond_float32():
    x, w = np.full((1, 512, 3, 3), 255, np.uint8), np.full((1, 512, 3, 3), 255, np.uint8)
    (y,) = ours("ConvInteger", {"x": x, "w": w})
    assert y.item() == 255 * 255 * 512 * 9  # above 2**28, and odd


def test_deform_conv_without_offsets_is_conv_and_with_whole_ones_a_shift():
    rng = np.random.default_rng(0)
    x, w, b = normal(rng, 2, 4, 6, 7), normal(rng, 6, 2, 3, 2), normal(rng, 6)
    options = {"group": 2, "pads": [1, 0, 1, 1], "strides": [2, 1], "dilations": [1, 2]}
    (expected,) = ours("Conv", {"x": x, "w": w, "b": b}, **options)
    moves = np.zeros((2, 2 * 3 * 2 * 2, *expected.shape[2:]), np.float32)
    feeds = {"x": x, "w": w, "offset": moves, "b": b}
    assert_allclose(ours("DeformConv", feeds, offset_group=2, **options)[0], expected, **CLOSE)
    moves[:, 1::2] = 1.0  # one column to the right
    shifted = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))[..., 1:]
    inner = (..., slice(1, None))  # the first column of windows has padding on its left
    (expected,) = ours("Conv", {"x": shifted, "w": w, "b": b}, **options)
    y = ours("DeformConv", feeds, offset_group=2, **options)[0]
    assert_allclose(y[inner], expected[inner], **CLOSE)


def test_deform_conv_matches_onnx_own():
    rng = np.random.default_rng(1)
    feeds = {
        "x": normal(rng, 1, 2, 4, 4),
        "w": normal(rng, 2, 2, 2, 2),
        "offset": 2 * normal(rng, 1, 8, 3, 3),
        "b": normal(rng, 2),
        "mask": normal(rng, 1, 4, 3, 3),
    }
    expected = stock("DeformConv", feeds, pads=[0, 0, 0, 0], strides=[1, 1])[0]
    assert_allclose(ours("DeformConv", feeds)[0], expected, rtol=1e-4, atol=1e-4)


def test_conv_transpose_output_shape():
    """Given the shape, pads follow: an odd cell is taken off the low end unless SAME_UPPER."""
    rng = np.random.default_rng(0)
    x, w, b = normal(rng, 1, 1, 4), normal(rng, 1, 1, 4), normal(rng, 1)
    full = ours("ConvTranspose", {"x": x, "w": w, "b": b}, strides=[2])[0][0, 0]  # 10 cells
    feeds = {"x": x, "w": w, "b": b}
    for mode, low in (("SAME_UPPER", 1), ("SAME_LOWER", 2), ("NOTSET", 2)):
        agree("ConvTranspose", feeds, strides=[2], auto_pad=mode, output_shape=[7])
        y = ours("ConvTranspose", feeds, strides=[2], auto_pad=mode, output_shape=[7])[0][0, 0]
        assert_array_equal(y, full[low : low + 7])
    y = ours("ConvTranspose", feeds, strides=[2], output_shape=[13])[0][0, 0]
    assert_array_equal(y, np.concatenate([full, np.repeat(b, 3)]))  # beyond every window: the bias


def test_max_unpool_undoes_max_pool():
    x = normal(np.random.default_rng(0), 2, 3, 6, 4)
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    y, indices = ours("MaxPool", {"x": x}, outputs=2, **window)
    (back,) = ours("MaxUnpool", {"y": y, "indices": indices}, **window)
    assert_array_equal(back, np.where(np.isin(x, y), x, 0))
    with pytest.raises(ValueError, match=r"indices: .* must lie in an output of"):
        ours("MaxUnpool", {"y": y, "indices": indices + 1000}, **window)
    for shape in ([2, 3, 6], [3, 2, 6, 4], [1, 3, 12, 4], [2, 3, -6, -4]):
        feeds = {"y": y, "indices": indices, "shape": np.array(shape)}
        with pytest.raises(ValueError, match="output_shape"):
            ours("MaxUnpool", feeds, **window)
    with pytest.raises(ValueError, match=r"indices: .* must lie in an output of"):
        ours("MaxUnpool", feeds | {"shape": np.array([2, 3, 2, 4])}, **window)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((2, 3, 7, 6), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ((2, 3, 7, 7), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ((2, 2, 7, 5), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ((1, 2, 8, 9), {"kernel_shape": [3, 2], "strides": [3, 3]}),
        ((2, 2, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((2, 3, 9), {"kernel_shape": [2], "strides": [2]}),
        ((1, 2, 5, 4, 7), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
    ],
)
def test_max_unpool_back_to_the_shape_of_the_pools_input(shape, attributes):
    """Where that is not the smallest one that the windows fit: given as output_shape."""
    x = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    y, indices = ours("MaxPool", {"x": x}, outputs=2, **attributes)
    window = {name: value for name, value in attributes.items() if name != "ceil_mode"}
    feeds = {"y": y, "indices": indices, "shape": np.array(shape)}
    (back,) = ours("MaxUnpool", feeds, **window)
    assert_array_equal(back, np.where(np.isin(x, y), x, 0))
    if "ceil_mode" not in attributes:  # ONNX Runtime refuses a shape that windows overhang
        assert_array_equal(runtime("MaxUnpool", feeds, **window)[0], back)


def test_max_unpool_of_onnx_own_example_counts_in_the_smallest_shape():
    y = np.array([[[[5, 6], [7, 8]]]], np.float32)
    feeds = {"y": y, "indices": np.array([[[[5, 7], [13, 15]]]]), "shape": np.array([1, 1, 5, 5])}
    (back,) = ours("MaxUnpool", feeds, kernel_shape=[2, 2], strides=[2, 2])
    assert_array_equal(back[0, 0, [1, 1, 3, 3], [1, 3, 1, 3]], [5, 6, 7, 8])
    assert back.sum() == 26


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("n", range(3, 12))
def test_ceil_mode_adds_no_window_to_auto_pad(op, n):
    """The text: ceil((n - reach + 1) / stride) windows with VALID, ceil(n / stride) with SAME."""
    x = normal(np.random.default_rng(0), 1, 2, n)
    for s in (1, 2, 3, 4):
        options = {"kernel_shape": [3], "strides": [s], "ceil_mode": 1}
        (y,) = ours(op, {"x": x}, auto_pad="VALID", **options)
        assert y.shape[2] == -(-(n - 3 + 1) // s)
        (whole,) = ours(op, {"x": x}, **options | {"ceil_mode": 0})
        assert_array_equal(y, whole)
        (y,) = ours(op, {"x": x}, auto_pad="SAME_UPPER", **options)
        assert y.shape[2] == -(-n // s)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5), (3, 1)])
def test_ceil_mode_of_a_window_that_overhangs(size):
    x = {"x": normal(np.random.default_rng(0), 2, 3, *size)}
    for pads in ([0, 0, 0, 0], [1, 0, 0, 1]):
        options = {"kernel_shape": [3, 3], "strides": [3, 3], "pads": pads, "ceil_mode": 1}
        agree("MaxPool", x, outputs=2, **options)
        agree("AveragePool", x, **options)
        agree("AveragePool", x, count_include_pad=1, **options)


def test_col2im_of_integers():
    rng = np.random.default_rng(0)
    data = rng.integers(-100, 100, (2, 2 * 6, 20)).astype(np.int32)
    size, block = np.array([6, 6]), np.array([3, 2])
    expected = stock("Col2Im", {"x": data, "size": size, "block": block})[0]
    (y,) = ours("Col2Im", {"x": data, "size": size, "block": block})
    assert y.dtype == np.int32
    assert_array_equal(y, expected)
    with pytest.raises(ValueError, match=r"block_shape: .* do not divide"):
        ours("Col2Im", {"x": data, "size": size, "block": np.array([5, 1])})


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_other_floats(name):
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 4, s).astype(dtype) for s in ((1, 4, 6, 6), (2, 4, 3, 3)))
    wide = {"x": x.astype(np.float32), "w": w.astype(np.float32)}
    for op, feeds, options in (
        ("Conv", wide, {}),
        ("ConvTranspose", {"x": wide["x"], "w": wide["w"].swapaxes(0, 1)}, {}),
        ("MaxPool", {"x": wide["x"]}, {"kernel_shape": [2, 2]}),
        ("AveragePool", {"x": wide["x"]}, {"kernel_shape": [2, 2]}),
        ("LpPool", {"x": wide["x"]}, {"kernel_shape": [2, 2], "p": 1}),
        ("GlobalAveragePool", {"x": wide["x"]}, {}),
    ):
        narrow = {key: value.astype(dtype) for key, value in feeds.items()}
        (y,) = ours(op, narrow, **options)
        assert y.dtype == dtype
        expected = ours(op, feeds, **options)[0].astype(dtype)
        assert_allclose(y.astype(float), expected.astype(float), rtol=2**-7)


@pytest.mark.parametrize(
    ("opset", "outputs", "attributes", "trains"),
    [
        (6, 1, {"is_test": 1}, False),
        (6, 5, {"is_test": 0}, True),
        (9, 1, {}, False),
        (9, 1, {"momentum": 0.8}, False),
        (9, 5, {"momentum": 0.8}, True),
        (15, 1, {}, False),
        (15, 3, {"training_mode": 1, "momentum": 0.8}, True),
    ],
)
def test_batch_normalization_of_every_opset(opset, outputs, attributes, trains):
    rng = np.random.default_rng(0)
    x = normal(rng, 4, 3, 5, 2)
    scale, bias, mean, var = (normal(rng, 3) for _ in range(4))
    var = np.abs(var)
    feeds = {"x": x, "scale": scale, "bias": bias, "mean": mean, "var": var}
    options = {"opset": opset, "outputs": outputs, "epsilon": 1e-3, **attributes}
    y, *statistics = ours("BatchNormalization", feeds, **options)
    used = (x.mean((0, 2, 3)), x.var((0, 2, 3))) if trains else (mean, var)
    used, columns = [a.reshape(3, 1, 1) for a in used], (scale, bias)
    scale, bias = (a.reshape(3, 1, 1) for a in columns)
    assert_allclose(y, scale * (x - used[0]) / np.sqrt(used[1] + 1e-3) + bias, **CLOSE)
    momentum = attributes.get("momentum", 0.9)
    for moved, old, new in zip(statistics[:2], (mean, var), used, strict=False):
        assert_allclose(moved, momentum * old + (1 - momentum) * new.ravel(), **CLOSE)
    assert len(statistics) == outputs - 1
    with pytest.raises(NotImplementedError, match="spatial=0"):
        ours("BatchNormalization", feeds, opset=7, spatial=0)


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
def test_softmax_of_both_kinds(opset, axis):
    x = {"x": normal(np.random.default_rng(0), 2, 3, 4)}
    agree("Softmax", x, opset=opset, **({} if axis is None else {"axis": axis}))


def test_errors_say_what_is_wrong():
    x, w = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"kernel_shape: \[2, 2\] is not that of W"):
        ours("Conv", {"x": x, "w": w}, kernel_shape=[2, 2])
    with pytest.raises(ValueError, match=r"strides: \[1\] must have 2 entries"):
        ours("Conv", {"x": x, "w": w}, strides=[1])
    with pytest.raises(ValueError, match="auto_pad: 'SAME' must be one of NOTSET"):
        ours("MaxPool", {"x": x}, kernel_shape=[2, 2], auto_pad="SAME")
    with pytest.raises(ValueError, match="4 spatial axes, and fastconv has 1 to 3"):
        ours(
            "Conv", {"x": np.ones((1, 2, 3, 3, 3, 3), "f4"), "w": np.ones((1, 2, 1, 1, 1, 1), "f4")}
        )
    with pytest.raises(ValueError, match="larger than the padded input"):
        ours("AveragePool", {"x": x}, kernel_shape=[6, 6])
